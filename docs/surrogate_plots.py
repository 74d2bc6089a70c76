"""Plots the value and the slope of every surrogate; `docs/generate.py` writes the plots.

Left, the value: the mean of `v_tilde` over the noise, the range between its 10 % and 90 %
quantiles, and one draw. Right, the slope `d v_tilde / d v` that each estimator of the gradient
gives: the mean and the same range. Annealed surrogates are drawn for two temperatures, the range
for the first.
"""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import tensorflow as tf

from tfquant import plotting
from tfquant.quantization.surrogates import SURROGATES, Branch

FOLDER = Path(__file__).resolve().parent / "images" / "surrogates"

_REACH, _POINTS, _DRAWS = 1.45, 121, 1500
_ALPHAS = (2.0, 6.0)
_LABELS = {"standard": "standard", "pathwise": "pathwise", "straight_through": "straight-through"}
_DASHES = {"standard": "-", "pathwise": "-", "straight_through": (0, (4, 2))}
# Numbers at these positions are kept in the plot's metadata, so that a test can compare them.
_CHECKED = slice(5, None, 15)


class Curve(NamedTuple):
    """The plotted values of one quantity, each [points]: the mean, two quantiles and one draw."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    draw: np.ndarray


def positions() -> np.ndarray:
    """The values of `v` on the horizontal axis, none of them an integer or half of one."""
    return np.linspace(-_REACH, _REACH, _POINTS).astype(np.float32) + np.float32(0.003)


def curves(name: str, estimator: str, alpha: float) -> tuple[Curve, Curve]:
    """Samples a surrogate.

    Args:
      name: a key of `SURROGATES`.
      estimator: one of its estimators, but not "expected", whose value is the same and whose
        gradient exists for bits only.
      alpha: the temperature.

    Returns:
      The value and the slope.
    """
    branch = Branch(name, estimator)
    v = tf.tile(tf.constant(positions())[None], [_DRAWS, 1])
    count = np.arange(_DRAWS, dtype=np.int64)
    noise = branch.noise(v, tf.constant(np.stack([count, count, count], axis=1)))
    with tf.GradientTape() as tape:
        tape.watch(v)
        value = branch.sample_with(noise, v, tf.zeros([]), tf.constant(alpha)).value
    slope = tape.gradient(value, v)
    return _curve(value.numpy()), _curve(slope.numpy())


def _curve(samples: np.ndarray) -> Curve:
    low, high = np.quantile(samples, (0.1, 0.9), axis=0)
    return Curve(samples.mean(axis=0), low, high, samples[0])


def temperatures(name: str) -> tuple:
    """The temperatures that a surrogate is drawn for."""
    return _ALPHAS if SURROGATES[name].annealed else _ALPHAS[:1]


def drawn_estimators(name: str) -> list:
    """The estimators whose slope is drawn."""
    return [e for e in SURROGATES[name].estimators if e != "expected"]


def numbers(name: str) -> dict:
    """Some of the numbers that are drawn, as the metadata of the plot has them."""
    found = {}
    for alpha in temperatures(name):
        for estimator in drawn_estimators(name):
            for what, curve in zip(("value", "slope"), curves(name, estimator, alpha)):
                rounded = [round(float(x), 3) for x in curve.mean[_CHECKED]]
                found[f"{what}, {estimator}, alpha {alpha:g}"] = rounded
    return found


def saved_numbers(name: str) -> dict:
    """The numbers in the metadata of a plot that was written before."""
    text = (FOLDER / f"{name}.svg").read_text()
    return json.loads(re.search(r"<dc:description>(.*?)</dc:description>", text, re.DOTALL)[1])


def draw(name: str):
    """Draws the value and the slope of a surrogate: a matplotlib figure."""
    v, alphas = positions(), temperatures(name)
    colour = plotting.method(name)["color"]
    figure, axes = plotting.new_figure((8.0, 3.0), columns=2)
    left, right = axes[0]
    v_fine = np.linspace(-_REACH, _REACH, 1001)
    left.plot(v_fine, np.round(v_fine), label="round(v)", **plotting.REFERENCE)
    for place, alpha in enumerate(alphas):
        shade = plotting.shade(colour, place, len(alphas))
        suffix = f", alpha {alpha:g}" if len(alphas) > 1 else ""
        for number, estimator in enumerate(drawn_estimators(name)):
            value, slope = curves(name, estimator, alpha)
            if number == 0:
                _line(left, v, value, shade, "-", f"mean{suffix}", band=place == 0)
                if place == 0 and SURROGATES[name].noise is not None:
                    left.plot(v[::2], value.draw[::2], ".", color=shade, markersize=2.5)
            text = f"{_LABELS[estimator]}{suffix}"
            _line(right, v, slope, shade, _DASHES[estimator], text, band=place == 0)
    left.set(xlabel="v", ylabel="value", title=f"{plotting.method(name)['label']}: value")
    right.set(xlabel="v", ylabel="slope", title="slope")
    top = max(line.get_ydata().max() for line in right.lines)
    right.set_ylim(-0.1 * top, 1.5 * top)
    for each in (left, right):
        each.legend(frameon=False, fontsize=7, loc="upper left")
    return figure


def _line(axes, v, curve: Curve, colour, dash, text: str, band: bool) -> None:
    axes.plot(v, curve.mean, color=colour, linestyle=dash, linewidth=1.6, label=text)
    if band and np.any(curve.high - curve.low > 1e-3):
        axes.fill_between(v, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)


def svg(name: str) -> str:
    """The plot of a surrogate as SVG text, which is the same at every call."""
    buffer = io.StringIO()
    metadata = {"Date": None, "Creator": None, "Description": json.dumps(numbers(name))}
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        draw(name).savefig(buffer, format="svg", metadata=metadata)
    short = re.sub(r"\d+\.\d{4,}", lambda found: f"{float(found[0]):.2f}", buffer.getvalue())
    lines = [line.rstrip() for line in short.splitlines()]
    return "\n".join(lines) + "\n"


def write() -> list[Path]:
    """Writes the plots of all surrogates and returns their paths."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in SURROGATES:
        paths.append(FOLDER / f"{name}.svg")
        paths[-1].write_text(svg(name))
    return paths
