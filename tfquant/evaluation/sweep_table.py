"""The tables and plots of a sweep.

    table.csv  a row for each cell and set of pictures: BD-rates, and bpp and PSNR at each lmbda
    runs.csv   a row for each run: its flags, its costs, and bpp and PSNR on each set of pictures
    table.md   both for reading
    rd.png     the curves on the first set; `rd_NAME.png` are those on the others

With several sets, a cell has one more row, `average`: the mean of its BD-rates on all of them.
"""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

from tfquant.evaluation import curves, paper_tables, plots, report, sweep_results
from tfquant.evaluation.sweep import STAGES, Grid, name

_COSTS = ("J", "surrogate_J")
_ABOUT_COSTS = (
    "J is R + lmbda D under rounding, on the validation pictures at the end of the stage. J~ is the"
    " same under the surrogates of joint training; post-training trains on rounding."
)


@dataclasses.dataclass(frozen=True)
class Row:
    """A cell on one set of pictures, or on the average of all sets.

    Attributes:
      cell: flag -> value.
      pictures: the name of the set, or `paper_tables.AVERAGE`.
      bd: stage -> BD-rate in percent, or None.
      paper: stage -> the paper's BD-rates as text, empty where it has none.
      points: stage -> the points of the curve; empty for an average.
    """

    cell: dict
    pictures: str
    bd: dict
    paper: dict
    points: dict


class _Sweep:
    """All that is known of a sweep, and what is derived from it."""

    def __init__(self, folder: Path, grid: Grid, pictures, anchors: dict, method: str):
        self.folder, self.grid, self.pictures, self.method = folder, grid, pictures, method
        self.results = sweep_results.read(folder, grid, pictures)
        self.anchors = anchors
        self.notes = []

    def of(self, cell: dict) -> list:
        """The results that make a cell's curves, one for each lmbda."""
        return [result for result in self.results if result.run.cell == cell]

    def curve(self, cell: dict, stage: str, pictures: str) -> curves.Curve:
        points = []
        for result in self.of(cell):
            mean = result.stage(stage).means.get(pictures)
            points += [{**mean, "lmbda": result.run.lmbda}] if mean else []
        title = f"{name(cell)}, {stage}"
        return curves.Curve(title, "model", tuple(points), cell.get("plan", ""))

    def anchor(self, pictures: str) -> curves.Curve:
        """The curve that BD-rates compare with."""
        if pictures in self.anchors:
            return self.anchors[pictures]
        return self.curve(self.grid.cells()[0], STAGES[0], pictures)

    def bd_rate(self, cell: dict, stage: str, pictures: str) -> float | None:
        """In percent; where a curve has none, a note says why."""
        curve = self.curve(cell, stage, pictures)
        bd = curves.bd_rate(self.anchor(pictures), curve, "psnr", self.method)
        if bd.percent is None and curve.points:
            self.notes.append(f"{pictures}: {bd.note}" if len(self.pictures) > 1 else bd.note)
        return bd.percent

    def rows(self, cell: dict) -> list:
        """The rows of a cell: one for each set of pictures, and their average."""
        published = paper_tables.find(r.experiment for r in self.of(cell) if r.experiment)
        single, rows = len(self.pictures) == 1, []
        for each in self.pictures:
            rows.append(
                Row(
                    cell,
                    each.name,
                    {stage: self.bd_rate(cell, stage, each.name) for stage in STAGES},
                    _paper(published, {each.name.lower(), *([""] if single else [])}),
                    {stage: self.curve(cell, stage, each.name).points for stage in STAGES},
                )
            )
        if not single:
            bd = {stage: _mean([row.bd[stage] for row in rows]) for stage in STAGES}
            paper = _paper(published, {paper_tables.AVERAGE, ""})
            rows.append(Row(cell, paper_tables.AVERAGE, bd, paper, dict.fromkeys(STAGES, ())))
        return rows


