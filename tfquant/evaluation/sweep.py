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
class Run:
    """One training of both stages.

    Attributes:
      cell: flag -> value, the cell of the grid.
      lmbda: its `--lmbda`, as written.
      flags: flag of train.py -> value, all that the sweep sets for this run.
    """

    cell: dict
    lmbda: str
    flags: dict

    def folder(self, sweep: Path) -> Path:
        """The run's folder in that of the sweep: `joint/`, `post/`, `report/`."""
        return sweep / name(self.cell) / f"lmbda={self.lmbda}"

    def __str__(self):
        return f"{name(self.cell)}, lmbda={self.lmbda}"


@dataclasses.dataclass(frozen=True)
class Grid:
    """Which experiments.

    Attributes:
      axes: flag of train.py -> its values, as written.
      lmbdas: values of `--lmbda`, as written; two at least make a curve.
      follow: flag of train.py -> its values, as written, one for each of `lmbdas`.

    Raises:
      EvaluationError: an axis without values or one that the sweep sets itself; a value twice; a
        flag that follows lmbda with too few or too many values, or that is an axis as well.
    """

    axes: dict
    lmbdas: tuple
    follow: dict = dataclasses.field(default_factory=dict)

    _OWN = ("lmbda", "model_dir", "stages", "init_from", "train_images")

    def __post_init__(self):
        for flag, values in {**self.axes, "lmbda": self.lmbdas}.items():
            if not values or "" in values or len(set(values)) < len(values):
                raise EvaluationError(
                    f"--grid: {flag} takes distinct values, such as {flag}=a,b; got"
                    f" {','.join(values)!r}"
                )
        for flag, values in self.follow.items():
            if len(values) != len(self.lmbdas) or "" in values:
                raise EvaluationError(
                    f"--follow: {flag} takes a value for each of the {len(self.lmbdas)} of --lmbda;"
                    f" got {','.join(values)!r}"
                )
            if flag in self.axes:
                raise EvaluationError(f"--follow: {flag} is in --grid as well")
        for option, flags in (("grid", self.axes), ("follow", self.follow)):
            for flag in self._OWN:
                if flag in flags:
                    raise EvaluationError(f"--{option}: {flag} is set by the sweep itself")

    @classmethod
    def parse(cls, text: str, lmbdas, follow: str = "") -> Grid:
        """From `flag=value,value;flag=value,value`, and what follows lmbda in the same form."""
        return cls(_axes(text, "grid"), tuple(lmbdas), _axes(follow, "follow"))

    def cells(self) -> list:
        """Every combination: a list of dicts, flag -> value."""
        return [dict(zip(self.axes, values)) for values in itertools.product(*self.axes.values())]

    def followed(self, lmbda: str) -> dict:
        """The flags that follow lmbda, at one of its values."""
        place = self.lmbdas.index(lmbda)
        return {flag: values[place] for flag, values in self.follow.items()}

    def run(self, cell: dict, lmbda: str) -> Run:
        """The run of a cell at one of the `lmbdas`."""
        return Run(cell, lmbda, {**self.followed(lmbda), **cell})

    def runs(self) -> list:
        """All runs, cell by cell."""
        return [self.run(cell, lmbda) for cell in self.cells() for lmbda in self.lmbdas]


def _axes(text: str, option: str) -> dict:
    axes = {}
    for axis in filter(None, (part.strip() for part in text.split(";"))):
        flag, equals, values = axis.partition("=")
        if not equals or flag in axes:
            raise EvaluationError(
                f"--{option}: expected flag=value,value;flag=value, each flag once; got {text!r}"
            )
        axes[flag] = tuple(value.strip() for value in values.split(","))
    return axes


def claim(folder: Path, asked: dict, extendable: dict | None = None) -> None:
    """Makes the sweep's folder, for what is asked: cells may be added later, these things not.

    Args:
      folder: of the sweep.
      asked: name -> value; each has to stay what it was.
      extendable: name -> {key: value}; keys may be added and left out later, the value of a key
        has to stay what it was. A folder of an earlier version has the name's default, `{}`, at
        every key.

    Raises:
      ValueError: the folder is another sweep's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "sweep.json"
    kept = extendable or {}
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        kept = {}
        for title, values in (extendable or {}).items():
            there = before.pop(title, {key: {} for key in values})
            asked_again = {key: value for key, value in values.items() if key in there}
            known = {key: value for key, value in there.items() if key in values}
            claims.check(folder, "--out", "sweep", {title: asked_again}, {title: known})
            kept[title] = {**there, **values}
        claims.check(folder, "--out", "sweep", asked, before)
    path.write_text(json.dumps({**asked, **kept}, indent=1) + "\n", encoding="utf-8")


def name(cell: dict) -> str:
    """`plan=mix+joint_sigma_bound=0.11`, `all` for the only cell.

    Also a folder's name: without the commas that separate folders on eval.py's command line.
    """
    return "+".join(f"{flag}={value}" for flag, value in cell.items()).replace("/", "_") or "all"


def points(folder: Path, cell: dict, grid: Grid, stage: str) -> list:
    """The measured means of a cell's models, one for each `lmbda` that has a report."""
    found = []
    for lmbda in grid.lmbdas:
        path = grid.run(cell, lmbda).folder(folder) / "report" / report.JSON
        if path.exists():
            models = {m["name"]: m["mean"] for m in json.loads(path.read_text())["models"]}
            found += [{**models[stage], "lmbda": lmbda}] if stage in models else []
    return found


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
