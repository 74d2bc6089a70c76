"""One look for all figures: every method of quantization has its colour, dash and marker.

Colours are Okabe and Ito's and two of Tol's, apart with every colour blindness; dashes and markers
tell the methods apart without colour. What is one of a series (temperatures, runs, weights) keeps
its method's dash and goes from pale, first, to full colour, last.
"""

from __future__ import annotations

import textwrap

from matplotlib import colors
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tfquant.quantization.plans import PLANS

DPI = 130

# Okabe and Ito's; their yellow, too pale for a line, is left out.
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9",
)  # fmt: skip
BLACK, GREY = "#000000", "#777777"

# Surrogate -> label, colour, dash, marker. MIX, no surrogate of its own, has its line too.
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
# For what is not in the table, in the order in which it appears.
_GUEST_COLOURS = ("#117733", "#AA4499", "#999933", "#332288")
_GUEST_MARKERS = ("*", "h", "p", "8")
_guests: dict = {}

# What is no method of quantization: codecs beside each other, by their place.
_SERIES = tuple(zip((BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY), "os^DvP"))

# A limit, a published figure, a bound.
REFERENCE = {"color": BLACK, "linestyle": (0, (1, 1.5)), "linewidth": 1.3}
ZERO = {"color": BLACK, "linewidth": 0.8}

_PALEST = 0.45  # the first of a series keeps so much of its colour


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
    """Keyword arguments of `Axes.plot`.

    Args:
      name: a key of `METHODS`, or a surrogate that somebody added.
      markers: for points measured one by one rather than a computed curve.
    """
    text, colour, dash, marker = _look(name)
    made = {"color": colour, "linestyle": dash, "linewidth": 1.8, "label": text}
    if markers:
        made.update(marker=marker, markersize=5)
    return made


def plan(name: str, markers: bool = True) -> dict:
    """The look of what a named plan decodes in training; straight-through has hollow markers."""
    decoded = PLANS[name].distortion
    made = method("mix" if name == "mix" else decoded.surrogate, markers)
    return hollow(made) if decoded.estimator == "straight_through" else made


def hollow(made: dict) -> dict:
    """A look with hollow markers."""
    return {**made, "markerfacecolor": "white"}


def series(place: int) -> dict:
    """The look of one of several curves that differ otherwise; dashed from the seventh on."""
    colour, marker = _SERIES[place % len(_SERIES)]
    look = {"color": colour, "linestyle": "-", "linewidth": 1.8, "marker": marker, "markersize": 5}
    return look if place < len(_SERIES) else {**hollow(look), "linestyle": "--"}


def shade(colour, place: int, count: int) -> tuple:
    """A colour's shade in a series of `count`: pale first, full last."""
    share = 1.0 if count < 2 else _PALEST + (1.0 - _PALEST) * place / (count - 1)
    return tuple(1.0 - share * (1.0 - c) for c in colors.to_rgb(colour))


def new_figure(size: tuple, columns: int = 1, rows: int = 1, **options):
    """A figure of `size` (width, height) inches and its axes `[rows, columns]`, with a grid."""
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for each in axes.flat:
        each.grid(color="#E4E4E4", linewidth=0.7)
        each.set_axisbelow(True)
        each.spines[["top", "right"]].set_visible(False)
    return figure, axes


def legend(figure, title: str | None = None, below: bool = False) -> None:
    """One legend for all axes, each name once: outside on the right, or below them.

    Below, a name that is wider than the figure goes on in the next line.
    """
    found = {}
    for axes in figure.axes:
        for handle, text in zip(*axes.get_legend_handles_labels()):
            found.setdefault(text, handle)
    place, texts = {"loc": "outside right upper"}, list(found)
    if below and found:
        letter, handle_width, width = 0.085, 0.8, figure.get_figwidth()  # inches, about
        fitting = int((width - handle_width) / letter)
        texts = [textwrap.fill(text, fitting, break_on_hyphens=False) for text in found]
        longest = max(len(line) for text in texts for line in text.splitlines())
        columns = int(width / (letter * longest + handle_width))
        place = {"loc": "outside lower center", "ncols": max(1, min(4, columns, len(found)))}
    figure.legend(
        list(found.values()), texts, frameon=False, title=title, alignment="left",
        handlelength=3.2, **place,
    )  # fmt: skip
