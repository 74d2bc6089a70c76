"""Page that compares codecs on pictures: one HTML file that needs no server and no network.

The page has rate-distortion curves. Each picture has two versions behind a slider and a map of the
bits per pixel. The pictures on which the model loses most against the best other codec come first.
The page contains JPEG, WebP and AVIF files unchanged. Other pictures are stored losslessly.
"""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple

import numpy as np
from PIL import Image

from tfquant import metrics
from tfquant.evaluation import comparison, curves, measure, same_size
from tfquant.evaluation.comparison import Comparison
from tfquant.evaluation.same_size import Version

_TEMPLATE = Path(__file__).with_name("view.html")
_MIME = {"JPEG 4:2:0": "jpeg", "JPEG 4:4:4": "jpeg", "WebP": "webp", "AVIF 4:2:0": "avif"}
_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#777777", "#CC79A7")


class _Point(NamedTuple):
    """Rate and quality of a version of a picture, without its pixels."""

    codec: str
    setting: float
    bits: int
    pixels: int
    quality: measure.Quality


class _Standing(NamedTuple):
    """Comparison of the model with the best other codec at the same size.

    Attributes:
      advantage: mean over qualities of the model's PSNR minus the best other codec's, in dB.
        Infinite if only one of them has no loss: negative if this is the other codec. Infinite as
        well if no other codec has a file as small as the model's.
      text: the same as a sentence for readers.
      best: place of the best other codec among the versions, at the lowest quality; 0 if there is
        none.
    """

    advantage: float
    text: str
    best: int


@dataclasses.dataclass(frozen=True)
class _Measured:
    """The numbers of a picture, which the page keeps of every picture.

    Attributes:
      name: name of the picture.
      standing: the comparison with the best other codec.
      rows: cells of the table, one row for each quality.
      points: of all codecs at all qualities.
    """

    name: str
    standing: _Standing
    rows: list[list[str]]
    points: list[_Point]


def page(
    title: str,
    note: str,
    comparisons: Iterable[Comparison],
    rate_maps: Mapping[tuple[str, float], np.ndarray],
    most: int,
    left_out: Sequence[str] = (),
) -> str:
    """Returns the page as text.

    The comparisons may come from an iterator that makes them. The page keeps the pixels of one
    picture at a time; only the first picture is kept until the second one's first comparison.

    Args:
      title: its heading.
      note: a sentence under the heading.
      comparisons: `Comparison`s of all pictures. Those of a picture follow each other, and all
        pictures have the same qualities.
      rate_maps: (picture's name, quality) -> bits of each pixel, float32 [H, W]. A map is looked up
        when its comparison has been made.
      most: number of pictures to show; the curves and the table cover all pictures.
      left_out: lines about pictures that could not be compared. They are read last.

    Raises:
      ValueError: there are no comparisons, or they are not in this order.
    """
    measured: list[_Measured] = []
    shown: list[tuple[float, dict[str, Any]]] = []
    for of_picture in _by_picture(comparisons, rate_maps):
        found = _measured([each for each, _ in of_picture])
        measured.append(found)
        shown.append((found.standing.advantage, {}))
        shown.sort(key=lambda each: each[0])
        for place, (_, data) in enumerate(shown[:most]):
            if not data:  # the new picture is one of the worst so far
                shown[place] = found.standing.advantage, _picture(of_picture, found.standing)
        del shown[most:], of_picture  # frees the pixels
    measured.sort(key=lambda each: each.standing.advantage)
    if not measured:
        raise ValueError("no comparisons")
    labels = list(dict.fromkeys(point.codec for point in measured[0].points))
    notes = [f"Not in this page: {line}." for line in left_out]
    drawn = []
    for key, label in curves.LABELS.items():
        kept, reasons = _drawable(measured, key)
        drawn.append(_curves(kept, labels, key, label))
        notes += reasons
    values = {
        "TITLE": html.escape(title),
        "NOTE": html.escape(note),
        "CURVES": "".join(drawn),
        "NOTES": "".join(f"<li>{html.escape(line)}</li>" for line in notes),
        "TOLERANCE": f"{100 * same_size.TOLERANCE:g}",
        "TABLE": _table(measured, labels),
        "SHOWN": f"{len(shown)} of {len(measured)}",
        # The page's parser sees no tag.
        "PICTURES": json.dumps([data for _, data in shown]).replace("<", "\\u003c"),
    }
    text = _TEMPLATE.read_text(encoding="utf-8")
    return re.sub(f"@({'|'.join(values)})@", lambda found: values[found[1]], text)


