"""Learned gains: one model for a range of rates.

A gain scales the latent before quantization, channel by channel, so it sets the quantization step
of every channel: a latent that is scaled by 4 is quantized with a quarter of the step. The decoder
scales back with its own gains. Source: Cui et al., "Asymmetric Gained Deep Image Compression
With Continuous Rate Adaptation" (CVPR 2021).

    y --* gain(quality)--> transmit --> y_hat --* inverse_gain(quality)--> g_s
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfquant.legacy_keras import keras


class Gain(keras.layers.Layer):
    """Scales each channel by a factor that depends on the quality.

    The layer has one vector of factors for each of a few levels, at equal distances in quality from
    0 to 1. Between two levels, the factors are interpolated on a logarithmic scale.

    Args:
      factors: the factor of every level at the start of training, at least two, above 0. All
        channels start with the same factor.
    """

    def __init__(self, factors: Sequence[float], **options: Any):
        super().__init__(**{"dtype": "float32", **options})
        if len(factors) < 2 or min(factors) <= 0:
            raise ValueError(f"a gain needs two or more positive factors; got {tuple(factors)}")
        self._factors = np.asarray(factors, np.float32)

    def build(self, input_shape: tf.TensorShape) -> None:
        levels, channels = len(self._factors), input_shape[-1]

        def start(shape: Sequence[int], dtype: tf.DType | None = None, **_: Any) -> tf.Tensor:
            rows = np.repeat(np.log(self._factors)[:, None], channels, axis=1)
            return tf.constant(rows, dtype)

        self.log_factors = self.add_weight(
            name="log_factors", shape=(levels, channels), initializer=start
        )

    def factors(self, quality: tf.Tensor) -> tf.Tensor:
        """Factors at a quality.

        Args:
          quality: [B] float32, from 0 to 1. Values outside are clipped.

        Returns:
          [B, C] float32.
        """
        levels = len(self._factors)
        position = tf.clip_by_value(tf.cast(quality, tf.float32), 0.0, 1.0) * (levels - 1)
        distance = tf.abs(position[:, None] - tf.range(levels, dtype=tf.float32))
        return tf.exp(tf.linalg.matmul(tf.maximum(1.0 - distance, 0.0), self.log_factors))

    def call(self, y: tf.Tensor, quality: tf.Tensor) -> tf.Tensor:
        """Scales `y: [B, h, w, C]` float32 by `factors(quality)`, `quality: [B]`: same shape."""
        return tf.cast(y, tf.float32) * self.factors(quality)[:, None, None, :]
