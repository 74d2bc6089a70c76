"""Tests the evaluation of sets of models: one curve through the qualities of the whole set."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest

from tfquant.coding import container
from tfquant.data import images
from tfquant.evaluation import EvaluationError, models, run
from tfquant.export import model_set, packed, quality, registry
from tfquant.export.manifest_file import FORMAT, MANIFEST, ModelError
from tfquant.export.model_file import ExportedModel
from tfquant.legacy_keras import keras
from tfquant.training.experiment import Experiment
from tfquant.training.trained import build_as_decoded

pytestmark = pytest.mark.usefixtures("user_folder")


@pytest.fixture(name="make_set")
def _make_set(user_folder):
    """`make_set(name, *ends)`: a set whose models have these qualities, without their weights."""

    def make(name, *ends):
        members = []
        for number, end in enumerate(ends):
            own = user_folder / name / f"m{number}"
            own.mkdir(parents=True)
            one_rate = not isinstance(end, list)
            lmbdas = [] if one_rate else [quality.to_lmbda(each) for each in end]
            experiment = {
                "lmbda": quality.to_lmbda(end) if one_rate else lmbdas[0],
                "lmbda_range": lmbdas,
                "plan": ("mix", "sua_ste")[number % 2],
            }
            fields = {"format": FORMAT, "codec": "ms_hyper_zero", "fingerprint": f"{number:016}",
                      "version": "0", "experiment": experiment}  # fmt: skip
            (own / MANIFEST).write_text(json.dumps(fields))
            members.append({"folder": own.name, "quality": end})
        model_set.write(str(user_folder / name), name, members)

    return make


def measured(text, qualities=()):
    (entry,) = models.find_models([text])
    return models.at_qualities(entry, qualities)


def test_the_default_set_is_one_curve_over_its_whole_range():
    found = measured("default")
    qualities = [entry.quality for entry in found]
    assert qualities == [1 / 256, *range(10, 100, 10), pytest.approx(96.9, abs=1 / 256)]
    folders = [entry.path.rpartition("/")[2] for entry in found]
    assert folders == ["q10"] * 2 + ["q38"] * 3 + ["q67"] * 6
    described, curves = models.describe(found)
    (curve,) = curves
    assert curve.name == "photographs (set)" and curve.identity["plan"] == "sua_ste"
    assert curve.identity["set"] == [
        member.manifest.fingerprint for member in registry.find("default").members
    ]
    assert list(curve.models) == [row.name for row in described]
    lmbdas = [row.lmbda for row in described]
    np.testing.assert_allclose(lmbdas, [quality.to_lmbda(q) for q in qualities], rtol=1e-3)


def test_a_set_is_measured_at_the_named_qualities():
    found = measured("photographs", (0.0, 33.3, 33.3, 100.0, 96.9))
    stored = [round(256 * q) / 256 for q in (1 / 256, 33.3, 96.9)]
    assert [entry.quality for entry in found] == stored
    (entry,) = models.find_models(["default"])
    assert (
        models.left_out(entry, (0.0, 33.3, 100.0, 98.5)) == "photographs has no quality 100, 98.5"
    )
    assert models.left_out(entry, (0.0, 96.9)) == models.left_out(entry, ()) == ""
    with pytest.raises(EvaluationError, match="qualities from 0 to 96.9; got 98, 99"):
        measured("default", (98.0, 99.0))


def test_every_point_of_a_curve_has_a_name_of_its_own():
    close = tuple(30 + step / 256 for step in range(8))
    assert len({entry.name for entry in measured("default", close)}) == 8
    (entry,) = models.find_models(["default/q38"])
    assert len({each.name for each in models.at_qualities(entry, close)}) == 8


@pytest.mark.parametrize(
    "ends, qualities",
    [
        ([25, 60, 40], [25, 40, 60]),
        ([[20, 80]], [20, 30, 40, 50, 60, 70, 80]),
        ([[41, 49]], [41, 43, 45, 47, 49]),
        ([[12, 38], 70], [12, 20, 30, 38, 70]),
        ([33], [33]),
    ],
)
def test_a_curve_has_the_ends_the_tens_and_all_models_with_one_rate(make_set, ends, qualities):
    make_set("mine", *ends)
    assert registry.find("mine").curve() == pytest.approx(qualities)
    found = measured("mine")
    assert [quality.of_lmbda(row.lmbda) for row in models.describe(found)[0]] == pytest.approx(
        qualities, abs=0.01
    )


def test_sets_runs_and_conventional_codecs_keep_curves_of_their_own(
    make_set, user_folder, tmp_path
):
    make_set("WebP", [20, 80], [70, 90])
    make_set("other", 25, 40)
    shutil.copytree(user_folder / "other" / "m1", tmp_path / "run" / "export")
    texts = ["WebP", "other", str(tmp_path / "run"), str(user_folder / "WebP" / "m0"), "WebP/m0"]
    entries = models.find_models(texts)
    assert len({entry.name for entry in entries}) == 5
    found = [each for entry in entries for each in models.at_qualities(entry)]
    described, curves = models.describe(found)
    names = [curve.name for curve in curves]
    assert names[:2] == ["WebP (set)", "other (set)"] and len(set(names)) == len(names)
    assert curves[0].identity["plan"] == "mix, sua_ste"
    assert len({row.name for row in described}) == len(described)
    other = [row for row in described if row.curve == "other (set)"]
    assert [row.quality for row in other] == [None, None]


def test_a_name_that_is_no_set_is_refused(make_set, tmp_path, monkeypatch, user_folder):
    for text in ("nobody", "default/q99", str(tmp_path / "nowhere")):
        with pytest.raises(EvaluationError, match="is not a folder; expected .* default, photogr"):
            models.find_models([text])
    make_set("mine", 25)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(user_folder / "mine" / "m0", tmp_path / "mine" / "export")
    with pytest.raises(
        EvaluationError, match="'mine' is a set of models, .* the folder of a model"
    ):
        models.find_models(["mine"])
    assert [entry.name for entry in models.find_models(["./mine"])] == ["mine"]
    (user_folder / "mine" / model_set.MANIFEST).write_text("{")
    shutil.rmtree(tmp_path / "mine")
    with pytest.raises(ModelError, match="cannot read models.json"):
        models.find_models(["mine"])


def test_qualities_without_effect_are_noted_or_refused(make_set, user_folder, tmp_path):
    make_set("mine", 25)
    (entry,) = models.find_models([str(user_folder / "mine" / "m0")])
    assert models.left_out(entry, (30.0,)) == "m0 has one rate, so --qualities has no effect on it"
    with pytest.raises(EvaluationError, match="--qualities: expected --model_dir"):
        run.Evaluation((), "sample", tmp_path, ("jpeg",), qualities=(30.0,))


@pytest.mark.parametrize(
    "argv, command",
    [
        (["tfquant eval", "--model_dir=default"], "tfquant eval --model_dir=default"),
        (["eval.py", "--images=a b"], "python eval.py '--images=a b'"),
        (["/some dir/eval.py"], "python '/some dir/eval.py'"),
    ],
)
def test_the_report_names_the_command_that_ran(monkeypatch, argv, command):
    monkeypatch.setattr(sys, "argv", argv)
    assert run._command() == command


@pytest.mark.slow
def test_one_evaluation_measures_real_files_of_a_set(tmp_path, make_photograph):
    exports = []
    for lmbda in (0.0036, 0.0144):
        keras.utils.set_random_seed(round(1e4 * lmbda))
        asked = Experiment(codec="ms_hyper_zero", codec_options={"N": 8, "M": 12}, lmbda=lmbda)
        exports.append(str(tmp_path / f"{lmbda}"))
        packed.pack_codec(build_as_decoded(asked, "float32"), asked, exports[-1])
    models_of_set = registry.add(exports, "mine", continuous=True)
    picture = make_photograph(70, 90)
    images.write_image(tmp_path / "a.png", picture)
    report = tmp_path / "report"
    asked = run.Evaluation(
        ("mine",), str(tmp_path / "a.png"), report, conventional=("jpeg",),
        qualities=(10, 25, 40, 55, 99),
    )  # fmt: skip
    result = run.run(asked, ExportedModel.load, lambda line: None)
    assert "mine has no quality 99" in result.notes
    assert [row.quality for row in result.models] == [10, 25, 40, 55]
    assert len({row.fingerprint for row in result.models}) == 2
    for row in result.models:
        data = (report / "reconstructions" / row.name / "a.tfq").read_bytes()
        assert data == models_of_set.compress(picture, row.quality)
        assert container.Bitstream.from_bytes(data).quality == row.quality
        assert row.mean.bpp == pytest.approx(8 * len(data) / (70 * 90))
    (curve,) = result.curves
    assert curve.name == "mine (set)" and len(curve.models) == 4
    assert {row.test for row in result.bd_rate} == {"mine (set)", "JPEG 4:2:0"}
    assert "mine (set)" in (report / "report.md").read_text()
