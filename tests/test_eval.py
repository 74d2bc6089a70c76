"""`eval.py` as a user runs it, on the exported model of a tiny codec."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tfquant import metrics
from tfquant.coding.container import Bitstream
from tfquant.data import images

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, rebuilt_export, make_photograph):
    """A folder with `run/export` and `pictures/`."""
    folder = tmp_path_factory.mktemp("eval")
    shutil.copytree(rebuilt_export, folder / "run" / "export")
    (folder / "pictures").mkdir()
    for name, size in {"large": (163, 190), "odd": (33, 47)}.items():
        images.write_image(folder / "pictures" / f"{name}.png", make_photograph(*size))
    return folder


@pytest.fixture
def run_eval(workspace, program, monkeypatch):
    """`run_eval(*arguments)`: runs it in this process; (exit code, standard output, error)."""
    monkeypatch.chdir(workspace)
    return functools.partial(program, "eval")


def test_eval_measures_an_exported_model_end_to_end(workspace):
    done = subprocess.run(
        [sys.executable, str(ROOT / "eval.py"), "--model_dir=run", "--images=pictures/*.png",
         "--report_dir=report", "--conventional=jpeg,jpeg2000"],
        cwd=workspace, capture_output=True, text=True, timeout=3600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((workspace / "report" / "report.json").read_text())
    (model,) = report["models"]
    assert (model["name"], model["codec"]) == ("run", "factorized")
    assert model["curve"] == "factorized sua_ste"
    assert [row["name"] for row in model["images"]] == ["large", "odd"]
    for row in model["images"]:
        image = images.read_image(workspace / "pictures" / f"{row['name']}.png")
        stored = workspace / "report" / "reconstructions" / "run" / f"{row['name']}.tfq"
        np.testing.assert_allclose(
            row["bpp"], 8 * stored.stat().st_size / image[..., 0].size, rtol=1e-12
        )
        file = Bitstream.from_bytes(stored.read_bytes())
        assert (file.fingerprint, file.width) == (model["fingerprint"], image.shape[1])
        assert 0 < row["estimated_bpp"] < row["bpp"]
        decoded = images.read_image(stored.with_suffix(".png"))
        np.testing.assert_allclose(row["psnr"], metrics.psnr(image, decoded), rtol=1e-6)
    assert report["run"]["command"].endswith("--conventional=jpeg,jpeg2000")
    assert "--model_dir=run" in report["run"]["command"]
    assert "JPEG 4:2:0 at the nearest rate" in done.stdout
    assert "[2/2] odd" in done.stdout


def test_eval_without_models_measures_conventional_codecs(workspace, run_eval):
    code, _, err = run_eval("--images=pictures", "--report_dir=jpeg", "--conventional=jpeg")
    assert code == 0, err
    report = json.loads((workspace / "jpeg" / "report.json").read_text())
    assert report["models"] == [] and len(report["conventional"]) == 1
    assert (workspace / "jpeg" / "rd.png").stat().st_size > 10_000


def test_explorations_without_models_are_listed_without_measuring(workspace, run_eval):
    """Checks this although --conventional is not empty by default."""
    (workspace / "search").mkdir()
    trial = {"weight": 0.1, "J": 0.5, "quality": 31.25, "start_quality": 31.0}
    asked = {"experiment": {"codec": "fake", "lmbda": 0.01, "distortion": "mse"}}
    kept = json.dumps({"asked": asked, "tried": [trial]})
    (workspace / "search" / "exploration.json").write_text(kept)
    code, out, err = run_eval("--explorations=search", "--report_dir=listed")
    assert code == 0, err
    report = json.loads((workspace / "listed" / "report.json").read_text())
    assert report["conventional"] == [] and report["run"]["number_of_images"] == 0
    assert "**31.250**" in out and "JPEG" not in out


def test_bad_input_is_one_clear_line(workspace, run_eval):
    cases = {
        "eval.py: 'nowhere' is not a folder; expected": ["--model_dir=run", "--baseline=nowhere"],
        "'pictures' has no exported model; expected a training run": ["--model_dir=pictures"],
        "nowhere: no such file or folder": ["--model_dir=run", "--images=nowhere"],
        "--report_dir must name a folder of this machine; got ''": ["--report_dir="],
        "--anchor_codec: expected --anchor": ["--anchor_codec=BPG 4:2:0"],
        "expected --model_dir with what to measure at them": ["--qualities=50"],
        "--qualities: quality must be from 0 to 100": ["--model_dir=default", "--qualities=101"],
        "has qualities from 0 to 96.9; got 98": ["--model_dir=default", "--qualities=98"],
        "a folder of this machine; got 'file://bad'": ["--report_dir=file://bad"],
    }
    for words, arguments in cases.items():
        code, _, err = run_eval("--report_dir=bad", *arguments)
        assert code == 1 and err.count("\n") == 1
        assert err.startswith("eval.py: ") and words in err
    assert not (workspace / "bad").exists() and not (workspace / "file:").exists()