_WithMap = tuple[Comparison, np.ndarray]


def _by_picture(
    comparisons: Iterable[Comparison], rate_maps: Mapping[tuple[str, float], np.ndarray]
) -> Iterable[list[_WithMap]]:
    """Yields the comparisons of each picture, with their maps."""
    group: list[_WithMap] = []
    qualities: list[float] = []  # of every picture, known from the first one
    names: set[str] = set()

    def complete() -> list[_WithMap]:
        found = [each.quality for each, _ in group]
        name = group[0][0].name
        if name in names or found != (qualities or found):
            raise ValueError(f"{name!r} has the qualities {found}; expected once {qualities}")
        names.add(name)
        qualities[:] = found
        return group

    for each in comparisons:
        if group and group[0][0].name != each.name:
            yield complete()
            group = []
        group.append((each, rate_maps[each.name, each.quality]))
        del each  # frees the pixels while the next comparison is made
        if len(group) == len(qualities):
            yield complete()
            group = []
    if group:
        yield complete()


def _measured(comparisons: Sequence[Comparison]) -> _Measured:
    points = [
        _Point(
            version.label,
            each.quality,
            8 * len(version.data),
            each.original.shape[0] * each.original.shape[1],
            version.quality,
        )
        for each in comparisons
        for version in each.versions
    ]
    rows = [comparison.cells(each) for each in comparisons]
    return _Measured(comparisons[0].name, _standing(comparisons), rows, points)


def _standing(comparisons: Sequence[Comparison]) -> _Standing:
    """Compares the model with the best other codec, see `_Standing`."""
    differences: list[float] = []
    remarks: dict[str, list[str]] = {}  # sentence -> the qualities for which it is true
    best = 0
    for each in comparisons:
        own, *others = each.versions
        if not others:
            return _Standing(0.0, "this Pillow has no other codec", 0)
        remark = ""
        reached = [same_size.psnr_at(version, each.size()) for version in others]
        known = [(psnr, place) for place, psnr in enumerate(reached, 1) if psnr is not None]
        if known:
            psnr, place = max(known, key=lambda pair: pair[0])
            other = each.versions[place]
            difference = 0.0 if own.psnr() == psnr else own.psnr() - psnr
            differences.append(difference)
            if math.isinf(difference):
                remark = f"only {(own if difference > 0 else other).label} is lossless"
            elif math.isinf(psnr):
                remark = f"{own.label} and {other.label} are lossless"
        else:
            place = min(range(1, len(each.versions)), key=lambda i: len(each.versions[i].data))
            remark = "no other codec has so small a file"
        best = best or place
        if remark:
            remarks.setdefault(remark, []).append(f"{each.quality:g}")
    finite = [difference for difference in differences if math.isfinite(difference)]
    texts = [f"{np.mean(finite):+.2f} dB"] if finite else []
    texts += [f"{text} at quality {', '.join(names)}" for text, names in remarks.items()]
    advantage = float(np.mean(finite)) if finite else math.inf
    if -math.inf in differences:
        advantage = -math.inf
    return _Standing(advantage, "; ".join(texts), best)


