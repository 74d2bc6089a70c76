"""The causal convolution, compared with its definition element by element."""

import numpy as np
import pytest
import tensorflow as tf

from tfquant.contexts.causal import NEIGHBOURS, REACH, CausalConv


@pytest.fixture(scope="module", name="layer")
def _layer():
    tf.random.set_seed(0)
    layer = CausalConv(5)
    layer(tf.zeros([1, 1, 1, 3]))
    layer.bias.assign(np.arange(5.0))
    return layer


def picture(height=6, width=7, batch=2):
    return np.random.default_rng(0).normal(size=(batch, height, width, 3)).astype(np.float32)


def windows(y):
    """Returns the windows [B, h, w, 12, C], with zeros outside."""
    height, width = y.shape[1:3]
    padded = np.pad(y, [(0, 0), (REACH, REACH), (REACH, REACH), (0, 0)])
    shifted = [
        padded[:, REACH + r : REACH + r + height, REACH + c : REACH + c + width]
        for r, c in NEIGHBOURS
    ]
    return np.stack(shifted, axis=-2)


def test_the_window_contains_the_previous_elements_in_raster_order():
    square = [(r, c) for r in range(-2, 3) for c in range(-2, 3)]
    assert list(NEIGHBOURS) == square[:12]


def test_the_output_is_the_weighted_sum_over_the_window(layer):
    y = picture()
    expected = np.einsum("bhwnc,ncf->bhwf", windows(y), layer.taps.numpy()) + np.arange(5.0)
    np.testing.assert_allclose(layer(y), expected, rtol=1e-4, atol=1e-5)


def test_single_elements_equal_those_of_the_whole_latent(layer):
    y = picture(batch=1)
    near = windows(y).reshape(-1, 12, 3)[[0, 5, 17, 41]]
    rows = np.reshape(layer(y), [-1, 5])[[0, 5, 17, 41]]
    np.testing.assert_allclose(layer.at(tf.constant(near)), rows, rtol=1e-4, atol=1e-5)


def test_no_element_affects_earlier_ones_in_raster_order(layer):
    y = picture(batch=1)
    before = np.reshape(layer(y), [-1, 5])
    for place in (0, 9, 41):
        changed = y.reshape(-1, 3).copy()
        changed[place] += 1.0
        after = np.reshape(layer(changed.reshape(y.shape)), [-1, 5])
        moved = np.any(after != before, axis=1)
        assert not np.any(moved[: place + 1])
        assert np.any(moved) == (place < 41)


def test_it_computes_in_the_policys_precision():
    layer = CausalConv(5, dtype="mixed_bfloat16")
    y = picture()
    assert layer(y).dtype == tf.bfloat16 and layer.taps.dtype == tf.float32
    exact = CausalConv(5)
    exact(y)
    exact.set_weights(layer.get_weights())
    np.testing.assert_allclose(tf.cast(layer(y), tf.float32), exact(y), atol=0.05)
