"""Results of the runs of a sweep, read from their folders."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path

from tfquant.evaluation import report
from tfquant.evaluation.curves import Point
from tfquant.evaluation.sweep import STAGES, Grid, Pictures, Run, name
from tfquant.training import folder as run_folder
from tfquant.training import history
from tfquant.training.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class Measured:
    """Results of a stage of a run.

    Attributes:
      J: R + lmbda D under rounding, on the validation pictures at the stage's end; None if missing.
      surrogate_J: the same cost under the stage's surrogates.
      means: map from the name of a set of pictures to the point in its report, if there is one.
    """

    J: float | None
    surrogate_J: float | None
    means: dict[str, Point]


@dataclasses.dataclass(frozen=True)
class Result:
    """Results of a run.

    Attributes:
      run: the run.
      joint, post: its stages.
      experiment: the experiment of its joint stage; None if this version cannot read it.
      chosen: true if the run represents its cell at its lmbda and seed.
    """

    run: Run
    joint: Measured
    post: Measured
    experiment: Experiment | None
    chosen: bool = True

    def stage(self, name: str) -> Measured:
        """Returns the stage with the given name."""
        return {"joint": self.joint, "post": self.post}[name]


def read(sweep: Path, grid: Grid, pictures: Sequence[Pictures]) -> list[Result]:
    """Returns the results of all runs of the grid, in its order.

    Among runs that differ only in alpha, the one with the lowest J after post-training is chosen.
    None of them is chosen if none has a result yet.

    Args:
      sweep: the folder of the sweep.
      grid: its grid.
      pictures: the sets of `Pictures`.
    """
    results = [_read_run(run, run.folder(sweep), pictures) for run in grid.runs()]
    best: dict[tuple[str, str, str], tuple[float, Result]] = {}
    for result in results:
        if not result.run.alpha:
            continue
        place, J = _place(result.run), result.post.J
        if J is not None and math.isfinite(J) and (place not in best or best[place][0] > J):
            best[place] = J, result
    chosen = {id(result) for _, result in best.values()}
    return [dataclasses.replace(r, chosen=not r.run.alpha or id(r) in chosen) for r in results]


def _place(run: Run) -> tuple[str, str, str]:
    """Returns the key that runs share among which one is chosen."""
    return name(run.cell), run.lmbda, run.seed


def _read_run(run: Run, folder: Path, pictures: Sequence[Pictures]) -> Result:
    means: dict[str, dict[str, Point]] = {}
    for each in pictures:
        path = folder / each.folder / report.JSON
        if path.exists():
            for model in json.loads(path.read_text(encoding="utf-8"))["models"]:
                mean = model["mean"]
                point = Point(mean["bpp"], mean["psnr"], mean.get("ms_ssim_db"))
                means.setdefault(model["name"], {})[each.name] = point
    measured = {}
    for stage in STAGES:
        records = [r for r in history.read(str(folder / stage)) if r["stage"] == stage]
        last = records[-1] if records else {}
        measured[stage] = Measured(last.get("J"), last.get("surrogate_J"), means.get(stage, {}))
    try:
        experiment = run_folder.read_experiment(str(folder / STAGES[0]))
    except ValueError:  # not started, or made by another version of tfquant
        experiment = None
    return Result(run, measured["joint"], measured["post"], experiment)