def _picture(of_picture: Sequence[_WithMap], standing: _Standing) -> dict[str, Any]:
    """Returns the data of a picture for the page's script."""
    original = of_picture[0][0].original
    qualities = []
    for each, spent in of_picture:
        versions = [
            {
                "label": version.label,
                "size": same_size.size_text(version, each.size(), " bytes"),
                "bpp": round(measure.bits_per_pixel(len(version.data), original), 4),
                "psnr": _rounded(version.quality.psnr, 2),
                "ms_ssim": _rounded(version.quality.ms_ssim, 4),
                "src": _source(version),
            }
            for version in each.versions
        ]
        qualities.append(
            {"quality": each.quality, "versions": versions, "map": _lossless(_heat(spent)),
             "most": round(float(np.max(spent)), 2)}
        )  # fmt: skip
    return {
        "name": of_picture[0][0].name,
        "height": original.shape[0],
        "width": original.shape[1],
        "standing": standing.text,
        "best": standing.best,
        "original": _lossless(original),
        "qualities": qualities,
    }


def _rounded(value: float | None, decimals: int) -> float | None:
    return None if value is None else round(value, decimals)


def _source(version: Version) -> str:
    kind = _MIME.get(version.label)
    if kind is None:
        return _lossless(version.image)
    return f"data:image/{kind};base64,{base64.b64encode(version.data).decode()}"


def _lossless(image: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", optimize=True)
    data, kind = file.getvalue(), "png"
    file = io.BytesIO()
    try:
        Image.fromarray(image).save(file, "WEBP", lossless=True, method=4)
    except (KeyError, OSError, ValueError):  # Pillow has no WebP, or the picture is too large
        pass
    else:
        data, kind = min((data, kind), (file.getvalue(), "webp"), key=lambda each: len(each[0]))
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _heat(spent: np.ndarray) -> np.ndarray:
    """Returns a picture, uint8 [H, W, 3], from black over red and yellow to white, the maximum."""
    share = np.clip(spent / max(float(np.max(spent)), 1e-9), 0, 1)
    channels = (np.clip(3 * share - start, 0, 1) for start in (0, 1, 2))
    return np.stack([np.rint(255 * channel) for channel in channels], axis=-1).astype(np.uint8)


def _table(measured: Sequence[_Measured], labels: Sequence[str]) -> str:
    """Returns an HTML table with a row for each picture and quality, in the order of `measured`."""
    rows = ["".join(f"<th>{html.escape(head)}</th>" for head in comparison.heads(labels))]
    for each in measured:
        rows += ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in each.rows]
    return "<table>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"


def _drawable(measured: Sequence[_Measured], key: str) -> tuple[list[_Measured], list[str]]:
    """Returns the pictures of a curve, and lines about the others.

    A picture is left out for all codecs and qualities if one of its versions has no value.

    Args:
      measured: all pictures.
      key: an attribute of `measure.Quality`.
    """
    kept, small, exact = [], [], []
    for each in measured:
        without = {point.codec for point in each.points if getattr(point.quality, key) is None}
        if not without:
            kept.append(each)
        elif key == "ms_ssim_db" and each.points[0].quality.ms_ssim is None:
            small.append(each.name)
        else:
            exact.append(f"{each.name} ({', '.join(sorted(without))})")
    name = curves.LABELS[key].partition(" ")[0]
    lines = []
    if small:
        lines.append(f"The curves of {name} are without {len(small)} of {len(measured)} pictures,"
                     f" which have sides of less than {metrics.FULL_PYRAMID_SIDE} pixels:"
                     f" {', '.join(small)}.")  # fmt: skip
    if exact:
        lines.append(f"The curves of {name} are without {len(exact)} of {len(measured)} pictures,"
                     " which codecs store without loss, so that their quality in dB is infinite:"
                     f" {', '.join(exact)}.")  # fmt: skip
    if not kept:
        lines.append(f"There are no curves of {name}: no picture is left.")
    return kept, lines


