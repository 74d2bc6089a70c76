"""Tests custom gradients, and graphs that are traced without them."""

import numpy as np
import tensorflow as tf

from tfquant.layers.gdn import GDN
from tfquant.ops import gradients
from tfquant.quantization import rounding

V = np.float32([-1.7, -0.2, 0.3, 2.5])


def bounded(v):
    return gradients.lower_bound(rounding.soft_round(v, 4.0), 0.0)


def traced(function):
    graph = tf.function(function, autograph=False).get_concrete_function(tf.TensorSpec([4])).graph
    return [op for op in graph.get_operations() if op.type == "IdentityN"]


def test_graphs_of_values_only_have_the_values_and_no_custom_gradient():
    expected = np.maximum(rounding.soft_round(V, 4.0), 0.0)
    with gradients.values_only():
        np.testing.assert_array_equal(bounded(V), expected)
        assert traced(bounded) == []
    assert len(traced(bounded)) == 2


def test_gradients_are_back_after_values_only():
    with gradients.values_only():
        pass
    v = tf.constant([-1.0, 1.0])
    with tf.GradientTape() as tape:
        tape.watch(v)
        y = gradients.straight_through(tf.round(v), 3.0 * v)
    np.testing.assert_array_equal(tape.gradient(y, v), [3.0, 3.0])


def test_functions_with_a_custom_gradient_take_keywords():
    expected = rounding.soft_round(V, 5.0)
    np.testing.assert_array_equal(rounding.soft_round(V, alpha=5.0), expected)
    with gradients.values_only():
        np.testing.assert_array_equal(rounding.soft_round(v=V, alpha=5.0), expected)


def test_gdn_has_the_same_values_with_values_only():
    x, layer = np.random.default_rng(0).normal(size=(1, 3, 4, 5)).astype(np.float32), GDN()
    expected = layer(x)
    with gradients.values_only():
        np.testing.assert_array_equal(layer(x), expected)
