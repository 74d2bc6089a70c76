"""The folder of a run: its contents, and the experiment that it belongs to.

    RUN/experiment.json   {"version": of tfquant, "experiment": {...}}
    RUN/checkpoints/      see `tfquant/training/checkpoint.py`
    RUN/history.json      every epoch's validation, see `tfquant/training/history.py`
    RUN/logs/             for TensorBoard, see `tfquant/training/callbacks.py`
    RUN/export/           the exported model, see `tfquant/export/writing.py`

The experiment is written before anything else.
"""

from __future__ import annotations

import json

import tensorflow as tf

import tfquant
from tfquant import files
from tfquant.training.experiment import Experiment

EXPERIMENT = "experiment.json"
CHECKPOINTS = "checkpoints"


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


def prepare(run_dir: str, experiment: Experiment) -> None:
    """Writes the experiment into a new folder. Checks that an existing folder has the same one.

    Raises:
      ValueError: the folder contains another experiment; the message names the differences.
      OSError: the file cannot be written.
    """
    path = tf.io.gfile.join(run_dir, EXPERIMENT)
    if files.exists(path):
        there = read_experiment(run_dir)
        files.check_owner(run_dir, "--model_dir", "experiment", vars(experiment), vars(there))
        return
    record = {"version": tfquant.__version__, "experiment": json.loads(experiment.to_json())}
    write_json(path, record)


def write_json(path: str, value) -> None:
    """Writes a JSON file atomically. Creates its folder if it does not exist."""
    files.write(path, json.dumps(value, indent=2) + "\n")


def read_json(path: str):
    """Reads a file that `write_json` has written.

    Raises:
      ValueError: the file is not valid JSON.
      OSError: the file cannot be read.
    """
    try:
        return json.loads(files.read(path))
    except ValueError as error:
        raise ValueError(f"cannot read {path}: {error}") from None
