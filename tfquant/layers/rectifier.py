"""The Quantization Rectifier, which predicts a latent from its quantized values.

Source: Luo and Chen, "Neural Image Compression with Quantization Rectifier" (ICML 2023 workshop).

    y_hat --> conv 3x3 --> residual blocks --> attention --> conv 3x3 --> + --> y_bar
          |                                                               |
          +---------------------------------------------------------------+

    y_bar = y_hat + f(y_hat)

Neighbours in space and across channels allow a partial prediction of an element's quantization
error. The paper shows the layers but not their number and widths. Here, the last convolution starts
at zero, so that a new rectifier is the identity and a trained codec loses nothing when it gets one.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfquant.layers.blocks import Attention, ResidualBlock, conv, residual
from tfquant.layers.chain import Chain
from tfquant.legacy_keras import keras

# About 3 % of the multiplications of a synthesis transform at N = 128, M = 192.
LIGHT_WIDTH, LIGHT_DEPTH = 48, 2


class QuantizationRectifier(keras.layers.Layer):
    """Maps `y_hat: [B, h, w, M]` to `y_bar` of the same shape, both float32 under any policy.

    Args:
      width: hidden channels, at least 2, because the units of the attention block halve them.
      depth: number of residual blocks, at least 0.

    Raises:
      ValueError: `width` is below 2 or `depth` is negative.
    """

    def __init__(self, width: int = LIGHT_WIDTH, depth: int = LIGHT_DEPTH, **kwargs: Any):
        # Not bfloat16, in which a latent of magnitude 20 has a spacing of 1/8.
        super().__init__(dtype="float32", **kwargs)
        if width < 2:
            raise ValueError(f"a rectifier's width must be at least 2; got {width}")
        if depth < 0:
            raise ValueError(f"a rectifier's depth must not be negative; got {depth}")
        blocks = [ResidualBlock(width) for _ in range(depth)]
        self.trunk = Chain([conv(width, 3), *blocks, Attention()], name="trunk")

    def build(self, input_shape: tf.TensorShape) -> None:
        self.last = conv(input_shape[-1], 3, kernel_initializer="zeros", dtype="float32")

    def call(self, y_hat: tf.Tensor) -> tf.Tensor:
        return residual(y_hat, self.last(self.trunk(y_hat)))
