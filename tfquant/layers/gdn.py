"""Generalized divisive normalization (Balle, Laparra, Simoncelli, 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfquant.legacy_keras import keras
from tfquant.ops.gradients import custom_gradient, lower_bound

_MIN = 1e-6  # lower bound of beta and of every element of gamma

USUAL_GAMMA = 0.1  # initial diagonal of gamma in the literature

# In a graph for any picture size, inputs of more than _LARGE elements are computed in _STRIPS
# strips, which saves memory.
_LARGE = 2**27
_STRIPS = 16


class GDN(keras.layers.Layer):
    """`x / sqrt(beta + gamma x^2)` over channels; the inverse multiplies instead.

    `x: [B, H, W, C]`, any precision. The weights are the square roots of beta and gamma. This keeps
    both positive, and makes the C^2 small elements of gamma move slowly. If the weights were the
    elements of gamma, a step of Adam would change each by the learning rate, and their sum by C
    times as much. The inverse, which grows with the square of its input, would then diverge.

    Args:
      inverse: if true, multiplies instead of dividing.
      gamma: initial diagonal of gamma.
    """

    def __init__(self, inverse: bool = False, gamma: float = USUAL_GAMMA, **kwargs: Any):
        super().__init__(**kwargs)
        self.inverse = inverse
        self._gamma = gamma

    def build(self, input_shape: tf.TensorShape) -> None:
        channels = input_shape[-1]

        def gamma_root(shape: Sequence[int], dtype: tf.DType | None = None) -> tf.Tensor:
            return tf.cast(tf.reshape(_first_gamma_root(channels, self._gamma), shape), dtype)

        self.beta_root = self.add_weight("beta_root", shape=(channels,), initializer="ones")
        self.gamma_root = self.add_weight(
            "gamma_root", shape=(channels, channels), initializer=gamma_root
        )

    def start_at(self, gamma: float) -> None:
        """Resets the weights to their initial values, with another diagonal of gamma."""
        self.beta_root.assign(tf.ones_like(self.beta_root))
        self.gamma_root.assign(_first_gamma_root(self.gamma_root.shape[0], gamma))

    def call(self, x: tf.Tensor) -> tf.Tensor:
        beta = tf.square(lower_bound(self.beta_root, _MIN**0.5))
        gamma = tf.square(lower_bound(self.gamma_root, _MIN**0.5))
        beta, gamma = tf.cast(beta, x.dtype), tf.cast(gamma, x.dtype)
        if x.shape.num_elements() is not None:
            return _apply(x, beta, gamma, self.inverse)
        return tf.cond(
            tf.size(x, tf.int64) > _LARGE,
            lambda: _apply_in_strips(x, beta, gamma, self.inverse),
            lambda: _apply(x, beta, gamma, self.inverse),
        )


def _first_gamma_root(channels: int, diagonal: float) -> tf.Tensor:
    return tf.sqrt((diagonal - _MIN) * tf.eye(channels) + _MIN)


def _apply_in_strips(x: tf.Tensor, beta: tf.Tensor, gamma: tf.Tensor, inverse: bool) -> tf.Tensor:
    """Computes the formula for a large picture, with fewer tensors of its size in memory."""
    pixels = tf.reshape(x, [1, 1, -1, x.shape[-1]])
    count = tf.shape(pixels)[2]
    ends = tf.range(_STRIPS + 1) * count // _STRIPS
    strips = tf.split(pixels, ends[1:] - ends[:-1], axis=2, num=_STRIPS)
    done = [_apply(strip, beta, gamma, inverse) for strip in strips]
    return tf.reshape(tf.concat(done, axis=2), tf.shape(x))


def _apply(x: tf.Tensor, beta: tf.Tensor, gamma: tf.Tensor, inverse: bool) -> tf.Tensor:
    """Computes the formula, with a gradient in fewer passes over the features than autodiff.

    With `r = norm^(-1/2)` (`norm^(1/2)` for the inverse), `y = x r` and the upstream gradient `g`:

        dL/dnorm = -(g r) y r / 2, or g x / (2 r),    dL/dx = g r + 2 x (gamma^T dL/dnorm).
    """

    @custom_gradient
    def formula(x: tf.Tensor, beta: tf.Tensor, gamma: tf.Tensor) -> tf.Tensor:
        squares = tf.square(x)
        norm = tf.nn.bias_add(_across_channels(squares, gamma), beta)
        root = tf.sqrt(norm) if inverse else tf.math.rsqrt(norm)
        y = x * root

        def grad(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            direct = upstream * root
            half, slope = (0.5, upstream * x / root) if inverse else (-0.5, direct * y * root)
            d_x = direct + x * _across_channels(slope, 2.0 * half * tf.transpose(gamma))
            d_gamma = tf.raw_ops.Conv2DBackpropFilter(
                input=squares, filter_sizes=[1, 1, *gamma.shape], out_backprop=slope,
                strides=[1, 1, 1, 1], padding="VALID",
            )[0, 0]  # fmt: skip
            # tf.reduce_sum over the same axes takes much longer in bfloat16.
            d_beta = tf.raw_ops.BiasAddGrad(out_backprop=slope)
            return d_x, half * d_beta, half * d_gamma

        return y, grad

    return formula(x, beta, gamma)


def _across_channels(x: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    return tf.nn.conv2d(x, matrix[None, None], strides=1, padding="VALID")
