"""Tables and plots of a sweep.

    table.csv  a row for each cell and set of pictures: BD-rates, and bpp and PSNR at each lmbda
    runs.csv   a row for each run: its flags, its costs, and bpp and PSNR on each set of pictures
    table.md   both tables for reading
    rd.png     the curves on the first set; `rd_NAME.png` has those on another set

With several sets, a cell has an additional row, `average`, with the mean of its BD-rates on all
sets.

With several seeds, each seed has its own curve and BD-rate. If the anchor is a cell of the sweep,
it is that cell's curve with the same seed. The tables have the mean with an interval, see
`estimate`.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfquant import markdown
from tfquant.evaluation import curves, estimate, paper_tables, plots, report, sweep_results
from tfquant.evaluation.curves import Curve, Point
from tfquant.evaluation.estimate import Estimate
from tfquant.evaluation.sweep import STAGES, Grid, Pictures, name

_COSTS = ("J", "surrogate_J")
_ABOUT_COSTS = (
    "J is R + lmbda D under rounding, on the validation pictures at the end of the stage. J~ is the"
    " same under the surrogates of joint training; post-training trains on rounding."
)
_ABOUT_CHOICE = (
    "alpha_max is that of the lowest J after post-training, at each lmbda and for each seed. Each J"
    " after post-training, the lowest in bold:"
)


@dataclasses.dataclass(frozen=True)
class Row:
    """A cell on one set of pictures, or on the average of all sets.

    Attributes:
      cell: map from flag to value.
      pictures: the name of the set, or `paper_tables.AVERAGE`.
      bd: map from stage to the BD-rate of each seed in percent, None if it is undefined.
      paper: map from stage to the paper's BD-rates as text, empty if there is none.
      points: map from stage to {lmbda: point of the mean curve}; empty for an average.
    """

    cell: dict[str, str]
    pictures: str
    bd: dict[str, list[float | None]]
    paper: dict[str, str]
    points: dict[str, dict[str, Point]]


class _Sweep:
    """Data of a sweep and values derived from them."""

    def __init__(
        self,
        folder: Path,
        grid: Grid,
        pictures: Sequence[Pictures],
        anchors: dict[str, Curve],
        method: str,
    ):
        self.folder, self.grid, self.pictures, self.method = folder, grid, pictures, method
        self.results = sweep_results.read(folder, grid, pictures)
        self.anchors = anchors
        self.seeds = grid.seeds or ("",)
        self.notes: list[str] = []

    def at(self, cell: dict[str, str], lmbda: str) -> list[sweep_results.Result]:
        """Returns the chosen results of a cell at an lmbda, one for each seed."""
        found = [r for r in self.results if r.run.cell == cell and r.run.lmbda == lmbda]
        return [result for result in found if result.chosen]

    def points(
        self, cell: dict[str, str], stage: str, pictures: str, seed: str | None = None
    ) -> dict[str, Point]:
        """Returns lmbda -> point of a seed, or mean over all seeds, where there is a report."""
        points = {}
        for lmbda in self.grid.lmbdas:
            found = [r for r in self.at(cell, lmbda) if seed in (None, r.run.seed)]
            reported = [r.stage(stage).means.get(pictures) for r in found]
            means = [point for point in reported if point is not None]
            if means:
                points[lmbda] = _mean_point(means)
        return points

    def curve(
        self, cell: dict[str, str], stage: str, pictures: str, seed: str | None = None
    ) -> Curve:
        """Returns the curve of a seed, or the mean curve of all seeds."""
        points = tuple(self.points(cell, stage, pictures, seed).values())
        return Curve(f"{name(cell)}, {stage}", "model", points, cell.get("plan", ""))

    def anchor(self, pictures: str, seed: str | None = None) -> Curve:
        """Returns the curve with which BD-rates compare."""
        if pictures in self.anchors:
            return self.anchors[pictures]
        return self.curve(self.grid.cells()[0], STAGES[0], pictures, seed)

    def bd_rates(self, cell: dict[str, str], stage: str, pictures: str) -> list[float | None]:
        """Returns the BD-rate of each seed in percent, and adds a note for each that is None."""
        rates = []
        for seed in self.seeds:
            curve = self.curve(cell, stage, pictures, seed)
            bd = curves.bd_rate(self.anchor(pictures, seed), curve, "psnr", self.method)
            if bd.percent is None and curve.points:
                where = [pictures] if len(self.pictures) > 1 else []
                where += [f"seed {seed}"] if seed else []
                self.notes.append(": ".join([*where, bd.note]))
            rates.append(bd.percent)
        return rates

    def rows(self, cell: dict[str, str]) -> list[Row]:
        """Returns the rows of a cell: one for each set of pictures, and their average."""
        trained = [r.experiment for lmbda in self.grid.lmbdas for r in self.at(cell, lmbda)]
        published = paper_tables.find(filter(None, trained))
        single, rows = len(self.pictures) == 1, []
        for each in self.pictures:
            rows.append(
                Row(
                    cell,
                    each.name,
                    {stage: self.bd_rates(cell, stage, each.name) for stage in STAGES},
                    _paper(published, {each.name.lower(), *([""] if single else [])}),
                    {stage: self.points(cell, stage, each.name) for stage in STAGES},
                )
            )
        if not single:
            bd = {s: [_mean(each) for each in zip(*(row.bd[s] for row in rows))] for s in STAGES}
            paper = _paper(published, {paper_tables.AVERAGE, ""})
            rows.append(Row(cell, paper_tables.AVERAGE, bd, paper, {s: {} for s in STAGES}))
        return rows


def _mean_point(points: Sequence[Point]) -> Point:
    """Returns means over seeds of a point's rate and qualities."""
    return Point(
        sum(point.bpp for point in points) / len(points),
        **{key: _mean([getattr(point, key) for point in points]) for key in curves.METRICS},
    )


