"""Output of an evaluation: report.json, report.csv, report.md, and the tables on the terminal."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from tfquant import files, markdown
from tfquant.evaluation import EvaluationError, curves, gains, identity
from tfquant.evaluation.results import UNITS, MeasuredModel, Measurement, Result

JSON, CSV, MARKDOWN, PLOT = "report.json", "report.csv", "report.md", "rd.png"
GAINS_PLOT = "gains.png"

_HEADINGS = {
    "bpp": "bpp",
    "estimated_bpp": "estimated bpp",
    "psnr": "PSNR [dB]",
    "ms_ssim": "MS-SSIM",
    "ms_ssim_db": "MS-SSIM [dB]",
    "encode_s": "encode [s]",
    "decode_s": "decode [s]",
}
_WEIGHTS = "Quality by weight of the feature distance, on validation pictures; the best J in bold"
_BD_MEANING = "percent more bits that the row needs than the column for the same quality"
_DECIMALS = {"bpp": 4, "estimated_bpp": 4, "psnr": 2, "ms_ssim": 4, "ms_ssim_db": 2}


def number(value: float | None, decimals: int, missing: str = "-") -> str:
    """Returns a value with `decimals` decimals, or `missing` for None."""
    return missing if value is None else f"{value:.{decimals}f}"


def check_folder(folder: Path) -> None:
    """Checks that a report overwrites no file of the user's.

    Raises:
      EvaluationError: the folder has a file with a name of ours, and no report.
    """
    names = [n for n in (JSON, CSV, MARKDOWN, PLOT, GAINS_PLOT) if os.path.lexists(folder / n)]
    if not names:
        return
    try:
        is_ours = "bd_rate" in json.loads((folder / JSON).read_bytes())
    except (OSError, ValueError, TypeError):
        is_ours = False
    if not is_ours:
        raise EvaluationError(
            f"--report_dir: {files.shown(folder)} has {', '.join(names)}, and no report of tfquant:"
            " move the files elsewhere, or name another folder"
        )


def write(result: Result, folder: Path) -> None:
    """Writes everything but the plot into `folder`."""
    text = json.dumps(result.to_json(), indent=1, allow_nan=False) + "\n"
    (folder / JSON).write_text(text, encoding="utf-8")
    _write_csv(result, folder / CSV)
    (folder / MARKDOWN).write_text(_markdown(result), encoding="utf-8", errors="backslashreplace")


def summary(result: Result) -> str:
    """Returns the main result tables in Markdown that also reads well on a terminal."""
    parts = [_means(result)] if _measured(result) else []
    parts += _curves(result)
    if result.same_psnr:
        parts.append("bpp for the same mean PSNR:\n\n" + _same_psnr(result))
    if result.gains:
        parts.append(f"Gains over the baselines:\n\n{_gains(result)}")
    if result.explorations:
        parts.append(f"{_WEIGHTS}:\n\n{_explorations(result)}")
    learned = dict.fromkeys(model.curve for model in result.models)
    for metric in curves.METRICS:
        table = _bd_table(result, metric, learned)
        if table:
            parts.append(f"{_bd_heading(result, metric)}, {_BD_MEANING}:\n\n{table}")
    parts += _bd_notes(result, learned)
    parts += [f"Note: {note}." for note in result.notes]
    if result.failed:
        parts.append(f"Without measurement:\n\n{_failed(result)}")
    return "\n\n".join(parts)


def _write_csv(result: Result, path: Path) -> None:
    """Writes a row for each codec, setting and picture, and a row `mean` for each setting.

    A picture without measurement has a row with its error.
    """
    with open(path, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(("codec", "setting", "image", *UNITS, "error"))
        for codec, setting, mean, images in _every_point(result):
            for row in (*images, mean):
                values = [getattr(row, column) for column in UNITS]
                writer.writerow((codec, setting, row.name, *values, ""))
        for failure in result.failed:
            empty = [""] * len(UNITS)
            writer.writerow((failure.codec, "", failure.name, *empty, failure.error))


def _measured(result: Result) -> bool:
    """Returns true if any codec was measured. Otherwise the report only lists explorations."""
    return bool(result.models or result.conventional)


def _every_point(
    result: Result,
) -> Iterator[tuple[str, str, Measurement, tuple[Measurement, ...]]]:
    """Yields (codec, setting, mean, measurements) of every model and conventional codec."""
    for model in result.models:
        yield model.curve, model.name, model.mean, model.images
    for codec in result.conventional:
        for point in codec.points:
            setting = f"{codec.setting} {point.setting}"
            yield codec.label, setting, point.mean, point.images


def _markdown(result: Result) -> str:
    info = result.run
    pictures = f"{info.number_of_images} picture(s) from `{files.shown(info.images)}`, "
    parts = [
        "# Evaluation",
        f"{pictures if _measured(result) else ''}{info.date}, "
        f"tfquant {info.tfquant}, Pillow {info.pillow}, {info.machine}.",
        f"    {info.command}",
    ]
    if _measured(result):
        parts += [f"![rate-distortion curves]({PLOT})", "## Means", _means(result)]
    if result.curves:
        parts += ["## Curves", *_curves(result)]
    if result.same_psnr:
        parts += ["## Rate for the same mean PSNR", _same_psnr(result)]
    if result.gains:
        parts += ["## Gains over the baselines", _gains(result), f"![gains]({GAINS_PLOT})"]
    if result.explorations:
        parts += [f"## {_WEIGHTS}", _explorations(result)]
    tests = dict.fromkeys(row.test for row in result.bd_rate)
    for metric in curves.METRICS:
        table = _bd_table(result, metric, tests)
        if table:
            parts += [f"## {_bd_heading(result, metric)}", f"{_BD_MEANING.capitalize()}:", table]
    parts += [f"- {line}" for notes in _bd_notes(result, tests) for line in notes.splitlines()]
    for model in result.models:
        parts += [f"## {model.name}", _images(model)]
    if result.failed:
        parts += ["## Pictures without measurement", _failed(result)]
    if _measured(result):
        parts += ["## Units", "\n".join(f"- `{key}`: {text}" for key, text in UNITS.items())]
    if result.notes:
        parts += ["## Notes", "\n".join(f"- {note}." for note in result.notes)]
    return "\n\n".join(parts) + "\n"


def _means(result: Result) -> str:
    rows = []
    nearest = {row.model: row for row in result.nearest_rate}
    for model in result.models:
        rows.append([model.name, *_values(model.mean)])
        if model.name in nearest:
            point = nearest[model.name]
            label = f"{point.codec} at the nearest rate, quality {point.setting}"
            if len(point.images) < len(model.images):
                label += f", over {len(point.images)} of {len(model.images)} pictures"
            rows.append([label, *_values(point.mean)])
    if not rows:
        rows = [
            [f"{codec.label}, {codec.setting} {p.setting}", *_values(p.mean)]
            for codec in result.conventional
            for p in codec.points
        ]
    return markdown.table(["mean", *_HEADINGS.values()], rows)


def _failed(result: Result) -> str:
    rows = [[row.name, row.codec or "all", row.error] for row in result.failed]
    return markdown.table(["picture", "codec", "reason"], rows)


def _gains(result: Result) -> str:
    """Returns tables of the gains of models and codecs, of their times, and a remark."""
    models, codecs, times, totals = [], [], [], []
    for g in result.gains:
        bits = "the same" if g.same_bits else f"{g.bits_percent:+.2f} %"
        spread = [number(end, 2) for end in (g.psnr_gain_smallest, g.psnr_gain_largest)]
        models.append(
            [g.model, g.baseline, number(g.bpp, 4), bits, number(g.psnr_gain, 3),
             " to ".join(spread), number(g.ms_ssim_gain_db, 3), number(g.error_reduction, 2)]
        )  # fmt: skip
        seconds = (g.baseline_encode_s, g.baseline_decode_s, g.decode_s)
        percents = (g.decode_percent, g.total_percent)
        times.append([g.model, *(f"{s:.3f}" for s in seconds), *(f"{p:+.1f}" for p in percents)])
    for row in gains.by_codec(result.gains):
        keys = ("psnr_gain", "ms_ssim_gain_db", "error_reduction")
        cells = [number(getattr(row, f"{key}{end}"), 3) for key in keys for end in ("", "_largest")]
        codecs.append([row.curve, str(row.models), *cells])
        totals.append(
            [row.curve, f"{row.baseline_total_s:.3f}", f"{row.total_s:.3f}",
             f"{row.total_percent:+.1f}"]
        )  # fmt: skip
    tables = [
        markdown.table(
            ["model", "baseline", "bpp", "bits", "PSNR gain [dB]", "over pictures [dB]",
             "MS-SSIM gain [dB]", "error reduction [%]"], models,
        ),
        markdown.table(
            ["curve", "models", "PSNR gain [dB]", "largest", "MS-SSIM gain [dB]", "largest",
             "error reduction [%]", "largest"], codecs,
        ),
        markdown.table(
            ["model", "baseline encodes [s]", "decodes [s]", "model decodes [s]",
             "more decoding time [%]", "more time [%]"], times,
        ),
        markdown.table(
            ["curve", "baseline both ways [s]", "both ways [s]", "more time [%]"], totals
        ),
    ]  # fmt: skip
    if not all(g.same_bits for g in result.gains):
        tables.append("Where bits are not the same, a gain is that at the model's own rate.")
    pairs: dict[tuple[str, ...], list[str]] = {}
    for g in result.gains:
        if g.differences and not g.same_bits:
            pairs.setdefault(g.differences, []).append(f"{g.model} and its baseline {g.baseline}")
    for differences, names in pairs.items():
        tables.append(
            f"{'; '.join(names)} were trained with different settings: {', '.join(differences)}."
        )
    return "\n\n".join(tables)


def _explorations(result: Result) -> str:
    """Returns a table with a row for each exploration and a column for each weight, largest
    first.
    """
    found = result.explorations
    columns = sorted({weight for e in found for weight in e.quality}, key=float, reverse=True)
    rows = []
    for e in found:
        cells = []
        for weight in columns:
            cell = number(e.quality.get(weight), 3, "diverged" if weight in e.quality else "")
            cells.append(f"**{cell}**" if weight == e.best else cell)
        start = number(e.start_quality, 3)
        rows.append([e.curve, f"{e.lmbda:g}", curves.LABELS[e.metric], start, *cells])
    return markdown.table(["curve", "lmbda", "quality", "at the start", *columns], rows)


def _curves(result: Result) -> list[str]:
    """Returns a table with a row for each curve, and a line with the settings that all curves
    share.
    """
    found = result.curves
    if not found:
        return []
    rows = [[curve.name, ", ".join(curve.models)] for curve in found]
    common = identity.describe(identity.shared([curve.identity for curve in found]))
    line = "Settings that all curves share, apart from train.py's defaults: " + (common or "none")
    return [markdown.table(["curve", "models"], rows), f"{line}."]


def _images(model: MeasuredModel) -> str:
    rows = [[row.name, *_values(row)] for row in model.images]
    return markdown.table(["picture", *_HEADINGS.values()], rows)


def _same_psnr(result: Result) -> str:
    others = list(result.same_psnr[0].needs_bpp)
    rows = []
    for row in result.same_psnr:
        cells = [row.model, number(row.psnr, 2), number(row.bpp, 4)]
        for name in others:
            needed = row.needs_bpp[name]
            more = "" if needed is None else f" ({100 * (needed / row.bpp - 1):+.0f} %)"
            cells.append(number(needed, 4, "out of range") + more)
        rows.append(cells)
    return markdown.table(["model", "PSNR [dB]", "its bpp", *others], rows)


def _bd_heading(result: Result, metric: str) -> str:
    return f"BD-rate over {curves.LABELS[metric]}, {result.run.bd_rate_method}"


def _bd_table(result: Result, metric: str, tests: Collection[str]) -> str:
    """Returns a table with a row for each curve of `tests` and a column for each curve.

    It is empty if no BD-rate is defined.
    """
    rows = [r for r in result.bd_rate if r.metric == metric and r.test in tests]
    if all(row.percent is None for row in rows):
        return ""
    anchors = dict.fromkeys(row.test for row in result.bd_rate)
    cells = {(row.test, row.anchor): number(row.percent, 2) for row in rows}
    table = [[test, *(cells.get((test, anchor), "") for anchor in anchors)] for test in tests]
    return markdown.table(["test \\ anchor", *anchors], table)


def _bd_notes(result: Result, tests: Collection[str]) -> list[str]:
    """Returns the reasons for missing BD-rates, each once, with the curves that have the same."""
    found: dict[str, dict[str, None]] = {}
    for row in result.bd_rate:
        if row.note and row.test in tests:
            curve = next((c for c in (row.test, row.anchor) if row.note.startswith(f"{c}: ")), "")
            reason = row.note[len(curve) :]
            found.setdefault(reason, {}).setdefault(curve)
    lines = []
    for reason, (first, *others) in found.items():
        also = f"; also {', '.join(others)}" if others else ""
        lines.append(f"no BD-rate: {first}{reason}{also}")
    return ["\n".join(lines)] if lines else []


def _values(row: Measurement) -> list[str]:
    return [number(getattr(row, column), _DECIMALS.get(column, 3)) for column in _HEADINGS]
