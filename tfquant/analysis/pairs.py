"""Samples of two correlated latents, to show the effect of noise that an image shares."""

from __future__ import annotations

import numpy as np

from tfquant.analysis import maps
from tfquant.analysis.maps import Method


def correlated(count: int, sigma: float, correlation: float, seed: int) -> np.ndarray:
    """Returns `y - mu` of two Gaussians, [count, 2] float64.

    The first is independent of `correlation`.
    """
    first, other = np.random.default_rng([seed, 0]).standard_normal([2, count])
    second = correlation * first + np.sqrt(1.0 - correlation**2) * other
    return sigma * np.stack([first, second], axis=1)


def surrogate(method: Method, y: np.ndarray, seed: int) -> np.ndarray:
    """Returns `y_tilde` for `y: [N, 2]`; each row is an image of two elements."""
    if not maps.is_random(method.surrogate):
        return maps.values(method, y, 0.0)
    draws = 1 if maps.shares_noise(method.surrogate) else 2
    p = np.random.default_rng([seed, 1]).uniform(size=[len(y), draws])
    return maps.values_at(method, y, p)
