"""The linear start against NumPy's own eigenvectors and a picture."""

import numpy as np
import tensorflow as tf

from tfquant.layers import klt, transforms

WIDTHS = (16, 24, 24, 32)


def test_the_first_layer_is_the_klt_of_2x2_pixels():
    kernel = klt.kernels((12,))[0]
    line = 0.95 ** np.abs(np.subtract.outer(np.arange(2), np.arange(2)))
    colour = 0.9 + 0.1 * np.eye(3)
    pixel = [(r, c, k) for r in range(2) for c in range(2) for k in range(3)]
    covariance = np.array(
        [[line[a[0], b[0]] * line[a[1], b[1]] * colour[a[2], b[2]] for b in pixel] for a in pixel]
    )
    w = kernel[1:3, 1:3].reshape(12, 12)
    transformed = w.T @ covariance @ w
    np.testing.assert_allclose(transformed, np.diag(np.diag(transformed)), atol=1e-5)
    variances = np.linalg.eigvalsh(covariance)[::-1]
    np.testing.assert_allclose(np.diag(transformed), variances, atol=1e-5)
    outside = kernel.copy()
    outside[1:3, 1:3] = 0
    assert not outside.any()


def test_the_whole_transform_is_orthonormal():
    """Analysis after synthesis gives every latent back, whatever it is."""
    kernels = klt.kernels(WIDTHS)
    y = np.random.default_rng(0).normal(size=(1, 3, 2, WIDTHS[-1])).astype(np.float32)
    h = tf.constant(y)
    for kernel in reversed(kernels):
        shape = [1, 2 * h.shape[1], 2 * h.shape[2], kernel.shape[2]]
        h = tf.nn.conv2d_transpose(h, kernel, shape, 2, "SAME")
    for kernel in kernels:
        h = tf.nn.conv2d(h, kernel, 2, "SAME")
    np.testing.assert_allclose(h, y, atol=1e-4)


def test_channels_beyond_the_components_start_at_zero():
    first, second = klt.kernels((16, 80))
    assert not first[..., 12:].any() and first[..., :12].any()
    assert not second[:, :, 12:].any() and not second[..., 48:].any()


def test_a_codec_reconstructs_a_picture_before_any_training(make_photograph):
    tf.keras.utils.set_random_seed(0)
    x = make_photograph(128, 128)[None].astype(np.float32) / 255
    g_a, g_s = transforms.analysis("plain", 32, 48), transforms.synthesis("plain", 32, 48)
    y = g_a(x)
    error = np.mean((g_s(tf.round(y)).numpy() - x) ** 2)
    assert error < 0.2 * np.var(x)
    assert np.std(y) > 1
