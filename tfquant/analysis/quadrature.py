"""Integrals over a scalar latent, its surrogate's noise and the Gaussian around its mean.

Every surrogate here commutes with whole steps, `y_tilde(y + 1) = y_tilde(y) + 1`, so one period of
`y` is sufficient. If `y ~ N(mu, sigma^2)` and `mu` is uniform over a quantization bin, the position
of `y` in its bin and the deviation `eps = (y - mu) / sigma` are independent. An expectation is then
a triple sum over the position, the noise and `eps`. The weight of `eps` does not depend on the
other two.

An integral is computed at a resolution and at half of it. The difference is reported as its error.
"""

from __future__ import annotations

import functools
from typing import Any, Callable, Final, Literal, NamedTuple, Union

import numpy as np

from tfquant.analysis.maps import Method, equidistributed, is_random, noise_nodes, values_at
from tfquant.quantization.surrogates import SURROGATES, Surrogate

_LEVELS = 32

# The Gaussian's mass beyond this number of standard deviations is 1e-15.
_DEVIATIONS = 8.0


class Estimate(NamedTuple):
    """A number and an estimate of its error.

    Attributes:
      value: a float or an array.
      error: estimate of its absolute error, in the shape of `value`.
    """

    value: float
    error: float


def with_error(compute: Callable[[int], Any], resolution: int) -> Any:
    """Returns `compute(resolution)` and its absolute difference from `compute(resolution // 2)`.

    Args:
      compute: maps a resolution to a float or an array.
      resolution: an even number.

    Returns:
      `Estimate` of what `compute` returns.
    """
    fine, coarse = compute(resolution), compute(resolution // 2)
    return Estimate(fine, np.abs(np.subtract(fine, coarse)))


class Period(NamedTuple):
    """One period of a surrogate, discretized in the latent and in the noise.

    Attributes:
      y: [P] float64 in (0, 1), latents.
      weight: [P], their probabilities; sums to 1.
      noise: [Q, P], points of noise for each latent.
      probability: [Q, P], each column sums to 1.
      y_tilde: [Q, P], the surrogate's value for each latent and noise.
    """

    y: np.ndarray
    weight: np.ndarray
    noise: np.ndarray
    probability: np.ndarray
    y_tilde: np.ndarray

    @property
    def mass(self) -> np.ndarray:
        """The mass of each point, [Q, P]; sums to 1."""
        return self.weight * self.probability


def period(method: Method, resolution: int) -> Period:
    """Discretizes a surrogate.

    There are `P = 2 resolution + 4` latents, with `Q = P` points of noise each, or `Q = 1` if the
    surrogate is deterministic.
    """
    return _period(method, SURROGATES[method.surrogate], resolution)


@functools.lru_cache(maxsize=64)
def _period(method: Method, row: Surrogate, resolution: int) -> Period:
    del row  # part of the cache key: a name may be assigned to another surrogate
    edges = equidistributed(lambda y: _mean(method, y), resolution, 1)[:, 0]
    y, weight = gauss(edges)
    nodes = noise_nodes(method, y, resolution)
    return Period(y, weight, nodes.noise, nodes.probability, nodes.y_tilde)


def _mean(method: Method, y: np.ndarray) -> np.ndarray:
    """Returns approximately `E[y_tilde]` for each latent, which shows where the map is steep in
    `y`.
    """
    levels = (np.arange(_LEVELS) + 0.5) / _LEVELS if is_random(method.surrogate) else np.zeros(1)
    return values_at(method, y[None], levels.reshape([-1] + [1] * y.ndim)).mean(axis=0)


def gauss(edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns two Gauss-Legendre points for each cell between `edges: [C + 1]`.

    The points and their weights have shape [2 C].
    """
    width = np.diff(edges)
    middle = edges[:-1] + 0.5 * width
    offset = width / (2.0 * np.sqrt(3.0))
    points, weights = np.stack([middle - offset, middle + offset]), np.stack([width, width]) / 2.0
    return points.T.ravel(), weights.T.ravel()


def normal(resolution: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns points of N(0, 1) and their probabilities, [resolution + 1] (trapezoidal rule).

    For a smooth integrand, the error falls faster than any power of the step. All integrands here
    are smooth in `eps`: a jump in `y` is a jump in the position, not in `eps`.
    """
    eps = np.linspace(-_DEVIATIONS, _DEVIATIONS, resolution + 1)
    weight = np.exp(-0.5 * eps**2)
    return eps, weight / weight.sum()


class Points(NamedTuple):
    """A random variable as points and masses, [N] float64 each."""

    value: np.ndarray
    mass: np.ndarray


# Denotes a mean that is uniform over one quantization bin.
ANY_MEAN: Final = "any"
Mean = Union[float, Literal["any"]]


def deviations(method: Method, sigma: float, mu: Mean, resolution: int) -> Points:
    """Returns the distribution of `y_tilde - mu` for `y ~ N(mu, sigma^2)`.

    The offset of the quantization is 0.

    Args:
      method: surrogate and temperature.
      sigma: scale of the latent.
      mu: mean of the latent, or `ANY_MEAN` for uniform over one bin.
      resolution: as in `period`. For a fixed mean, it is raised to at least four latents per
        sigma, and points of negligible probability are left out.
    """
    if mu == ANY_MEAN:
        p = period(method, resolution)
        eps, weight = normal(3 * resolution)
        value = (p.y_tilde - p.y) + sigma * eps[:, None, None]
        return Points(value.ravel(), (p.mass * weight[:, None, None]).ravel())
    # At least four points per sigma.
    p = period(method, max(resolution, int(np.ceil(2.0 / sigma))))
    reach = int(np.ceil(_DEVIATIONS * sigma)) + 1
    step = np.arange(-reach, reach + 1)
    density = p.weight * np.exp(-0.5 * ((p.y + step[:, None] - mu) / sigma) ** 2)
    density /= density.sum()
    value = p.y_tilde + step[:, None, None] - mu
    mass = density[:, None, :] * p.probability
    kept = np.broadcast_to(density[:, None, :] > 1e-16, value.shape)
    return Points(value[kept], mass[kept])
