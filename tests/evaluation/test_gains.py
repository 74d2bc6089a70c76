"""Tests gains of models over their baselines: pairs, gains and costs."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import time

import numpy as np
import pytest
from PIL import Image

from tfquant.data import images
from tfquant.evaluation import EvaluationError, gains, pictures, report, results, run
from tfquant.evaluation.results import DescribedModel
from tfquant.training.experiment import Experiment

CURVE = "fake+QR mix"


@pytest.fixture(scope="module", name="rectifying_model")
def _rectifying_model(subsampling_model):
    """Returns a model with another one's files, which decodes them closer to the picture."""

    class Rectifying(subsampling_model):
        def __init__(self, step, error_left=1.0, brighter=0, slower=0.0):
            super().__init__(step)
            self.fingerprint = f"{step:016d}"
            self.experiment["stages"] = ["joint"]
            if error_left != 1.0:
                self.experiment.update(stages=["qr_predictive"], rectifier_width=8)
            self.error_left, self.brighter, self.slower = error_left, brighter, slower

        def decompress(self, data):
            time.sleep(self.slower)
            return np.clip(super().decompress(data).astype(int) + self.brighter, 0, 255).astype(
                np.uint8
            )

        def evaluate(self, image):
            y = np.random.default_rng(0).normal(0, 3, (1, 4, 4, 6)).astype(np.float32)
            y_hat = np.round(y)
            y_bar = y - np.sqrt(self.error_left) * (y - y_hat)
            return {**super().evaluate(image), "y": y, "y_hat": y_hat, "y_bar": y_bar}

    return Rectifying


MODELS = {"base_low": (8,), "base_high": (4,), "low": (8, 0.7, 1), "high": (4, 0.9, 2)}


@pytest.fixture(scope="module", name="exported")
def _exported(tmp_path_factory, make_photograph, rectifying_model, write_manifest):
    """Makes a folder of two pictures and the folders of all models."""
    folder = tmp_path_factory.mktemp("exported")
    (folder / "pictures").mkdir()
    for name, size in {"large": (170, 200), "small": (64, 48)}.items():
        images.write_image(folder / "pictures" / f"{name}.png", make_photograph(*size))
    for name, arguments in MODELS.items():
        write_manifest(folder / name, rectifying_model(*arguments))
    return folder


@pytest.fixture(scope="module", name="evaluated")
def _evaluated(exported, rectifying_model, tmp_path_factory):
    """Returns (the report, its folder)."""
    report_dir = tmp_path_factory.mktemp("evaluated") / "report"
    evaluation = run.Evaluation(
        model_dirs=(str(exported / "low"), str(exported / "high")),
        baselines=(str(exported / "base_high"), str(exported / "base_low")),
        images=str(exported / "pictures"),
        report_dir=report_dir,
        reconstructions=False,
    )
    result = run.run(
        evaluation,
        lambda path: rectifying_model(*MODELS[os.path.basename(path)]),
        lambda line: None,
    )
    return result, report_dir


def test_gains_are_differences_on_the_same_pictures(evaluated):
    result, _ = evaluated
    found = {g.model: g for g in result.gains}
    means = {m.name: m for m in result.models}
    assert [(g.model, g.baseline) for g in result.gains] == [
        ("low", "base_low"), ("high", "base_high")
    ]  # fmt: skip
    for name, left in (("low", 0.7), ("high", 0.9)):
        g, model, baseline = found[name], means[name], means[f"base_{name}"]
        assert g.same_bits and g.bits_percent == 0
        assert g.psnr_gain == pytest.approx(model.mean.psnr - baseline.mean.psnr)
        each = [a.psnr - b.psnr for a, b in zip(model.images, baseline.images)]
        assert (g.psnr_gain_smallest, g.psnr_gain_largest) == (min(each), max(each))
        gain = model.mean.ms_ssim_db - baseline.mean.ms_ssim_db
        assert g.ms_ssim_gain_db == pytest.approx(gain) and gain != 0
        assert g.error_reduction == pytest.approx(100 * (1 - left), abs=1e-3)
        assert baseline.mean.error_reduction == 0.0
    mean = np.mean([found[n].psnr_gain for n in ("low", "high")])
    (row,) = gains.by_codec(result.gains)
    assert (row.curve, row.models) == (CURVE, 2)
    assert row.psnr_gain == pytest.approx(mean)
    assert row.error_reduction_largest == pytest.approx(30, abs=1e-3)
    both = [g.encode_s + g.decode_s for g in result.gains]
    before = [g.baseline_encode_s + g.baseline_decode_s for g in result.gains]
    assert (row.total_s, row.baseline_total_s) == (np.mean(both), np.mean(before))
    assert row.total_percent == pytest.approx(100 * (np.mean(both) / np.mean(before) - 1))


