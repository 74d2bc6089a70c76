"""The command line: rejected input, skipped experiments, repeated experiments."""

from __future__ import annotations

import csv
import dataclasses
import json

import pytest

from tfquant.analysis import cli, plots
from tfquant.analysis.experiment import AnalysisError, Experiment, Result
from tfquant.analysis.registry import EXPERIMENTS
from tfquant.quantization.surrogates import SURROGATES


@pytest.fixture
def counted(monkeypatch):
    """Replaces all experiments by a quick one. Returns the settings of each of its runs."""
    runs = []

    def run(settings, progress):
        runs.append(settings)
        progress("begins")
        figure, _ = plots.new_figure()
        return Result(("a", "b"), [{"a": 1.23456789, "b": None}], figure, "Result: nothing.")

    quick = Experiment(
        "quick", "Fig. 0", "A quick one.", run, ("aun", "sua"), alphas=(4.0,), sigmas=(1.0,)
    )
    needy = dataclasses.replace(quick, name="needy", needs_model=True)
    monkeypatch.setattr(cli, "EXPERIMENTS", {"quick": quick, "needy": needy})
    return runs


def test_the_list_describes_each_experiment_in_a_line(capsys):
    assert cli.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(EXPERIMENTS)
    assert all(len(line) > 50 for line in lines)


@pytest.mark.parametrize(
    "arguments,message,code",
    [
        (["nope"], "unknown experiment 'nope'; known: mutual_information, distortion_error,", 1),
        ([], "missing experiment; possible: mutual_information,", 1),
        (["rate_error", "--surrogates=stee"], "unknown surrogate 'stee'; known: round, sha,", 1),
        (["rate_error", "--sigmas=0.1,-1"], "--sigmas must be positive numbers; got -1", 1),
        (["rate_error", "--alphas=inf"], "--alphas must be positive numbers; got inf", 1),
        (["rate_error", "--seed=-2"], "--seed must not be negative; got -2", 1),
        (["sigma_distribution"], "sigma_distribution analyses trained runs: give --model_dir", 1),
        (["rate_error", "--alphas=hard"], "expected numbers, by commas; got 'hard'", 2),
        (["rate_error", "--surrogates="], "expected one or more values, by commas", 2),
        (["rate_error", "--sigma=1", "--nonsense"], "unrecognized arguments: --nonsense", 2),
    ],
)
def test_bad_input_gives_one_line(arguments, message, code, capsys):
    assert cli.main(arguments) == code
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_an_experiment_writes_a_table_a_picture_and_a_text(counted, tmp_path, capsys):
    assert cli.main(["quick", "--alphas=2,3", f"--out={tmp_path}"]) == 0
    assert counted[0].alphas == (2.0, 3.0) and counted[0].surrogates == ("aun", "sua")
    with open(tmp_path / "quick.csv") as file:
        assert list(csv.DictReader(file)) == [{"a": "1.23457", "b": ""}]
    assert (tmp_path / "quick.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "quick.md").read_text()
    assert text.startswith("# quick: Fig. 0\n") and "Result: nothing." in text
    assert f"`python -m tfquant.analysis quick --alphas=2,3 --out={tmp_path}`" in text
    assert "quick: begins (0 s)" in capsys.readouterr().err


@pytest.mark.slow
def test_a_complete_experiment_with_the_same_settings_is_skipped(counted, tmp_path):
    same = ["quick", f"--out={tmp_path}"]
    for arguments, runs in (
        (same, 1), (same, 1), (["all", f"--out={tmp_path}"], 1), ([*same, "--again"], 2),
        ([*same, "--seed=1"], 3), ([*same, "--seed=1"], 3), ([*same, "--full"], 4),
    ):  # fmt: skip
        assert cli.main(arguments) == 0
        assert len(counted) == runs, arguments


@pytest.mark.slow
def test_an_incomplete_experiment_or_one_of_another_surrogate_is_repeated(counted, tmp_path, alter):
    same = ["quick", f"--out={tmp_path}"]
    for harm in (
        lambda: None,
        lambda: (tmp_path / "quick.png").unlink(),
        lambda: (tmp_path / "quick.json").write_text("{"),
        lambda: (tmp_path / "quick.json").write_text(json.dumps({"made_with": 1})),
        lambda: alter("aun", forward=lambda v, alpha, u: v + 0.5 * u),
    ):
        harm()
        before = len(counted)
        assert cli.main(same) == 0
        assert len(counted) == before + 1


def test_all_skips_experiments_that_need_a_model_and_reports_them(counted, tmp_path, capsys):
    assert cli.main(["all", f"--out={tmp_path}"]) == 0
    assert "needy: skipped, because it needs --model_dir" in capsys.readouterr().err
    assert len(counted) == 1
    assert cli.main(["all", f"--out={tmp_path}", f"--model_dir={tmp_path}"]) == 0
    assert len(counted) == 3


def test_the_first_mistake_stops_before_anything_runs(counted, tmp_path):
    assert cli.main(["all", "--surrogates=aun,nope", f"--out={tmp_path}"]) == 1
    assert not counted and not list(tmp_path.iterdir())


def test_a_surrogate_that_does_not_commute_with_steps_is_refused(alter):
    alter("aun", "halved", forward=lambda v, alpha, u: 0.5 * v + u)
    with pytest.raises(AnalysisError, match="surrogate halved does not commute with whole steps"):
        EXPERIMENTS["rate_error"].settings(surrogates=("aun", "halved"))


def test_every_experiment_asks_for_known_surrogates():
    for experiment in EXPERIMENTS.values():
        assert set(experiment.surrogates) <= set(SURROGATES)
        experiment.settings()
    with pytest.raises(AnalysisError, match="unknown surrogate"):
        EXPERIMENTS["rate_error"].settings(surrogates=("x",))
