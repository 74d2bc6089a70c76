"""Loss terms against NumPy in float64."""

import types

import numpy as np
import pytest
import tensorflow as tf

from tfquant import metrics
from tfquant.exchange import Exchange
from tfquant.training import losses
from tfquant.training.losses import Outcome


@pytest.fixture(name="pictures")
def _pictures(make_photograph):
    """`x, x_hat: [2, 176, 192, 3]`, the second one noisy and partly outside of [0, 1]."""
    x = np.stack([make_photograph(176, 192, seed) for seed in range(2)]) / 255.0
    x_hat = x + np.random.default_rng(0).normal(0, [[[[0.02]]], [[[0.2]]]], x.shape)
    return x.astype(np.float32), x_hat.astype(np.float32)


def test_the_rate_is_all_latents_bits_over_pixels():
    """Not over elements, colours or padded pixels; the mean over pictures."""
    rng = np.random.default_rng(0)
    y, z = rng.uniform(0, 9, (3, 4, 6, 12)), rng.uniform(0, 9, (3, 1, 2, 8))
    exchange = Exchange()
    exchange.bits = {"z": tf.constant(z, tf.float32), "y": tf.constant(y, tf.float32)}
    x = tf.zeros([3, 50, 90, 3])
    expected = (y.sum() + z.sum()) / 3 / (50 * 90)
    np.testing.assert_allclose(losses.rate(Outcome(x, x, exchange)), expected, rtol=1e-6)
    per_image = y.sum((1, 2, 3)) + z.sum((1, 2, 3))
    np.testing.assert_allclose(exchange.bits_per_image(), per_image, rtol=1e-6)


def test_the_mean_squared_error_is_on_the_8_bit_scale_and_unclipped(pictures):
    x, x_hat = pictures
    assert x_hat.max() > 1 and x_hat.min() < 0
    expected = np.mean((255.0 * x.astype(np.float64) - 255.0 * x_hat.astype(np.float64)) ** 2)
    np.testing.assert_allclose(losses.mse(Outcome(x, x_hat, None)), expected, rtol=1e-5)


def test_the_structural_distortion_is_one_minus_the_mean_ms_ssim(pictures):
    x, x_hat = pictures
    values = [float(metrics.ms_ssim(a[None], b[None])[0]) for a, b in zip(x, x_hat)]
    assert values[1] < values[0] < 0.999
    loss = losses.one_minus_ms_ssim(Outcome(x, x_hat, None))
    np.testing.assert_allclose(loss, 1.0 - np.mean(values), atol=1e-6)
    assert losses.one_minus_ms_ssim(Outcome(x, x, None)) == 0.0


@pytest.mark.parametrize("name", losses.DISTORTIONS)
def test_descent_on_a_distortion_leads_back_to_the_picture(name, pictures):
    """The directional derivative towards the picture is negative, as a finite difference says."""
    x, x_hat = (p[:1] for p in pictures)
    distortion = losses.distortion(name)

    def along(t):
        return distortion(Outcome(x, x_hat + t * (x - x_hat), types.SimpleNamespace()))

    t = tf.constant(0.3)
    with tf.GradientTape() as tape:
        tape.watch(t)
        value = along(t)
    slope = float(tape.gradient(value, t))
    difference = float(along(t + 0.01) - along(t - 0.01)) / 0.02
    assert slope < 0
    np.testing.assert_allclose(slope, difference, rtol=1e-2)


def test_an_unknown_distortion_is_answered_with_the_choices():
    with pytest.raises(ValueError, match="unknown distortion 'lpips'; known: mse, ms_ssim"):
        losses.distortion("lpips")
