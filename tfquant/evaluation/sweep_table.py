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

A model for a range of rates is a curve of its own: its points are at several qualities instead of
several lmbdas.

A picture that any run decodes without an error is in no mean of its set, as in `eval.py`.

A value that is missing because a run has failed is the word `failed`. A curve of which a run has
failed has no BD-rate. Nor has a curve whose points, or whose anchor, are means over other pictures.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from tfquant import markdown
from tfquant.evaluation import curves, estimate, paper_tables, plots, report, sweep_results
from tfquant.evaluation.curves import Curve, Point
from tfquant.evaluation.estimate import Estimate
from tfquant.evaluation.sweep import STAGES, Grid, Pictures, Run, name
from tfquant.evaluation.sweep_results import Mean
from tfquant.names import first_few

_COSTS = ("J", "surrogate_J")
_ABOUT_COSTS = (
    "J is R + lmbda D under rounding, on the validation pictures at the end of the stage. J~ is the"
    " same under the surrogates of joint training; post-training trains on rounding."
)
_ABOUT_CHOICE = (
    "alpha_max is that of the lowest J after post-training, at each lmbda and for each seed. Each J"
    " after post-training, the lowest in bold:"
)
_FAILED = "failed"
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


class _Sweep:
    """Data of a sweep and values derived from them."""

    def __init__(
        self,
        folder: Path,
        grid: Grid,
        pictures: Sequence[Pictures],
        anchors: dict[str, Curve],
        method: str,
        failed: Collection[Run],
    ):
        self.folder, self.grid, self.pictures, self.method = folder, grid, pictures, method
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
            label: _mean_point([mean.point for mean in means])
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


def _mean_point(points: Sequence[Point]) -> Point:
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


def summarize(
    folder: Path,
    grid: Grid,
    pictures: Sequence[Pictures],
    anchors: dict[str, Curve],
    method: str,
    failed: Collection[Run] = (),
) -> str:
    """Writes the tables and plots into the folder of the sweep and returns `table.md`.

    Args:
      folder: folder of the sweep. Missing results are a dash in the tables.
      grid: its grid.
      pictures: the sets of `sweep.Pictures`.
      anchors: map from the name of a set to the curve with which BD-rates compare. For other sets,
        it is the first cell after joint training.
      method: interpolation, see `curves.METHODS`.
      failed: runs of which a program has failed. Their missing results are the word `failed`.
    """
    whole = _Sweep(folder, grid, pictures, anchors, method, failed)
    rows = [row for cell in grid.cells() for row in whole.rows(cell)]
    _write_csv(folder / "table.csv", [_flat_row(whole, row) for row in rows])
    _write_csv(folder / "runs.csv", [_flat_run(whole, result) for result in whole.results])
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


def _numbers(published: Sequence[paper_tables.Published], stage: str) -> str:
    """Returns text such as `-9.89 (VI, VII)`: numbers with their tables."""
    tables: dict[float, list[str]] = {}
    for row in published:
        tables.setdefault(getattr(row, stage), []).append(row.table)
    return "; ".join(f"{v:.2f} ({', '.join(where)})" for v, where in tables.items())


def _flat_row(whole: _Sweep, row: Row) -> dict[str, Any]:
    flat: dict[str, Any] = {
        **row.cell,
        **({"images": row.pictures} if len(whole.pictures) > 1 else {}),
    }
    for stage in STAGES:
        found = Estimate.of(row.bd[stage])
        missing = _FAILED if stage in row.failed else None
        flat[f"bd_rate_{stage}"] = found.mean if found else missing
        if whole.grid.seeds:
            flat[f"bd_rate_{stage}_low"] = found and found.low
            flat[f"bd_rate_{stage}_high"] = found and found.high
            flat[f"bd_rate_{stage}_seeds"] = found.count if found else 0
        flat[f"paper_{stage}"] = row.paper[stage]
        for label, point in row.points[stage].items():
            flat[f"bpp_{stage}_{label}"] = point.bpp
            flat[f"psnr_{stage}_{label}"] = point.psnr
        if len(whole.pictures) == 1 or row.pictures != paper_tables.AVERAGE:
            for lmbda in whole.grid.lmbdas:
                if lmbda not in row.points[stage] and whole.failed(row.cell, lmbda):
                    flat[f"bpp_{stage}_{lmbda}"] = flat[f"psnr_{stage}_{lmbda}"] = _FAILED
    return flat


