"""Limits of coding a standard Laplacian source, density `exp(-|x|) / 2`, by mean squared error."""

from __future__ import annotations

import numpy as np
import scipy.optimize

VARIANCE = 2.0


def shannon_lower_bound(rate: np.ndarray | float) -> np.ndarray:
    """Returns a lower bound of the distortion of any code at `rate` bits per sample.

    The bound is `h(x) - log2(2 pi e D) / 2 <= R`, with `h = log2(2 e)`.
    """
    return 2.0 * np.e / np.pi * 2.0 ** (-2.0 * np.asarray(rate))


def threshold_quantizer(dead_zone: float, step: float) -> tuple[float, float]:
    """Returns rate [bits] and distortion of a quantizer with a dead zone and uniform steps.

    The central bin is `(-dead_zone, dead_zone)`. All other bins are `step` wide. Values are the
    bins' centroids, and symbols cost their entropy.
    """
    outside, q = np.exp(-dead_zone), np.exp(-step)
    # Symbols: zero or nonzero; for nonzero, a sign and a geometric number of steps.
    rate = _binary_entropy(outside) + outside * (1.0 + _binary_entropy(q) / (1.0 - q))
    centre = VARIANCE - outside * (dead_zone**2 + 2.0 * dead_zone + 2.0)
    bin_variance = 1.0 - step**2 * q / (1.0 - q) ** 2
    return float(rate), float(centre + outside * bin_variance)


def best_scalar_quantizer(lmbda: float) -> tuple[float, float]:
    """Returns rate and distortion of the entropy-constrained scalar quantizer with least `R + lmbda
    D`.

    For this source, it has a dead zone and uniform steps (Sullivan, "Efficient Scalar Quantization
    of Exponential and Laplacian Random Variables", 1996).
    """

    def cost(log_sizes: np.ndarray) -> float:
        rate, distortion = threshold_quantizer(*np.exp(log_sizes))
        return rate + lmbda * distortion

    step = np.sqrt(6.0 / (lmbda * np.log(2.0)))
    found = scipy.optimize.minimize(
        cost, np.log([0.6 * step, step]), method="Nelder-Mead",
        options={"xatol": 1e-6, "fatol": 1e-10},
    )  # fmt: skip
    return threshold_quantizer(*np.exp(found.x))


def _binary_entropy(p: float) -> float:
    return float(-p * np.log2(p) - (1.0 - p) * np.log2(max(1.0 - p, 1e-300)))
