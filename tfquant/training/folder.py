"""A run's folder: what is in it, and the experiment that it belongs to.

    RUN/experiment.json   {"version": of tfquant, "experiment": {...}}
    RUN/checkpoints/      see `tfquant/training/checkpoint.py`
    RUN/history.json      every epoch's validation, see `tfquant/training/history.py`
    RUN/logs/             for TensorBoard, see `tfquant/training/callbacks.py`
    RUN/export/           the exported model, see `tfquant/export.py`

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
    """The experiment of the run.

    Raises:
      ValueError: the folder holds no run, or one that this version cannot read.
      OSError: it cannot be read at all.
    """
    path = tf.io.gfile.join(run_dir, EXPERIMENT)
    if not files.exists(path):
        raise ValueError(f"{run_dir} is no training run: it has no {EXPERIMENT}")
    record = read_json(path)
    try:
        return Experiment.from_json(json.dumps(record["experiment"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"cannot read {path}: {error}") from None


def prepare(run_dir: str, experiment: Experiment) -> None:
    """Writes the experiment into a new folder, or checks that the one there is the same.

    Raises:
      ValueError: the folder holds another experiment; the message names what differs.
      OSError: it cannot be written.
    """
    path = tf.io.gfile.join(run_dir, EXPERIMENT)
    if files.exists(path):
        there = read_experiment(run_dir)
        files.check_owner(run_dir, "--model_dir", "experiment", vars(experiment), vars(there))
        return
    record = {"version": tfquant.__version__, "experiment": json.loads(experiment.to_json())}
    write_json(path, record)


def write_json(path: str, value) -> None:
    """Writes a file whole or not at all, into a folder that is made if it is not there."""
    files.write(path, json.dumps(value, indent=2) + "\n")


def read_json(path: str):
    """What `write_json` wrote.

    Raises:
      ValueError: the file holds something else.
      OSError: it cannot be read.
    """
    try:
        return json.loads(files.read(path))
    except ValueError as error:
        raise ValueError(f"cannot read {path}: {error}") from None