def _points(
    measured: Sequence[_Measured], labels: Sequence[str], key: str
) -> dict[str, list[tuple[float, float]]]:
    """Returns a map from codec to (bpp, value) at each quality, for all pictures together.

    The rate is the number of bits of all pictures per pixel of all pictures: a mean of their rates
    would be that of the smallest ones, whose files are mostly headers. The value is the mean over
    the pictures. For MS-SSIM, this is the mean in decibels, as in `measure.mean`.
    """
    found: dict[str, list[tuple[float, float]]] = {label: [] for label in labels}
    everything = [point for each in measured for point in each.points]
    for setting in sorted({point.setting for point in everything}):
        for label in labels:
            points = [p for p in everything if (p.codec, p.setting) == (label, setting)]
            bpp = sum(point.bits for point in points) / sum(point.pixels for point in points)
            attribute = "psnr" if key == "psnr" else "ms_ssim"
            value = float(np.mean([getattr(point.quality, attribute) for point in points]))
            found[label].append((bpp, value if key == "psnr" else float(metrics.ms_ssim_db(value))))
    return found


def _curves(measured: Sequence[_Measured], labels: Sequence[str], key: str, label: str) -> str:
    """Returns a plot as SVG; empty if there are no pictures."""
    if not measured:
        return ""
    by_codec = _points(measured, labels, key)
    everything = [point for points in by_codec.values() for point in points]
    width, height, left, top, bottom = 460, 330, 52, 26, 40
    rates, values = np.transpose(everything)
    right, low, high = 1.08 * rates.max(), values.min() - 0.5, values.max() + 0.5

    def place(bpp: float, value: float) -> str:
        x = left + bpp / right * (width - left - 10)
        y = (height - bottom) - (value - low) / (high - low) * (height - bottom - top)
        return f"{x:.1f},{y:.1f}"

    parts = _grid(place, (0, right), (low, high), (width, top, height))
    for points, colour in zip(by_codec.values(), _COLOURS):
        places = [place(*point) for point in points]
        parts.append(f'<polyline points="{" ".join(places)}" fill="none" stroke="{colour}"'
                     ' stroke-width="2"/>')  # fmt: skip
        for each in places:
            x, y = each.split(",")
            parts.append(f'<circle cx="{x}" cy="{y}" r="3.5" fill="{colour}"/>')
    legend = (
        f'<tspan fill="{colour}" dx="{14 if i else 0}">{html.escape(name)}</tspan>'
        for i, (name, colour) in enumerate(zip(by_codec, _COLOURS))
    )
    parts.append(f'<text x="{left}" y="14">{"".join(legend)}</text>')
    middle = 'text-anchor="middle"'
    parts.append(f'<text x="{width / 2}" y="{height - 4}" {middle}>bits per pixel</text>')
    turned = f'transform="rotate(-90 12 {height / 2})"'
    parts.append(f'<text x="12" y="{height / 2}" {middle} {turned}>{label}</text>')
    return f'<svg viewBox="0 0 {width} {height}" role="img">{"".join(parts)}</svg>'


def _grid(
    place: Callable[[float, float], str],
    rates: tuple[float, float],
    values: tuple[float, float],
    size: tuple[int, int, int],
) -> list[str]:
    """Returns lines and numbers of a plot as SVG.

    Args:
      place: maps a point to "x,y".
      rates, values: lowest and highest of the axes.
      size: the plot's width, upper margin and height.
    """
    width, top, height = size
    parts = []
    for tick in _ticks(*rates):
        x, y = place(tick, values[0]).split(",")
        parts.append(f'<line x1="{x}" y1="{top}" x2="{x}" y2="{y}" class="grid"/>')
        parts.append(f'<text x="{x}" y="{height - 22}" text-anchor="middle">{tick:g}</text>')
    for tick in _ticks(*values):
        x, y = place(0, tick).split(",")
        parts.append(f'<line x1="{x}" y1="{y}" x2="{width - 10}" y2="{y}" class="grid"/>')
        parts.append(
            f'<text x="{float(x) - 6}" y="{float(y) + 4}" text-anchor="end">{tick:g}</text>'
        )
    return parts


def _ticks(low: float, high: float) -> list[float]:
    """Returns about five round numbers between two values."""
    step = 10.0 ** np.floor(np.log10((high - low) / 4))
    step = max((factor * step for factor in (1, 2, 5) if (high - low) / (factor * step) >= 3),
               default=step)  # fmt: skip
    return [float(tick) for tick in step * np.arange(np.ceil(low / step), high / step)]
