"""Page that compares codecs on pictures: one HTML file that needs no server and no network.

The page has rate-distortion curves. Each picture has two versions behind a slider and a map of the
bits per pixel. The pictures on which the model loses most against the best other codec come first.
The page contains JPEG, WebP and AVIF files unchanged. Other pictures are stored losslessly.
"""

from __future__ import annotations

import base64
import html
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable

import numpy as np
from PIL import Image

from tfquant.evaluation import measure, report
from tfquant.evaluation.comparison import Comparison
from tfquant.evaluation.same_size import Version

_TEMPLATE = Path(__file__).with_name("view.html")
_MIME = {"JPEG 4:2:0": "jpeg", "JPEG 4:4:4": "jpeg", "WebP": "webp", "AVIF 4:2:0": "avif"}
_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#777777", "#CC79A7")
_AXES = {"psnr": "PSNR [dB]", "ms_ssim_db": "MS-SSIM [dB]"}


def page(
    title: str,
    note: str,
    comparisons: Sequence[Comparison],
    rate_maps: Mapping[tuple[str, float], np.ndarray],
    most: int,
) -> str:
    """Returns the page as text.

    Args:
      title: its heading.
      note: a sentence under the heading.
      comparisons: `Comparison`s of all pictures and qualities.
      rate_maps: (picture's name, quality) -> bits of each pixel, float32 [H, W].
      most: number of pictures to show; the curves and the table cover all pictures.
    """
    by_picture: dict[str, list[Comparison]] = {}
    for each in comparisons:
        by_picture.setdefault(each.name, []).append(each)
    order = sorted(by_picture, key=lambda name: _advantage(by_picture[name]))
    shown = [_picture(by_picture[name], rate_maps) for name in order[:most]]
    values = {
        "TITLE": html.escape(title),
        "NOTE": html.escape(note),
        "CURVES": "".join(_curves(comparisons, key, label) for key, label in _AXES.items()),
        "TABLE": _table(order, by_picture),
        "SHOWN": f"{len(shown)} of {len(order)}",
        "PICTURES": json.dumps(shown).replace("<", "\\u003c"),  # the page's parser sees no tag
    }
    text = _TEMPLATE.read_text(encoding="utf-8")
    return re.sub(f"@({'|'.join(values)})@", lambda found: values[found[1]], text)


def _advantage(comparisons: Sequence[Comparison]) -> float:
    """Returns the mean over qualities of the model's PSNR minus the best other codec's, in dB."""
    differences = []
    for each in comparisons:
        own, *others = (version.quality.psnr or np.inf for version in each.versions)
        if others and np.isfinite([own, *others]).all():
            differences.append(own - max(others))
    return float(np.mean(differences)) if differences else 0.0


