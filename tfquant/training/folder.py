"""The folder of a run: its contents, and the experiment that it belongs to.

    RUN/experiment.json   {"version": of tfquant, "experiment": {...}, "init_from": {...}}
    RUN/checkpoints/      see `tfquant/training/checkpoint.py`
    RUN/history.json      every epoch's validation, see `tfquant/training/history.py`
    RUN/logs/             for TensorBoard, see `tfquant/training/callbacks.py`
    RUN/export/           the exported model, see `tfquant/export/writing.py`

The experiment is written before anything else. A run that started from another one has a record of
that run as `init_from`: {"experiment": {...}, "init_from": {...}}, with the stages that it had
reached. Its own `init_from` is the record of the run from which it had started, and so on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from typing import Any

import tensorflow as tf
from absl import logging

import tfquant
from tfquant import files
from tfquant.training import resuming
from tfquant.training.experiment import Experiment

EXPERIMENT = "experiment.json"
CHECKPOINTS = "checkpoints"
PICTURES = "pictures.json"


def read_experiment(run_dir: str) -> Experiment:
    """Reads the experiment of a run.

    Raises:
      ValueError: the folder contains no run, or a run that this version cannot read.
      OSError: the file cannot be read.
    """
    path = tf.io.gfile.join(run_dir, EXPERIMENT)
    if not files.exists(path):
        raise ValueError(f"{run_dir} is not a training run: it has no {EXPERIMENT}")
    record = read_json(path)
    try:
        return Experiment.from_json(json.dumps(record["experiment"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"cannot read {path}: {error}") from None


def read_start(run_dir: str) -> dict[str, Any] | None:
    """Reads the record of the run that gave the first weights of a run.

    Returns None if there was none, or if an earlier version started the run.

    Raises:
      ValueError, OSError: the file cannot be read.
    """
    return read_json(tf.io.gfile.join(run_dir, EXPERIMENT)).get("init_from")


def as_start(run_dir: str, stages: int) -> dict[str, Any]:
    """Returns the record of a run for the runs that start from it.

    Args:
      run_dir: the folder of the run.
      stages: number of stages that it has reached.

    Raises:
      ValueError, OSError: as `read_experiment`.
    """
    experiment = read_experiment(run_dir)
    reached = dataclasses.replace(experiment, stages=experiment.stages[:stages])
    record = {"experiment": json.loads(reached.to_json())}
    start = read_start(run_dir)
    return record if start is None else {**record, "init_from": start}


def prepare(
    run_dir: str,
    experiment: Experiment,
    newest: str | None = None,
    start: dict[str, Any] | None = None,
) -> None:
    """Writes the experiment into a new folder. Checks that an existing folder has the same one.

    Different spellings of the same folder of pictures are equal. Numbers of steps may change if
    `resuming.refusal` allows it; the new numbers are then written.

    Args:
      run_dir: the folder of the run.
      experiment: the requested experiment.
      newest: the checkpoint that the run resumes from, or None.
      start: the record of the run that gives the first weights, see `as_start`. None if there is
        none, or if the run resumes.

    Raises:
      ValueError: the folder contains another experiment; the message names the differences.
      OSError: the file cannot be written.
    """
    path = tf.io.gfile.join(run_dir, EXPERIMENT)
    record = {"version": tfquant.__version__, "experiment": json.loads(experiment.to_json())}
    if start is not None:
        record["init_from"] = start
    if not files.exists(path):
        write_json(path, record)
        return
    there = read_experiment(run_dir)
    asked, found = (resuming.comparable(each) for each in (experiment, there))
    other_steps = [name for name in resuming.STEPS if asked[name] != found[name]]
    kept = {name: asked[name] for name in other_steps}
    files.check_owner(run_dir, "--model_dir", "experiment", asked, {**found, **kept})
    if other_steps:
        reason = resuming.refusal(there, experiment, newest)
        if reason:
            raise ValueError(f"{run_dir}: {reason}")
        changes = ", ".join(f"{name} {found[name]} -> {asked[name]}" for name in other_steps)
        logging.info("%s: the run continues with other lengths: %s", files.shown(run_dir), changes)
    before = read_json(path)
    updated = before if start is None else {**before, "init_from": start}
    if other_steps:
        updated = {**updated, "experiment": record["experiment"]}
    if updated != before:
        write_json(path, updated)


def note_pictures(run_dir: str, listing: dict[str, list[int]]) -> str:
    """Records the training pictures of a run. Returns one line if they have changed, else "".

    Args:
      run_dir: the folder of the run.
      listing: see `ImageSource.listing`.

    Raises:
      OSError: the file cannot be written.
    """
    path = tf.io.gfile.join(run_dir, PICTURES)
    before = None
    if files.exists(path):
        with contextlib.suppress(ValueError, KeyError):
            before = read_json(path)["pictures"]
    if before == listing or (before is None and not listing):
        return ""
    write_json(path, {"pictures": listing})
    if not before:
        return ""
    changes = {
        "added": listing.keys() - before.keys(),
        "gone": before.keys() - listing.keys(),
        "changed": {n for n in before.keys() & listing.keys() if before[n] != listing[n]},
    }
    counts = [
        f"{len(names)} {what} ({files.shown(min(names))}{', ...' if len(names) > 1 else ''})"
        for what, names in changes.items() if names
    ]  # fmt: skip
    return f"the training pictures differ from those of the run so far: {', '.join(counts)}"


def write_json(path: str, value: Any) -> None:
    """Writes a JSON file atomically. Creates its folder if it does not exist."""
    files.write(path, json.dumps(value, indent=2) + "\n")


def read_json(path: str) -> Any:
    """Reads a file that `write_json` has written.

    Raises:
      ValueError: the file is not valid JSON.
      OSError: the file cannot be read.
    """
    try:
        return json.loads(files.read(path))
    except ValueError as error:
        raise ValueError(f"cannot read {path}: {error}") from None
