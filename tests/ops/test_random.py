"""Noise against TensorFlow's own stateless random numbers."""

import numpy as np
import pytest
import tensorflow as tf

from tfquant.ops import random


@pytest.mark.parametrize("group", [0, 3])
@pytest.mark.parametrize("known", [True, False])
def test_noise_is_made_of_the_bits_of_stateless_uniform(group, known):
    seeds = random.example_seeds(7, "y", tf.constant([5, 6, 2**40], tf.int64), group)
    draw = tf.function(
        lambda s: random.uniform(s, [4, 3]),
        input_signature=[tf.TensorSpec([3 if known else None, 3], tf.int64)],
    )
    for seed, noise in zip(seeds.numpy(), draw(seeds).numpy()):
        purpose, place, number = (int(part) for part in seed)
        wrapped = (purpose + number * -0x61C8864680B583EB + 2**63) % 2**64 - 2**63
        bits = tf.random.stateless_uniform(
            [4, 3], tf.constant([wrapped, place], tf.int64), None, None, tf.uint32, alg="philox"
        )
        np.testing.assert_array_equal(noise, (bits.numpy() >> 8) * 2.0**-24 - 0.5)
