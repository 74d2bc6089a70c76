"""Curves and BD-rates of a sweep.

With several seeds, each seed has its own curve and BD-rate. If the anchor is a cell of the sweep,
it is that cell's curve with the same seed.

A model for a range of rates is a curve of its own: its points are at several qualities instead of
several lmbdas.

A picture that any run decodes without an error is in no mean of its set, as in `eval.py`. A curve
of which a run has failed has no BD-rate. Nor has a curve whose points, or whose anchor, are means
over other pictures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path

from tfquant.evaluation import curves, paper_tables, sweep_results
from tfquant.evaluation.curves import Curve, Point
from tfquant.evaluation.sweep import STAGES, Grid, Pictures, Run, name
from tfquant.evaluation.sweep_results import Mean
from tfquant.names import first_few

_OTHER = "not the paper's setting: "
_FEW = 3  # settings that a cell of a table lists


@dataclasses.dataclass(frozen=True)
class Row:
    """A cell on one set of pictures, or on the average of all sets.

    Attributes:
      cell: map from flag to value.
      pictures: the name of the set, or `paper_tables.AVERAGE`.
      bd: map from stage to the BD-rate of each seed in percent, None if it is undefined.
      failed: the stages without BD-rate of some seed because a run has failed.
      paper: map from stage to the paper's BD-rates as text, or to the settings that are not the
        paper's; empty if the paper does not have the method.
      points: map from stage to {lmbda or quality: point of the mean curve}; empty for an average.
    """

    cell: dict[str, str]
    pictures: str
    bd: dict[str, list[float | None]]
    failed: Collection[str]
    paper: dict[str, str]
    points: dict[str, dict[str, Point]]


class Sweep:
    """Curves of a sweep, their BD-rates, and notes about those that have none.

    The arguments are those of `sweep_table.summarize`.
    """

    def __init__(
        self,
        folder: Path,
        grid: Grid,
        pictures: Sequence[Pictures],
        anchors: dict[str, Curve],
        method: str,
        failed: Collection[Run],
    ):
        self.grid, self.pictures, self.method = grid, pictures, method
        self.results, self.notes = sweep_results.read(folder, grid, pictures, failed)
        self.anchors = {
            title: dataclasses.replace(curve, pictures=self._all_pictures(title))
            for title, curve in anchors.items()
        }
        self.seeds = grid.seeds or ("",)

    def _all_pictures(self, pictures: str) -> tuple[str, ...]:
        """Returns the names of all pictures of a set that any run has measured."""
        means = [
            mean
            for result in self.results
            for stage in STAGES
            for mean in result.stage(stage).means.get(pictures, {}).values()
        ]
        return tuple(sorted({name for mean in means for name in mean.pictures}))

    def at(self, cell: dict[str, str], lmbda: str) -> list[sweep_results.Result]:
        """Returns the chosen results of a cell at an lmbda, one for each seed that has one."""
        return [r for r in self._candidates(cell, lmbda) if r.chosen]

    def _candidates(self, cell: dict[str, str], lmbda: str) -> list[sweep_results.Result]:
        return [r for r in self.results if r.run.cell == cell and r.run.lmbda == lmbda]

    def failed(self, cell: dict[str, str], lmbda: str, seed: str | None = None) -> bool:
        """Returns true if a result of a cell at an lmbda is missing because its run has failed.

        If alpha is chosen, that is so if no candidate is left and one of them has failed.
        """
        places: dict[str, list[sweep_results.Result]] = {}
        for result in self._candidates(cell, lmbda):
            if seed in (None, result.run.seed):
                places.setdefault(result.run.seed, []).append(result)
        for found in places.values():
            chosen = [result for result in found if result.chosen] or found
            if any(result.failed for result in chosen):
                return True
        return False

    def means(
        self, cell: dict[str, str], stage: str, pictures: str, seed: str | None = None
    ) -> dict[str, list[Mean]]:
        """Returns lmbda, or quality of a model for a range of rates -> mean of each seed."""
        found: dict[str, list[Mean]] = {}
        for lmbda in self.grid.lmbdas:
            for result in self.at(cell, lmbda):
                if seed in (None, result.run.seed):
                    for quality, mean in result.stage(stage).means.get(pictures, {}).items():
                        label = f"q{quality}" if quality else lmbda
                        found.setdefault(label, []).append(mean)
        return found

    def points(
        self, cell: dict[str, str], stage: str, pictures: str, seed: str | None = None
    ) -> dict[str, Point]:
        """Returns the points of a seed, or means over all seeds, with the keys of `means`."""
        return {
            label: mean_point([mean.point for mean in means])
            for label, means in self.means(cell, stage, pictures, seed).items()
        }

    def curve(
        self, cell: dict[str, str], stage: str, pictures: str, seed: str | None = None
    ) -> Curve:
        """Returns the curve of a seed, or the mean curve of all seeds."""
        means = [m for each in self.means(cell, stage, pictures, seed).values() for m in each]
        names = tuple(sorted({name for mean in means for name in mean.pictures}))
        points = tuple(self.points(cell, stage, pictures, seed).values())
        return Curve(f"{name(cell)}, {stage}", "model", points, cell.get("plan", ""), names)

    def anchor(self, pictures: str, seed: str | None = None) -> Curve:
        """Returns the curve with which BD-rates compare."""
        if pictures in self.anchors:
            return self.anchors[pictures]
        return self.curve(self.grid.cells()[0], STAGES[0], pictures, seed)

    def bd_rate(
        self, cell: dict[str, str], stage: str, pictures: str, seed: str
    ) -> tuple[float | None, str, bool]:
        """Returns (BD-rate in percent or None, reason why there is none, true if a run of the curve
        has failed).
        """
        compared = [(cell, stage)]
        if pictures not in self.anchors:
            compared.append((self.grid.cells()[0], STAGES[0]))
        for number, (each, of_stage) in enumerate(compared):
            title = f"{name(each)}, {of_stage}"
            lost = self._lost(each, of_stage, pictures, seed)
            if lost:
                return None, f"{title}: failed at lmbda {', '.join(lost)}", number == 0
            sets = {
                m.pictures for m in sum(self.means(each, of_stage, pictures, seed).values(), [])
            }
            if len(sets - {()}) > 1:
                counts = ", ".join(str(count) for count in sorted(map(len, sets - {()})))
                return None, f"{title}: the points are means over other pictures ({counts})", False
        curve = self.curve(cell, stage, pictures, seed)
        bd = curves.bd_rate(self.anchor(pictures, seed), curve, "psnr", self.method)
        return bd.percent, bd.note if curve.points else "", False

    def _lost(self, cell: dict[str, str], stage: str, pictures: str, seed: str) -> list[str]:
        """Returns the lmbdas without point because a run has failed."""
        found = []
        for lmbda in self.grid.lmbdas:
            results = [r for r in self.at(cell, lmbda) if r.run.seed == seed]
            if not any(r.stage(stage).means.get(pictures) for r in results):
                found += [lmbda] if self.failed(cell, lmbda, seed) else []
        return found

    def bd_rates(
        self, cell: dict[str, str], stage: str, pictures: str
    ) -> tuple[list[float | None], bool]:
        """Returns the BD-rate of each seed in percent, and true if one is missing because a run has
        failed. Adds a note for each that is None.
        """
        rates, failed = [], False
        for seed in self.seeds:
            percent, note, lost = self.bd_rate(cell, stage, pictures, seed)
            if note:
                where = [pictures] if len(self.pictures) > 1 else []
                where += [f"seed {seed}"] if seed else []
                self.notes.append(": ".join([*where, note]))
            rates.append(percent)
            failed = failed or lost
        return rates, failed

    def rows(self, cell: dict[str, str]) -> list[Row]:
        """Returns the rows of a cell: one for each set of pictures, and their average."""
        single, rows = len(self.pictures) == 1, []
        for each in self.pictures:
            title = each.name.lower()
            names = {title, *([""] if single else [])} if title in paper_tables.SETS else set()
            found = {stage: self.bd_rates(cell, stage, each.name) for stage in STAGES}
            rows.append(
                Row(
                    cell,
                    each.name,
                    {stage: rates for stage, (rates, _) in found.items()},
                    {stage for stage, (_, failed) in found.items() if failed},
                    self._paper(cell, names),
                    {stage: self.points(cell, stage, each.name) for stage in STAGES},
                )
            )
        if not single:
            bd = {s: [_mean(each) for each in zip(*(row.bd[s] for row in rows))] for s in STAGES}
            failed = {stage for row in rows for stage in row.failed}
            same = {each.name.lower() for each in self.pictures} == set(paper_tables.SETS)
            paper = self._paper(cell, {paper_tables.AVERAGE, ""} if same else set())
            points: dict[str, dict[str, Point]] = {stage: {} for stage in STAGES}
            rows.append(Row(cell, paper_tables.AVERAGE, bd, failed, paper, points))
        return rows

    def _paper(self, cell: dict[str, str], images: Collection[str]) -> dict[str, str]:
        """Returns the attribute `paper` of a row; empty if a run of the cell is not known."""
        points = [[r.experiment for r in self.at(cell, lmbda)] for lmbda in self.grid.lmbdas]
        known = [each for experiments in points for each in experiments if each is not None]
        if not all(points) or len(known) < sum(map(len, points)):
            known = []
        beside = paper_tables.beside(known, map(float, self.grid.lmbdas), images)
        return {
            stage: _numbers(beside.rows, stage)
            or (_OTHER + first_few(beside.differing, _FEW) if beside.differing else "")
            for stage in STAGES
        }


def mean_point(points: Sequence[Point]) -> Point:
    """Returns means over seeds of a point's rate and qualities."""
    return Point(
        sum(point.bpp for point in points) / len(points),
        **{key: _mean([getattr(point, key) for point in points]) for key in curves.METRICS},
        ms_ssim_bpp=_mean([point.rate("ms_ssim_db") for point in points]),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    """Returns the mean over seeds or sets; None if one lacks the value."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _numbers(published: Sequence[paper_tables.Published], stage: str) -> str:
    """Returns text such as `-9.89 (VI, VII)`: numbers with their tables."""
    tables: dict[float, list[str]] = {}
    for row in published:
        tables.setdefault(getattr(row, stage), []).append(row.table)
    return "; ".join(f"{v:.2f} ({', '.join(where)})" for v, where in tables.items())
