"""The files of an experiment: NAME.csv, NAME.png, NAME.md, and NAME.json if they are complete."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tfquant
from tfquant import markdown
from tfquant.analysis.experiment import Experiment, Result, Rows, Settings
from tfquant.analysis.maps import fingerprint


def record(experiment: Experiment, settings: Settings) -> dict[str, Any]:
    """Returns the inputs of the outputs: settings, version, and a fingerprint of each surrogate."""
    maps = {str(method): fingerprint(method) for method in settings.methods}
    stamps = {}
    for folder in settings.model_dirs:
        checkpoints = sorted(Path(folder).glob("checkpoints/*"))
        stamps[folder] = [f"{p.name} {p.stat().st_mtime_ns}" for p in checkpoints]
    values = {
        "experiment": experiment.name,
        "settings": dataclasses.asdict(settings),
        "maps": maps,
        "checkpoints": stamps,
        "version": tfquant.__version__,
    }
    return json.loads(json.dumps(values))  # as read from a file: lists instead of tuples


def is_complete(folder: Path, name: str, wanted: dict) -> bool:
    """Returns true if all outputs exist and were made with these settings."""
    if not all((folder / f"{name}.{suffix}").exists() for suffix in ("csv", "png", "md", "json")):
        return False
    try:
        return json.loads((folder / f"{name}.json").read_text())["made_with"] == wanted
    except (ValueError, KeyError, TypeError):
        return False


def write(
    folder: Path, experiment: Experiment, result: Result, wanted: dict, command: str, seconds: float
) -> None:
    """Writes the four files. The JSON comes last, so an interrupted experiment runs again."""
    folder.mkdir(parents=True, exist_ok=True)
    name = experiment.name
    marker = folder / f"{name}.json"
    marker.unlink(missing_ok=True)
    with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, result.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: _cell(v) for k, v in row.items()} for row in result.rows)
    result.figure.savefig(folder / f"{name}.png")
    (folder / f"{name}.md").write_text(
        f"# {name}: {experiment.reproduces}\n\n{experiment.summary}\n\n"
        f"![{name}]({name}.png)\n\n{result.notes.strip()}\n\n"
        f"Numbers: [{name}.csv]({name}.csv). Made by `{command}` in {seconds:.0f} s.\n",
        encoding="utf-8",
    )
    partial = marker.with_suffix(".json.partial")
    partial.write_text(json.dumps({"made_with": wanted, "seconds": round(seconds, 1)}, indent=2))
    os.replace(partial, marker)


def _cell(value: Any) -> Any:
    """Formats a number with six digits, and a missing number as an empty string."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value


def table(columns: Sequence[str], rows: Rows) -> str:
    """Returns a Markdown table; `rows` are dictionaries, and floats have three digits."""

    def text(value: Any) -> str:
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return ""
        if isinstance(value, float):
            return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
        return str(value)

    return markdown.table(columns, [[text(row.get(c)) for c in columns] for row in rows])
