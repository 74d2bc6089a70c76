"""The linear start, compared with NumPy's eigenvectors and other processors' kernels; a picture."""

import signal

import numpy as np
import pytest
import tensorflow as tf

from tfquant.layers import klt, transforms
from tfquant.legacy_keras import keras

WIDTHS = (16, 24, 24, 32)


def test_the_first_layer_is_the_klt_of_2x2_pixels():
    level = klt.levels((12,))[0]
    down, across = np.array([[1, 0.94], [0.94, 1]]), np.array([[1, 0.95], [0.95, 1]])
    colour = 2.8 / 3 + 0.104 / 2 * np.outer([1, 0, -1], [1, 0, -1])
    colour += 0.096 / 6 * np.outer([1, -2, 1], [1, -2, 1])
    pixel = [(r, c, k) for r in range(2) for c in range(2) for k in range(3)]
    covariance = np.array(
        [[down[a[0], b[0]] * across[a[1], b[1]] * colour[a[2], b[2]] for b in pixel] for a in pixel]
    )
    w = level.weights.reshape(12, 12)
    transformed = w.T @ covariance @ w
    np.testing.assert_allclose(transformed, np.diag(np.diag(transformed)), atol=5e-5)
    variances = np.linalg.eigvalsh(covariance)[::-1]
    np.testing.assert_allclose(np.diag(transformed), variances, rtol=1e-4)
    # Pixels with a standard deviation of a quarter.
    np.testing.assert_allclose(level.deviations, 0.25 * np.sqrt(variances), rtol=2e-4)


# OpenBLAS kernels for x86-64. By default, a processor runs its own. ZEN has those of HASWELL.
KERNELS = ("NEHALEM", "SANDYBRIDGE", "HASWELL", "SKYLAKEX", "SAPPHIRERAPIDS")

# The second line shows if the kernels differ at all: its matrix has equal eigenvalues.
START = """
    import hashlib
    import numpy as np
    from tfquant.layers import klt

    start = hashlib.sha256()
    for widths in ((8, 8, 8, 12), (32, 32, 32, 48), (128, 128, 128, 192), (192, 192, 192, 320)):
        for level in klt.levels(widths):
            start.update(level.weights.tobytes() + level.deviations.tobytes())
    print(start.hexdigest())
    line = 0.95 ** np.abs(np.subtract.outer(np.arange(8), np.arange(8)))
    print(hashlib.sha256(np.linalg.eigh(np.kron(line, line))[1].tobytes()).hexdigest())
"""


def test_the_start_is_the_same_under_every_kernel_of_the_linear_algebra_library(fresh_python):
    starts, eigenvectors = set(), set()
    for kernel in KERNELS:
        try:
            start, vectors = fresh_python(START, OPENBLAS_CORETYPE=kernel).split()
        except AssertionError as failure:
            if f"exit {-signal.SIGILL}\n" in str(failure):
                continue  # this processor lacks the kernel's instructions
            raise
        starts.add(start)
        eigenvectors.add(vectors)
    if len(eigenvectors) < 2:
        pytest.skip("NumPy's linear algebra has only one kernel here")
    assert len(starts) == 1


@pytest.mark.parametrize("N, M", [(8, 12), (64, 96), (153, 400), (192, 320)])
def test_rounding_errors_and_arbitrary_signs_do_not_change_the_start(N, M, monkeypatch):
    """Uses errors as large as those of any kernel, and N = 153, whose variances are closest."""
    exact = klt.levels((N, N, N, M))
    rng, eigh = np.random.default_rng(0), np.linalg.eigh

    def another_eigh(matrix):
        error = 1e-15 * np.abs(matrix).max() * rng.standard_normal(matrix.shape)
        variances, vectors = eigh(matrix + error + error.T)
        return variances, vectors * rng.choice([-1.0, 1.0], len(matrix))

    monkeypatch.setattr(np.linalg, "eigh", another_eigh)
    for level, same in zip(klt._levels.__wrapped__((N, N, N, M)), exact):
        # An entry on the edge between two multiples of 2^-20 may be either.
        np.testing.assert_allclose(level.weights, same.weights, rtol=0, atol=1.1 * 2.0**-20)
        np.testing.assert_allclose(level.deviations, same.deviations, rtol=0, atol=1.1 * 2.0**-20)


def test_the_sum_of_weights_does_not_depend_on_its_order():
    """Tests the sum because it becomes a bias."""
    kernel = klt.levels((192,))[0].convolution(5)
    np.testing.assert_array_equal(kernel.sum((0, 1, 2)), kernel.sum((0, 1, 2), np.float64))


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
    """Checks that analysis after synthesis restores any latent."""
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
