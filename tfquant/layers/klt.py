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

import numpy as np

_RHO = 0.95
_COLOUR = 0.9 * np.ones((3, 3)) + 0.1 * np.eye(3)

# With "same" padding on even sides, these taps of a stride-2 kernel see pixels 2 i and 2 i + 1.
_KERNEL = 5
_TAPS = slice(1, 3)


@functools.lru_cache(maxsize=8)
def kernels(widths: tuple) -> tuple:
    """Kernels of stride-2 layers, finest first: [5, 5, C_in, C_out] float32 each.

    The transform that they make together is orthonormal. Where a layer has more outputs than its
    neighbourhood has components, the rest of its kernel, and what the next layer makes of it, is 0.

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
        components = _principal_components(neighbours @ _covariance(2 * side) @ neighbours.T, width)
        kept = components.shape[1]

        kernel = np.zeros((_KERNEL, _KERNEL, inputs, width), np.float32)
        kernel[_TAPS, _TAPS, :channels, :kept] = components.reshape(2, 2, channels, kept)
        result.append(kernel)
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
