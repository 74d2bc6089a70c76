"""A surrogate as a channel from `y ~ N(mu, sigma^2)` to `y_tilde`: its information and distortion.

The method is the same for any surrogate. `y_tilde` is divided into bins of width h. The exact
probabilities of the bins given `y` are computed by inverting the map from noise to `y_tilde` cell
by cell. They give

    I(y_tilde; y) = H(bin) - H(bin | y),        D_min = E[(y - E[y | bin])^2],

the information in bits, and the distortion of the best possible synthesis transform. Binning can
only lose information. For small h, the loss is proportional to h. The value for h = 0 is
extrapolated from two widths; the reported error is its difference from the narrower one.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

from tfquant.analysis import maps, quadrature
from tfquant.analysis.maps import Method
from tfquant.analysis.quadrature import ANY_MEAN, Estimate, Mean
from tfquant.quantization.surrogates import SURROGATES, Surrogate

# Bins per unit. Odd, so that the points of a period have different positions within a bin.
BINS, FULL_BINS = (63, 127), (255, 511)
_MEANS_OVER_BIN = 16

# Range of y_tilde - floor(y) that the bins cover. Values outside count in the last bin.
_LOW, _HIGH = -2, 3


class Joint(NamedTuple):
    """Joint distribution of latent and bin.

    Attributes:
      y: [steps, P] float64, latents.
      density: [steps, P], their probabilities.
      transition: [P, bins], bin probabilities of a latent. For each row of `y`, the bins are
        shifted by one unit.
      bins: number of bins per unit.
      low: centre of the first bin of the first row.
    """

    y: np.ndarray
    density: np.ndarray
    transition: np.ndarray
    bins: int
    low: float

    def marginal(self, weight: np.ndarray) -> np.ndarray:
        """Returns `sum over y of weight P(bin | y)`, [all bins], for `weight: [steps, P]`."""
        size = self.transition.shape[1]
        total = np.zeros([(len(self.y) - 1) * self.bins + size])
        for n, here in enumerate(weight @ self.transition):
            total[n * self.bins : n * self.bins + size] += here
        return total


def information(method: Method, sigma: float, mu: Mean, bins: tuple[int, int] = BINS) -> Estimate:
    """Returns `I(y_tilde; y)` in bits. It is infinite for an invertible deterministic map.

    Args:
      method: surrogate and temperature.
      sigma: scale of the latent.
      mu: mean of the latent, or `ANY_MEAN` for the average over a quantization bin.
      bins: number of bins per unit of `y_tilde`, coarse and fine.
    """
    if mu == ANY_MEAN:
        means = (np.arange(_MEANS_OVER_BIN) + 0.5) / _MEANS_OVER_BIN
        found = [information(method, sigma, m, bins) for m in means]
        return Estimate(*(float(np.mean(column)) for column in zip(*found)))
    if is_invertible(method):
        return Estimate(math.inf, 0.0)
    coarse, fine = (_information(joint(method, sigma, mu, b)) for b in bins)
    loss = (fine - coarse) * bins[0] / (bins[1] - bins[0])
    return Estimate(fine + loss, abs(loss))


def least_distortion(
    method: Method, sigma: float, mu: float, bins: tuple[int, int] = BINS
) -> Estimate:
    """Returns the mean squared error of the best synthesis transform, in squared quantization
    steps.
    """
    if is_invertible(method):
        return Estimate(0.0, 0.0)
    coarse, fine = (_least_distortion(joint(method, sigma, mu, b)) for b in bins)
    return Estimate(fine, abs(fine - coarse))


def best_synthesis(
    method: Method, sigma: float, mu: float, bins: int = BINS[-1]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns `y_tilde` and `E[y | y_tilde]`, wherever the probability is not negligible."""
    pair = joint(method, sigma, mu, bins)
    mass, mean = pair.marginal(pair.density), pair.marginal(pair.density * pair.y)
    centre = pair.low + np.arange(mass.size) / bins
    seen = mass > 1e-6 * mass.max()
    return centre[seen], mean[seen] / mass[seen]


def is_invertible(method: Method) -> bool:
    """Returns true if the map is deterministic and not piecewise constant."""
    if maps.is_random(method.surrogate):
        return False
    y = np.linspace(0.01, 0.49, 25)
    return np.unique(np.round(maps.values(method, y, 0.0), 12)).size > 2


