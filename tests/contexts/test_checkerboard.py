"""The two halves of a checkerboard and the convolution between them, compared with NumPy loops."""

import numpy as np
import pytest
import tensorflow as tf

from tfquant.contexts import checkerboard


def latent(batch=2, height=4, width=8, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(batch, height, width, channels)).astype(np.float32)


def test_anchors_are_the_elements_of_even_parity_row_for_row():
    x = latent()
    anchors, others = checkerboard.split(x)
    for row in range(4):
        even, odd = x[:, row, row % 2 :: 2], x[:, row, 1 - row % 2 :: 2]
        np.testing.assert_array_equal(anchors[:, row], even)
        np.testing.assert_array_equal(others[:, row], odd)


@pytest.mark.parametrize("size", [(2, 2), (4, 8), (6, 4)])
def test_merging_undoes_splitting_in_graphs_of_any_size(size):
    both = tf.function(
        lambda x: checkerboard.merge(*checkerboard.split(x)),
        input_signature=[tf.TensorSpec([None, None, None, 3])],
    )
    x = latent(3, *size)
    np.testing.assert_array_equal(both(x), x)


def test_the_others_see_the_anchors_of_a_5x5_window():
    x = latent()
    anchors, _ = checkerboard.split(x)
    layer = checkerboard.CheckerboardConv(2)
    layer(anchors)
    layer.bias.assign([0.5, -1.0])
    taps = layer.taps.numpy()
    assert taps.shape == (12, 3, 2)
    odd_places = [(r, c) for r in range(-2, 3) for c in range(-2, 3) if (r + c) % 2]
    expected = np.zeros((2, 4, 8, 2)) + [0.5, -1.0]
    for row, column in np.ndindex(4, 8):
        for tap, (down, right) in zip(taps, odd_places):
            at = row + down, column + right
            if 0 <= at[0] < 4 and 0 <= at[1] < 8:
                expected[:, row, column] += x[:, at[0], at[1]] @ tap
    np.testing.assert_allclose(layer(anchors), checkerboard.split(expected)[1], atol=1e-5)


def test_the_checkerboard_convolution_computes_in_the_policys_precision():
    layer = checkerboard.CheckerboardConv(2, dtype="mixed_bfloat16")
    assert layer(checkerboard.split(latent())[0]).dtype == tf.bfloat16
    assert layer.taps.dtype == layer.bias.dtype == tf.float32
