"""Rate-distortion curves, their interpolation, and BD-rate.

BD-rate (Bjontegaard, VCEG-M33, 2001) is the mean difference of two curves' log rates over the
qualities that both reach, in percent of the anchor's rate. A negative value means that the test
needs fewer bits. The package `bjontegaard` computes it, with one of its interpolations of log rate
over quality:

    akima  piecewise cubic, the package's recommendation; straight lines through two points
    pchip  piecewise cubic and monotone, as in JVET's common test conditions
    cubic  one third-order polynomial through the whole curve, Bjontegaard's original; poor on
           curves of many points over a wide range

The quality axis of MS-SSIM is in dB, as in the papers' plots.

There is no BD-rate if the curves have too few qualities in common, see `MIN_OVERLAP`.
"""

from __future__ import annotations

import csv
import dataclasses
import math
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import bjontegaard
import numpy as np

from tfquant import files
from tfquant.evaluation import EvaluationError, measure
from tfquant.evaluation.results import Measurement

# Quality measure -> (its name in published files, conversion of a value from there).
METRICS = {
    "psnr": ("PSNR", float),
    "ms_ssim_db": ("MS-SSIM", measure.decibels),
}
LABELS = {"psnr": "PSNR [dB]", "ms_ssim_db": "MS-SSIM [dB]"}

# Interpolation -> minimum number of points.
METHODS = {"akima": 2, "pchip": 2, "cubic": 4}

# Minimum overlap of two curves for a BD-rate: a share of the shorter curve's range, and dB. Below
# one half, the mean ignores most qualities of both curves and describes neither. PSNR of a single
# run has a noise of about 0.02 dB. An overlap of less than five times that is noise.
MIN_OVERLAP, MIN_OVERLAP_DB = 0.5, 0.1

ANCHOR_COLUMNS = ("metric", "codec", "bpp", "value")


class Point(NamedTuple):
    """A point of a curve.

    Attributes:
      bpp: rate.
      psnr, ms_ssim_db: qualities in dB, the keys of `METRICS`; None if they are unknown.
      ms_ssim_bpp: rate of the pictures that have MS-SSIM; None if that is `bpp`.
    """

    bpp: float
    psnr: float | None = None
    ms_ssim_db: float | None = None
    ms_ssim_bpp: float | None = None

    @classmethod
    def of(cls, images: Sequence[Measurement], left_out: Collection[str] = ()) -> Point:
        """Returns the means over pictures. Rates are over the pictures that have the quality.

        If no picture is left, the point has only the rate of all pictures.

        Args:
          images: at least one picture.
          left_out: names of the pictures that the means leave out. The others have PSNR.
        """
        kept = [image for image in images if image.name not in left_out]
        if not kept:
            return cls(measure.mean(images).bpp)
        mean = measure.mean(kept)
        large = [image.bpp for image in kept if image.ms_ssim is not None]
        rate = sum(large) / len(large) if 0 < len(large) < len(kept) else None
        return cls(mean.bpp, mean.psnr, mean.ms_ssim_db, rate)

    def rate(self, metric: str) -> float:
        """Returns the rate of the pictures that have a quality, a key of `METRICS`."""
        own = self.ms_ssim_bpp if metric == "ms_ssim_db" else None
        return self.bpp if own is None else own


@dataclasses.dataclass(frozen=True)
class Curve:
    """Mean rate and quality of a codec at several settings.

    Attributes:
      name: name in plots and tables.
      kind: "model", "conventional" or "published".
      points: from low to high rate.
      plan: the quantization plan with which all points of a model were trained, or empty.
      pictures: names of the pictures of the means; empty if they are unknown.
    """

    name: str
    kind: str
    points: tuple[Point, ...]
    plan: str = ""
    pictures: tuple[str, ...] = ()

    def samples(self, metric: str) -> np.ndarray:
        """Returns (bpp, quality) of the points that have both, [P, 2] float64."""
        pairs = [(point.rate(metric), getattr(point, metric)) for point in self.points]
        known = sorted(pair for pair in pairs if pair[1] is not None)
        return np.array(known, np.float64).reshape(-1, 2)


class BDRate(NamedTuple):
    """A BD-rate, or the reason why there is none.

    Attributes:
      percent: mean rate difference of the test in percent of the anchor's rate; None if undefined.
      quality: (lowest, highest) quality in dB that both curves reach; None if there is none.
      note: one line if `percent` is None, else empty.
    """

    percent: float | None
    quality: tuple[float, float] | None
    note: str


