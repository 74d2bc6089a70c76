"""Generalized divisive normalization (Balle, Laparra, Simoncelli, 2016)."""

from __future__ import annotations

import tensorflow as tf

from tfquant.ops.gradients import lower_bound

_BETA_MIN = 1e-6
_GAMMA_INIT = 0.1


class GDN(tf.keras.layers.Layer):
    """`x / sqrt(beta + gamma x^2)` over channels; the inverse multiplies instead.

    `x: [B, H, W, C]`, any precision. `beta >= 1e-6` and `gamma >= 0` by projection, with a gradient
    that still leads back into the valid range; gamma starts at 0.1 I.
    """

    def __init__(self, inverse: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.inverse = inverse

    def build(self, input_shape):
        channels = input_shape[-1]
        self.beta = self.add_weight("beta", shape=(channels,), initializer="ones")
        self.gamma = self.add_weight(
            "gamma",
            shape=(channels, channels),
            initializer=tf.keras.initializers.Identity(_GAMMA_INIT),
        )

    def call(self, x):
        beta = tf.cast(lower_bound(self.beta, _BETA_MIN), x.dtype)
        gamma = tf.cast(lower_bound(self.gamma, 0.0), x.dtype)
        norm = tf.nn.conv2d(tf.square(x), gamma[None, None], strides=1, padding="VALID")
        norm = tf.nn.bias_add(norm, beta)
        return x * tf.sqrt(norm) if self.inverse else x * tf.math.rsqrt(norm)
