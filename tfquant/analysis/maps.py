"""The library's surrogates, evaluated with noise that the analyses choose.

This module contains no formula of a surrogate. All values and gradients come from `Branch`, with
the same row of `SURROGATES` as in training. The noise consists of points that cover its
distribution evenly. The distribution, and whether the elements of an image share their noise, are
detected from draws of the row's own sampler. A surrogate that is added to the table can therefore
be analysed without further code, and a mistake in the table is visible in the figures.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Sequence
from typing import Callable, NamedTuple

import numpy as np
import scipy.special
import tensorflow as tf

from tfquant.names import check_known
from tfquant.ops.random import example_seeds
from tfquant.quantization.surrogates import SURROGATES, Branch, Sample

# Known distributions of noise, as quantile functions: probability in (0, 1) -> value. Any other
# distribution is represented by its own sorted draws.
_QUANTILES = {
    "uniform on [-1/2, 1/2)": lambda p: p - 0.5,
    "standard logistic": scipy.special.logit,
}
_DRAWS = 1 << 16
# Kolmogorov-Smirnov test: for the right distribution, the probability of a larger distance than
# this divided by the root of the number of draws is 3e-6.
_KOLMOGOROV = 2.6
# Latents for probing a surrogate: irrational, to avoid ties of rounding.
_PROBES = np.linspace(-1.0, 1.0, 41) * np.sqrt(2.0)
_LEVELS = np.linspace(0.02, 0.98, 25)

# Keeps unbounded noise finite. The library's sampler has the same margin, 1e-7.
_MARGIN = 1e-7

_EQUIDISTRIBUTIONS = 4
_BISECTIONS = 30


@dataclasses.dataclass(frozen=True)
class Method:
    """A surrogate at a temperature. `alpha` is None if the temperature has no effect."""

    surrogate: str
    alpha: float | None = None

    def __post_init__(self) -> None:
        check_known("surrogate", self.surrogate, SURROGATES)

    @property
    def temperature(self) -> float:
        """The temperature that the maps use."""
        return 1.0 if self.alpha is None else self.alpha

    @property
    def branch(self) -> Branch:
        """The surrogate with its first estimator. All estimators give the same values."""
        return Branch(self.surrogate, SURROGATES[self.surrogate].estimators[0])

    def __str__(self) -> str:
        return self.surrogate if self.alpha is None else f"{self.surrogate} alpha={self.alpha:g}"


ROUNDING = Method("round")


def methods(surrogates: Iterable[str], alphas: Sequence[float]) -> list[Method]:
    """Returns all surrogates; annealed ones occur once for each temperature."""
    return [
        Method(name, alpha)
        for name in surrogates
        for alpha in (alphas if SURROGATES[name].annealed else (None,))
    ]


class Nodes(NamedTuple):
    """Points of a surrogate's noise and the resulting values, for latents `y: [P]`.

    Attributes:
      noise: [Q, P] float64.
      probability: [Q, P], each column sums to 1.
      y_tilde: [Q, P], the values.
    """

    noise: np.ndarray
    probability: np.ndarray
    y_tilde: np.ndarray


def sample(branch: Branch, v: tf.Tensor, alpha: float, noise: np.ndarray | float) -> Sample:
    """Calls `Branch.sample_with` without offset.

    Args:
      branch: surrogate and estimator.
      v: [...] float64 or float32.
      alpha: the temperature.
      noise: broadcasts to `v`; ignored by a deterministic surrogate.
    """
    given = tf.convert_to_tensor(noise, v.dtype) if is_random(branch.surrogate) else None
    return branch.sample_with(given, v, tf.zeros([], v.dtype), tf.constant(alpha, v.dtype))


def values(method: Method, y: np.ndarray, noise: np.ndarray | float) -> np.ndarray:
    """Returns `y_tilde` for latents and noise, which broadcast; float64."""
    y, noise = np.broadcast_arrays(y, noise)
    v = tf.constant(y, tf.float64)
    return sample(method.branch, v, method.temperature, noise).value.numpy()


def is_random(name: str) -> bool:
    """Returns true if the surrogate draws noise."""
    return SURROGATES[name].noise is not None


def _draws(name: str, examples: int, elements: int) -> np.ndarray:
    """Returns the noise itself, [examples, elements] float64, as `Branch.sample` draws it."""
    seeds = example_seeds(0, "noise of the analyses", tf.range(examples, dtype=tf.int64))
    v = tf.zeros([examples, elements])
    return (Method(name).branch.noise(v, seeds) + v).numpy().astype(np.float64)


def shares_noise(name: str) -> bool:
    """Returns true if all elements of an image get the same noise, as in UQ-s."""
    if not is_random(name):
        return False
    drawn = _draws(name, examples=2, elements=64)
    return bool(np.all(drawn == drawn[:, :1]))


def quantile(name: str) -> Callable:
    """Returns the quantile function of the surrogate's noise: probability in (0, 1) -> noise."""
    return _quantile_of(SURROGATES[name].noise, name)


