"""The documentation: its code runs, its tables and plots are up to date, its links work."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import tfquant as tq
from tfquant.training import experiment as experiment_module
from tfquant.training import losses

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("results/*/*.md")])
SLOW_FIXTURES = ("trained",)  # see conftest.py
REGISTRIES = (
    tq.SURROGATES, tq.PLANS, tq.models.CODECS, losses.TERMS, losses.DISTORTIONS,
    experiment_module.STAGES,
)  # fmt: skip


def blocks(page: Path, language: str = "python") -> list[str]:
    """The code blocks of a page."""
    fence = rf"^```{language}\n(.*?)^```$"
    return re.findall(fence, page.read_text(), re.MULTILINE | re.DOTALL)


def module_at(path: Path):
    """Imports a file that is in no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def generate():
    """The script `docs/generate.py`."""
    before = list(sys.path)
    sys.path.insert(0, str(ROOT / "docs"))
    yield module_at(ROOT / "docs" / "generate.py")
    sys.path[:] = before


@pytest.fixture
def workplace(tmp_path, monkeypatch, make_photograph):
    """An empty folder with a picture; the registries are restored afterwards."""
    kept = [dict(registry) for registry in REGISTRIES]
    PIL.Image.fromarray(make_photograph(60, 70)).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for registry, before in zip(REGISTRIES, kept):
        registry.clear()
        registry.update(before)


@pytest.fixture
def eagerly(eager_functions):
    """Runs functions eagerly, because tracing takes longer."""
    with eager_functions():
        yield


@pytest.fixture
def trained(workplace, monkeypatch, make_photograph):
    """The experiments that `tq.train` was called with.

    `tq.train` trains small widths for few steps on two small pictures, whatever the experiment
    says: painting the default pictures takes seconds.
    """
    pictures = workplace / "pictures"
    pictures.mkdir()
    for seed in range(2):
        PIL.Image.fromarray(make_photograph(72, 64, seed)).save(pictures / f"{seed}.png")
    train, seen = tq.train, []

    def short(experiment, model_dir, **_):
        seen.append(experiment)
        small = dataclasses.replace(
            experiment, codec_options={"N": 8, "M": 12}, joint_steps=2, crop=64, batch_size=1,
            validation_images=1, train_images=str(pictures),
        )  # fmt: skip
        return train(small, model_dir, epoch_steps=1, progress="silent")

    monkeypatch.setattr(tq, "train", short)
    return seen


def test_the_first_code_of_readme_is_python_with_an_assertion_and_runs(
    trained, exports_are_rebuilt, eagerly
):
    """`test_export.py` exports runs as SavedModels and loads them."""
    (first, *_) = re.findall(
        r"^```(\w*)\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S
    )
    language, code = first
    assert language == "python"
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    assert any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(code)))
    names = {}
    exec(code, names)
    exec(blocks(ROOT / "README.md")[1], {**names, "x": np.zeros([1, 64, 64, 3], np.float32),
                                         "y": np.zeros([1, 4, 4, 2], np.float32)})  # fmt: skip
    assert trained[0].codec == "ms_hyper_zero"
    assert names["model"].decompress(names["data"]).shape == (60, 70, 3)


