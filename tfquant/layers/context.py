"""Networks that predict an entropy model's parameters from what a decoder has already."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfquant.layers.blocks import conv, glorot
from tfquant.layers.chain import Chain
from tfquant.legacy_keras import keras


class ContextNetwork(keras.layers.Layer):
    """Convolutions of stride 1 with ReLU between, on several tensors side by side.

    Call it with a list of `[B, h, w, C_i]`, of any floating-point types.

    Args:
      widths: output channels of each convolution.
      kernels: their sizes.
      **last: further arguments of the last one.
    """

    def __init__(self, widths: tuple, kernels: tuple, **last):
        super().__init__()
        *hidden, final = zip(widths, kernels)
        layers = [conv(width, kernel, activation="relu") for width, kernel in hidden]
        self.layers = Chain([*layers, conv(*final, **last)])

    def call(self, inputs):
        self.layers.layers[0].parts = np.array([part.shape[-1] for part in inputs])
        # Keras has brought all inputs to one type.
        return self.layers(tf.concat(inputs, axis=-1))


class ParameterNetwork(ContextNetwork):
    """A context network whose outputs are the parameters themselves: float32 under any policy.

    It starts with small ones, a mean near 0 and a scale near 1. Decoded latents are large, some
    with standard deviations of 50, and weights of Glorot's size would make a scale of exp(-10) or
    exp(5) of them.
    """

    _START = 0.1

    def __init__(self, widths: tuple, kernels: tuple):
        super().__init__(widths, kernels, kernel_initializer=glorot(self._START), dtype="float32")
