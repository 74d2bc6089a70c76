"""A run's folder belongs to one experiment."""

import dataclasses
import json

import pytest

from tfquant.training import folder
from tfquant.training.experiment import Experiment

EXPERIMENT = Experiment(codec="factorized", codec_options={"N": 4, "M": 6}, stages=("joint",))


def test_the_experiment_is_restored(tmp_path):
    directory = str(tmp_path / "new" / "run")
    folder.prepare(directory, EXPERIMENT)
    folder.prepare(directory, dataclasses.replace(EXPERIMENT))
    assert folder.read_experiment(directory) == EXPERIMENT
    assert [path.name for path in (tmp_path / "new" / "run").iterdir()] == ["experiment.json"]


def test_another_experiment_in_the_same_folder_is_refused_with_the_differences(tmp_path):
    folder.prepare(str(tmp_path), EXPERIMENT)
    other = dataclasses.replace(EXPERIMENT, lmbda=0.1, codec_options={"N": 8, "M": 6})
    message = r"contains another experiment \(differs in codec_options, lmbda\); use a new --m"
    with pytest.raises(ValueError, match=message):
        folder.prepare(str(tmp_path), other)
    assert folder.read_experiment(str(tmp_path)) == EXPERIMENT


def test_a_folder_that_cannot_be_written_gives_one_line(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OSError, match="^.*/run/experiment.json: cannot be written: [^\n]*$"):
        folder.prepare(str(tmp_path / "file" / "run"), EXPERIMENT)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "record,message",
    [
        (None, "is not a training run: it has no experiment.json"),
        ("{", "cannot read .*experiment.json: "),
        ("[]", "cannot read .*experiment.json: "),
        (json.dumps({"version": "0.1.0"}), "cannot read .*experiment.json: 'experiment'"),
        (
            json.dumps({"experiment": {"magic": 1}}),
            "another tfquant version: unknown fields magic",
        ),
    ],
)
def test_a_folder_without_a_run_of_this_version_is_rejected_in_one_line(tmp_path, record, message):
    if record is not None:
        (tmp_path / "experiment.json").write_text(record)
    with pytest.raises(ValueError, match=message) as refusal:
        folder.read_experiment(str(tmp_path))
    assert "\n" not in str(refusal.value)


def test_a_run_records_the_run_that_it_started_from_and_that_runs_start(tmp_path):
    first, second, third = (str(tmp_path / name) for name in ("first", "second", "third"))
    joint = dataclasses.replace(EXPERIMENT, stages=("joint", "post"), plan="aun")
    post = dataclasses.replace(EXPERIMENT, stages=("post",), init_from=first)
    folder.prepare(first, joint)
    folder.prepare(second, post, start=folder.as_start(first, stages=1))
    folder.prepare(third, post, start=folder.as_start(second, stages=1))
    assert folder.read_start(first) is None
    record = folder.read_start(third)
    assert record["experiment"]["stages"] == ["post"]
    assert record["init_from"]["experiment"]["plan"] == "aun"
    assert record["init_from"]["experiment"]["stages"] == ["joint"]  # what it had reached
    assert folder.read_experiment(third) == post


def test_a_run_that_starts_again_records_its_new_start(tmp_path):
    """The other run may have been trained further before the first checkpoint of this one."""
    run, other = str(tmp_path / "run"), str(tmp_path / "other")
    folder.prepare(other, dataclasses.replace(EXPERIMENT, stages=("joint", "post")))
    post = dataclasses.replace(EXPERIMENT, stages=("post",), init_from=other)
    for stages in (1, 2):
        folder.prepare(run, post, start=folder.as_start(other, stages))
        assert len(folder.read_start(run)["experiment"]["stages"]) == stages
    folder.prepare(run, post)  # resumed
    assert len(folder.read_start(run)["experiment"]["stages"]) == 2