def bd_rate(anchor: Curve, test: Curve, metric: str, method: str) -> BDRate:
    """Returns the BD-rate of `test` against `anchor` over `metric`, a key of `METRICS`."""
    if not comparable(anchor, test):
        few, many = sorted((anchor, test), key=lambda curve: (len(curve.pictures), curve.name))
        return BDRate(
            None,
            None,
            f"{few.name} is a mean over {len(few.pictures)} pictures, {many.name} over others "
            f"({len(many.pictures)})",
        )
    curves = []
    for curve in (anchor, test):
        samples = curve.samples(metric)
        if len(samples) < METHODS[method]:
            return BDRate(
                None,
                None,
                f"{curve.name}: {len(samples)} point(s) of {LABELS[metric]}, "
                f"{method} needs {METHODS[method]}",
            )
        if np.any(np.diff(samples, axis=0) <= 0):
            return BDRate(None, None, f"{curve.name}: {LABELS[metric]} does not grow with the rate")
        curves.append(samples.T)
    (anchor_bpp, anchor_quality), (test_bpp, test_quality) = curves
    low = max(anchor_quality[0], test_quality[0])
    high = min(anchor_quality[-1], test_quality[-1])
    quality = (float(low), float(high)) if low < high else None
    note = _too_little((anchor.name, anchor_quality), (test.name, test_quality), quality, metric)
    if note:
        return BDRate(None, quality, note)
    with warnings.catch_warnings():
        # A published curve may extend far beyond two models. The common interval is reported.
        warnings.simplefilter("ignore")
        percent = bjontegaard.bd_rate(
            anchor_bpp,
            anchor_quality,
            test_bpp,
            test_quality,
            method=method,
            require_matching_points=False,
            min_overlap=0,
        )
    return BDRate(float(percent), quality, "")


def comparable(curve: Curve, other: Curve) -> bool:
    """Returns true if two curves are means over the same pictures, as far as known."""
    known = curve.pictures and other.pictures
    return not known or set(curve.pictures) == set(other.pictures)


def _too_little(
    anchor: tuple[str, np.ndarray],
    test: tuple[str, np.ndarray],
    common: tuple[float, float] | None,
    metric: str,
) -> str:
    """Returns a line if two curves have too few qualities in common for a BD-rate, else "".

    The line does not depend on the order of the curves.

    Args:
      anchor, test: (name, qualities from low to high) of each.
      common: (lowest, highest) quality that both reach, or None.
      metric: a key of `METRICS`.
    """
    (first, first_quality), (second, second_quality) = sorted((anchor, test), key=lambda c: c[0])
    names, label = f"{first} and {second}", LABELS[metric]
    if common is None:
        return (
            f"{names} have no {label} in common: "
            f"{first_quality[0]:.2f} to {first_quality[-1]:.2f} and "
            f"{second_quality[0]:.2f} to {second_quality[-1]:.2f}"
        )
    overlap = common[1] - common[0]
    share = overlap / min(np.ptp(first_quality), np.ptp(second_quality))
    if share >= MIN_OVERLAP and overlap >= MIN_OVERLAP_DB:
        return ""
    return (
        f"{names} overlap by {overlap:.3f} dB of {label}, from {common[0]:.2f} to {common[1]:.2f},"
        f" {100 * share:.1f} % of the shorter curve; at least {100 * MIN_OVERLAP:g} % and"
        f" {MIN_OVERLAP_DB:g} dB are needed"
    )


def bpp_at(curve: Curve, metric: str, quality: float) -> float | None:
    """Returns the rate that a curve needs for a quality; None if the quality is out of its range.

    Log rate is interpolated linearly over quality between neighbouring points.
    """
    samples = curve.samples(metric)
    samples = samples[np.argsort(samples[:, 1], kind="stable")]
    if not len(samples) or not samples[0, 1] <= quality <= samples[-1, 1]:
        return None
    return math.exp(np.interp(quality, samples[:, 1], np.log(samples[:, 0])))


