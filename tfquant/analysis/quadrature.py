"""Integrals over a scalar latent, its surrogate's noise and the Gaussian around its mean.

Every surrogate here commutes with whole steps, `y_tilde(y + 1) = y_tilde(y) + 1`, so that one
period of `y` says all. Where `y ~ N(mu, sigma^2)` and `mu` is uniform over a quantization bin, the
position of `y` in its bin and the deviation `eps = (y - mu) / sigma` are independent, and an
expectation is a product of three sums: over the position, the noise, and `eps`.

An integral is computed at a resolution and at half of it; the difference is reported as its error.
"""

from __future__ import annotations

import functools
from typing import Callable, NamedTuple

import numpy as np

from tfquant.analysis.maps import Method, equidistributed, is_random, noise_nodes, values_at
from tfquant.quantization.surrogates import SURROGATES, Surrogate

_LEVELS = 32

# Beyond it the Gaussian holds 1e-15.
_DEVIATIONS = 8.0


class Estimate(NamedTuple):
    """A number and how far it may be off."""

    value: float
    error: float


def with_error(compute: Callable, resolution: int):
    """`compute(resolution)` with its difference from `compute(resolution // 2)`.

    Returns:
      `Estimate` of what `compute` returns: floats or arrays.
    """
    fine, coarse = compute(resolution), compute(resolution // 2)
    return Estimate(fine, np.abs(np.subtract(fine, coarse)))


class Period(NamedTuple):
    """One period of a surrogate, resolved in the latent and in the noise.

    Attributes:
      y: [P] float64 in (0, 1).
      weight: [P], sums to 1.
      noise: [Q, P].
      probability: [Q, P], each column sums to 1.
      y_tilde: [Q, P].
    """

    y: np.ndarray
    weight: np.ndarray
    noise: np.ndarray
    probability: np.ndarray
    y_tilde: np.ndarray

    @property
    def mass(self) -> np.ndarray:
        """[Q, P]: of each point, all points together 1."""
        return self.weight * self.probability


def period(method: Method, resolution: int) -> Period:
    """Resolves a surrogate: `2 resolution` latents or more, as many points of noise for each."""
    return _period(method, SURROGATES[method.surrogate], resolution)


@functools.lru_cache(maxsize=64)
def _period(method: Method, row: Surrogate, resolution: int) -> Period:
    del row  # it belongs to the key: a name may be given to another surrogate
    edges = equidistributed(lambda y: _mean(method, y), resolution, 1)[:, 0]
    y, weight = gauss(edges)
    nodes = noise_nodes(method, y, resolution)
    return Period(y, weight, nodes.noise, nodes.probability, nodes.y_tilde)


def _mean(method: Method, y: np.ndarray) -> np.ndarray:
    """Roughly `E[y_tilde]` for each latent: where the surrogate is steep in `y`."""
    levels = (np.arange(_LEVELS) + 0.5) / _LEVELS if is_random(method.surrogate) else np.zeros(1)
    return values_at(method, y[None], levels.reshape([-1] + [1] * y.ndim)).mean(axis=0)


def gauss(edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two Gauss points for each cell between `edges: [C + 1]`; points and weights, [2 C]."""
    width = np.diff(edges)
    middle = edges[:-1] + 0.5 * width
    offset = width / (2.0 * np.sqrt(3.0))
    points, weights = np.stack([middle - offset, middle + offset]), np.stack([width, width]) / 2.0
    return points.T.ravel(), weights.T.ravel()


def normal(resolution: int) -> tuple[np.ndarray, np.ndarray]:
    """Points of N(0, 1) and their probabilities, [resolution + 1]: the trapezoidal rule.

    It converges faster than any power for a smooth integrand, and here all are: what would be a
    jump in `y` is one in the position, not in `eps`.
    """
    eps = np.linspace(-_DEVIATIONS, _DEVIATIONS, resolution + 1)
    weight = np.exp(-0.5 * eps**2)
    return eps, weight / weight.sum()


class Points(NamedTuple):
    """A random variable as points and masses, [N] float64."""

    value: np.ndarray
    mass: np.ndarray


# What stands for a mean uniform over one quantization bin.
ANY_MEAN = "any"


def deviations(method: Method, sigma: float, mu, resolution: int) -> Points:
    """`y_tilde - mu` for `y ~ N(mu, sigma^2)`, quantized around 0.

    Args:
      method: surrogate and temperature.
      sigma: scale of the latent.
      mu: its mean, or `ANY_MEAN`: uniform over one bin.
      resolution: of the sums.
    """
    if mu == ANY_MEAN:
        p = period(method, resolution)
        eps, weight = normal(3 * resolution)
        value = (p.y_tilde - p.y) + sigma * eps[:, None, None]
        return Points(value.ravel(), (p.mass * weight[:, None, None]).ravel())
    # At least four points a sigma.
    p = period(method, max(resolution, int(np.ceil(2.0 / sigma))))
    reach = int(np.ceil(_DEVIATIONS * sigma)) + 1
    step = np.arange(-reach, reach + 1)
    density = p.weight * np.exp(-0.5 * ((p.y + step[:, None] - mu) / sigma) ** 2)
    density /= density.sum()
    value = p.y_tilde + step[:, None, None] - mu
    mass = density[:, None, :] * p.probability
    kept = np.broadcast_to(density[:, None, :] > 1e-16, value.shape)
    return Points(value[kept], mass[kept])
