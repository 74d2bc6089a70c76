"""Loss terms, compared with NumPy in float64."""

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
    """`x, x_hat: [2, 176, 192, 3]`; the second one is noisy and partly outside of [0, 1]."""
    x = np.stack([make_photograph(176, 192, seed) for seed in range(2)]) / 255.0
    x_hat = x + np.random.default_rng(0).normal(0, [[[[0.02]]], [[[0.2]]]], x.shape)
    return x.astype(np.float32), x_hat.astype(np.float32)


def test_the_rate_is_all_latents_bits_over_pixels():
    """Checks that the rate is not per element, colour or padded pixel, and is a mean over
    pictures.
    """
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
    """Checks that the directional derivative towards the picture is negative, by a finite
    difference.
    """
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


def test_an_unknown_distortion_lists_the_choices():
    with pytest.raises(ValueError, match="unknown distortion 'lpips'; known: mse, ms_ssim"):
        losses.distortion("lpips")


@pytest.fixture(name="latents")
def _latents():
    """y, y_hat, y_bar: [2, 3, 4, 5] float64, with errors below and above 1."""
    rng = np.random.default_rng(0)
    y = rng.normal(0, 3, (2, 3, 4, 5))
    return y, np.round(y), y + rng.normal(0, 1, y.shape)


def outcome_of(latents):
    return Outcome(None, None, None, *(tf.constant(v, tf.float32) for v in latents))


def test_feature_distances_are_their_definitions(latents):
    y, _, y_bar = latents
    error = np.abs(y - y_bar)
    assert error.min() < 1 < error.max()
    a, b = y.reshape(2, -1), y_bar.reshape(2, -1)
    cosines = np.sum(a * b, 1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    expected = {
        "l2": np.mean(error**2),
        "l1": np.mean(error),
        "smooth_l1": np.mean(np.where(error < 1, error**2 / 2, error - 0.5)),
        "cosine": 1 - np.mean(cosines),
    }
    assert expected.keys() == losses.FEATURE_DISTANCES.keys()
    for name, value in expected.items():
        found = losses.TERMS[losses.feature_term(name)](outcome_of(latents))
        np.testing.assert_allclose(found, value, rtol=1e-4, err_msg=name)


def test_quantization_and_rectified_error_are_mean_squares(latents):
    y, y_hat, y_bar = latents
    error, left = np.mean((y - y_hat) ** 2), np.mean((y - y_bar) ** 2)
    outcome = outcome_of(latents)
    np.testing.assert_allclose(losses.TERMS["quantization_error"](outcome), error, rtol=1e-5)
    np.testing.assert_allclose(losses.TERMS["rectified_error"](outcome), left, rtol=1e-5)


@pytest.mark.parametrize("name", losses.FEATURE_DISTANCES)
def test_feature_distances_have_finite_gradients_even_for_a_zero_latent(name, latents):
    """Uses a latent that is all zeros after rounding, and one without an error."""
    y = tf.constant(latents[0], tf.float32)
    for other in (tf.zeros_like(y), y):
        y_bar = tf.Variable(other)
        with tf.GradientTape() as tape:
            value = losses.TERMS[losses.feature_term(name)](Outcome(0, 0, None, y, y, y_bar))
        assert np.isfinite(value) and np.all(np.isfinite(tape.gradient(value, y_bar)))


def test_an_unknown_feature_distance_lists_the_choices():
    with pytest.raises(ValueError, match="unknown feature distance 'l3'; known: l2, l1, smooth_l1"):
        losses.feature_term("l3")