def test_the_code_that_extends_tfquant_runs(trained, exports_are_rebuilt, eagerly):
    names = {}
    for code in blocks(ROOT / "docs" / "extending.md"):
        exec(code, names)
    picture = np.asarray(PIL.Image.open("photo.png"))
    model = names["model"]
    assert model.manifest.codec == "strided"
    assert model.manifest.experiment["stages"] == ["joint", "decoder_only"]
    decoded = model.decompress(model.compress(picture))
    np.testing.assert_array_equal(decoded, model.evaluate(picture)["image"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_on_a_page_has_no_syntax_errors(page):
    for code in blocks(page):
        ast.parse(code, feature_version=(3, 9))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    targets = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    missing = [
        target
        for target in targets
        if target and "://" not in target and not (page.parent / target).exists()
    ]
    assert not missing


def test_generated_tables_are_up_to_date(generate):
    """If it fails, run `python docs/generate.py`."""
    for path, text in generate.pages().items():
        assert path.read_text() == text, path


def test_the_tables_of_flags_have_every_field_and_its_default(generate):
    text = (ROOT / "docs" / "flags.md").read_text()
    for field in dataclasses.fields(tq.Experiment):
        if field.metadata:
            assert f"| `--{field.name}` | {generate._value(field.default)} |" in text
    assert "| `--lmbda` | `0.0067` |" in text
    assert set(generate.README_FLAGS) <= set(generate.flags())


@pytest.mark.slow
@pytest.mark.parametrize("name", list(tq.SURROGATES))
def test_every_surrogate_is_described_and_its_plot_is_up_to_date(name, generate):
    """If it fails, run `python docs/generate.py`."""
    text = (ROOT / "docs" / "surrogates.md").read_text()
    assert f"### `{name}`: " in text
    assert f"(images/surrogates/{name}.svg)" in text
    plots = generate.surrogate_plots
    saved, now = plots.saved_numbers(name), plots.numbers(name)
    assert saved.keys() == now.keys()
    for key, values in now.items():
        np.testing.assert_allclose(saved[key], values, rtol=0.02, atol=0.02, err_msg=key)


def test_the_plot_of_rounding_shows_rounding(generate):
    plots = generate.surrogate_plots
    saved, v = plots.saved_numbers("round"), plots.positions()[plots._CHECKED]
    np.testing.assert_array_equal(saved["value, straight_through, alpha 2"], np.round(v))
    figure = plots.draw("round")
    drawn = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    np.testing.assert_array_equal(drawn["mean"], np.round(plots.positions()))


def test_the_reference_has_every_public_name():
    text = (ROOT / "docs" / "api" / "public.md").read_text()
    missing = [name for name in tq._PUBLIC if not re.search(rf"tfquant\.{name}\b", text)]
    assert not missing


def test_a_custom_codec_trains_and_its_bytes_make_a_round_trip(
    trained, exports_are_rebuilt, eagerly, capsys
):
    example = module_at(EXAMPLES / "custom_codec.py")
    example.main("runs/tiny", steps=1)
    assert "bits per pixel" in capsys.readouterr().out
    module_at(EXAMPLES / "round_trip.py").main("runs/tiny/export", "photo.png")
    assert "a damaged file is refused: True" in capsys.readouterr().out


def test_a_round_trip_refuses_only_what_is_damaged():
    class Model:
        def decompress(self, data):
            if data != b"good":
                raise example.BitstreamError("damaged")

    example = module_at(EXAMPLES / "round_trip.py")
    assert example.is_refused(Model(), b"bad")
    assert not example.is_refused(Model(), b"good")


@pytest.mark.slow
def test_a_users_model_is_better_prepared_for_rounding_with_a_quantizer():
    errors = module_at(EXAMPLES / "quantizer_in_keras.py").main(epochs=8)
    assert max(errors["aun"], errors["sua_ste"]) < 0.6 * errors[""]


@pytest.mark.slow
def test_the_cells_of_the_notebook_run(workplace, capsys, monkeypatch):
    from matplotlib import pyplot

    notebook = json.loads((EXAMPLES / "surrogates.ipynb").read_text())
    cells = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    assert not any(c.get("outputs") for c in notebook["cells"])
    names = {}
    for cell in cells:
        shorter = cell.replace("epochs=20", "epochs=1")
        exec(shorter, names)
    pyplot.close("all")
    assert set(names["losses"]) == {"aun", "mix", "sua_ste", "sga"}
    assert "Rounding {'z': " in capsys.readouterr().out


@pytest.fixture(scope="module")
def to_rst():
    return module_at(ROOT / "docs" / "docstrings.py").to_rst


def test_docstrings_become_restructured_text(to_rst):
    assert to_rst("Codes `x`s, y_ and a * b.") == "Codes ``x``\\ s, y\\_ and a \\* b."
    assert (
        to_rst("Text.\n\n    a *code*\n    `line`") == "Text.\n\n::\n\n      a *code*\n      `line`"
    )
    assert to_rst("Args:\n  x: text\n    that goes on.\n\nReturns:\n  y.").count("::") == 0


def test_tables_in_docstrings_become_tables(to_rst):
    made = to_rst("| a | b |\n|---|---|\n| `c|d` | e_ |")
    assert made.splitlines() == [
        ".. list-table::", "   :header-rows: 1", "",
        "   * - a", "     - b", "   * - ``c|d``", "     - e\\_",
    ]  # fmt: skip
