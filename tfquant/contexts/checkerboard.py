"""Checkerboard split of a latent, for context models that code it in two steps.

Source: He et al., "Checkerboard Context Model for Efficient Learned Image Compression" (2021).

*Anchors* are the elements whose row and column add up to an even number. The *others* are the rest;
their neighbours to the left, right, top and bottom are all anchors. Each half is stored row by row
as `[B, h, w/2, C]`.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfquant.layers.exact import ExactLayer
from tfquant.legacy_keras import keras


def _sizes(x: tf.Tensor) -> list[int | tf.Tensor]:
    """Returns the size of each axis: a number (no operation) if it is static, else a tensor."""
    known, sizes = list(x.shape), tf.shape(x)
    return [sizes[axis] if size is None else size for axis, size in enumerate(known)]


def split(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Splits `x: [B, h, w, C]`, h and w even, into anchors and others, [B, h, w/2, C] each."""
    batch, h, w, channels = _sizes(x)
    cells = tf.reshape(x, [batch, h // 2, 2, w // 2, 2, channels])

    def packed(upper: tf.Tensor, lower: tf.Tensor) -> tf.Tensor:
        return tf.reshape(tf.stack([upper, lower], axis=2), [batch, h, w // 2, channels])

    return (
        packed(cells[:, :, 0, :, 0], cells[:, :, 1, :, 1]),
        packed(cells[:, :, 0, :, 1], cells[:, :, 1, :, 0]),
    )


def merge(anchors: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Merges two `[B, h, w/2, C]` into [B, h, w, C]. The inverse of `split`."""
    batch, h, half, channels = _sizes(anchors)

    def rows(x: tf.Tensor) -> list[tf.Tensor]:
        return tf.unstack(tf.reshape(x, [batch, h // 2, 2, half, channels]), axis=2)

    (upper_anchor, lower_anchor), (upper_other, lower_other) = rows(anchors), rows(others)
    upper = tf.stack([upper_anchor, upper_other], axis=3)
    lower = tf.stack([lower_other, lower_anchor], axis=3)
    return tf.reshape(tf.stack([upper, lower], axis=2), [batch, h, 2 * half, channels])


class CheckerboardConv(ExactLayer, keras.layers.Layer):
    """Convolution from the anchors to the others, in a window of 5x5 with zero padding.

    It maps anchors `[B, h, w/2, C]` to features of the others, [B, h, w/2, filters]. Every second
    element of the window is an anchor. The layer stores only the weights of these 12 taps.
    """

    _SIDE = 5
    _TAPS = _SIDE**2 // 2

    def __init__(self, filters: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.filters = filters

    def build(self, input_shape: tf.TensorShape) -> None:
        shape = (self._TAPS, input_shape[-1], self.filters)
        self.taps = self.add_weight("taps", shape=shape, initializer="glorot_uniform")
        self.bias = self.add_weight("bias", shape=(self.filters,), initializer="zeros")

    @property
    def factors(self) -> tf.Tensor:
        """The weights, as `ExactLayer` takes them."""
        return self.taps

    def call_real(self, anchors: tf.Tensor) -> tf.Tensor:
        taps = tf.cast(self.taps, self.compute_dtype)
        return tf.nn.bias_add(self.products(anchors, taps), tf.cast(self.bias, self.compute_dtype))

    def products(self, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        taps = kernel
        # In raster order, the taps are the odd elements of the window.
        kernel = tf.reshape(tf.stack([tf.zeros_like(taps), taps], axis=1), [-1, *taps.shape[1:]])
        kernel = tf.pad(kernel, [[0, 1], [0, 0], [0, 0]])
        kernel = tf.reshape(kernel, [self._SIDE, self._SIDE, *taps.shape[1:]])
        return split(tf.nn.conv2d(merge(x, tf.zeros_like(x)), kernel, 1, "SAME"))[1]
