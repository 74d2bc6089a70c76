"""Conversion of pictures between uint8 in files and float32 in [0, 1] in codecs."""

from __future__ import annotations

import tensorflow as tf


def to_float(image: tf.Tensor) -> tf.Tensor:
    """Converts `image: [...] uint8` to float32 in [0, 1]."""
    return tf.cast(image, tf.float32) / 255.0


def to_uint8(x: tf.Tensor) -> tf.Tensor:
    """Rounds `x: [...] float32` to uint8. Values outside [0, 1] are clipped."""
    return tf.cast(tf.clip_by_value(x, 0.0, 1.0) * 255.0 + 0.5, tf.uint8)
