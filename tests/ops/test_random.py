"""Noise, compared with TensorFlow's own stateless random numbers."""

import zlib

import numpy as np
import pytest
import tensorflow as tf

from tfquant.ops import random
from tfquant.quantization.surrogates import SURROGATES


@pytest.mark.parametrize("group", [0, 3])
@pytest.mark.parametrize("known", [True, False])
def test_noise_has_the_bits_of_stateless_uniform(group, known):
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


def test_a_salt_gives_independent_noise_and_keeps_places_and_groups():
    """Compares with TensorFlow's numbers for the salted seed. No two uses or purposes are equal."""
    index = tf.constant([5, 2**40], tf.int64)
    seeds = {p: random.example_seeds(7, p, index) for p in ("y", "z", "gradient_risk")}
    keys = set()
    for purpose, plain in seeds.items():
        keys |= {int(plain[0, 0]) + g * -0x61C8864680B583EB & 2**64 - 1 for g in range(64)}
        for use in SURROGATES:
            salted = random.salted(plain, use).numpy()
            np.testing.assert_array_equal(salted[:, 1:], plain[:, 1:])
            expected = int(plain[0, 0]) + zlib.crc32(use.encode()) * 0x5851F42D4C957F2D
            assert (int(salted[0, 0]) - expected) % 2**64 == 0, purpose
            keys |= {int(salted[0, 0]) + g * -0x61C8864680B583EB & 2**64 - 1 for g in range(64)}
    assert len(keys) == 3 * 64 * (1 + len(SURROGATES))
    a, b = (random.uniform(s, [4000]) for s in (seeds["y"], random.salted(seeds["y"], "sua")))
    assert np.abs(np.corrcoef(np.concatenate([a, b])) - np.eye(4)).max() < 0.05
    one = random.uniform_per_image(random.salted(seeds["y"], "uq_s"), [3, 3])
    assert one.shape == (2, 1, 1)