def _flat_run(whole: _Sweep, result: sweep_results.Result) -> dict[str, Any]:
    run, grid = result.run, whole.grid
    flat: dict[str, Any] = {**run.cell, "lmbda": run.lmbda, **grid.followed(run.lmbda)}
    flat.update({"seed": run.seed} if grid.seeds else {})
    flat.update({"alpha_max": run.alpha, "chosen": result.chosen} if grid.alphas else {})
    for stage in STAGES:
        measured = result.stage(stage)
        missing = _FAILED if measured.unfinished else None
        for key in _COSTS:
            cost = getattr(measured, key)
            flat[f"{key}_{stage}"] = missing if cost is None else cost
        for each in whole.pictures:
            found = measured.means.get(each.name, {})
            for quality, mean in found.items():
                end = f"{stage}_{each.name}" + (quality and f"_q{quality}")
                flat[f"bpp_{end}"], flat[f"psnr_{end}"] = mean.point.bpp, mean.point.psnr
            if result.failed and not found:
                flat[f"bpp_{stage}_{each.name}"] = flat[f"psnr_{stage}_{each.name}"] = _FAILED
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
    ours = "" if all(anchor.startswith("BPG") for anchor in anchors) else ", ours are not"
    nameless = " Numbers on pictures that its table does not name stand beside the average."
    nameless = nameless if len(whole.pictures) > 1 else ""
    return (
        f"BD-rate of PSNR against {', '.join(anchors)}; below 0 is better. The paper is"
        f" arXiv 2309.17051, with the number of its table. Its BD-rates are against BPG"
        f"{ours}. They are listed for cells with all settings that the paper fixes, apart from the"
        f" training pictures.{nameless}"
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
            cells.append(_text(row.bd[stage], 1, stage in row.failed))
            cells.append(row.paper[stage] or "-")
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
        *["quality"] * grid.has_ranges,
    ]
    for each in whole.pictures:
        head += [f"{each.name} {stage}: bpp, dB" for stage in STAGES]
    body = []
    for cell in grid.cells():
        for lmbda in grid.lmbdas:
            cells = [
                *cell.values(),
                lmbda,
                *grid.followed(lmbda).values(),
                *_costs(whole, cell, lmbda),
            ]
            if not grid.has_ranges:
                body.append([*cells, *_points(whole, cell, lmbda, lmbda)])
                continue
            for label in _qualities(whole, cell) or ["-"]:
                quality = label.removeprefix("q")
                body.append([*cells, quality, *_points(whole, cell, lmbda, label)])
                cells = [*cell.values(), *[""] * (len(cells) - len(cell))]
    return markdown.table(head, body)


def _qualities(whole: _Sweep, cell: dict[str, str]) -> list[str]:
    """Returns the keys of the points of a cell of models for a range of rates."""
    found = [
        label
        for each in whole.pictures
        for stage in STAGES
        for label in whole.points(cell, stage, each.name)
    ]
    return sorted(dict.fromkeys(found), key=lambda label: float(label.removeprefix("q")))


def _costs(whole: _Sweep, cell: dict[str, str], lmbda: str) -> list[str]:
    """Returns the chosen temperatures, if there is a choice, then joint J, joint J~ and post J."""
    found, failed = whole.at(cell, lmbda), whole.failed(cell, lmbda)
    missing = len(whole.seeds) - len(found)  # seeds without a chosen temperature
    cells = []
    if whole.grid.alphas:
        alphas = [result.run.alpha or "-" for result in found]
        same = alphas if len(set(alphas)) > 1 else alphas[:1]
        cells.append(", ".join(same) or (_FAILED if failed else "-"))
    for stage, key in ((STAGES[0], "J"), (STAGES[0], "surrogate_J"), (STAGES[1], "J")):
        stages = [result.stage(stage) for result in found]
        lost = any(each.unfinished for each in stages) or (failed and missing > 0)
        costs = [getattr(each, key) for each in stages]
        cells.append(_text([*costs, *[None] * missing], 4, lost))
    return cells


def _points(whole: _Sweep, cell: dict[str, str], lmbda: str, label: str) -> list[str]:
    """Returns rate and quality after each stage on each set of pictures."""
    cells = []
    for each in whole.pictures:
        for stage in STAGES:
            means = whole.means(cell, stage, each.name).get(label, [])
            if not means and whole.failed(cell, lmbda):
                cells.append(_FAILED)
                continue
            point = _mean_point([mean.point for mean in means]) if means else None
            bpp, psnr = (None, None) if point is None else (point.bpp, point.psnr)
            text = f"{report.number(bpp, 4)}, {report.number(psnr, 2)}"
            cells.append(text + (_count(len(means), len(whole.seeds)) if means else ""))
    return cells


def _choice_table(whole: _Sweep) -> str:
    grid = whole.grid
    seed = ["seed"] * bool(grid.seeds)
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for result in whole.results:
        run = result.run
        if run.alpha:
            place = (*run.cell.values(), run.lmbda, *([run.seed] if seed else []))
            J = _FAILED if result.failed else report.number(result.post.J, 4)
            rows.setdefault(place, {})[run.alpha] = f"**{J}**" if result.chosen else J
    head = [*grid.axes, "lmbda", *seed, *(f"alpha_max {alpha}" for alpha in grid.alphas)]
    return markdown.table(head, [[*place, *costs.values()] for place, costs in rows.items()])


def _text(values: Sequence[float | None], decimals: int, failed: bool = False) -> str:
    """Returns the mean over seeds with its interval, and the number of values if some are
    missing.
    """
    found = Estimate.of(values)
    if found is None:
        return _FAILED if failed else "-"
    text = found.text(decimals) + _count(found.count, len(values))
    return f"{text}, others {_FAILED}" if failed else text


def _count(known: int, expected: int) -> str:
    """Returns text such as ` (2 of 3)` if the values of some seeds are missing."""
    return f" ({known} of {expected})" if known < expected else ""
