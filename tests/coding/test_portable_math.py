"""Tests machine-independent functions against NumPy's operations one by one."""

import numpy as np
import tensorflow as tf

from tfquant.coding import portable_math


def _points():
    rng = np.random.default_rng(0)
    near = rng.uniform(-30, 30, 200_000)
    edges = [0.0, -0.0, 1e-30, -1e-30, 200.0, -200.0, 87.0, -87.0, 1e30, -1e30]
    return np.concatenate([near, edges]).astype(np.float32)


def test_exp_is_accurate():
    x = _points()[:200_000]
    found = portable_math.exp(tf.constant(x)).numpy()
    np.testing.assert_allclose(found, np.exp(x.astype(np.float64)), rtol=3e-6)
    assert portable_math.exp(tf.zeros([1])).numpy() == 1.0


def test_exp_is_the_same_in_a_graph_as_in_numpy():
    """Tests that TensorFlow's optimizer neither reorders sums nor replaces divisions."""
    x = _points()
    found = tf.function(portable_math.exp, autograph=False)(tf.constant(x)).numpy()
    f = np.float32
    scaled = np.clip(x * f(1.0 / np.log(2.0)), f(-126), f(127))
    whole = np.rint(scaled)
    fraction = scaled - whole
    mantissa = f(0.00132546027) * fraction
    for coefficient in (0.00967199914, 0.055507794, 0.24022232, 0.693146944):
        mantissa = (mantissa + f(coefficient)) * fraction
    mantissa = mantissa + f(1.0)
    expected = np.ldexp(mantissa, whole.astype(int))
    np.testing.assert_array_equal(found, expected)