def joint(method: Method, sigma: float, mu: float, bins: int) -> Joint:
    """Returns all latents of N(mu, sigma^2) and their bins, with several latents per bin and per
    sigma.
    """
    resolution = max(2 * bins, math.ceil(4.0 / sigma))
    row = SURROGATES[method.surrogate]
    y, weight, transition = _transition(method, row, bins, resolution)
    reach = math.ceil(8.0 * sigma) + 1
    # The transition of y + n is that of y, shifted by n units.
    y = y + np.arange(-reach, reach + 1)[:, None]
    density = weight * np.exp(-0.5 * ((y - mu) / sigma) ** 2)
    return Joint(y, density / density.sum(), transition, bins, float(_LOW - reach))


@functools.lru_cache(maxsize=8)
def _transition(
    method: Method, row: Surrogate, bins: int, resolution: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Computes `P(bin of y_tilde | y)` over one period of `y`: points, weights, and [P, bins]."""
    del row  # part of the cache key: a name may be assigned to another surrogate
    p = quadrature.period(method, resolution)
    # Cells are shorter than a bin, so that each one touches at most two bins.
    edges = maps.noise_cells(method, p.y, 3 * bins)
    ends = maps.values_at(method, p.y, edges)
    mass = np.diff(edges, axis=0)
    low, high = np.minimum(ends[:-1], ends[1:]), np.maximum(ends[:-1], ends[1:])
    # Bins are centred on the multiples of their width, so integers are not on their edges.
    first = np.floor((low - _LOW) * bins + 0.5)
    border = (first + 0.5) / bins + _LOW
    above = np.clip((high - border) / np.maximum(high - low, 1e-300), 0.0, 1.0)
    size = (_HIGH - _LOW) * bins + 1
    table = np.zeros([p.y.size, size])
    column = np.broadcast_to(np.arange(p.y.size), mass.shape)
    for index, share in ((first, 1.0 - above), (first + 1, above)):
        index = np.clip(index, 0, size - 1).astype(int)
        np.add.at(table, (column, index), mass * share)
    return p.y, p.weight, table


def _information(pair: Joint) -> float:
    noise = float(pair.density.sum(axis=0) @ entropy(pair.transition))
    return float(entropy(pair.marginal(pair.density))) - noise


def _least_distortion(pair: Joint) -> float:
    mass, mean = pair.marginal(pair.density), pair.marginal(pair.density * pair.y)
    power = np.sum(pair.density * pair.y**2)
    return float(power - np.sum(mean**2 / np.where(mass > 0.0, mass, 1.0)))


def entropy(p: np.ndarray) -> np.ndarray:
    """Returns the entropy in bits, over the last axis."""
    return -np.sum(p * np.log2(np.where(p > 0.0, p, 1.0)), axis=-1)


# Fewer than `BINS`, because a pair needs the square of this number.
_PAIR_BINS = (31, 63)


def pair_information(method: Method, sigma: float, mu: float) -> Estimate:
    """Returns `I(y_tilde_1, y_tilde_2; y)` in bits, for two copies of one latent (correlation 1).

    If the elements of an image share their noise, the second copy adds no information.
    """
    if is_invertible(method) or maps.shares_noise(method.surrogate):
        return information(method, sigma, mu)
    coarse, fine = (_pair_information(joint(method, sigma, mu, b)) for b in _PAIR_BINS)
    loss = (fine - coarse) * _PAIR_BINS[0] / (_PAIR_BINS[1] - _PAIR_BINS[0])
    return Estimate(fine + loss, abs(loss))


def _pair_information(pair: Joint) -> float:
    steps, size = len(pair.y), pair.transition.shape[1]
    both = np.zeros([(steps - 1) * pair.bins + size] * 2)
    for n, weight in enumerate(pair.density):
        here = slice(n * pair.bins, n * pair.bins + size)
        both[here, here] += (pair.transition * weight[:, None]).T @ pair.transition
    noise = float(pair.density.sum(axis=0) @ entropy(pair.transition))
    return float(entropy(both.ravel())) - 2.0 * noise