def summarize(folder: Path, grid: Grid, pictures, anchors: dict, method: str) -> str:
    """Writes the tables and plots into the folder of the sweep; returns `table.md`.

    Args:
      folder: of the sweep; what is not there yet is a dash in the tables.
      grid: its grid.
      pictures: the sets of `sweep.Pictures`.
      anchors: name of a set -> the curve that BD-rates compare with; where there is none, it is the
        first cell after joint training.
      method: interpolation, see `curves.METHODS`.
    """
    whole = _Sweep(folder, grid, pictures, anchors, method)
    rows = [row for cell in grid.cells() for row in whole.rows(cell)]
    _write_csv(folder / "table.csv", [_flat_row(row, len(pictures) > 1) for row in rows])
    _write_csv(folder / "runs.csv", [_flat_run(result) for result in whole.results])
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


def _mean(values) -> float | None:
    """The mean; None if a value is."""
    return None if None in values else sum(values) / len(values)


def _paper(published, names: set) -> dict:
    """Stage -> `-9.89 (VI, VII)`: the numbers on pictures of these names, with their tables."""
    texts = {}
    for stage in STAGES:
        tables = {}
        for row in published:
            if row.images in names:
                tables.setdefault(getattr(row, stage), []).append(row.table)
        texts[stage] = "; ".join(f"{v:.2f} ({', '.join(where)})" for v, where in tables.items())
    return texts


def _flat_row(row: Row, several: bool) -> dict:
    flat = {**row.cell, **({"images": row.pictures} if several else {})}
    for stage in STAGES:
        flat[f"bd_rate_{stage}"] = row.bd[stage]
        flat[f"paper_{stage}"] = row.paper[stage]
        for point in row.points[stage]:
            for key in ("bpp", "psnr"):
                flat[f"{key}_{stage}_{point['lmbda']}"] = point[key]
    return flat


def _flat_run(result: sweep_results.Result) -> dict:
    flat = {**result.run.flags, "lmbda": result.run.lmbda}
    for stage in STAGES:
        measured = result.stage(stage)
        flat.update({f"{key}_{stage}": getattr(measured, key) for key in _COSTS})
        for pictures, mean in measured.means.items():
            flat.update({f"{key}_{stage}_{pictures}": mean[key] for key in ("bpp", "psnr")})
    return flat


def _write_csv(path: Path, rows) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def _markdown(whole: _Sweep, rows) -> str:
    parts = [_bd_table(whole, rows), _about_bd_rates(whole)]
    if whole.notes:
        parts.append("\n".join(f"- {note}" for note in dict.fromkeys(whole.notes)))
    parts += [_run_table(whole), _ABOUT_COSTS]
    return "\n\n".join(parts) + "\n"


def _about_bd_rates(whole: _Sweep) -> str:
    anchors = dict.fromkeys(whole.anchor(each.name).name for each in whole.pictures)
    ours = "" if whole.anchors else ", ours are not"
    return (
        f"BD-rate of PSNR against {', '.join(anchors)}; below 0 is better. The paper is"
        f" arXiv 2309.17051, with the number of its table. Its BD-rates are against BPG{ours}."
    )


def _bd_table(whole: _Sweep, rows) -> str:
    several = len(whole.pictures) > 1
    head = [*whole.grid.axes, *(["pictures"] if several else [])]
    for stage in STAGES:
        head += [f"BD-rate {stage} [%]", "paper"]
    body = []
    for row in rows:
        cells = [*row.cell.values(), *([row.pictures] if several else [])]
        for stage in STAGES:
            cells += [report.number(row.bd[stage], 1), row.paper[stage] or "-"]
        body.append(cells)
    return report.tabulate(head, body)


def _run_table(whole: _Sweep) -> str:
    grid = whole.grid
    head = [*grid.axes, "lmbda", *grid.follow, "joint J", "joint J~", "post J"]
    for each in whole.pictures:
        head += [f"{each.name} {stage}: bpp, dB" for stage in STAGES]
    body = []
    for result in whole.results:
        run = result.run
        cells = [*run.cell.values(), run.lmbda, *grid.followed(run.lmbda).values()]
        costs = (result.joint.J, result.joint.surrogate_J, result.post.J)
        cells += [report.number(cost, 4) for cost in costs]
        for each in whole.pictures:
            for stage in STAGES:
                mean = result.stage(stage).means.get(each.name, {})
                bpp, psnr = mean.get("bpp"), mean.get("psnr")
                cells.append(f"{report.number(bpp, 4)}, {report.number(psnr, 2)}")
        body.append(cells)
    return report.tabulate(head, body)