@functools.cache
def _quantile_of(noise: Callable, name: str) -> Callable:
    # Shared noise gives one draw per example, so fewer draws fit into a second.
    shared = shares_noise(name)
    drawn = _draws(name, 512, 1) if shared else _draws(name, 1, _DRAWS)
    drawn = np.sort(drawn.ravel())
    levels = (np.arange(drawn.size) + 0.5) / drawn.size
    for candidate in _QUANTILES.values():
        distribution = np.interp(drawn, candidate(levels), levels, left=0.0, right=1.0)
        if np.max(np.abs(distribution - levels)) < _KOLMOGOROV / np.sqrt(drawn.size):
            return candidate
    return lambda p: np.interp(p, levels, drawn)


def noise_nodes(method: Method, y: np.ndarray, cells: int) -> Nodes:
    """Returns noise that resolves the map `noise -> y_tilde` at every latent, even if it is steep.

    There are two Gauss points in each of `noise_cells`.

    Args:
      method: surrogate and temperature.
      y: [P] float64.
      cells: number of cells for each latent. A deterministic surrogate needs only one point.

    Returns:
      `Nodes` with `Q = 2 cells + 4` (1 if deterministic).
    """
    y = np.asarray(y, np.float64)
    if not is_random(method.surrogate):
        zero = np.zeros([1, y.size])
        return Nodes(zero, zero + 1.0, values(method, y, zero))
    edges = noise_cells(method, y, cells)
    width = np.diff(edges, axis=0)
    middle = edges[:-1] + 0.5 * width
    offset = width / (2.0 * np.sqrt(3.0))
    noise = _noise_at(method, np.concatenate([middle - offset, middle + offset]))
    return Nodes(noise, np.concatenate([width, width]) / 2.0, values(method, y, noise))


def noise_cells(method: Method, y: np.ndarray, cells: int) -> np.ndarray:
    """Divides the noise's probability [0, 1] into cells that resolve `y_tilde` at every latent.

    The cells have equal length on the curve `(probability, y_tilde)`. A jump or a spike of the map
    gets as many cells as the flat part, and the cell that contains a jump has a probability of
    almost 0.

    Returns:
      Edges [cells + 3, P], increasing from 0 to 1.
    """
    return equidistributed(lambda p: values_at(method, y, p), cells, y.size)


def values_at(method: Method, y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Returns `y_tilde` at quantiles `p` of the noise, which broadcast with `y`."""
    return values(method, y, _noise_at(method, p))


def _noise_at(method: Method, p: np.ndarray) -> np.ndarray:
    if not is_random(method.surrogate):
        return np.zeros_like(p)
    return quantile(method.surrogate)(np.clip(p, _MARGIN, 1.0 - _MARGIN))


def equidistributed(curve: Callable, cells: int, columns: int) -> np.ndarray:
    """Divides [0, 1] into cells of equal length on a curve, with one curve per column.

    The steepest cell is then narrowed by bisection, so that a jump lies in a cell of almost no
    width.

    Args:
      curve: maps positions [..., P] in [0, 1] to the heights of the curves.
      cells: number of cells C.
      columns: number of columns P.

    Returns:
      Edges [C + 3, P], increasing from 0 to 1.
    """
    edges = np.repeat(np.linspace(0.0, 1.0, cells + 1)[:, None], columns, axis=1)
    # One interpolation for all columns: each column has its own interval of the axis.
    stretch = 2.0 * np.arange(columns)
    wanted = (np.linspace(0.0, 1.0, cells + 1)[:, None] + stretch).T.ravel()
    for _ in range(_EQUIDISTRIBUTIONS):
        arcs = np.diff(edges, axis=0) + np.abs(np.diff(curve(edges), axis=0))
        length = np.concatenate([np.zeros([1, columns]), np.cumsum(arcs, axis=0)])
        length = (length / length[-1] + stretch).T.ravel()
        edges = np.interp(wanted, length, edges.T.ravel()).reshape(columns, cells + 1).T
    each = np.arange(columns)
    longest = np.argmax(np.abs(np.diff(curve(edges), axis=0)), axis=0)
    low, high = edges[longest, each], edges[longest + 1, each]
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        heights = curve(np.stack([low, middle, high]))
        in_lower = np.abs(heights[1] - heights[0]) > np.abs(heights[2] - heights[1])
        low, high = np.where(in_lower, low, middle), np.where(in_lower, middle, high)
    return np.sort(np.concatenate([edges, low[None], high[None]]), axis=0)


def commutes_with_steps(method: Method) -> bool:
    """Returns true if `y_tilde(y + 1) = y_tilde(y) + 1`, which the analyses require."""
    y, p = _PROBES, _LEVELS[:, None]
    return np.allclose(values_at(method, y + 1.0, p), values_at(method, y, p) + 1.0, atol=1e-6)


def fingerprint(method: Method) -> str:
    """Returns 8 hex digits that identify the surrogate's behaviour, independent of its code."""
    image = values_at(method, _PROBES, _LEVELS[:, None])
    row = SURROGATES[method.surrogate]
    described = f"{row.estimators} {shares_noise(method.surrogate)} {np.round(image, 5).tolist()}"
    return hashlib.sha256(described.encode()).hexdigest()[:8]
