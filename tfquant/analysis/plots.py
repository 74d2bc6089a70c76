"""Figures of the analyses, with legends outside the data.

Surrogates look as in `tfquant/plotting.py`, from pale at the lowest temperature parameter alpha to
full colour at the highest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tfquant import plotting
from tfquant.analysis.maps import Method
from tfquant.analysis.quadrature import ANY_MEAN, Mean

# Names of the estimators in the paper.
ESTIMATORS = {
    "standard": "standard", "pathwise": "PGE", "straight_through": "STE", "expected": "EP",
}  # fmt: skip


def label(method: Method) -> str:
    """Returns the name for legends."""
    name = plotting.method(method.surrogate)["label"]
    return name if method.alpha is None else f"{name}, α = {method.alpha:g}"


def style(method: Method, alphas: Sequence[float] = (), markers: bool = False) -> dict[str, Any]:
    """Returns keyword arguments of `Axes.plot`.

    Args:
      method: surrogate and temperature.
      alphas: all temperatures in the figure. The highest one has the full colour.
      markers: true for individually measured points, false for a computed curve.
    """
    made = plotting.method(method.surrogate, markers)
    made["label"] = label(method)
    if method.alpha is not None:
        series = sorted({*alphas, method.alpha})
        made["color"] = plotting.shade(made["color"], series.index(method.alpha), len(series))
    return made


def new_figure(
    columns: int = 1, rows: int = 1, width: float = 4.4, height: float = 3.9, **options: Any
) -> tuple[Figure, np.ndarray]:
    """Returns a figure with room for a legend at the side, and its axes `[rows, columns]`."""
    return plotting.new_figure((width * columns + 1.9, height * rows), columns, rows, **options)


def mean_title(mu: Mean) -> str:
    """Returns a panel's title for a mean of the latent."""
    named = {0.0: "μ = 0, the centre of a bin", 0.5: "μ = 1/2, between two bins"}
    return "mean over μ" if mu == ANY_MEAN else named.get(mu, f"μ = {mu:g}")


def shades(method: Method, count: int) -> list[dict[str, Any]]:
    """Returns the surrogate's style from pale to full colour, for a series of sizes."""
    made = plotting.method(method.surrogate, markers=True)
    return [{**made, "color": plotting.shade(made["color"], i, count)} for i in range(count)]
