"""The linear start against NumPy's own eigenvectors and a picture."""

import numpy as np
import pytest
import tensorflow as tf

from tfquant.layers import klt, transforms
from tfquant.legacy_keras import keras

WIDTHS = (16, 24, 24, 32)


def test_the_first_layer_is_the_klt_of_2x2_pixels():
    level = klt.levels((12,))[0]
    line = 0.95 ** np.abs(np.subtract.outer(np.arange(2), np.arange(2)))
    colour = 0.9 + 0.1 * np.eye(3)
    pixel = [(r, c, k) for r in range(2) for c in range(2) for k in range(3)]
    covariance = np.array(
        [[line[a[0], b[0]] * line[a[1], b[1]] * colour[a[2], b[2]] for b in pixel] for a in pixel]
    )
    w = level.weights.reshape(12, 12)
    transformed = w.T @ covariance @ w
    np.testing.assert_allclose(transformed, np.diag(np.diag(transformed)), atol=1e-5)
    variances = np.linalg.eigvalsh(covariance)[::-1]
    np.testing.assert_allclose(np.diag(transformed), variances, atol=1e-5)
    # Pixels that spread by a quarter.
    np.testing.assert_allclose(level.deviations, 0.25 * np.sqrt(variances), rtol=1e-4)


def transposed(level, size):
    def apply(h):
        kernel = level.convolution(size)
        shape = [1, 2 * h.shape[1], 2 * h.shape[2], kernel.shape[2]]
        return tf.nn.conv2d_transpose(h, kernel, shape, 2, "SAME")

    return apply


def subpixel(level, size):
    return lambda h: tf.nn.depth_to_space(tf.nn.conv2d(h, level.subpixel(size), 1, "SAME"), 2)


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("up", [transposed, subpixel])
def test_the_whole_transform_is_orthonormal(size, up):
    """Analysis after synthesis gives every latent back, whatever it is."""
    levels = klt.levels(WIDTHS)
    y = np.random.default_rng(0).normal(size=(1, 3, 2, WIDTHS[-1])).astype(np.float32)
    h = tf.constant(y)
    for level in reversed(levels):
        h = up(level, size)(h)
    for level in levels:
        h = tf.nn.conv2d(h, level.convolution(size), 2, "SAME")
    np.testing.assert_allclose(h, y, atol=1e-4)


def test_channels_beyond_the_components_start_at_zero():
    first, second = (level.weights for level in klt.levels((16, 80)))
    assert not first[..., 12:].any() and first[..., :12].any()
    assert not second[:, :, 12:].any() and not second[..., 48:].any()


def test_a_codec_reconstructs_a_picture_before_any_training(make_photograph):
    keras.utils.set_random_seed(0)
    x = make_photograph(128, 128)[None].astype(np.float32) / 255
    g_a, g_s = transforms.analysis("plain", 32, 48), transforms.synthesis("plain", 32, 48)
    y = g_a(x)
    error = np.mean((g_s(tf.round(y)).numpy() - x) ** 2)
    assert error < 0.2 * np.var(x)
    assert np.std(y) > 1
