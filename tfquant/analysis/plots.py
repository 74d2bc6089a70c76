"""One look for all figures: one colour and dash a surrogate, legends outside the data.

Colours are Okabe and Ito's and two of Tol's, apart with every colour blindness; dashes and markers
tell the surrogates apart without colour. A surrogate's temperatures share its dash and go from pale
(soft) to full colour (hard).
"""

from __future__ import annotations

from matplotlib import colors
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tfquant.analysis.maps import Method
from tfquant.analysis.quadrature import ANY_MEAN

# Surrogate -> label, colour, dash, marker. MIX, no surrogate of its own, has its line too.
STYLES = {
    "round": ("rounding", "#000000", "-", "o"),
    "aun": ("AUN", "#0072B2", "-", "s"),
    "uq_s": ("UQ-s", "#56B4E9", "-.", "<"),
    "uq_i": ("UQ-i", "#0072B2", ":", ">"),
    "sua": ("SUA", "#D55E00", "-", "^"),
    "sua_n": ("SUA-n", "#E69F00", "--", "v"),
    "sr": ("SR", "#CC79A7", "-", "D"),
    "sra": ("SRA", "#882255", "--", "d"),
    "sga": ("SGA", "#009E73", "-.", "P"),
    "sha": ("SHA", "#777777", ":", "X"),
    "mix": ("MIX", "#8C510A", "--", "p"),
}
# For surrogates that somebody adds, in the order in which they appear.
_GUEST_COLOURS = ("#117733", "#AA4499", "#999933", "#332288")
_GUEST_MARKERS = ("*", "h", "p", "8")

# What the paper calls the estimators.
ESTIMATORS = {
    "standard": "standard", "pathwise": "PGE", "straight_through": "STE", "expected": "EP",
}  # fmt: skip

# A limit, a paper's figure, a bound: what is no surrogate.
REFERENCE = {"color": "black", "linestyle": (0, (1, 1.5)), "linewidth": 1.3}

_PALEST = 0.45  # the softest temperature keeps so much of its colour
_guests: dict = {}


def _look(surrogate: str) -> tuple:
    if surrogate in STYLES:
        return STYLES[surrogate]
    if surrogate not in _guests:
        n = len(_guests)
        colour = _GUEST_COLOURS[n % len(_GUEST_COLOURS)]
        marker = _GUEST_MARKERS[n % len(_GUEST_MARKERS)]
        _guests[surrogate] = (surrogate, colour, (0, (4, 1.2, 1, 1.2, 1, 1.2)), marker)
    return _guests[surrogate]


def label(method: Method) -> str:
    """What a legend calls it."""
    name = _look(method.surrogate)[0]
    return name if method.alpha is None else f"{name}, α = {method.alpha:g}"


def style(method: Method, alphas=(), markers: bool = False) -> dict:
    """Keyword arguments of `Axes.plot`.

    Args:
      method: surrogate and temperature.
      alphas: all temperatures in the figure: the hardest has the full colour.
      markers: for points measured one by one rather than a computed curve.
    """
    made = plain_style(method.surrogate, markers)
    made["label"] = label(method)
    if method.alpha is not None:
        series = sorted({*alphas, method.alpha})
        made["color"] = shade(made["color"], series.index(method.alpha), len(series))
    return made


def plain_style(name: str, markers: bool = False) -> dict:
    """The same for a key of `STYLES`, or a surrogate that somebody added, at any temperature."""
    text, colour, dash, marker = _look(name)
    made = {"color": colour, "linestyle": dash, "linewidth": 1.8, "label": text}
    if markers:
        made.update(marker=marker, markersize=5)
    return made


def new_figure(columns: int = 1, rows: int = 1, width: float = 4.4, height: float = 3.9, **options):
    """A figure with room for a legend beside it, and its axes `[rows, columns]`."""
    figure = Figure(figsize=(width * columns + 1.9, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for each in axes.flat:
        each.grid(color="#E4E4E4", linewidth=0.7)
        each.set_axisbelow(True)
        each.spines[["top", "right"]].set_visible(False)
    return figure, axes


def legend(figure, title: str | None = None) -> None:
    """One legend for all axes, outside on the right."""
    pairs = [a.get_legend_handles_labels() for a in figure.axes]
    found = {}
    for handles, labels in pairs:
        for handle, text in zip(handles, labels):
            found.setdefault(text, handle)
    figure.legend(
        list(found.values()), list(found), loc="outside right upper", frameon=False, title=title,
        alignment="left", handlelength=3.2,
    )  # fmt: skip


def mean_title(mu) -> str:
    """A panel's title for a mean of the latent."""
    named = {0.0: "μ = 0, the centre of a bin", 0.5: "μ = 1/2, between two bins"}
    return "mean over μ" if mu == ANY_MEAN else named.get(mu, f"μ = {mu:g}")


def shades(method: Method, count: int) -> list[dict]:
    """The surrogate's style from pale to full, for a series of sizes."""
    made = plain_style(method.surrogate, markers=True)
    return [{**made, "color": shade(made["color"], i, count)} for i in range(count)]


def shade(colour, position: int, count: int) -> tuple:
    """A colour's shade in a series of `count`: pale first, full last."""
    share = 1.0 if count < 2 else _PALEST + (1.0 - _PALEST) * position / (count - 1)
    return tuple(1.0 - share * (1.0 - c) for c in colors.to_rgb(colour))