def _mean(values: Sequence[float | None]) -> float | None:
    """Returns the mean over seeds or sets; None if one lacks the value."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def summarize(
    folder: Path,
    grid: Grid,
    pictures: Sequence[Pictures],
    anchors: dict[str, Curve],
    method: str,
) -> str:
    """Writes the tables and plots into the folder of the sweep and returns `table.md`.

    Args:
      folder: folder of the sweep. Missing results are a dash in the tables.
      grid: its grid.
      pictures: the sets of `sweep.Pictures`.
      anchors: map from the name of a set to the curve with which BD-rates compare. For other sets,
        it is the first cell after joint training.
      method: interpolation, see `curves.METHODS`.
    """
    whole = _Sweep(folder, grid, pictures, anchors, method)
    rows = [row for cell in grid.cells() for row in whole.rows(cell)]
    _write_csv(folder / "table.csv", [_flat_row(whole, row) for row in rows])
    _write_csv(folder / "runs.csv", [_flat_run(whole.grid, result) for result in whole.results])
    text = _markdown(whole, rows)
    (folder / "table.md").write_text(text, encoding="utf-8")
    for each in pictures:
        drawn = [whole.curve(cell, stage, each.name) for cell in grid.cells() for stage in STAGES]
        drawn = [curve for curve in drawn if curve.points]
        if drawn:
            drawn += [anchors[each.name]] if each.name in anchors else []
            plot = "rd.png" if each is pictures[0] else f"rd_{each.name}.png"
            plots.plot_rd(drawn, folder / plot, f"A grid of experiments, {each.name}")
    return text


def _paper(published: Sequence[paper_tables.Published], names: set[str]) -> dict[str, str]:
    """Returns stage -> text such as `-9.89 (VI, VII)`: numbers with their tables, by pictures'
    names.
    """
    texts = {}
    for stage in STAGES:
        tables: dict[float, list[str]] = {}
        for row in published:
            if row.images in names:
                tables.setdefault(getattr(row, stage), []).append(row.table)
        texts[stage] = "; ".join(f"{v:.2f} ({', '.join(where)})" for v, where in tables.items())
    return texts


def _flat_row(whole: _Sweep, row: Row) -> dict[str, Any]:
    flat: dict[str, Any] = {
        **row.cell,
        **({"images": row.pictures} if len(whole.pictures) > 1 else {}),
    }
    for stage in STAGES:
        found = Estimate.of(row.bd[stage])
        flat[f"bd_rate_{stage}"] = found and found.mean
        if whole.grid.seeds:
            flat[f"bd_rate_{stage}_low"] = found and found.low
            flat[f"bd_rate_{stage}_high"] = found and found.high
            flat[f"bd_rate_{stage}_seeds"] = found.count if found else 0
        flat[f"paper_{stage}"] = row.paper[stage]
        for lmbda, point in row.points[stage].items():
            flat[f"bpp_{stage}_{lmbda}"] = point.bpp
            flat[f"psnr_{stage}_{lmbda}"] = point.psnr
    return flat


def _flat_run(grid: Grid, result: sweep_results.Result) -> dict[str, Any]:
    run = result.run
    flat: dict[str, Any] = {**run.cell, "lmbda": run.lmbda, **grid.followed(run.lmbda)}
    flat.update({"seed": run.seed} if grid.seeds else {})
    flat.update({"alpha_max": run.alpha, "chosen": result.chosen} if grid.alphas else {})
    for stage in STAGES:
        measured = result.stage(stage)
        flat.update({f"{key}_{stage}": getattr(measured, key) for key in _COSTS})
        for pictures, point in measured.means.items():
            flat[f"bpp_{stage}_{pictures}"] = point.bpp
            flat[f"psnr_{stage}_{pictures}"] = point.psnr
    return flat


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def _markdown(whole: _Sweep, rows: Sequence[Row]) -> str:
    parts = [_bd_table(whole, rows), _about_bd_rates(whole)]
    if whole.notes:
        parts.append("\n".join(f"- {note}" for note in dict.fromkeys(whole.notes)))
    parts += [_point_table(whole), _ABOUT_COSTS]
    if whole.grid.alphas:
        parts += [_ABOUT_CHOICE, _choice_table(whole)]
    if whole.grid.seeds:
        same = "" if whole.anchors else " Each is compared with the same seed of the anchor."
        parts.append(f"Seeds {', '.join(whole.grid.seeds)}. {estimate.MEANING}{same}")
    return "\n\n".join(parts) + "\n"


def _about_bd_rates(whole: _Sweep) -> str:
    anchors = dict.fromkeys(whole.anchor(each.name).name for each in whole.pictures)
    ours = "" if whole.anchors else ", ours are not"
    nameless = " Numbers on pictures that its table does not name stand beside the average."
    nameless = nameless if len(whole.pictures) > 1 else ""
    return (
        f"BD-rate of PSNR against {', '.join(anchors)}; below 0 is better. The paper is"
        f" arXiv 2309.17051, with the number of its table. Its BD-rates are against BPG"
        f"{ours}.{nameless}"
    )


def _bd_table(whole: _Sweep, rows: Sequence[Row]) -> str:
    several = len(whole.pictures) > 1
    head = [*whole.grid.axes, *(["pictures"] if several else [])]
    for stage in STAGES:
        head += [f"BD-rate {stage} [%]", "paper"]
    body = []
    for row in rows:
        cells = [*row.cell.values(), *([row.pictures] if several else [])]
        for stage in STAGES:
            cells += [_text(row.bd[stage], 1), row.paper[stage] or "-"]
        body.append(cells)
    return markdown.table(head, body)


def _point_table(whole: _Sweep) -> str:
    grid = whole.grid
    head = [
        *grid.axes,
        "lmbda",
        *grid.follow,
        *["alpha_max"] * bool(grid.alphas),
        "joint J",
        "joint J~",
        "post J",
    ]
    for each in whole.pictures:
        head += [f"{each.name} {stage}: bpp, dB" for stage in STAGES]
    body = []
    for cell in grid.cells():
        for lmbda in grid.lmbdas:
            found = whole.at(cell, lmbda)
            cells = [*cell.values(), lmbda, *grid.followed(lmbda).values()]
            if grid.alphas:
                alphas = [result.run.alpha or "-" for result in found]
                cells.append(", ".join(alphas if len(set(alphas)) > 1 else alphas[:1]) or "-")
            cells.append(_text([result.joint.J for result in found], 4))
            cells.append(_text([result.joint.surrogate_J for result in found], 4))
            cells.append(_text([result.post.J for result in found], 4))
            for each in whole.pictures:
                for stage in STAGES:
                    point = whole.points(cell, stage, each.name).get(lmbda)
                    bpp, psnr = (None, None) if point is None else (point.bpp, point.psnr)
                    cells.append(f"{report.number(bpp, 4)}, {report.number(psnr, 2)}")
            body.append(cells)
    return markdown.table(head, body)


def _choice_table(whole: _Sweep) -> str:
    grid = whole.grid
    seed = ["seed"] * bool(grid.seeds)
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for result in whole.results:
        run = result.run
        if run.alpha:
            place = (*run.cell.values(), run.lmbda, *([run.seed] if seed else []))
            J = report.number(result.post.J, 4)
            rows.setdefault(place, {})[run.alpha] = f"**{J}**" if result.chosen else J
    head = [*grid.axes, "lmbda", *seed, *(f"alpha_max {alpha}" for alpha in grid.alphas)]
    return markdown.table(head, [[*place, *costs.values()] for place, costs in rows.items()])


def _text(values: Sequence[float | None], decimals: int) -> str:
    """Returns the mean over seeds with its interval, and the number of values if some are
    missing.
    """
    found = Estimate.of(values)
    if found is None:
        return "-"
    missing = f" ({found.count} of {len(values)})" if found.count < len(values) else ""
    return found.text(decimals) + missing
