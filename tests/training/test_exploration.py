"""The search for the weight of the feature distance, with planted optima and on recorded runs."""

import dataclasses
import json
import math
import re

import pytest
from PIL import Image

from tfquant.training import checkpoint, folder, history, hosts, run
from tfquant.training.experiment import Experiment
from tfquant.training.exploration import Search, State, best, explore, run_search, verdict

SEARCH = Search(start=10.0, factor=0.1, minimum=1e-4)
EXPERIMENT = Experiment(stages=("qr_predictive",), init_from="runs/baseline", lmbda=0.01)


def unaligned(table):
    """Removes the spaces that align the columns of a Markdown table."""
    return re.sub(" +", " ", table)


def planted(weight, asked=None):
    """Returns an `evaluate` whose J is lowest at `weight`; it appends the weights to `asked`."""

    def evaluate(w):
        if asked is not None:
            asked.append(w)
        return {"J": 1.0 + math.log10(w / weight) ** 2}

    return evaluate


def test_the_weights_fall_by_the_factor_down_to_the_minimum():
    assert SEARCH.weights() == [10, 1, 0.1, 0.01, 1e-3, 1e-4]
    assert Search(1.0, 0.5, 0.2).weights() == [1, 0.5, 0.25]
    assert Search(0.3, 0.1, 0.3).weights() == [0.3]
    assert Search(2.7, 0.3, 2.7 * 0.3**9).weights()[-1] == pytest.approx(2.7 * 0.3**9, rel=1e-5)


@pytest.mark.parametrize("optimum", [10, 1, 0.01, 1e-4])
def test_a_planted_optimum_is_found_anywhere_in_the_range(optimum):
    asked = []
    tried = explore(SEARCH, planted(optimum, asked))
    assert best(tried)["weight"] == optimum
    assert asked == SEARCH.weights() == [trial["weight"] for trial in tried]


@pytest.mark.parametrize("optimum", [10, 1, 0.01, 1e-4])
def test_an_early_stop_finds_the_optimum_and_is_reported(optimum):
    search, asked = dataclasses.replace(SEARCH, rises=2), []
    tried = explore(search, planted(optimum, asked))
    assert best(tried)["weight"] == optimum
    beyond = SEARCH.weights().index(optimum) + 3
    assert asked == SEARCH.weights()[:beyond]
    said = "Stopped early: J increased 2 times in a row; not tried" in " ".join(
        verdict(search, tried)
    )
    assert said == (beyond < len(SEARCH.weights()))


@pytest.mark.parametrize(
    "values,stops",
    [
        ([1.0, 2.0], False),
        ([1.0, 2.0, 3.0], True),
        ([3.0, 1.0, 2.0, 3.0], True),
        ([1.0, 2.0, 2.0], False),  # equal, not increased
        ([1.0, None, None], False),  # and not from one divergence to the next
        ([1.0, 2.0, None], True),
    ],
)
def test_a_search_stops_after_J_has_increased_twice_in_a_row(values, stops):
    search = dataclasses.replace(SEARCH, rises=2)
    assert search.stops([{"J": J} for J in values]) is stops
    assert not SEARCH.stops([{"J": J} for J in values])


def test_an_optimum_at_an_end_of_the_range_is_reported():
    def words(optimum):
        return " ".join(verdict(SEARCH, explore(SEARCH, planted(optimum))))

    assert "the largest weight tried: a larger one may be better" in words(10)
    assert "the smallest weight tried: a smaller one may be better" in words(1e-4)
    assert words(0.1) == "Best weight: 0.1, J = 1.00000."


def test_two_minima_and_divergence_are_reported():
    values = iter([None, 3.0, 2.0, 2.5, 2.1, 2.4])
    tried = explore(SEARCH, lambda w: {"J": next(values)})
    assert best(tried)["weight"] == 0.1
    words = " ".join(verdict(SEARCH, tried))
    assert "more than one minimum" in words and "Training diverged with 10." in words
    with pytest.raises(ValueError, match="diverged with every weight"):
        best([{"weight": 1.0, "J": None}])


class Killed(BaseException):
    pass


@pytest.mark.parametrize("after", range(6))
@pytest.mark.parametrize("rises", [0, 2])
def test_a_search_killed_after_any_weight_gives_the_same_result(tmp_path, after, rises):
    search = dataclasses.replace(SEARCH, rises=rises)
    whole = explore(search, planted(0.1))
    asked = []

    def killed(w):
        if len(asked) == after:
            raise Killed
        return planted(0.1, asked)(w)

    try:
        state = State(str(tmp_path), search, EXPERIMENT, {})
        explore(search, killed, state.tried, state.keep)
    except Killed:
        pass
    state = State(str(tmp_path), search, EXPERIMENT, {})
    assert [trial["weight"] for trial in state.tried] == asked
    tried = explore(search, planted(0.1, asked), state.tried, state.keep)
    assert tried == whole and asked == [trial["weight"] for trial in whole]
    assert State(str(tmp_path), search, EXPERIMENT, {}).tried == whole


