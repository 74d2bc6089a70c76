"""Networks that predict an entropy model's parameters from what is already decoded."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfquant.layers.blocks import conv, glorot
from tfquant.layers.chain import Chain
from tfquant.legacy_keras import keras


class ContextNetwork(keras.layers.Layer):
    """Convolutions of stride 1 with ReLU between them, on several concatenated tensors.

    Call it with a list of `[B, h, w, C_i]`, of any floating-point types.

    Args:
      widths: output channels of each convolution.
      kernels: kernel size of each convolution.
      **last: further arguments of the last convolution.
    """

    def __init__(self, widths: tuple[int, ...], kernels: tuple[int, ...], **last: Any):
        super().__init__()
        *hidden, final = zip(widths, kernels)
        layers = [conv(width, kernel, activation="relu") for width, kernel in hidden]
        self.layers = Chain([*layers, conv(*final, **last)])

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        self.layers.layers[0].parts = np.array([part.shape[-1] for part in inputs])
        # Keras has converted all inputs to one type.
        return self.layers(tf.concat(inputs, axis=-1))


class ParameterNetwork(ContextNetwork):
    """A context network whose outputs are entropy parameters: float32 under any policy.

    Its outputs start small: a mean near 0 and a scale near 1. Some decoded latents have standard
    deviations of 50. With weights of Glorot's size, they would start at scales of exp(-10) or
    exp(5).
    """

    _START = 0.1

    def __init__(self, widths: tuple[int, ...], kernels: tuple[int, ...]):
        super().__init__(widths, kernels, kernel_initializer=glorot(self._START), dtype="float32")
