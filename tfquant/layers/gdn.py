"""Generalized divisive normalization (Balle, Laparra, Simoncelli, 2016)."""

from __future__ import annotations

import tensorflow as tf

from tfquant.ops.gradients import lower_bound

_MIN = 1e-6  # of beta and of every element of gamma


class GDN(tf.keras.layers.Layer):
    """`x / sqrt(beta + gamma x^2)` over channels; the inverse multiplies instead.

    `x: [B, H, W, C]`, any precision. The weights are the square roots of beta and gamma, so that
    both stay positive and, more to the point, that the C^2 small elements of gamma move slowly: a
    step of Adam that changes each of them by its learning rate changes their sum by C times as
    much, and the inverse, which grows with the square of its input, does not survive that.

    Args:
      inverse: multiply instead of divide.
      gamma: its diagonal at first.
    """

    def __init__(self, inverse: bool = False, gamma: float = 0.1, **kwargs):
        super().__init__(**kwargs)
        self.inverse = inverse
        self._gamma = gamma

    def build(self, input_shape):
        channels = input_shape[-1]

        def gamma_root(shape, dtype=None):
            gamma = (self._gamma - _MIN) * tf.eye(channels) + _MIN
            return tf.cast(tf.reshape(tf.sqrt(gamma), shape), dtype)

        self.beta_root = self.add_weight("beta_root", shape=(channels,), initializer="ones")
        self.gamma_root = self.add_weight(
            "gamma_root", shape=(channels, channels), initializer=gamma_root
        )

    def call(self, x):
        beta = tf.square(lower_bound(self.beta_root, _MIN**0.5))
        gamma = tf.square(lower_bound(self.gamma_root, _MIN**0.5))
        gamma = tf.cast(gamma, x.dtype)[None, None]
        norm = tf.nn.conv2d(tf.square(x), gamma, strides=1, padding="VALID")
        norm = tf.nn.bias_add(norm, tf.cast(beta, x.dtype))
        return x * tf.sqrt(norm) if self.inverse else x * tf.math.rsqrt(norm)
