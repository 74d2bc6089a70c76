"""Causal convolution of serial context models (van den Oord et al., 2016; Minnen et al., 2018).

An output depends on the elements before it in raster order, in a window of 5x5:

    o o o o o
    o o o o o
    o o x . .

The layer stores only the weights of those 12 taps. A masked 5x5 kernel would store 13 more, all
zero.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfquant.layers.exact import ExactLayer
from tfquant.legacy_keras import keras

REACH = 2
# (row, column) offsets from an element to its neighbours, in the order of the weights.
NEIGHBOURS = tuple(
    (row, column)
    for row in range(-REACH, 1)
    for column in range(-REACH, REACH + 1)
    if row < 0 or column < 0
)


class CausalConv(ExactLayer, keras.layers.Layer):
    """Causal 5x5 convolution with zero padding: `[B, h, w, C] -> [B, h, w, filters]`."""

    def __init__(self, filters: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.filters = filters

    def build(self, input_shape: tf.TensorShape) -> None:
        shape = (len(NEIGHBOURS), input_shape[-1], self.filters)
        self.taps = self.add_weight("taps", shape=shape, initializer="glorot_uniform")
        self.bias = self.add_weight("bias", shape=(self.filters,), initializer="zeros")

    may_split = False  # `at` sums all in one matrix product

    @property
    def factors(self) -> tf.Tensor:
        """The weights, as `ExactLayer` takes them."""
        return self.taps

    def call_real(self, x: tf.Tensor) -> tf.Tensor:
        """Convolves all elements at once."""
        taps = tf.cast(self.taps, self.compute_dtype)
        return tf.nn.bias_add(self.products(x, taps), tf.cast(self.bias, self.compute_dtype))

    def products(self, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        width = 2 * REACH + 1
        kernel = tf.pad(kernel, [[0, (REACH + 1) * width - len(NEIGHBOURS)], [0, 0], [0, 0]])
        kernel = tf.reshape(kernel, [REACH + 1, width, -1, self.filters])
        x = tf.pad(x, [[0, 0], [REACH, 0], [REACH, REACH], [0, 0]])
        return tf.nn.conv2d(x, kernel, strides=1, padding="VALID")

    def seen_as(self, y: tf.Tensor) -> tf.Tensor:
        """Elements [..., C] as `at` takes them."""
        return y if self.integers is None else self.integers.of(y)

    def at(self, neighbours: tf.Tensor) -> tf.Tensor:
        """Convolves n elements: neighbours `[n, 12, C]` as in `NEIGHBOURS` -> [n, filters]."""
        rows = tf.shape(neighbours)[0]
        flat = tf.reshape(neighbours, [rows, -1])
        sums = tf.matmul(flat, tf.reshape(self.taps, [-1, self.filters]))
        return sums + self.bias if self.integers is None else self.finish(sums)
