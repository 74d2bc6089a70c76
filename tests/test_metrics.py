"""Metrics, compared with their published formulas in NumPy and SciPy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from tfquant import metrics


def photograph(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Returns a smooth random picture with an edge, `[H, W, 3] float64` in [0, 1]."""
    rng = np.random.default_rng(seed)
    picture = ndimage.gaussian_filter(rng.normal(size=(height, width, 3)), (3, 3, 0))
    picture = 0.5 + 0.15 * picture / picture.std()
    picture[:, width // 2 :] += 0.1
    return np.clip(picture, 0, 1)


def reference_ms_ssim(x: np.ndarray, y: np.ndarray, weights) -> float:
    """Computes Wang et al. 2003, equation 7, channel by channel in float64."""
    taps = np.exp(-0.5 * (np.arange(11) - 5.0) ** 2 / 1.5**2)
    window = np.outer(taps, taps) / taps.sum() ** 2

    def blur(image):
        return ndimage.correlate(image, window)[5:-5, 5:-5]

    values = []
    for channel in range(x.shape[-1]):
        a, b, value = x[..., channel], y[..., channel], 1.0
        for scale, weight in enumerate(weights):
            mean_a, mean_b = blur(a), blur(b)
            contrast = (2 * (blur(a * b) - mean_a * mean_b) + 0.03**2) / (
                blur(a * a) - mean_a**2 + blur(b * b) - mean_b**2 + 0.03**2
            )
            luminance = (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
            last = scale == len(weights) - 1
            value *= max(np.mean(luminance * contrast if last else contrast), 0) ** weight
            height, width = a.shape
            pad = ((0, height % 2), (0, width % 2))
            a, b = (
                np.pad(image, pad, mode="symmetric")
                .reshape(-(-height // 2), 2, -(-width // 2), 2)
                .mean((1, 3))
                for image in (a, b)
            )
        values.append(value)
    return float(np.mean(values))


def test_identical_images_have_infinite_psnr_and_ms_ssim_one():
    x = photograph(170, 180)[None]
    assert metrics.mse(x, x).numpy() == [0.0]
    assert metrics.psnr(x, x).numpy() == [np.inf]
    assert metrics.ms_ssim(x, x).numpy() == [1.0]
    assert metrics.ms_ssim_db(metrics.ms_ssim(x, x)).numpy() == [np.inf]


def test_psnr_of_gaussian_noise_is_that_of_its_variance():
    x = np.full([2, 200, 200, 3], 0.5)
    noise = np.random.default_rng(1).normal(size=x.shape) * np.reshape([0.01, 0.1], [2, 1, 1, 1])
    np.testing.assert_allclose(metrics.psnr(x, x + noise), [40, 20], atol=0.05)


def test_psnr_of_uint8_is_that_of_the_same_floats():
    rng = np.random.default_rng(2)
    x, x_hat = rng.integers(0, 256, [2, 3, 20, 30, 3], np.uint8)
    expected = 10 * np.log10(255**2 / np.mean((x.astype(float) - x_hat) ** 2, axis=(1, 2, 3)))
    np.testing.assert_allclose(metrics.psnr(x, x_hat), expected, rtol=1e-6)
    np.testing.assert_allclose(metrics.psnr(x / 255, x_hat), expected, rtol=1e-6)


@pytest.mark.parametrize("noise", [0.02, 0.2])
@pytest.mark.parametrize("size", [(161, 190), (177, 163)])
def test_ms_ssim_is_the_published_formula(size, noise):
    x = photograph(*size)
    x_hat = np.clip(x + noise * np.random.default_rng(3).normal(size=x.shape), 0, 1)
    expected = reference_ms_ssim(x, x_hat, metrics.MS_SSIM_WEIGHTS)
    np.testing.assert_allclose(metrics.ms_ssim(x, x_hat), expected, rtol=5e-5)


@pytest.mark.slow
def test_ms_ssim_of_a_large_and_good_picture_keeps_its_decibels():
    x = photograph(480, 640)
    x_hat = np.clip(x + 0.004 * np.random.default_rng(4).normal(size=x.shape), 0, 1)
    expected = -10 * np.log10(1 - reference_ms_ssim(x, x_hat, metrics.MS_SSIM_WEIGHTS))
    assert expected > 30
    np.testing.assert_allclose(metrics.ms_ssim_db(metrics.ms_ssim(x, x_hat)), expected, atol=0.02)


def test_ms_ssim_is_that_of_tensorflow_where_that_is_accurate():
    x = np.stack([photograph(165, 170, seed) for seed in range(2)]).astype(np.float32)
    x_hat = np.clip(x + 0.1 * np.random.default_rng(5).normal(size=x.shape), 0, 1)
    expected = tf.image.ssim_multiscale(x, x_hat.astype(np.float32), 1.0)
    np.testing.assert_allclose(metrics.ms_ssim(x, x_hat), expected, rtol=1e-4)


def test_smaller_images_use_the_scales_that_fit_with_renormalized_weights():
    x = photograph(41, 60)
    x_hat = np.clip(x + 0.05, 0, 1)
    assert metrics.ms_ssim_scales(41, 60) == 3
    weights = np.array([0.0448, 0.2856, 0.3001])
    expected = reference_ms_ssim(x, x_hat, weights / weights.sum())
    np.testing.assert_allclose(metrics.ms_ssim(x, x_hat), expected, rtol=5e-5)


@pytest.mark.parametrize("side, scales", [(10, 0), (11, 1), (20, 1), (21, 2), (81, 4), (160, 4)])
def test_scales_are_counted_by_the_smaller_side(side, scales):
    assert metrics.ms_ssim_scales(side, 500) == metrics.ms_ssim_scales(500, side) == scales


def test_the_full_pyramid_starts_where_five_scales_fit():
    assert metrics.FULL_PYRAMID_SIDE == 161
    assert metrics.ms_ssim_scales(161, 161) == metrics.ms_ssim_scales(5000, 4000) == 5


def test_an_image_below_the_window_is_refused_in_one_line():
    x = np.zeros([1, 10, 64, 3], np.float32)
    with pytest.raises(ValueError, match=r"64x10 .* both sides must be >= 11"):
        metrics.ms_ssim(x, x)


def test_integer_images_other_than_uint8_are_refused():
    with pytest.raises(ValueError, match="int32; known: floating point in .0, 1., uint8"):
        metrics.psnr(np.zeros([4, 4, 3], np.int32), np.zeros([4, 4, 3], np.int32))


def test_ms_ssim_gradient_is_finite_where_a_contrast_term_is_negative():
    x = tf.constant(photograph(164, 164), tf.float32)
    inverted = tf.concat([1 - x[..., :1], 0.9 * x[..., 1:]], -1)
    with tf.GradientTape() as tape:
        tape.watch(inverted)
        value = metrics.ms_ssim(x, inverted)
    gradient = tape.gradient(value, inverted).numpy()
    assert 0 < value < 2 / 3
    assert np.all(np.isfinite(gradient))
    assert np.all(gradient[..., 0] == 0) and np.all(np.any(gradient[..., 1:] != 0, axis=(0, 1)))


def test_decibels_of_ms_ssim_and_bfloat16_inputs():
    np.testing.assert_allclose(metrics.ms_ssim_db([0.9, 0.99]), [10, 20], rtol=1e-4)
    x = tf.constant(photograph(32, 32))
    low = tf.cast(x, tf.bfloat16)
    assert metrics.psnr(x, low).dtype == tf.float32
    np.testing.assert_allclose(
        metrics.psnr(x, low), metrics.psnr(x, tf.cast(low, tf.float32)), rtol=1e-6
    )


def test_the_error_reduction_is_in_percent_of_the_quantization_error():
    assert metrics.error_reduction(0.08, 0.06) == pytest.approx(25)
    assert metrics.error_reduction(0.08, 0.1) == pytest.approx(-25)
    assert metrics.error_reduction(0.08, 0.08) == metrics.error_reduction(0.0, 0.0) == 0
