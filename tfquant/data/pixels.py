"""Pictures at the border: uint8 outside, float32 in [0, 1] inside."""

from __future__ import annotations

import tensorflow as tf


def to_float(image: tf.Tensor) -> tf.Tensor:
    """`image: [...] uint8` -> float32 in [0, 1]."""
    return tf.cast(image, tf.float32) / 255.0


def to_uint8(x: tf.Tensor) -> tf.Tensor:
    """`x: [...] float32` -> uint8, the nearest; what lies outside [0, 1] is clipped."""
    return tf.cast(tf.clip_by_value(x, 0.0, 1.0) * 255.0 + 0.5, tf.uint8)
