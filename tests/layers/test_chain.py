"""Tests of `tfquant.layers.chain`."""

import numpy as np
import tensorflow as tf

from tfquant.layers.chain import Chain
from tfquant.legacy_keras import keras


def test_layers_are_called_in_turn_and_their_weights_are_the_chains():
    chain = Chain([keras.layers.Dense(3), keras.layers.ReLU(), keras.layers.Dense(2)])
    x = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    y = chain(tf.constant(x)).numpy()
    first, first_bias, last, last_bias = chain.get_weights()
    expected = np.maximum(x @ first + first_bias, 0.0) @ last + last_bias
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    chain.trainable = False
    assert not chain.trainable_weights and len(chain.weights) == 4


def test_each_layer_chooses_its_precision():
    """Checks that under a bfloat16 policy, a float32 layer gets the unrounded input."""
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        chain = Chain([keras.layers.Dense(1, dtype="float32"), keras.layers.Dense(1)])
        chain(tf.ones([1, 1]))
    finally:
        keras.mixed_precision.set_global_policy(before)
    x = tf.constant([[1.0 + 2.0**-20]])
    assert chain.layers[0](x).numpy() == x.numpy() * chain.layers[0].kernel.numpy()
    received = []
    chain.layers[0].call = lambda given: received.append(given) or given
    assert chain(x).dtype == tf.bfloat16
    np.testing.assert_array_equal(received[0], x)
