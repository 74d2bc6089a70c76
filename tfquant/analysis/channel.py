"""A surrogate as a channel from `y ~ N(mu, sigma^2)` to `y_tilde`: what it carries, what it costs.

For any surrogate alike: `y_tilde` is put into bins of width h, and the exact probabilities of the
bins given `y` (the map of noise to `y_tilde` is inverted cell by cell) make

    I(y_tilde; y) = H(bin) - H(bin | y),        D_min = E[(y - E[y | bin])^2],

the information in bits and the distortion of the best synthesis transform there is. Binning only
ever loses information, in proportion to h at first: from two widths follows h = 0, and how far
that is from the narrower one is the reported error.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

from tfquant.analysis import maps, quadrature
from tfquant.analysis.maps import Method
from tfquant.analysis.quadrature import ANY_MEAN, Estimate
from tfquant.quantization.surrogates import SURROGATES, Surrogate

# Bins per unit. Odd, so that the points of a period fall anywhere in a bin, and not always on the
# same part of one.
BINS, FULL_BINS = (63, 127), (255, 511)
_MEANS_OVER_BIN = 16

# Values of y_tilde - floor(y) that the bins cover; beyond, mass is put into the last bin.
_LOW, _HIGH = -2, 3


class Joint(NamedTuple):
    """Latent and bin.

    Attributes:
      y: [steps, P] float64, latents.
      density: [steps, P], their probabilities.
      transition: [P, bins], a latent's bins, `steps` units on in each row of `y`.
      bins: per unit.
      low: the first bin's centre, of the first row.
    """

    y: np.ndarray
    density: np.ndarray
    transition: np.ndarray
    bins: int
    low: float

    def marginal(self, weight: np.ndarray) -> np.ndarray:
        """`sum over y of weight P(bin | y)`, [all bins], for `weight: [steps, P]`."""
        size = self.transition.shape[1]
        total = np.zeros([(len(self.y) - 1) * self.bins + size])
        for n, here in enumerate(weight @ self.transition):
            total[n * self.bins : n * self.bins + size] += here
        return total


def information(method: Method, sigma: float, mu, bins: tuple = BINS) -> Estimate:
    """`I(y_tilde; y)` in bits; infinite for a deterministic map that is not piecewise constant.

    Args:
      method: surrogate and temperature.
      sigma: scale of the latent.
      mu: its mean, or `ANY_MEAN` for the average over a quantization bin.
      bins: per unit of `y_tilde`, coarse and fine.
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


def least_distortion(method: Method, sigma: float, mu: float, bins: tuple = BINS) -> Estimate:
    """Mean squared error of the best synthesis transform, in squared quantization steps."""
    if is_invertible(method):
        return Estimate(0.0, 0.0)
    coarse, fine = (_least_distortion(joint(method, sigma, mu, b)) for b in bins)
    return Estimate(fine, abs(fine - coarse))


def best_synthesis(method: Method, sigma: float, mu: float, bins: int = BINS[-1]):
    """`y_tilde` and `E[y | y_tilde]`, where there is any probability."""
    pair = joint(method, sigma, mu, bins)
    mass, mean = pair.marginal(pair.density), pair.marginal(pair.density * pair.y)
    centre = pair.low + np.arange(mass.size) / bins
    seen = mass > 1e-6 * mass.max()
    return centre[seen], mean[seen] / mass[seen]


def is_invertible(method: Method) -> bool:
    """Deterministic, and not piecewise constant."""
    if maps.is_random(method.surrogate):
        return False
    y = np.linspace(0.01, 0.49, 25)
    return np.unique(np.round(maps.values(method, y, 0.0), 12)).size > 2


def joint(method: Method, sigma: float, mu: float, bins: int) -> Joint:
    """Latents and their bins: of all of N(mu, sigma^2), with several latents a bin and a sigma."""
    resolution = max(2 * bins, math.ceil(4.0 / sigma))
    row = SURROGATES[method.surrogate]
    y, weight, transition = _transition(method, row, bins, resolution)
    reach = math.ceil(8.0 * sigma) + 1
    # The transition of y + n is that of y, n units on.
    y = y + np.arange(-reach, reach + 1)[:, None]
    density = weight * np.exp(-0.5 * ((y - mu) / sigma) ** 2)
    return Joint(y, density / density.sum(), transition, bins, float(_LOW - reach))


@functools.lru_cache(maxsize=8)
def _transition(method: Method, row: Surrogate, bins: int, resolution: int):
    """`P(bin of y_tilde | y)` over one period of `y`: points, weights, and [P, bins]."""
    del row  # it belongs to the key: a name may be given to another surrogate
    p = quadrature.period(method, resolution)
    # Cells shorter than a bin, so that one reaches into two bins at most.
    edges = maps.noise_cells(method, p.y, 3 * bins)
    ends = maps.values_at(method, p.y, edges)
    mass = np.diff(edges, axis=0)
    low, high = np.minimum(ends[:-1], ends[1:]), np.maximum(ends[:-1], ends[1:])
    # Bins are centred on the multiples of their width: integers stay off their edges.
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


def entropy(p: np.ndarray):
    """In bits, over the last axis."""
    return -np.sum(p * np.log2(np.where(p > 0.0, p, 1.0)), axis=-1)


# A pair needs their square.
_PAIR_BINS = (31, 63)


def pair_information(method: Method, sigma: float, mu: float) -> Estimate:
    """`I(y_tilde_1, y_tilde_2; y)` in bits for a latent twice the same: correlation 1.

    Where an image's elements share their noise, the second says what the first does.
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
