"""Checkerboards: He et al., "Checkerboard Context Model for Efficient Learned Image Compression"
(2021).

*Anchors* are the elements whose row and column add up to an even number; the *others* have anchors
alone beside, above and below them. Either half is packed into `[B, h, w/2, C]`, row for row.
"""

from __future__ import annotations

import tensorflow as tf

from tfquant.layers.exact import ExactLayer
from tfquant.legacy_keras import keras


def _sizes(x: tf.Tensor) -> list:
    """Of each axis: a number where it is known, which costs no operation, else a tensor."""
    known, sizes = list(x.shape), tf.shape(x)
    return [sizes[axis] if size is None else size for axis, size in enumerate(known)]


def split(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """`x: [B, h, w, C]`, h and w even -> anchors and others, [B, h, w/2, C] each."""
    batch, h, w, channels = _sizes(x)
    cells = tf.reshape(x, [batch, h // 2, 2, w // 2, 2, channels])

    def packed(upper, lower):
        return tf.reshape(tf.stack([upper, lower], axis=2), [batch, h, w // 2, channels])

    return (
        packed(cells[:, :, 0, :, 0], cells[:, :, 1, :, 1]),
        packed(cells[:, :, 0, :, 1], cells[:, :, 1, :, 0]),
    )


def merge(anchors: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """The inverse of `split`: two `[B, h, w/2, C]` -> [B, h, w, C]."""
    batch, h, half, channels = _sizes(anchors)

    def rows(x):
        return tf.unstack(tf.reshape(x, [batch, h // 2, 2, half, channels]), axis=2)

    (upper_anchor, lower_anchor), (upper_other, lower_other) = rows(anchors), rows(others)
    upper = tf.stack([upper_anchor, upper_other], axis=3)
    lower = tf.stack([lower_other, lower_anchor], axis=3)
    return tf.reshape(tf.stack([upper, lower], axis=2), [batch, h, 2 * half, channels])


class CheckerboardConv(ExactLayer, keras.layers.Layer):
    """What the others see of the anchors in a window of 5x5, zeros outside.

    Anchors `[B, h, w/2, C]` -> features of the others, [B, h, w/2, filters]. Every other place of
    the window has an anchor; the weights are these 12 taps alone.
    """

    _SIDE = 5
    _TAPS = _SIDE**2 // 2

    def __init__(self, filters: int, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters

    def build(self, input_shape):
        shape = (self._TAPS, input_shape[-1], self.filters)
        self.taps = self.add_weight("taps", shape=shape, initializer="glorot_uniform")
        self.bias = self.add_weight("bias", shape=(self.filters,), initializer="zeros")

    @property
    def factors(self):
        return self.taps

    def call_real(self, anchors):
        taps = tf.cast(self.taps, self.compute_dtype)
        return tf.nn.bias_add(self.products(anchors, taps), tf.cast(self.bias, self.compute_dtype))

    def products(self, x, kernel):
        taps = kernel
        # In raster order they are the window's odd places.
        kernel = tf.reshape(tf.stack([tf.zeros_like(taps), taps], axis=1), [-1, *taps.shape[1:]])
        kernel = tf.pad(kernel, [[0, 1], [0, 0], [0, 0]])
        kernel = tf.reshape(kernel, [self._SIDE, self._SIDE, *taps.shape[1:]])
        return split(tf.nn.conv2d(merge(x, tf.zeros_like(x)), kernel, 1, "SAME"))[1]
