"""Tests complete evaluations of small pictures: content of the report, comparison of curves."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfquant.data import images
from tfquant.evaluation import EvaluationError, report, run

KEYS = {
    "bpp",
    "estimated_bpp",
    "psnr",
    "ms_ssim",
    "ms_ssim_db",
    "encode_s",
    "decode_s",
}
STEPS = {"coarse": 8, "middle": 4, "fine": 2}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, make_photograph, subsampling_model, write_manifest):
    """Returns (result of `run`, the report's folder, the lines of progress)."""
    folder = tmp_path_factory.mktemp("evaluation")
    (folder / "pictures").mkdir()
    for name, size in {"large": (170, 200), "small": (64, 48)}.items():
        images.write_image(folder / "pictures" / f"{name}.png", make_photograph(*size))
    for name, step in STEPS.items():
        write_manifest(folder / name / "export", subsampling_model(step))
    (folder / "anchor.csv").write_text(
        "metric,codec,bpp,value\n"
        + "".join(f"PSNR,BPG 4:4:4,{0.05 * 2**i},{18 + 3 * i}\n" for i in range(8))
    )
    lines = []
    result = run.run(
        run.Evaluation(
            model_dirs=tuple(str(folder / name) for name in STEPS),
            images=str(folder / "pictures"),
            report_dir=folder / "report",
            conventional=("jpeg", "webp"),
            anchor=folder / "anchor.csv",
        ),
        lambda path: subsampling_model(STEPS[Path(path).parent.name]),
        lines.append,
    )
    return result, folder / "report", lines


def test_report_json_has_every_key_for_every_picture_and_the_mean(evaluated):
    result, folder, _ = evaluated
    stored = json.loads((folder / "report.json").read_text())
    assert stored == json.loads(json.dumps(result.to_json()))
    assert [model["name"] for model in stored["models"]] == list(STEPS)
    for model in stored["models"]:
        assert {row["name"] for row in model["images"]} == {"large", "small"}
        assert all(set(row) == KEYS | {"name"} for row in model["images"])
        assert set(model["mean"]) == KEYS
        bpp = np.mean([row["bpp"] for row in model["images"]])
        np.testing.assert_allclose(model["mean"]["bpp"], bpp)
        assert model["plan"] == "mix" and model["lmbda"] == 0.1 / STEPS[model["name"]]
    assert stored["run"]["number_of_images"] == 2
    assert {"command", "date", "tfquant", "pillow", "images"} <= set(stored["run"])


def test_report_json_lacks_the_values_that_a_codec_does_not_have(evaluated):
    result, folder, _ = evaluated
    stored = json.loads((folder / "report.json").read_text())
    points = [point for codec in stored["conventional"] for point in codec["points"]]
    assert len(points) > 20 and result.models[0].mean.error_reduction is None
    for each in (*points, *stored["nearest_rate"]):
        assert set(each["mean"]) == KEYS - {"estimated_bpp"}
        assert all(set(row) == KEYS - {"estimated_bpp"} | {"name"} for row in each["images"])


def test_a_picture_smaller_than_the_pyramid_is_reported_and_not_averaged(evaluated):
    result, _, _ = evaluated
    model = result.models[0]
    rows = {row.name: row for row in model.images}
    assert rows["small"].ms_ssim is None
    assert model.mean.ms_ssim == rows["large"].ms_ssim > 0
    assert any("both sides >= 161" in note and "small" in note for note in result.notes)
    assert "161" in report.summary(result)


def test_models_of_one_family_are_one_curve_from_low_to_high_rate(evaluated):
    result, _, _ = evaluated
    assert {model.curve for model in result.models} == {"fake mix"}
    found = {(r.test, r.anchor): r for r in result.bd_rate if r.metric == "psnr"}
    curves = {"fake mix", "JPEG 4:2:0", "WebP", "BPG 4:4:4 (published)"}
    assert set(found) == {(a, b) for a in curves for b in curves if a != b}
    there = found["WebP", "JPEG 4:2:0"].percent
    back = found["JPEG 4:2:0", "WebP"].percent
    np.testing.assert_allclose((1 + there / 100) * (1 + back / 100), 1, rtol=1e-9)


def test_jpeg_at_the_nearest_rate_follows_every_model(evaluated):
    result, _, _ = evaluated
    rows = {row.model: row for row in result.nearest_rate}
    assert set(rows) == set(STEPS)
    fine = result.models[-1]
    np.testing.assert_allclose(rows["fine"].mean.bpp, fine.mean.bpp, rtol=0.1)
    assert "JPEG 4:2:0 at the nearest rate, quality" in report.summary(result)


def test_the_rate_for_the_same_psnr_lies_between_neighbouring_settings(evaluated):
    result, _, _ = evaluated
    row = next(row for row in result.same_psnr if row.model == "fine")
    jpeg = next(c for c in result.conventional if c.name == "jpeg")
    below = [p.mean for p in jpeg.points if p.mean.psnr <= row.psnr]
    above = [p.mean for p in jpeg.points if p.mean.psnr > row.psnr]
    assert below[-1].bpp <= row.needs_bpp["JPEG 4:2:0"] <= above[0].bpp


def test_the_csv_has_a_row_per_picture_and_a_mean_per_setting(evaluated):
    result, folder, _ = evaluated
    with open(folder / "report.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    settings = len(STEPS) + sum(len(codec.points) for codec in result.conventional)
    assert len(rows) == 3 * settings
    mean = next(r for r in rows if r["setting"] == "fine" and r["image"] == "mean")
    assert float(mean["psnr"]) == result.models[-1].mean.psnr
    assert next(r for r in rows if r["image"] == "small")["ms_ssim"] == ""


def test_the_plot_is_a_picture_and_reconstructions_are_kept(evaluated, subsampling_model):
    _, folder, _ = evaluated
    with Image.open(folder / "rd.png") as plot:
        assert plot.size[0] > 1000 and len(np.unique(np.asarray(plot.convert("L")))) > 20
    for name in STEPS:
        for picture in ("large", "small"):
            stem = folder / "reconstructions" / name / picture
            data = stem.with_suffix(".tfq").read_bytes()
            np.testing.assert_array_equal(
                images.read_image(stem.with_suffix(".png")),
                subsampling_model(STEPS[name]).decompress(data),
            )


def test_the_markdown_shows_the_command_the_plot_and_each_model(evaluated):
    _, folder, _ = evaluated
    text = (folder / "report.md").read_text()
    assert "](rd.png)" in text
    assert "## BD-rate over PSNR [dB], akima" in text
    assert all(f"## {name}\n" in text for name in STEPS)


def test_progress_names_each_picture_with_its_numbers(evaluated):
    _, _, lines = evaluated
    assert sum("bpp  PSNR" in line for line in lines) == 2 * len(STEPS)
    assert any("[2/2] small" in line for line in lines)


def test_a_single_model_has_a_reason_for_the_missing_bd_rate(
    tmp_path, make_photograph, subsampling_model, write_manifest
):
    images.write_image(tmp_path / "a.png", make_photograph(32, 32))
    write_manifest(tmp_path / "m", subsampling_model(4))
    evaluation = run.Evaluation(
        model_dirs=(str(tmp_path / "m"),),
        images=str(tmp_path / "a.png"),
        report_dir=tmp_path / "report",
        conventional=("jpeg",),
        reconstructions=False,
    )
    result = run.run(evaluation, lambda path: subsampling_model(4), lambda line: None)
    reason = "no BD-rate: fake mix: 1 point(s) of PSNR [dB], akima needs 2"
    assert reason in report.summary(result)
    rows = [dataclasses.replace(row, test=name, note=row.note.replace("fake mix:", f"{name}:"))
            for row in result.bd_rate if row.note for name in ("fake mix", "a", "b")]  # fmt: skip
    models = tuple(dataclasses.replace(m, curve=c) for m in result.models for c in ("a", "b"))
    several = dataclasses.replace(result, bd_rate=tuple(rows), models=(*result.models, *models))
    assert f"{reason}; also a, b" in report.summary(several)
    assert not (tmp_path / "report" / "reconstructions").exists()


class Exact:
    """Model with a given PSNR and file size, on a grey picture of 200x200 pixels."""

    codec, fingerprint = "fake", "0123456789abcdef"

    def __init__(self, size, psnr, **experiment):
        self.size = size
        self.wrong = round(200 * 200 * 255**2 * 10 ** (-psnr / 10) / 16**2)  # pixels, by 16 each
        self.experiment = {"codec": self.codec, **experiment}

    def compress(self, image):
        return bytes(self.size)

    def decompress(self, data):
        image = np.full((200 * 200, 3), 128, np.uint8)
        image[: self.wrong] += 16
        return image.reshape(200, 200, 3)

    def evaluate(self, image):
        return {"image": self.decompress(b""), "bits": 8.0 * self.size}


@pytest.fixture(name="compare")
def _compare(tmp_path, write_manifest):
    """Returns `compare(name=model, ...)`, which returns the report and checks that its files
    exist.
    """

    def compare(**models):
        images.write_image(tmp_path / "grey.png", np.full((200, 200, 3), 128, np.uint8))
        for name, model in models.items():
            write_manifest(tmp_path / name, model)
        evaluation = run.Evaluation(
            model_dirs=tuple(str(tmp_path / name) for name in models),
            images=str(tmp_path / "grey.png"),
            report_dir=tmp_path / "report",
            reconstructions=False,
        )
        result = run.run(evaluation, lambda path: models[Path(path).name], lambda line: None)
        assert json.loads((tmp_path / "report" / "report.json").read_text()) == json.loads(
            json.dumps(result.to_json())
        )
        assert (tmp_path / "report" / "rd.png").stat().st_size > 10_000
        return result, (tmp_path / "report" / "report.md").read_text()

    return compare


@pytest.mark.slow
@pytest.mark.parametrize(
    "change,words",
    [
        ({"joint_sigma_bound": 1e-6}, ("joint_sigma_bound=0.11", "joint_sigma_bound=1e-06")),
        ({"stop_gradient": "none"}, ("stop_gradient=both", "stop_gradient=none")),
        ({"crop": 128}, ("crop=256", "crop=128")),
        ({"clip_norm": 0.0}, ("clip_norm=1", "clip_norm=0")),
        ({"hyper_aun": True}, ("hyper_aun=false", "hyper_aun=true")),
        ({"stages": ["joint"]}, ("stages=joint,post", "stages=joint")),
        ({"seed": 2}, ("seed=1", "seed=2")),
    ],
)
def test_another_setting_is_another_curve_with_its_own_bd_rate(compare, change, words):
    """Tests a reduction by a tenth of the bytes at every PSNR, -10 %, for different settings."""
    result, text = compare(
        a_low=Exact(1000, 30, lmbda=0.01, plan="mix"),
        b_low=Exact(900, 30, lmbda=0.01, plan="mix", **change),
        a_high=Exact(2000, 33, lmbda=0.05, plan="mix", codec_options={"N": 192}),
        b_high=Exact(1800, 33, lmbda=0.05, plan="mix", codec_options={"N": 192}, **change),
    )
    first, second = (f"fake mix {word}" for word in words)
    assert [(c.name, c.models) for c in result.curves] == [
        (first, ("a_low", "a_high")), (second, ("b_low", "b_high"))
    ]  # fmt: skip
    (key,) = change
    for curve, each in zip(result.curves, ({}, change)):
        assert "N" not in curve.identity and "lmbda" not in curve.identity
        for setting, value in {"distortion": "mse", **each}.items():
            assert curve.identity[setting] == value
    percent = {(r.test, r.anchor): r.percent for r in result.bd_rate
               if r.metric == "psnr"}  # fmt: skip
    assert percent[second, first] == pytest.approx(-10)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert [second, "-10.00", ""] in rows and [second, "b_low, b_high"] in rows


@pytest.mark.slow
def test_a_too_small_overlap_gives_a_dash_and_a_note(compare):
    result, text = compare(
        mix_low=Exact(1000, 30, lmbda=0.01, plan="mix"),
        mix_high=Exact(2000, 33, lmbda=0.05, plan="mix"),
        aun_low=Exact(2400, 32.98, lmbda=0.01, plan="aun"),
        aun_high=Exact(4000, 36, lmbda=0.05, plan="aun"),
        sua_low=Exact(1000, 30.5, lmbda=0.01, plan="sua_ste"),
        sua_high=Exact(3600, 35.5, lmbda=0.05, plan="sua_ste"),
    )
    for shown in (text, report.summary(result)):
        lines = shown.splitlines()
        table = next(i for i, line in enumerate(lines) if "test \\ anchor" in line)
        mix, aun, sua = (
            [cell.strip() for cell in line.split("|")[2:-1]]
            for line in lines[table + 2 : table + 5]
        )
        assert mix[:2] == ["", "-"] and aun[:2] == ["-", ""]
        assert all(float(cell) for cell in (mix[2], aun[2], *sua[:2]))
        (note,) = [line for line in lines if "dB of PSNR" in line]
        assert "no BD-rate: fake aun and fake mix overlap by 0.020 dB of PSNR [dB]" in note
        assert lines.index(note) > table


def test_settings_that_all_curves_share_are_listed_once(compare):
    result, text = compare(low=Exact(1000, 30, lmbda=0.01, plan="mix", distortion="ms_ssim"))
    assert [curve.name for curve in result.curves] == ["fake mix"]
    line = "Settings that all curves share, apart from train.py's defaults: distortion=ms_ssim."
    assert line in text and line in report.summary(result)


def test_an_evaluation_without_models_and_codecs_is_rejected(tmp_path):
    with pytest.raises(EvaluationError, match="nothing to evaluate"):
        run.Evaluation(model_dirs=(), images="sample", report_dir=tmp_path)