def test_baseline_and_rectified_models_are_two_curves_of_one_plot(evaluated):
    result, folder = evaluated
    assert {m.name: m.curve for m in result.models} == {
        "low": CURVE, "high": CURVE,
        "base_low": "fake mix", "base_high": "fake mix",
    }  # fmt: skip
    with Image.open(folder / report.GAINS_PLOT) as plot:
        assert plot.size[0] > 1000 and len(np.unique(np.asarray(plot.convert("L")))) > 20


def test_the_report_has_a_table_of_models_one_of_codecs_and_one_of_times(evaluated):
    result, folder = evaluated
    text = (folder / "report.md").read_text()
    assert "## Gains over the baselines" in text and f"]({report.GAINS_PLOT})" in text
    for words in ("| the same |", "error reduction [%]", "more decoding time [%]", "over pictures",
                  "both ways [s]"):  # fmt: skip
        assert words in text and words in report.summary(result), words
    assert "not the same" not in text
    stored = json.loads((folder / "report.json").read_text())
    assert stored["gains"] == json.loads(json.dumps(result.to_json()["gains"]))


def test_the_csv_has_the_error_reduction_of_models_and_none_of_other_codecs(evaluated):
    result, folder = evaluated
    with open(folder / "report.csv", newline="") as file:
        rows = {(r["setting"], r["image"]): r for r in csv.DictReader(file)}
    assert float(rows["low", "large"]["error_reduction"]) == pytest.approx(30, abs=1e-3)
    assert float(rows["base_low", "mean"]["error_reduction"]) == 0
    assert set(results.UNITS) < set(rows["low", "mean"])


def test_a_model_without_baseline_is_rejected_before_any_measurement(exported):
    evaluation = run.Evaluation(
        model_dirs=(str(exported / "low"), str(exported / "high")),
        baselines=(str(exported / "base_low"),),
        images=str(exported / "pictures"),
        report_dir=exported / "report",
    )
    loaded = []
    with pytest.raises(EvaluationError, match="--baseline: none for high; .* got base_low$"):
        run.run(evaluation, loaded.append, lambda line: None)
    assert not loaded and not (exported / "report").exists()


def test_the_time_difference_of_a_sleeping_decoder_is_its_sleep(
    rectifying_model, tmp_path, make_photograph, monkeypatch
):
    """Uses a clock that advances only in sleep."""
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: clock.append(clock.pop() + seconds))
    images.write_image(tmp_path / "a.png", make_photograph(32, 32))
    chosen = pictures.find_pictures(str(tmp_path / "a.png"), tmp_path).pictures
    fast, slow = rectifying_model(4, slower=0.02), rectifying_model(4, slower=0.05)
    found = gains.timing(slow, fast, chosen)
    assert found.decode_percent == pytest.approx(150)
    assert (found.decode_s, found.encode_s) == (pytest.approx(0.05), 0.0)


def of(name, fingerprint, lmbda=0.01, codec="c", **settings):
    experiment = {
        "codec": codec, "codec_options": {"N": 8}, "lmbda": lmbda, "distortion": "mse", **settings
    }  # fmt: skip
    return DescribedModel(name, name, codec, "", "mix", lmbda, None, fingerprint, experiment, None)


def test_a_baseline_is_found_by_fingerprint_before_settings():
    """Tests also that settings decide after a soft stage, which changes the fingerprint."""
    baselines = [of("a", "1", 0.01), of("b", "2", 0.02), of("c", "3", 0.01)]
    asked = [of("x", "3", 0.01), of("y", "9", 0.02)]
    assert [b.name for _, b in gains.pair(asked, baselines)] == ["c", "b"]
    with pytest.raises(EvaluationError, match="--baseline: none for z; .* got a, b, c"):
        gains.pair([of("z", "9", 0.03)], baselines)


