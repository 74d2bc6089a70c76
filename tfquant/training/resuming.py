"""Permitted differences when a run is resumed: the spelling of paths, and the lengths of stages."""

from __future__ import annotations

import re

import tensorflow as tf

from tfquant import files
from tfquant.data import sources
from tfquant.training import roles
from tfquant.training.experiment import STAGES, Experiment

STEPS = tuple(f"{name}_steps" for name in STAGES)

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
# Schedules whose value at a step does not depend on the length of the stage.
_ENDLESS = ("constant",)


def comparable(experiment: Experiment) -> dict:
    """Returns the fields of an experiment, with one spelling for the same folder and colour."""
    fields = {**vars(experiment), **roles.with_one_spelling(vars(experiment))}
    if experiment.init_from:
        fields["init_from"] = sources.canonical(experiment.init_from)
    return fields


def standing(checkpoint: str) -> tuple[int, int]:
    """Returns (index of the stage, steps of this stage that are done) of a checkpoint."""
    reader = tf.train.load_checkpoint(files.for_tensorflow(checkpoint))
    stage, step = (int(reader.get_tensor(name + _VALUE)) for name in ("stage_index", "stage_step"))
    return stage, step


def refusal(there: Experiment, asked: Experiment, newest: str | None) -> str:
    """Returns the reason why the lengths of stages cannot change; "" if they can.

    The length of a stage that has not begun is free. The stage that the run is in can be lengthened
    if its learning rate and its temperature do not depend on its length.

    Args:
      there: the experiment of the run.
      asked: the requested experiment, which differs only in numbers of steps.
      newest: the run's newest checkpoint; None if it has none.
    """
    at, done = standing(newest) if newest else (-1, 0)
    for index, name in enumerate(there.stages):
        field = f"{name}_steps"
        before, after = getattr(there, field), getattr(asked, field)
        if before == after or index > at:
            continue
        change = f"{field} cannot change from {before} to {after}"
        if index < at:
            return f"{change}: the run is past stage {name}"
        if after < done:
            return f"{change}: {done} steps of stage {name} are done"
        if getattr(there, f"{name}_schedule") not in _ENDLESS:
            schedule = getattr(there, f"{name}_schedule")
            return (
                f"{change}: the {schedule} schedule of stage {name} depends on its length; only a"
                " stage with a constant schedule can be lengthened"
            )
        if there.all_stages()[index].plan.annealed:
            return f"{change}: the temperature of stage {name} depends on its length"
    return ""


def where_it_stands(run_dir: str, total: int, newest: str | None) -> str:
    """Returns one line on how far a run has come.

    Args:
      run_dir: the run's folder.
      total: number of steps of all its stages.
      newest: its newest checkpoint; None if it has none.
    """
    if newest is None:
        return f"{run_dir} has no checkpoint yet; run the same command to start it again"
    number = re.search(r"(\d+)$", newest)
    assert number is not None  # a checkpoint's name ends with its step
    step = int(number[1])
    return f"{run_dir} is at step {step} of {total}; run the same command again to resume"