def _picture(
    comparisons: Sequence[Comparison], rate_maps: Mapping[tuple[str, float], np.ndarray]
) -> dict[str, Any]:
    """Returns the data of a picture for the page's script."""
    original = comparisons[0].original
    qualities = []
    for each in comparisons:
        versions = [
            {
                "label": version.label,
                "bytes": len(version.data),
                "bpp": round(measure.bits_per_pixel(len(version.data), original), 4),
                "psnr": _rounded(version.quality.psnr, 2),
                "ms_ssim": _rounded(version.quality.ms_ssim, 4),
                "src": _source(version),
            }
            for version in each.versions
        ]
        spent = rate_maps[each.name, each.quality]
        qualities.append(
            {"quality": each.quality, "versions": versions, "map": _lossless(_heat(spent)),
             "most": round(float(np.max(spent)), 2)}
        )  # fmt: skip
    return {
        "name": comparisons[0].name,
        "height": original.shape[0],
        "width": original.shape[1],
        "advantage": round(_advantage(comparisons), 2),
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


def _table(order: list[str], by_picture: Mapping[str, list[Comparison]]) -> str:
    """Returns an HTML table with a row for each picture and quality, worst pictures first."""
    labels = [version.label for version in by_picture[order[0]][0].versions]
    heads = ["picture", "quality", "bytes", "bpp", *(f"{label} [dB]" for label in labels)]
    rows = ["".join(f"<th>{html.escape(head)}</th>" for head in heads)]
    for name in order:
        for each in by_picture[name]:
            size = len(each.versions[0].data)
            cells = [each.name, f"{each.quality:g}", str(size),
                     f"{measure.bits_per_pixel(size, each.original):.3f}"]  # fmt: skip
            cells += [report.number(version.quality.psnr, 2) for version in each.versions]
            rows.append("".join(f"<td>{html.escape(cell)}</td>" for cell in cells))
    return "<table>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"


def _points(comparisons: Sequence[Comparison], key: str) -> dict[str, list[tuple[float, float]]]:
    """Returns a map from codec to means over the pictures, (bpp, value) for each quality."""
    found: dict[str, list[tuple[float, float]]] = {}
    for quality in sorted({each.quality for each in comparisons}):
        of_quality = [c for c in comparisons if c.quality == quality]
        for place, version in enumerate(of_quality[0].versions):
            pairs = [
                (measure.bits_per_pixel(len(c.versions[place].data), c.original),
                 getattr(c.versions[place].quality, key))
                for c in of_quality
            ]  # fmt: skip
            pairs = [pair for pair in pairs if pair[1] is not None]
            if pairs:
                bpp, value = np.mean(pairs, axis=0)
                found.setdefault(version.label, []).append((float(bpp), float(value)))
    return found


def _curves(comparisons: Sequence[Comparison], key: str, label: str) -> str:
    """Returns a plot as SVG; empty if there are no measurements."""
    curves = _points(comparisons, key)
    everything = [point for points in curves.values() for point in points]
    if not everything:
        return ""
    width, height, left, bottom = 460, 320, 52, 40
    rates, values = np.transpose(everything)
    right, low, high = 1.08 * rates.max(), values.min() - 0.5, values.max() + 0.5

    def place(bpp: float, value: float) -> str:
        x = left + bpp / right * (width - left - 10)
        y = (height - bottom) - (value - low) / (high - low) * (height - bottom - 10)
        return f"{x:.1f},{y:.1f}"

    parts = _grid(place, (0, right), (low, high), width, height)
    for points, colour in zip(curves.values(), _COLOURS):
        places = [place(*point) for point in points]
        parts.append(f'<polyline points="{" ".join(places)}" fill="none" stroke="{colour}"'
                     ' stroke-width="2"/>')  # fmt: skip
        for each in places:
            x, y = each.split(",")
            parts.append(f'<circle cx="{x}" cy="{y}" r="3.5" fill="{colour}"/>')
    for row, (name, colour) in enumerate(zip(curves, _COLOURS)):
        above = height - bottom - 14 - 16 * (len(curves) - 1 - row)
        legend = f'<text x="{width - 16}" y="{above}" text-anchor="end" fill="{colour}">'
        parts.append(f"{legend}{html.escape(name)}</text>")
    middle = 'text-anchor="middle"'
    parts.append(f'<text x="{width / 2}" y="{height - 4}" {middle}>bits per pixel</text>')
    turned = f'transform="rotate(-90 12 {height / 2})"'
    parts.append(f'<text x="12" y="{height / 2}" {middle} {turned}>{label}</text>')
    return f'<svg viewBox="0 0 {width} {height}" role="img">{"".join(parts)}</svg>'


def _grid(
    place: Callable[[float, float], str],
    rates: tuple[float, float],
    values: tuple[float, float],
    width: int,
    height: int,
) -> list[str]:
    """Returns lines and numbers of a plot as SVG; `place` maps a point to "x,y"."""
    parts = []
    for tick in _ticks(*rates):
        x, y = place(tick, values[0]).split(",")
        parts.append(f'<line x1="{x}" y1="10" x2="{x}" y2="{y}" class="grid"/>')
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
