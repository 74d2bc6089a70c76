"""What the runs of a sweep have measured so far, read from their folders."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

from tfquant.evaluation import report
from tfquant.evaluation.sweep import STAGES, Grid, Pictures, Run, name
from tfquant.training import folder as run_folder
from tfquant.training import history
from tfquant.training.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class Measured:
    """A stage of a run.

    Attributes:
      J: R + lmbda D under rounding, on the validation pictures at the stage's end; None: not there.
      surrogate_J: the same under the stage's surrogates.
      means: name of a set of pictures -> the means of its report, where there is one.
    """

    J: float | None
    surrogate_J: float | None
    means: dict


@dataclasses.dataclass(frozen=True)
class Result:
    """A run.

    Attributes:
      run: the run.
      joint, post: its stages.
      experiment: what its joint stage trained; None where this version cannot read it.
      chosen: whether it stands for its cell at its lmbda and seed.
    """

    run: Run
    joint: Measured
    post: Measured
    experiment: Experiment | None
    chosen: bool = True

    def stage(self, name: str) -> Measured:
        """The stage of that name."""
        return {"joint": self.joint, "post": self.post}[name]


def read(sweep: Path, grid: Grid, pictures) -> list:
    """The results of all runs of the grid, in its order.

    Among runs that differ in alpha alone, the one with the lowest J after post-training is chosen;
    none, if none has come so far.

    Args:
      sweep: the folder of the sweep.
      grid: its grid.
      pictures: the sets of `Pictures`.
    """
    results = [_read_run(run, run.folder(sweep), pictures) for run in grid.runs()]
    best = {}
    for result in results:
        if not result.run.alpha:
            continue
        place, J = _place(result.run), result.post.J
        if J is not None and math.isfinite(J) and (place not in best or J < best[place].post.J):
            best[place] = result
    return [
        dataclasses.replace(r, chosen=not r.run.alpha or r is best.get(_place(r.run)))
        for r in results
    ]


def _place(run: Run) -> tuple:
    """What runs have in common that a choice is made among."""
    return name(run.cell), run.lmbda, run.seed


def _read_run(run: Run, folder: Path, pictures: list[Pictures]) -> Result:
    means = {}
    for each in pictures:
        path = folder / each.folder / report.JSON
        if path.exists():
            for model in json.loads(path.read_text(encoding="utf-8"))["models"]:
                means.setdefault(model["name"], {})[each.name] = model["mean"]
    measured = {}
    for stage in STAGES:
        records = [r for r in history.read(str(folder / stage)) if r["stage"] == stage]
        last = records[-1] if records else {}
        measured[stage] = Measured(last.get("J"), last.get("surrogate_J"), means.get(stage, {}))
    try:
        experiment = run_folder.read_experiment(str(folder / STAGES[0]))
    except ValueError:  # not begun, or by another version of tfquant
        experiment = None
    return Result(run, **measured, experiment=experiment)
