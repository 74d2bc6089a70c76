"""Tests the conversion between uint8 and floats against NumPy."""

import numpy as np
import tensorflow as tf

from tfquant.data import pixels


def test_every_level_round_trips():
    levels = tf.range(256)
    x = pixels.to_float(tf.cast(levels, tf.uint8))
    np.testing.assert_allclose(x, np.arange(256) / 255, rtol=1e-6)
    np.testing.assert_array_equal(pixels.to_uint8(x), levels)


def test_floats_are_rounded_and_clipped():
    x = np.random.default_rng(0).uniform(-0.5, 1.5, 10_000).astype(np.float32)
    found = pixels.to_uint8(tf.constant(x))
    np.testing.assert_array_equal(found, np.rint(255 * np.clip(x, 0, 1)))
    np.testing.assert_array_equal(pixels.to_uint8(tf.constant([-np.inf, np.inf])), [0, 255])
