"""The library's surrogates, driven by noise of the analyses' choice.

Nothing here knows a surrogate's formula. A value or a gradient always comes out of `Branch.sample`
with the row of `SURROGATES` that training uses; only the row's noise is replaced for the moment, by
points that cover the noise's distribution evenly. What that distribution is, and whether the
elements of an image share their noise, is found out from draws of the row's own sampler. So a
surrogate that somebody adds to the table is analysed without another line of code, and a mistake in
the table shows in the figures.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
from typing import Callable, NamedTuple

import numpy as np
import scipy.special
import tensorflow as tf

from tfquant.ops.random import example_seeds
from tfquant.quantization.surrogates import SURROGATES, Branch, Sample

# What a surrogate's noise may turn out to be: probability in (0, 1) -> value. Anything else is
# represented by its own sorted draws.
_QUANTILES = {
    "uniform on [-1/2, 1/2)": lambda p: p - 0.5,
    "standard logistic": scipy.special.logit,
}
_DRAWS = 1 << 16
# Kolmogorov and Smirnov: the chance that draws of the right distribution lie farther from it than
# this over the root of their number is 3e-6.
_KOLMOGOROV = 2.6
# Where a surrogate is probed: irrational, so that nothing falls on a tie of rounding.
_PROBES = np.linspace(-1.0, 1.0, 41) * np.sqrt(2.0)
_LEVELS = np.linspace(0.02, 0.98, 25)

# Keeps unbounded noise finite; the library's own sampler stops at 1e-7.
_MARGIN = 1e-7

_EQUIDISTRIBUTIONS = 4
_BISECTIONS = 30


@dataclasses.dataclass(frozen=True)
class Method:
    """A surrogate at a temperature; `alpha` is None where the temperature has no effect."""

    surrogate: str
    alpha: float | None = None

    def __post_init__(self):
        if self.surrogate not in SURROGATES:
            raise ValueError(
                f"unknown surrogate {self.surrogate!r}; known: {', '.join(SURROGATES)}"
            )

    @property
    def temperature(self) -> float:
        """What goes into the maps."""
        return 1.0 if self.alpha is None else self.alpha

    @property
    def branch(self) -> Branch:
        """The surrogate with the first of its estimators: for values, any of them would do."""
        return Branch(self.surrogate, SURROGATES[self.surrogate].estimators[0])

    def __str__(self) -> str:
        return self.surrogate if self.alpha is None else f"{self.surrogate} alpha={self.alpha:g}"


ROUNDING = Method("round")


def methods(surrogates, alphas) -> list[Method]:
    """Every surrogate, the annealed ones at every temperature."""
    return [
        Method(name, alpha)
        for name in surrogates
        for alpha in (alphas if SURROGATES[name].annealed else (None,))
    ]


class Nodes(NamedTuple):
    """Points of a surrogate's noise and what it makes of them, for latents `y: [P]`.

    Attributes:
      noise: [Q, P] float64.
      probability: [Q, P], each column sums to 1.
      y_tilde: [Q, P].
    """

    noise: np.ndarray
    probability: np.ndarray
    y_tilde: np.ndarray


@contextlib.contextmanager
def _row_with(name: str, **changes):
    row = SURROGATES[name]
    SURROGATES[name] = dataclasses.replace(row, **changes)
    try:
        yield
    finally:
        SURROGATES[name] = row


def sample(branch: Branch, v: tf.Tensor, alpha: float, noise) -> Sample:
    """`Branch.sample` without offset, with this noise in the place of random noise.

    Args:
      branch: surrogate and estimator.
      v: [...] float64 or float32.
      alpha: the temperature.
      noise: broadcasts to `v`; ignored by a deterministic surrogate.
    """
    if SURROGATES[branch.surrogate].noise is None:
        changes = {}
    else:
        given = tf.convert_to_tensor(noise, v.dtype)
        changes = {"noise": lambda *_args, **_options: given}
    seeds = example_seeds(0, "analysis", tf.zeros([1], tf.int64))
    with _row_with(branch.surrogate, **changes):
        return branch.sample(v, tf.zeros([], v.dtype), tf.constant(alpha, v.dtype), seeds)


def values(method: Method, y: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """`y_tilde` for each latent and noise, which broadcast; float64."""
    y, noise = np.broadcast_arrays(y, noise)
    v = tf.constant(y, tf.float64)
    return sample(method.branch, v, method.temperature, noise).value.numpy()


def is_random(name: str) -> bool:
    """Whether the surrogate draws noise."""
    return SURROGATES[name].noise is not None


def _draws(name: str, examples: int, elements: int) -> np.ndarray:
    """The noise itself, [examples, elements] float64, out of `Branch.sample`."""
    index = tf.range(examples, dtype=tf.int64)
    with _row_with(name, forward=lambda v, alpha, noise: noise + tf.zeros_like(v)):
        drawn = Method(name).branch.sample(
            tf.zeros([examples, elements]),
            tf.zeros([]),
            tf.ones([]),
            example_seeds(0, "noise of the analyses", index),
        )
    return drawn.value.numpy().astype(np.float64)


def shares_noise(name: str) -> bool:
    """Whether all elements of an image get the same noise, as in UQ-s."""
    if not is_random(name):
        return False
    drawn = _draws(name, examples=2, elements=64)
    return bool(np.all(drawn == drawn[:, :1]))


def quantile(name: str) -> Callable:
    """Probability in (0, 1) -> the surrogate's noise."""
    return _quantile_of(SURROGATES[name].noise, name)


