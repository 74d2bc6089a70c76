"""Results of the runs of a sweep, read from their folders."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tfquant.evaluation import measure
from tfquant.evaluation.curves import Point
from tfquant.evaluation.results import Measurement
from tfquant.evaluation.sweep import STAGES, Grid, Pictures, Run, has_ended, name
from tfquant.names import first_few
from tfquant.training import folder as run_folder
from tfquant.training import history
from tfquant.training.experiment import Experiment

_NAME = re.compile(rf"({'|'.join(STAGES)})(?:_q.+)?")
_FEW = 5  # pictures that a note lists


class Mean(NamedTuple):
    """A mean over a set of pictures.

    Attributes:
      point: its rate and qualities.
      pictures: names of the pictures; empty if they are unknown.
    """

    point: Point
    pictures: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Measured:
    """Results of a stage of a run.

    Attributes:
      J: R + lmbda D under rounding, on the validation pictures at the stage's end; None if missing,
        also if the stage did not reach its end.
      surrogate_J: the same cost under the stage's surrogates.
      means: map from the name of a set of pictures to {quality: mean} with the content of its
        report. The quality has at most two decimals; it is "" for a model with one rate.
      unfinished: true if the stage was started and did not reach its end.
    """

    J: float | None
    surrogate_J: float | None
    means: dict[str, dict[str, Mean]]
    unfinished: bool = False


@dataclasses.dataclass(frozen=True)
class Result:
    """Results of a run.

    Attributes:
      run: the run.
      joint, post: its stages.
      experiment: the experiment of its joint stage; None if this version cannot read it.
      failed: true if a program of the run has failed, or a stage is unfinished.
      chosen: true if the run represents its cell at its lmbda and seed.
    """

    run: Run
    joint: Measured
    post: Measured
    experiment: Experiment | None
    failed: bool = False
    chosen: bool = True

    def stage(self, name: str) -> Measured:
        """Returns the stage with the given name."""
        return {"joint": self.joint, "post": self.post}[name]


class _Model(NamedTuple):
    """Measurements of a model on a set of pictures.

    Attributes:
      stage: the stage after which it was exported.
      quality: its quality, as in `Measured.means`.
      images: its measurements.
    """

    stage: str
    quality: str
    images: list[Measurement]


def read(
    sweep: Path, grid: Grid, pictures: Sequence[Pictures], failed: Collection[Run] = ()
) -> tuple[list[Result], list[str]]:
    """Returns the results of all runs of the grid, in its order, and notes about left out pictures.

    A picture that a run decodes without any error has no finite PSNR. The means of all runs leave
    it out.

    Among runs that differ only in alpha, the one with the lowest J after post-training is chosen. A
    failed run is never chosen. If no run has a result, none of them is chosen.

    Args:
      sweep: the folder of the sweep.
      grid: its grid.
      pictures: the sets of `Pictures`.
      failed: runs of which a program has failed.
    """
    runs = grid.runs()
    means: list[dict[str, dict[str, dict[str, Mean]]]] = [{s: {} for s in STAGES} for _ in runs]
    notes = []
    for each in pictures:
        models = [_models(each.report(run.folder(sweep))) for run in runs]
        exact = measure.identical(
            {str(run): [model.images for model in found] for run, found in zip(runs, models)}
        )
        for of_run, found in zip(means, models):
            for model in found:
                of_stage = of_run[model.stage].setdefault(each.name, {})
                of_stage[model.quality] = _mean(model.images, exact)
        if exact:
            where = first_few([f"{picture}: {by}" for picture, by in exact.items()], _FEW)
            notes.append(
                f"{each.name}: the means leave out {len(exact)} pictures that a run decodes without"
                f" any error ({where})"
            )
    results = [
        _read_run(run, run.folder(sweep), of_run, run in failed) for run, of_run in zip(runs, means)
    ]
    best: dict[tuple[str, str, str], tuple[float, Result]] = {}
    for result in results:
        if not result.run.alpha or result.failed:
            continue
        place, J = _place(result.run), result.post.J
        if J is not None and math.isfinite(J) and (place not in best or best[place][0] > J):
            best[place] = J, result
    chosen = {id(result) for _, result in best.values()}
    results = [dataclasses.replace(r, chosen=not r.run.alpha or id(r) in chosen) for r in results]
    return results, notes


def _place(run: Run) -> tuple[str, str, str]:
    """Returns the key that runs share among which one is chosen."""
    return name(run.cell), run.lmbda, run.seed


def _models(report: dict[str, Any] | None) -> list[_Model]:
    """Returns the models of a report. Other names than those of a sweep's stages are skipped."""
    found = []
    for model in [] if report is None else report["models"]:
        name_ = _NAME.fullmatch(model["name"])
        if name_:
            # Names of earlier versions have the quality with two decimals, present ones with three.
            quality = model.get("quality")
            key = "" if quality is None else f"{round(quality, 2):g}"
            images = [Measurement(**image) for image in model["images"]]
            found.append(_Model(name_[1], key, images))
    return found


def _read_run(
    run: Run, folder: Path, means: dict[str, dict[str, dict[str, Mean]]], failed: bool
) -> Result:
    try:
        experiment = run_folder.read_experiment(str(folder / STAGES[0]))
    except ValueError:  # not started, or made by another version of tfquant
        experiment = None
    measured = {stage: _read_stage(folder / stage, failed, means[stage]) for stage in STAGES}
    failed = failed or any(stage.unfinished for stage in measured.values())
    return Result(run, measured["joint"], measured["post"], experiment, failed)


def _read_stage(folder: Path, failed: bool, means: dict[str, dict[str, Mean]]) -> Measured:
    """Returns the results of a stage. Its last record counts only if the stage has ended."""
    records = [r for r in history.read(str(folder)) if r["stage"] == folder.name]
    unfinished = (failed or bool(records)) and not has_ended(folder)
    last = records[-1] if records and not unfinished else {}
    return Measured(last.get("J"), last.get("surrogate_J"), means, unfinished)


def _mean(images: Sequence[Measurement], left_out: Collection[str]) -> Mean:
    """Returns the means over the pictures of a model, except for those that are left out."""
    kept = sorted(image.name for image in images if image.name not in left_out)
    return Mean(Point.of(images, left_out), tuple(kept))
