"""A start for the transforms: the Karhunen-Loeve transform of a Gaussian model of pictures.

Four layers of stride 2 with random weights need thousands of steps to become any transform at all.
These weights make `g_a` a good linear one from the first step, and `g_s` its transpose: pictures
are modelled as a stationary Gaussian field, and every layer takes the principal components of 2x2
neighbours of the layer before. Training then starts from transform coding instead of from noise.

The model: the correlation of pixels falls as `_RHO` to the power of their distance in rows plus
that in columns; that of colours is `_COLOUR`, near to what photographs have.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

_RHO = 0.95
_COLOUR = 0.9 * np.ones((3, 3)) + 0.1 * np.eye(3)
# Of a pixel in [0, 1].
_DEVIATION = 0.25


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


@functools.lru_cache(maxsize=8)
def levels(widths: tuple) -> tuple:
    """Layers of stride 2, finest first.

    The transform that they make together is orthonormal. Where a layer has more outputs than its
    neighbourhood has components, the rest of its weights, and what the next layer makes of it, is
    0.

    Args:
      widths: output channels of each layer, as (N, N, N, M); the first one's inputs are 3 colours.
    """
    result = []
    # Every channel as a functional on the picture: [channels, side, side, 3].
    functionals = np.eye(3).reshape(3, 1, 1, 3)
    inputs = 3
    for width in widths:
        channels, side = functionals.shape[:2]
        neighbours = np.zeros((2, 2, channels, 2, side, 2, side, 3))
        for row, column in np.ndindex(2, 2):
            neighbours[row, column, :, row, :, column] = functionals
        neighbours = neighbours.reshape(4 * channels, -1)  # on a patch of twice the side
        covariance = neighbours @ _covariance(2 * side) @ neighbours.T
        components = _principal_components(covariance, width)
        kept = components.shape[1]

        level = Level(np.zeros((2, 2, inputs, width), np.float32), np.zeros(width, np.float32))
        level.weights[:, :, :channels, :kept] = components.reshape(2, 2, channels, kept)
        variances = np.diag(components.T @ covariance @ components)
        level.deviations[:kept] = _DEVIATION * np.sqrt(variances)
        result.append(level)
        functionals = (components.T @ neighbours).reshape(kept, 2 * side, 2 * side, 3)
        inputs = width
    return tuple(result)


def _principal_components(covariance: np.ndarray, count: int) -> np.ndarray:
    """The `count` eigenvectors of largest variance, or all there are, as columns."""
    _, vectors = np.linalg.eigh(covariance)
    largest_first = vectors[:, ::-1][:, :count]
    # An eigenvector's sign is whatever the library made of it.
    return largest_first * np.where(largest_first.sum(axis=0) < 0, -1.0, 1.0)


def _covariance(side: int) -> np.ndarray:
    """[3 side^2, 3 side^2] over pixels in row-major order, colours innermost."""
    line = _RHO ** np.abs(np.subtract.outer(np.arange(side), np.arange(side)))
    return np.kron(np.kron(line, line), _COLOUR)