def read_published(path: Path, codec: str) -> Curve:
    """Reads a published curve from a CSV with the columns metric, codec, bpp, value.

    The metric is PSNR in dB or MS-SSIM; MS-SSIM is linear, or in dB if all of its values are above
    1. The file may have a byte-order mark, be UTF-16, and have semicolons or tabs between columns,
    then with decimal commas as well.

    Raises:
      EvaluationError: no such file, other columns, a row without numbers that can be drawn, or no
        such codec in it.
    """
    name = files.shown(path)
    try:
        text = files.decoded(Path(files.expanded(str(path))).read_bytes())
    except OSError as error:
        raise EvaluationError(
            f"--anchor: {name} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from None
    rows, comma = _anchor_rows(text, name)
    metrics = {label.lower(): key for key, (label, _) in METRICS.items()}
    metrics["psnr [db]"] = metrics["psnr"]
    metrics["ms-ssim [db]"] = metrics["ms-ssim db"] = metrics["ms-ssim"]
    values = []
    for line, row in rows:
        metric = " ".join(row["metric"].lower().replace("(", "[").replace(")", "]").split())
        if row["codec"] != codec or metric not in metrics:
            continue
        where = f"--anchor: {name}, line {line}"
        bpp, value = (_anchor_number(row[column], where, comma) for column in ("bpp", "value"))
        if not (0 < bpp < math.inf):
            raise EvaluationError(f"{where}: bpp must be a number above 0; got {row['bpp']!r}")
        if not math.isfinite(value):
            raise EvaluationError(f"{where}: value must be finite; got {row['value']!r}")
        values.append((where, metrics[metric], metric.startswith("ms-ssim "), bpp, value))
    others = sorted({row["metric"] for _, row in rows if row["codec"] == codec})
    if not values and others:
        raise EvaluationError(
            f"--anchor: {name} has no metric PSNR or MS-SSIM of {codec!r}; got {', '.join(others)}"
        )
    if not values:
        known = (
            ", ".join(repr(name) for name in sorted({row["codec"] for _, row in rows})) or "none"
        )
        raise EvaluationError(f"--anchor_codec: {name} has no codec {codec!r}; known: {known}")
    return Curve(f"{codec} (published)", "published", _anchor_points(values))


def _anchor_rows(text: str, name: str) -> tuple[list[tuple[int, dict[str, str]]], bool]:
    """Returns ([(line number, row by column)], true if commas may be decimal)."""
    lines = text.split("\n")
    first = next((i for i, line in enumerate(lines) if line.strip()), 0)
    delimiter = None
    if lines[first].lower().startswith("sep=") and len(lines[first]) >= 5:  # from Excel
        first, delimiter = first + 1, lines[first][4]
    head = lines[first] if first < len(lines) else ""
    delimiter = delimiter or max(",;\t", key=head.count)
    reader = csv.reader(lines[first:], delimiter=delimiter, skipinitialspace=True)
    columns, rows = None, []
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if columns is None:
                columns = [cell.lower() for cell in cells]
                missing = [c for c in ANCHOR_COLUMNS if c not in columns]
                if missing:
                    raise EvaluationError(
                        f"--anchor: {name} lacks the column(s) {', '.join(missing)}; expected "
                        f"{','.join(ANCHOR_COLUMNS)}"
                    )
            elif any(cells):
                line = first + reader.line_num
                if any(cells[len(columns) :]):
                    raise EvaluationError(
                        f"--anchor: {name}, line {line}: {len(cells)} cells for {len(columns)}"
                        " columns; decimal commas need semicolons or tabs between the columns"
                    )
                cells += [""] * (len(columns) - len(cells))
                rows.append((line, dict(zip(columns, cells))))
    except csv.Error as error:
        raise EvaluationError(f"--anchor: {name} is not a CSV file: {error}") from None
    return rows, delimiter != ","


def _anchor_number(text: str, where: str, comma: bool) -> float:
    try:
        return float(text.replace(",", ".") if comma else text)
    except ValueError:
        raise EvaluationError(
            f"{where}: expected numbers for bpp and value, got {text!r}"
        ) from None


def _anchor_points(values: list[tuple[str, str, bool, float, float]]) -> tuple[Point, ...]:
    """Returns points from tuples (location, key of METRICS, true if in dB by name, bpp, value)."""
    linear = [
        (where, value) for where, key, in_db, _, value in values
        if key == "ms_ssim_db" and not in_db
    ]  # fmt: skip
    above = [where for where, value in linear if value > 1]
    if above and len(above) < len(linear):
        raise EvaluationError(
            f"{above[0]}: MS-SSIM above 1 beside values below: expected all linear, or all in dB"
        )
    points = []
    for where, key, in_db, bpp, value in values:
        if key == "ms_ssim_db" and not in_db and not above:
            if not 0 <= value < 1:
                raise EvaluationError(f"{where}: MS-SSIM must be from 0 to below 1; got {value:g}")
            points.append(Point(bpp, ms_ssim_db=measure.decibels(value)))
        else:
            points.append(Point(bpp, **{key: value}))
    return tuple(points)
