"""Initial weights of the transforms: the Karhunen-Loeve transform of a Gaussian model of pictures.

Four layers of stride 2 with random weights need thousands of steps to become any useful transform.
With these weights, `g_a` is a good linear transform from the first step, and `g_s` is its
transpose. Training then starts from transform coding instead of noise. The weights come from a
model of pictures as a stationary Gaussian field: every layer takes the principal components of 2x2
neighbours of the previous layer.

The correlation of two pixels in the model is `_DOWN` to the power of their distance in rows, times
`_ACROSS` to the power of their distance in columns. The components of colour are `_COLOURS`, with
the variances `_VARIANCES`, which are close to those of photographs.

The weights are the same on every processor. This is not automatic: an eigenvector has an arbitrary
sign, and equal eigenvalues have arbitrary eigenvectors. A linear algebra library chooses both by
rounding errors, which depend on the processor. Four rules make the result unique:

- Rows, columns and colours all differ, so no two components have the same variance.
- Components of different symmetry are computed separately. The symmetry then determines exactly
  which weights are 0 and which are equal.
- Every component is positive at the first pixel.
- Weights are multiples of `_GRID`, which is much coarser than rounding errors.

For all N up to 192 and M up to 400, the relative differences between variances exceed 1e-6, and a
component at the first pixel exceeds 2e-6 of its maximum. The rounding errors of different OpenBLAS
kernels differ by at most 2e-11.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

_DOWN, _ACROSS = 0.94, 0.95
# Orthonormal rows: brightness, red against blue, green against red and blue.
_COLOURS = np.array([[1, 1, 1], [1, 0, -1], [-1, 2, -1]]) / np.sqrt([[3], [2], [6]])
_VARIANCES = (2.8, 0.104, 0.096)
# Standard deviation of a pixel in [0, 1].
_DEVIATION = 0.25
# Weights of two neighbours: a flip keeps the first pair and negates the second.
_PAIRS = ((1, 1), (1, -1))
_GRID = 2.0**-20


class Level(NamedTuple):
    """One layer of the transform.

    Attributes:
      weights: [2, 2, C_in, C_out] float32: row, column, input channel, component.
      deviations: [C_out] float32, standard deviations of the components under the model.
    """

    weights: np.ndarray
    deviations: np.ndarray

    def convolution(self, size: int) -> np.ndarray:
        """Returns the kernel of a stride-2 "same" convolution for even sides: [size, size, C_in,
        C_out].
        """
        first = (size - 2) // 2  # the tap at pixel 2 i
        kernel = np.zeros((size, size, *self.weights.shape[2:]), np.float32)
        kernel[first : first + 2, first : first + 2] = self.weights
        return kernel

    def subpixel(self, size: int) -> np.ndarray:
        """Returns the kernel of the transpose, before depth to space: [size, size, C_out, 4
        C_in].
        """
        C_in, C_out = self.weights.shape[2:]
        kernel = np.zeros((size, size, C_out, 4 * C_in), np.float32)
        kernel[size // 2, size // 2] = self.weights.reshape(4 * C_in, C_out).T
        return kernel


class _Symmetry(NamedTuple):
    """A class of components. Components of different classes are uncorrelated.

    Attributes:
      colour: index into `_COLOURS`.
      down: 1 if swapping top and bottom negates the component, else 0.
      across: 1 if swapping left and right negates the component, else 0.
    """

    colour: int
    down: int
    across: int


class _Component(NamedTuple):
    """One output channel of a layer.

    Attributes:
      variance: variance under the model, for pixels of variance 1.
      symmetry: its class.
      weights: [2, 2, channels], over the channels of the previous layer.
      functional: [side, side], over pixels of its component of colour.
    """

    variance: float
    symmetry: _Symmetry
    weights: np.ndarray
    functional: np.ndarray


_LEFT_OUT = contextvars.ContextVar("left_out", default=False)


@contextlib.contextmanager
def left_out() -> Iterator[None]:
    """Enters a context in which transforms start with weights near 0, which saves time.

    Use it for codecs whose weights are then read from a file.
    """
    token = _LEFT_OUT.set(True)
    try:
        yield
    finally:
        _LEFT_OUT.reset(token)


def levels(widths: tuple[int, ...]) -> tuple[Level, ...]:
    """Returns the layers of stride 2, finest first.

    Together they form an orthonormal transform. If a layer has more outputs than its neighbourhood
    has components, the weights of the remaining outputs are 0, and so are the weights that the next
    layer applies to them.

    Args:
      widths: output channels of each layer, as (N, N, N, M). The input of the first layer is 3
        colours.

    Returns:
      A tuple with one `Level` for each width.
    """
    if _LEFT_OUT.get():
        shapes = [(2, 2, *pair) for pair in zip((3, *widths), widths)]
        return tuple(Level(np.zeros(s, np.float32), np.zeros(s[-1], np.float32)) for s in shapes)
    return _levels(widths)


@functools.lru_cache(maxsize=8)
def _levels(widths: tuple[int, ...]) -> tuple[Level, ...]:
    result = []
    pixel = np.ones((1, 1))
    channels = [
        _Component(variance, _Symmetry(colour, 0, 0), pixel, pixel)
        for colour, variance in enumerate(_VARIANCES)
    ]
    inputs = 3
    mixing = _COLOURS  # [channels, inputs]
    for width in widths:
        components = _principal_components(channels)[:width]
        kept = len(components)
        weights = np.stack([c.weights @ mixing for c in components], axis=-1)
        deviations = _DEVIATION * np.sqrt([c.variance for c in components])

        level = Level(np.zeros((2, 2, inputs, width), np.float32), np.zeros(width, np.float32))
        level.weights[:, :, : mixing.shape[1], :kept] = _rounded(weights)
        level.deviations[:kept] = _rounded(deviations)
        result.append(level)
        channels, inputs, mixing = components, width, np.eye(kept)
    return tuple(result)


def _principal_components(channels: list[_Component]) -> list[_Component]:
    """Returns all components of 2x2 neighbours, largest variance first."""
    side = 2 * len(channels[0].functional)
    result = []
    for symmetry in itertools.starmap(_Symmetry, np.ndindex(3, 2, 2)):
        members = [i for i, c in enumerate(channels) if c.symmetry.colour == symmetry.colour]
        if not members:
            continue
        # For this symmetry, each channel has one sum or difference of its neighbours.
        pairs = np.array([_neighbours(channels[i].symmetry, symmetry) for i in members])
        patches = np.array([np.kron(p, channels[i].functional) for p, i in zip(pairs, members)])
        filtered = _correlation(_DOWN, side) @ patches @ _correlation(_ACROSS, side)
        covariance = np.tensordot(patches, filtered, ((1, 2), (1, 2)))
        variances, vectors = np.linalg.eigh(_VARIANCES[symmetry.colour] * covariance)
        for variance, vector in zip(variances, vectors.T):
            functional = np.tensordot(vector, patches, 1)
            sign = -1.0 if functional[0, 0] < 0 else 1.0
            weights = np.zeros((2, 2, len(channels)))
            weights[..., members] = np.moveaxis(pairs, 0, -1) * (sign * vector)
            result.append(_Component(variance, symmetry, weights, sign * functional))
    return sorted(result, key=lambda c: -c.variance)


def _neighbours(of: _Symmetry, to: _Symmetry) -> np.ndarray:
    """Returns [2, 2] weights of a channel's neighbours that turn its symmetry `of` into `to`."""
    return 0.5 * np.outer(_PAIRS[of.down ^ to.down], _PAIRS[of.across ^ to.across])


def _correlation(rho: float, side: int) -> np.ndarray:
    return rho ** np.abs(np.subtract.outer(np.arange(side), np.arange(side)))


def _rounded(values: np.ndarray) -> np.ndarray:
    """Rounds to multiples of `_GRID`; `-0.0` becomes `0.0`."""
    return np.round(values / _GRID) * _GRID + 0.0