def test_a_search_without_newer_fields_resumes(tmp_path):
    State(str(tmp_path), SEARCH, EXPERIMENT, {}).keep([{"weight": 1.0}])
    path = tmp_path / "exploration.json"
    kept = json.loads(path.read_text())
    del kept["asked"]["experiment"]["mean_gradient"]
    kept["asked"]["experiment"]["stop_gradient"] = True
    path.write_text(json.dumps(kept))
    assert State(str(tmp_path), SEARCH, EXPERIMENT, {}).tried == [{"weight": 1.0}]


def test_another_exploration_is_refused_with_the_differences(tmp_path):
    State(str(tmp_path), SEARCH, EXPERIMENT, {"patience": 3}).keep([])
    other = dataclasses.replace(EXPERIMENT, lmbda=0.02, qr_weight=7.0)
    search = dataclasses.replace(SEARCH, factor=0.5)
    with pytest.raises(ValueError, match=r"\(differs in factor, lmbda, patience\)"):
        State(str(tmp_path), search, other, {"patience": 4})


@pytest.mark.parametrize(
    "values,message",
    [
        ((1.0, 1.0, 0.1), "the factor must lie between 0 and 1; got 1.0"),
        ((1.0, 0.1, 0.0), "must be positive and not above the first one, 1.0; got 0.0"),
        ((1.0, 0.1, 2.0), "must be positive and not above the first one, 1.0; got 2.0"),
        ((1.0, 0.1, 0.1, -1), "rises must not be negative; got -1"),
        ((math.inf, 0.1, 0.1), "the first weight must be a positive number; got inf"),
        ((math.nan, 0.1, 0.1), "the first weight must be a positive number; got nan"),
        ((0.0, 0.1, 0.1), "the first weight must be a positive number; got 0.0"),
    ],
)
def test_an_invalid_search_is_rejected(values, message):
    with pytest.raises(ValueError, match=message):
        Search(*values)


def record(stage, step, J, psnr, reduction=20.0):
    return {"stage": stage, "step": step, "run_step": step, "loss": 0.0, "R": 0.2,
            "D": (J - 0.2) / 0.01, "J": J, "psnr": psnr, "error_reduction": reduction}  # fmt: skip


def searched(directory, experiment=EXPERIMENT, *, train=None, epoch_steps=5, warm_start=False):
    return run_search(str(directory), SEARCH, experiment, train=train, patience=3,
                      epoch_steps=epoch_steps, warm_start=warm_start)  # fmt: skip


def fake_training(started, psnr_of):
    """Returns a `train` that writes the history of a run whose best epoch is the second of
    three.
    """

    def train(experiment, run_dir):
        weight = experiment.qr_weight
        started.append((weight, experiment.init_from))
        if psnr_of[weight] is None:
            raise run.TrainingDiverged
        gains = [(0, 0.0), (5, psnr_of[weight] - 0.1), (10, psnr_of[weight]), (15, 0.0)]
        records = [record("qr_soft", 4, 0.1, 40.0)]
        records += [record("qr_predictive", s, 0.5 - 0.1 * g, 30 + g) for s, g in gains]
        folder.write_json(f"{run_dir}/{history.FILE}", records)

    return train


PSNR = {10.0: None, 1.0: 0.1, 0.1: 0.3, 0.01: 0.2, 1e-3: 0.1, 1e-4: 0.05}


@pytest.mark.slow
@pytest.mark.parametrize("warm", [False, True])
def test_every_weight_starts_from_one_baseline_or_the_previous_weight(tmp_path, warm):
    started = []
    searched(tmp_path, train=fake_training(started, PSNR), warm_start=warm)
    assert [weight for weight, _ in started] == SEARCH.weights()
    before = {w: f"{tmp_path}/weights/{w * 10:g}" for w in (0.1, 0.01, 1e-3, 1e-4)}
    expected = [(before.get(w) if warm else None) or "runs/baseline" for w in SEARCH.weights()]
    assert [start for _, start in started] == expected  # after a divergence, the baseline again


