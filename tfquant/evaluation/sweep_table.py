"""Tables and plots of a sweep.

    table.csv  a row for each cell and set of pictures: BD-rates, and bpp and PSNR at each lmbda
    runs.csv   a row for each run: its flags, its costs, and bpp and PSNR on each set of pictures
    table.md   both tables for reading
    rd.png     the curves on the first set; `rd_NAME.png` has those on another set

With several sets, a cell has an additional row, `average`, with the mean of its BD-rates on all
sets.

With several seeds, the tables have means with intervals, see `estimate`. A value that is missing
because a run has failed is the word `failed`. `sweep_curves` has the curves and their BD-rates.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from tfquant import markdown
from tfquant.evaluation import estimate, paper_tables, plots, report, sweep_results
from tfquant.evaluation.curves import Curve
from tfquant.evaluation.estimate import Estimate
from tfquant.evaluation.sweep import STAGES, Grid, Pictures, Run
from tfquant.evaluation.sweep_curves import Row, Sweep, mean_point

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
    whole = Sweep(folder, grid, pictures, anchors, method, failed)
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


def _flat_row(whole: Sweep, row: Row) -> dict[str, Any]:
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


def _flat_run(whole: Sweep, result: sweep_results.Result) -> dict[str, Any]:
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


def _markdown(whole: Sweep, rows: Sequence[Row]) -> str:
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


def _about_bd_rates(whole: Sweep) -> str:
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


def _bd_table(whole: Sweep, rows: Sequence[Row]) -> str:
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


def _point_table(whole: Sweep) -> str:
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


def _qualities(whole: Sweep, cell: dict[str, str]) -> list[str]:
    """Returns the keys of the points of a cell of models for a range of rates."""
    found = [
        label
        for each in whole.pictures
        for stage in STAGES
        for label in whole.points(cell, stage, each.name)
    ]
    return sorted(dict.fromkeys(found), key=lambda label: float(label.removeprefix("q")))


def _costs(whole: Sweep, cell: dict[str, str], lmbda: str) -> list[str]:
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


def _points(whole: Sweep, cell: dict[str, str], lmbda: str, label: str) -> list[str]:
    """Returns rate and quality after each stage on each set of pictures."""
    cells = []
    for each in whole.pictures:
        for stage in STAGES:
            means = whole.means(cell, stage, each.name).get(label, [])
            if not means and whole.failed(cell, lmbda):
                cells.append(_FAILED)
                continue
            point = mean_point([mean.point for mean in means]) if means else None
            bpp, psnr = (None, None) if point is None else (point.bpp, point.psnr)
            text = f"{report.number(bpp, 4)}, {report.number(psnr, 2)}"
            cells.append(text + (_count(len(means), len(whole.seeds)) if means else ""))
    return cells


def _choice_table(whole: Sweep) -> str:
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
