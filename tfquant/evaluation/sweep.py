"""A grid of experiments as data: its cells, and the table of what came out.

A cell is one value for each flag of the grid; it is trained at every `lmbda`, jointly and then
post-trained from that, which gives it two rate-distortion curves. Tables III to XI of arXiv
2309.17051 are such grids, told in BD-rates.
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
from pathlib import Path

from tfquant import claims
from tfquant.evaluation import EvaluationError, curves, plots, report

STAGES = ("joint", "post")


@dataclasses.dataclass(frozen=True)
class Grid:
    """Which experiments.

    Attributes:
      axes: flag of train.py -> its values, as written.
      lmbdas: values of `--lmbda`, as written; two at least make a curve.

    Raises:
      EvaluationError: an axis without values or one that the sweep sets itself; a value twice.
    """

    axes: dict
    lmbdas: tuple

    _OWN = ("lmbda", "model_dir", "stages", "init_from", "train_images")

    def __post_init__(self):
        for flag, values in {**self.axes, "lmbda": self.lmbdas}.items():
            if not values or "" in values or len(set(values)) < len(values):
                raise EvaluationError(
                    f"--grid: {flag} takes distinct values, such as {flag}=a,b; got"
                    f" {','.join(values)!r}"
                )
        for flag in self._OWN:
            if flag in self.axes:
                raise EvaluationError(f"--grid: {flag} is set by the sweep itself")

    @classmethod
    def parse(cls, text: str, lmbdas) -> Grid:
        """From `flag=value,value;flag=value,value`."""
        axes = {}
        for axis in filter(None, (part.strip() for part in text.split(";"))):
            flag, equals, values = axis.partition("=")
            if not equals or flag in axes:
                raise EvaluationError(
                    f"--grid: expected flag=value,value;flag=value, each flag once; got {text!r}"
                )
            axes[flag] = tuple(value.strip() for value in values.split(","))
        return cls(axes, tuple(lmbdas))

    def cells(self) -> list:
        """Every combination: a list of dicts, flag -> value."""
        return [dict(zip(self.axes, values)) for values in itertools.product(*self.axes.values())]


def claim(folder: Path, asked: dict) -> None:
    """Makes the sweep's folder, for what is asked: cells may be added later, these things not.

    Raises:
      ValueError: the folder is another sweep's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "sweep.json"
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        claims.check(folder, "--out", "sweep", asked, before)
    path.write_text(json.dumps(asked, indent=1) + "\n", encoding="utf-8")


def name(cell: dict) -> str:
    """`plan=mix+joint_sigma_bound=0.11`, `all` for the only cell.

    Also a folder's name: without the commas that separate folders on eval.py's command line.
    """
    return "+".join(f"{flag}={value}" for flag, value in cell.items()).replace("/", "_") or "all"


def points(folder: Path, cell: dict, grid: Grid, stage: str) -> list:
    """The measured means of a cell's models, one for each `lmbda` that has a report."""
    found = []
    for lmbda in grid.lmbdas:
        path = model_folder(folder, cell, lmbda) / "report" / report.JSON
        if path.exists():
            models = {m["name"]: m["mean"] for m in json.loads(path.read_text())["models"]}
            found += [{**models[stage], "lmbda": lmbda}] if stage in models else []
    return found


def model_folder(folder: Path, cell: dict, lmbda: str) -> Path:
    """Where a cell's runs at that `lmbda` lie: `joint/`, `post/`, `report/`."""
    return folder / name(cell) / f"lmbda={lmbda}"


def summarize(folder: Path, grid: Grid, anchor: curves.Curve | None, method: str) -> str:
    """Writes `table.csv`, `table.md` and `rd.png`; returns the table.

    Args:
      folder: of the sweep; what is not there yet is a dash in the table.
      grid: its grid.
      anchor: what BD-rates compare with; None for the first cell after joint training.
      method: interpolation, see `curves.METHODS`.
    """
    learned = {
        (name(cell), stage): curves.Curve(
            f"{name(cell)}, {stage}",
            "model",
            tuple(points(folder, cell, grid, stage)),
            cell.get("plan", ""),
        )
        for cell in grid.cells()
        for stage in STAGES
    }
    if anchor is None:
        anchor = next(iter(learned.values()))
    rows, notes = [], []
    for cell in grid.cells():
        row = dict(cell)
        for stage in STAGES:
            curve = learned[name(cell), stage]
            bd = curves.bd_rate(anchor, curve, "psnr", method)
            row[f"bd_rate_{stage}"] = bd.percent
            if bd.percent is None and curve.points:
                notes.append(bd.note)
            for point in curve.points:
                for key in ("bpp", "psnr"):
                    row[f"{key}_{stage}_{point['lmbda']}"] = point[key]
        rows.append(row)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with open(folder / "table.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    text = _markdown(grid, rows, anchor.name, notes)
    (folder / "table.md").write_text(text, encoding="utf-8")
    drawn = [curve for curve in learned.values() if curve.points]
    if drawn:
        others = [anchor] if anchor not in drawn else []
        plots.plot_rd(drawn + others, folder / "rd.png", "A grid of experiments")
    return text


def _markdown(grid: Grid, rows, anchor: str, notes) -> str:
    head = [*grid.axes, *(f"BD-rate {stage} [%]" for stage in STAGES)]
    for lmbda in grid.lmbdas:
        head += [f"{stage} at {lmbda}: bpp, dB" for stage in STAGES]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        cells = [row[flag] for flag in grid.axes]
        cells += [report.number(row[f"bd_rate_{stage}"], 1) for stage in STAGES]
        for lmbda in grid.lmbdas:
            for stage in STAGES:
                bpp, psnr = (row.get(f"{key}_{stage}_{lmbda}") for key in ("bpp", "psnr"))
                cells.append(f"{report.number(bpp, 4)}, {report.number(psnr, 2)}")
        lines.append("| " + " | ".join(cells) + " |")
    text = "\n".join(lines) + f"\n\nBD-rate of PSNR against {anchor}; below 0 is better.\n"
    return text + "".join(f"\n- {note}" for note in dict.fromkeys(notes)) + ("\n" if notes else "")