@pytest.mark.slow
def test_the_report_has_a_row_per_weight_with_the_best_epoch_of_the_last_stage(tmp_path):
    text = searched(tmp_path, train=fake_training([], PSNR))
    assert "| 10 | diverged |" in unaligned(text)
    assert "| **0.1** | 0.47000 | 0.2000 | 27 | 30.300 | +0.300 | 20.00 | 10 |" in unaligned(text)
    assert "Best weight: 0.1, J = 0.47000." in text and "Training diverged with 10." in text
    assert text in (tmp_path / "exploration.md").read_text()
    stored = json.loads((tmp_path / "exploration.json").read_text())
    assert [trial["weight"] for trial in stored["tried"]] == SEARCH.weights()
    chosen = stored["tried"][2]
    assert chosen["start_quality"] == 30 and chosen["start_J"] == 0.5
    with Image.open(tmp_path / "exploration.png") as picture:
        assert picture.size[0] > 1000


@pytest.mark.slow
def test_a_search_by_ms_ssim_reports_ms_ssim(tmp_path):
    """Uses D = 1 - MS-SSIM: 0.1 at the start, then 0.01."""

    def train(experiment, run_dir):
        records = [record("qr_predictive", 0, 0.201, 30.0), record("qr_predictive", 5, 0.2001, 29)]
        folder.write_json(f"{run_dir}/{history.FILE}", records)

    experiment = dataclasses.replace(EXPERIMENT, distortion="ms_ssim")
    text = searched(tmp_path, experiment, train=train)
    assert "| MS-SSIM [dB] | gain [dB] |" in unaligned(text) and "PSNR" not in text
    assert "| 0.20010 | 0.2000 | 0.01 | 20.000 | +10.000 |" in unaligned(text)


def test_a_weight_without_a_finite_epoch_counts_as_diverged(tmp_path):
    """Uses a run that continued to its end. No value that is not a number is stored."""

    def train(experiment, run_dir):
        bad = {10.0: (5, 10), 1.0: (5,)}.get(experiment.qr_weight, ())
        values = {step: math.nan if step in bad else 0.5 for step in (0, 5, 10)}
        records = [record("qr_predictive", step, J, J + 30) for step, J in values.items()]
        folder.write_json(f"{run_dir}/{history.FILE}", records)

    assert "| 10 | diverged |" in unaligned(searched(tmp_path, train=train))
    stored = (tmp_path / "exploration.json").read_text()
    assert json.loads(stored)["tried"][0] == {"weight": 10.0, "J": None}
    assert json.loads(stored)["tried"][1]["quality_of_step"] == [[0, 30.5], [10, 30.5]]
    assert "NaN" not in stored


@pytest.mark.slow
def test_a_search_resumes_only_from_the_same_checkpoint(tmp_path, monkeypatch):
    """Checks this because all weights must start from one baseline, which may be trained
    further.
    """
    found = ["ckpt-5", "ckpt-5", "ckpt-9"]
    monkeypatch.setattr(checkpoint, "newest_readable", lambda run_dir: found.pop(0))
    monkeypatch.setattr(hosts, "identity", lambda path: (path, 7))
    for _ in range(2):
        searched(tmp_path, train=fake_training([], PSNR))
    with pytest.raises(ValueError, match=r"\(differs in checkpoint of init_from\)"):
        searched(tmp_path, train=fake_training([], PSNR))


@pytest.mark.slow
def test_a_search_resumes_only_with_epochs_of_the_same_length(tmp_path):
    started = []
    searched(tmp_path, train=fake_training(started, PSNR))
    with pytest.raises(ValueError, match=r"\(differs in epoch_steps\)"):
        searched(tmp_path, train=fake_training(started, PSNR), epoch_steps=10)
    searched(tmp_path, train=fake_training(started, PSNR))
    assert len(started) == len(SEARCH.weights())


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"init_from": "", "stages": ("joint", "qr_predictive")}, "needs init_from, the run from"),
        ({"stages": ("joint", "post")}, "got 48, joint_steps=10000, post_steps=2000"),
        ({"rectifier_width": 0}, "and a rectifier_width; got 0, qr_predictive_steps=2000"),
        (
            {"stages": ("post", "qr_predictive"), "qr_predictive_steps": 0},
            r"needs a stage with steps that decodes with the rectifier it trains \(qr_predictive\)",
        ),
        ({"stages": ("qr_soft",)}, "decodes with the rectifier .* got 48, qr_soft_steps=10000"),
    ],
)
def test_an_exploration_without_baseline_or_rectifier_is_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        searched(tmp_path, dataclasses.replace(EXPERIMENT, **changes))
    assert not list(tmp_path.iterdir())