@functools.cache
def _quantile_of(noise: Callable, name: str) -> Callable:
    # Noise that an image shares: as many examples as can be had in a second.
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
    """Noise that resolves the map `noise -> y_tilde` at every latent, however steep it is.

    Two Gauss points for each of `noise_cells`.

    Args:
      method: surrogate and temperature.
      y: [P] float64.
      cells: number of cells for each latent; one point is enough for a deterministic surrogate.

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
    """The noise's probability [0, 1] cut up so that `y_tilde` is resolved at every latent.

    The cells are equally long on the curve `(probability, y_tilde)`: a jump or a spike of the map
    gets as many as the flat rest, and the cell that holds the jump has no probability left.

    Returns:
      Edges [cells + 3, P], increasing from 0 to 1.
    """
    return equidistributed(lambda p: values_at(method, y, p), cells, y.size)


def values_at(method: Method, y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """`y_tilde` at quantiles `p` of the noise, which broadcast with `y`."""
    return values(method, y, _noise_at(method, p))


def _noise_at(method: Method, p: np.ndarray) -> np.ndarray:
    if not is_random(method.surrogate):
        return np.zeros_like(p)
    return quantile(method.surrogate)(np.clip(p, _MARGIN, 1.0 - _MARGIN))


def equidistributed(curve: Callable, cells: int, columns: int) -> np.ndarray:
    """Cuts [0, 1] into cells that are equally long on a curve, one curve a column.

    The cell with the longest climb is then closed in on by bisection: a jump is left with no width.

    Args:
      curve: positions [..., P] in [0, 1] -> the curves' heights there.
      cells: C.
      columns: P.

    Returns:
      Edges [C + 3, P], increasing from 0 to 1.
    """
    edges = np.repeat(np.linspace(0.0, 1.0, cells + 1)[:, None], columns, axis=1)
    # One interpolation for all columns: each has its own stretch of the axis.
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
    """Whether `y_tilde(y + 1) = y_tilde(y) + 1`, what the analyses take for granted."""
    y, p = _PROBES, _LEVELS[:, None]
    return np.allclose(values_at(method, y + 1.0, p), values_at(method, y, p) + 1.0, atol=1e-6)


def fingerprint(method: Method) -> str:
    """8 hex digits over what the surrogate does, whatever its code looks like."""
    image = values_at(method, _PROBES, _LEVELS[:, None])
    row = SURROGATES[method.surrogate]
    described = f"{row.estimators} {shares_noise(method.surrogate)} {np.round(image, 5).tolist()}"
    return hashlib.sha256(described.encode()).hexdigest()[:8]
