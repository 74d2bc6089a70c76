"""A start for the transforms: the Karhunen-Loeve transform of a Gaussian model of pictures.

Four layers of stride 2 with random weights need thousands of steps to become any transform at all.
These weights make `g_a` a good linear one from the first step, and `g_s` its transpose: pictures
are modelled as a stationary Gaussian field, and every layer takes the principal components of 2x2
neighbours of the layer before. Training then starts from transform coding instead of from noise.

The model: the correlation of pixels falls as `_DOWN` to the power of their distance in rows, times
`_ACROSS` to the power of that in columns. The components of colour are `_COLOURS`, with
`_VARIANCES`, near to those of photographs.

The weights are the same on every processor. An eigenvector has an arbitrary sign, and equal
eigenvalues have arbitrary eigenvectors: a linear algebra library chooses both by rounding errors,
which depend on the processor. Four rules leave it no choice:

- Rows, columns and colours all differ, so that no two components have the same variance.
- Components of different symmetry are found separately. The symmetry then decides exactly which
  weights are 0 and which are equal.
- Every component is positive at the first pixel.
- Weights are multiples of `_GRID`, which is far coarser than rounding errors.

For all N up to 192 and M up to 400, variances differ by more than 1e-6 of themselves, and a
component at the first pixel is more than 2e-6 of its maximum. Rounding errors of kernels of
OpenBLAS differ by 2e-11 at most.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import itertools
from typing import NamedTuple

import numpy as np

_DOWN, _ACROSS = 0.94, 0.95
# Orthonormal rows: brightness, red against blue, green against red and blue.
_COLOURS = np.array([[1, 1, 1], [1, 0, -1], [-1, 2, -1]]) / np.sqrt([[3], [2], [6]])
_VARIANCES = (2.8, 0.104, 0.096)
# Of a pixel in [0, 1].
_DEVIATION = 0.25
# Two neighbours, by whether a flip negates them.
_PAIRS = ((1, 1), (1, -1))
_GRID = 2.0**-20


class Level(NamedTuple):
    """One layer of the transform.

    Attributes:
      weights: [2, 2, C_in, C_out] float32: neighbours in rows and columns, channels to components.
      deviations: [C_out] float32, the components' standard deviations under the model.
    """

    weights: np.ndarray
    deviations: np.ndarray

    def convolution(self, size: int) -> np.ndarray:
        """As a kernel of stride 2 with "same" padding, even sides: [size, size, C_in, C_out]."""
        first = (size - 2) // 2  # the tap that sees pixel 2 i
        kernel = np.zeros((size, size, *self.weights.shape[2:]), np.float32)
        kernel[first : first + 2, first : first + 2] = self.weights
        return kernel

    def subpixel(self, size: int) -> np.ndarray:
        """The transpose, as a kernel before depth to space: [size, size, C_out, 4 C_in]."""
        C_in, C_out = self.weights.shape[2:]
        kernel = np.zeros((size, size, C_out, 4 * C_in), np.float32)
        kernel[size // 2, size // 2] = self.weights.reshape(4 * C_in, C_out).T
        return kernel


class _Symmetry(NamedTuple):
    """A class of components. Components of different classes are uncorrelated.

    Attributes:
      colour: index into `_COLOURS`.
      down: 1 if swapping top and bottom negates the component, else 0.
      across: the same of left and right.
    """

    colour: int
    down: int
    across: int


class _Component(NamedTuple):
    """One output channel of a layer.

    Attributes:
      variance: under the model, for pixels of variance 1.
      symmetry: its class.
      weights: [2, 2, channels] over the channels of the layer before.
      functional: [side, side] over pixels, in units of its component of colour.
    """

    variance: float
    symmetry: _Symmetry
    weights: np.ndarray
    functional: np.ndarray


_LEFT_OUT = contextvars.ContextVar("left_out", default=False)


@contextlib.contextmanager
def left_out():
    """Gives the transforms that are made inside weights near 0, in less time.

    This is for codecs whose weights are read from a file right after that.
    """
    token = _LEFT_OUT.set(True)
    try:
        yield
    finally:
        _LEFT_OUT.reset(token)


def levels(widths: tuple) -> tuple:
    """Layers of stride 2, finest first.

    The transform that they make together is orthonormal. Where a layer has more outputs than its
    neighbourhood has components, the rest of its weights, and what the next layer makes of it, is
    0.

    Args:
      widths: output channels of each layer, as (N, N, N, M); the first one's inputs are 3 colours.
    """
    if _LEFT_OUT.get():
        shapes = [(2, 2, *pair) for pair in zip((3, *widths), widths)]
        return tuple(Level(np.zeros(s, np.float32), np.zeros(s[-1], np.float32)) for s in shapes)
    return _levels(widths)


@functools.lru_cache(maxsize=8)
def _levels(widths: tuple) -> tuple:
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


def _principal_components(channels: list) -> list:
    """All components of 2x2 neighbours, those of the largest variance first."""
    side = 2 * len(channels[0].functional)
    result = []
    for symmetry in itertools.starmap(_Symmetry, np.ndindex(3, 2, 2)):
        members = [i for i, c in enumerate(channels) if c.symmetry.colour == symmetry.colour]
        if not members:
            continue
        # Each channel has one sum or difference of its neighbours with this symmetry.
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
    """[2, 2] weights of a channel's neighbours that turn its symmetry into another."""
    return 0.5 * np.outer(_PAIRS[of.down ^ to.down], _PAIRS[of.across ^ to.across])


def _correlation(rho: float, side: int) -> np.ndarray:
    return rho ** np.abs(np.subtract.outer(np.arange(side), np.arange(side)))


def _rounded(values: np.ndarray) -> np.ndarray:
    """To multiples of `_GRID`; `-0.0` becomes `0.0`."""
    return np.round(values / _GRID) * _GRID + 0.0
