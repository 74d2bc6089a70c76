"""Common style of all figures: each quantization method has its own colour, dash and marker.

Colours are from Okabe and Ito, and two from Tol. They can be distinguished with every kind of
colour blindness. Dashes and markers distinguish the methods without colour. The elements of a
series (temperatures, runs, weights) have their method's dash, from pale for the first to full
colour for the last.
"""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
from matplotlib import colors
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tfquant.quantization.plans import PLANS

DPI = 130

# Okabe and Ito's colours, without their yellow, which is too pale for a line.
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9",
)  # fmt: skip
BLACK, GREY = "#000000", "#777777"

# Surrogate -> (label, colour, dash, marker). MIX is not a surrogate but has its own style.
METHODS = {
    "round": ("rounding", BLACK, "-", "o"),
    "aun": ("AUN", BLUE, "-", "s"),
    "uq_s": ("UQ-s", SKY, "-.", "<"),
    "uq_i": ("UQ-i", BLUE, ":", ">"),
    "sua": ("SUA", VERMILION, "-", "^"),
    "sua_n": ("SUA-n", ORANGE, "--", "v"),
    "sr": ("SR", PURPLE, "-", "D"),
    "sra": ("SRA", "#882255", "--", "d"),
    "sga": ("SGA", GREEN, "-.", "P"),
    "sha": ("SHA", GREY, ":", "X"),
    "mix": ("MIX", "#8C510A", "--", "p"),
}
# Styles of methods that are not in the table, in the order in which they appear.
_GUEST_COLOURS = ("#117733", "#AA4499", "#999933", "#332288")
_GUEST_MARKERS = ("*", "h", "p", "8")
_guests: dict = {}

# Styles of curves that are not quantization methods, such as codecs, by index.
_SERIES = tuple(zip((BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY), "os^DvP"))

# Style of a limit, a published value or a bound.
REFERENCE = {"color": BLACK, "linestyle": (0, (1, 1.5)), "linewidth": 1.3}
ZERO = {"color": BLACK, "linewidth": 0.8}

_PALEST = 0.45  # share of its colour that the first element of a series keeps


def _look(method: str) -> tuple:
    if method in METHODS:
        return METHODS[method]
    if method not in _guests:
        n = len(_guests)
        colour = _GUEST_COLOURS[n % len(_GUEST_COLOURS)]
        marker = _GUEST_MARKERS[n % len(_GUEST_MARKERS)]
        _guests[method] = (method, colour, (0, (4, 1.2, 1, 1.2, 1, 1.2)), marker)
    return _guests[method]


def method(name: str, markers: bool = False) -> dict:
    """Returns keyword arguments of `Axes.plot` for a method.

    Args:
      name: a key of `METHODS`, or a user's own surrogate.
      markers: true for individually measured points, false for a computed curve.
    """
    text, colour, dash, marker = _look(name)
    made = {"color": colour, "linestyle": dash, "linewidth": 1.8, "label": text}
    if markers:
        made.update(marker=marker, markersize=5)
    return made


def plan(name: str, markers: bool = True) -> dict:
    """Returns the style of a plan's distortion branch; straight-through has hollow markers."""
    decoded = PLANS[name].distortion
    made = method("mix" if name == "mix" else decoded.surrogate, markers)
    return hollow(made) if decoded.estimator == "straight_through" else made


def hollow(made: dict) -> dict:
    """Returns a style with hollow markers."""
    return {**made, "markerfacecolor": "white"}


def series(place: int) -> dict:
    """Returns the style of one of several other curves; dashed from the seventh on."""
    colour, marker = _SERIES[place % len(_SERIES)]
    look = {"color": colour, "linestyle": "-", "linewidth": 1.8, "marker": marker, "markersize": 5}
    return look if place < len(_SERIES) else {**hollow(look), "linestyle": "--"}


def shade(colour: str | tuple[float, ...], place: int, count: int) -> tuple[float, ...]:
    """Returns a colour's shade in a series of `count`, from pale for the first to full for the
    last.
    """
    share = 1.0 if count < 2 else _PALEST + (1.0 - _PALEST) * place / (count - 1)
    return tuple(1.0 - share * (1.0 - c) for c in colors.to_rgb(colour))


def new_figure(
    size: tuple[float, float], columns: int = 1, rows: int = 1, **options: Any
) -> tuple[Figure, np.ndarray]:
    """Returns a figure of `size` (width, height) inches and its axes `[rows, columns]`, with a
    grid.
    """
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for each in axes.flat:
        each.grid(color="#E4E4E4", linewidth=0.7)
        each.set_axisbelow(True)
        each.spines[["top", "right"]].set_visible(False)
    return figure, axes


def legend(figure: Figure, title: str | None = None, below: bool = False) -> None:
    """Adds one legend for all axes, with each name once: outside on the right, or below them.

    Below the axes, a name that is wider than the figure is wrapped.
    """
    found: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, text in zip(*axes.get_legend_handles_labels()):
            found.setdefault(text, handle)
    place: dict[str, Any] = {"loc": "outside right upper"}
    texts = list(found)
    if below and found:
        letter, handle_width, width = 0.085, 0.8, figure.get_figwidth()  # inches, approximate
        fitting = int((width - handle_width) / letter)
        texts = [textwrap.fill(text, fitting, break_on_hyphens=False) for text in found]
        longest = max(len(line) for text in texts for line in text.splitlines())
        columns = int(width / (letter * longest + handle_width))
        place = {"loc": "outside lower center", "ncols": max(1, min(4, columns, len(found)))}
    figure.legend(
        list(found.values()), texts, frameon=False, title=title, alignment="left",
        handlelength=3.2, **place,
    )  # fmt: skip
