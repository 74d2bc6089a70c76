"""Context networks, compared with a sequence of their layers."""

import numpy as np
import pytest
import tensorflow as tf

from tfquant.contexts.networks import ContextNetwork, ParameterNetwork
from tfquant.legacy_keras import keras


def inputs(*channels, scale=1.0):
    rng = np.random.default_rng(0)
    return [tf.constant(rng.normal(0, scale, (2, 6, 4, c)), tf.float32) for c in channels]


def test_a_context_network_is_convolutions_with_relu_between():
    network = ContextNetwork((7, 5, 3), (5, 3, 1))
    x = inputs(2, 4)
    out = network(x)
    first, second, third = network.layers.layers
    assert [layer.kernel.shape for layer in (first, second, third)] == [
        (5, 5, 6, 7), (3, 3, 7, 5), (1, 1, 5, 3),
    ]  # fmt: skip

    def affine(layer, x):
        return tf.nn.conv2d(x, layer.kernel, 1, "SAME") + layer.bias

    h = np.maximum(affine(first, np.concatenate(x, axis=-1)), 0)
    h = np.maximum(affine(second, h), 0)
    np.testing.assert_allclose(out, affine(third, h), atol=1e-5)


@pytest.mark.parametrize(
    "kind,last", [(ContextNetwork, tf.bfloat16), (ParameterNetwork, "float32")]
)
def test_inputs_of_two_types_are_converted_to_the_policys(kind, last):
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        network = kind((4, 2), (3, 3))
        features, decoded = inputs(3, 2)
        out = network([tf.cast(features, tf.bfloat16), decoded])
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert out.dtype == last
    assert network.layers.layers[0].compute_dtype == "bfloat16"
    assert all(weight.dtype == tf.float32 for weight in network.weights)


def test_parameters_start_small_however_large_latents_are():
    """Checks that scales, which are exp of the outputs, are within e^-2 and e^2, so they can
    learn.
    """
    tf.random.set_seed(0)
    network = ParameterNetwork((22, 13, 6), (5, 5, 3))
    large = inputs(32, scale=30.0)
    assert 0 < np.max(np.abs(network(large))) < 20
    ordinary = ContextNetwork((22, 13, 6), (5, 5, 3))
    assert np.std(network(large)) < 0.2 * np.std(ordinary(large))