def test_the_baseline_with_the_fewest_other_settings_is_chosen():
    soft = {"stages": ["qr_soft", "qr_predictive"], "init_from": "a", "rectifier_width": 16}
    model = of("x", "9", plan="mix", seed=2, validation_images=8, **soft)
    baselines = [
        of("a", "1", plan="aun", seed=1), of("b", "2", plan="mix", seed=1),
        of("c", "3", plan="mix", seed=2), of("d", "4", 0.02, plan="mix", seed=2),
    ]  # fmt: skip
    ((_, baseline),) = gains.pair([model], baselines)
    assert baseline.name == "c" and gains.differences(model, baseline) == ()
    ((_, baseline),) = gains.pair([model], baselines[:2])
    assert baseline.name == "b" and gains.differences(model, baseline) == ("seed",)
    assert gains.differences(model, baselines[0]) == ("plan", "seed")


def test_different_bits_and_settings_are_reported(evaluated, rectifying_model):
    result, _ = evaluated
    assert all(g.differences == () for g in result.gains)
    changed = [
        dataclasses.replace(g, same_bits=False, bits_percent=1.25, differences=("plan", "seed"))
        for g in result.gains
    ]
    text = report.summary(dataclasses.replace(result, gains=tuple(changed)))
    assert "+1.25 %" in text and "a gain is that at the model's own rate" in text
    assert "were trained with different settings: plan, seed." in text


def explored(folder, lmbda, quality_of_weight, J_of_weight, distortion="mse"):
    """Makes an exploration's folder."""
    folder.mkdir()
    experiment = Experiment(
        stages=("qr_predictive",), init_from="a", lmbda=lmbda, distortion=distortion
    )
    tried = [{"weight": w, "J": J_of_weight[w], "quality": q, "start_quality": 30.0} if q
             else {"weight": w, "J": None} for w, q in quality_of_weight.items()]  # fmt: skip
    asked = {"experiment": dataclasses.asdict(experiment)}
    (folder / "exploration.json").write_text(json.dumps({"asked": asked, "tried": tried}))
    return str(folder)


def test_explorations_are_listed_with_the_best_weight_of_each(tmp_path):
    """Tests that the best has the lowest J, not the highest PSNR, and that no codec is measured."""
    folders = (
        explored(tmp_path / "low", 0.01, {10: None, 1: 30.1, 0.1: 30.2}, {1: 0.5, 0.1: 0.6}),
        explored(tmp_path / "high", 0.02, {1: 33.1, 0.01: 33.4}, {1: 0.9, 0.01: 0.8}),
        explored(tmp_path / "ssim", 10, {1: 31, 0.1: None}, {1: 1.0}, "ms_ssim"),
        explored(tmp_path / "lost", 20, {1: None}, {}),
    )
    report_dir = tmp_path / "report"
    result = run.run(
        run.Evaluation(model_dirs=(), images="nowhere", report_dir=report_dir,
                       explorations=folders),
        pytest.fail, lambda line: None,
    )  # fmt: skip
    name, quality = "ms_hyper_zero+QR sua_ste", "PSNR [dB]"
    curve = f"{name} distortion=mse"
    for text in ((report_dir / "report.md").read_text(), report.summary(result)):
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
        assert "rd.png" not in text and "bpp" not in text
        assert ["curve", "lmbda", "quality", "at the start", "10", "1", "0.1", "0.01"] in rows
        assert [curve, "0.01", quality, "30.000", "diverged", "**30.100**", "30.200", ""] in rows
        assert [curve, "0.02", quality, "30.000", "", "33.100", "", "**33.400**"] in rows
        ssim = [f"{name} distortion=ms_ssim", "10", "MS-SSIM [dB]", "30.000", "", "**31.000**"]
        assert [*ssim, "diverged", ""] in rows
        assert [curve, "20", quality, "-", "", "diverged", "", ""] in rows
    written = {path.name for path in report_dir.iterdir()}
    assert written == {"report.json", "report.csv", "report.md"}
    with pytest.raises(EvaluationError, match="--explorations: .* is not an exploration: it has"):
        gains.explored([str(tmp_path)])
    earlier = tmp_path / "low" / "exploration.json"
    earlier.write_text(earlier.read_text().replace('"quality"', '"psnr"'))
    with pytest.raises(EvaluationError, match="--explorations: .* by an earlier version"):
        gains.explored(folders[:1])


def test_baselines_alone_are_rejected(tmp_path):
    with pytest.raises(EvaluationError, match="--baseline: expected --model_dir"):
        run.Evaluation(model_dirs=(), baselines=("a",), images="sample", report_dir=tmp_path,
                       conventional=("jpeg",))  # fmt: skip
