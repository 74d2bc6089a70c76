"""Values of the maps compared with NumPy in float64, slopes compared with finite differences."""

import numpy as np
import pytest
import tensorflow as tf

from tfquant.quantization import rounding

ALPHAS = [0.01, 1.0, 5.0, 12.0]


def grid(seed=0, n=400):
    # Not close to integers, where a finite difference would cross a kink.
    rng = np.random.default_rng(seed)
    return (rng.integers(-6, 7, n) + rng.uniform(0.02, 0.98, n)).astype(np.float32)


def soft_round64(v, a):
    v = np.asarray(v, np.float64)
    r = v - np.floor(v) - 0.5
    return np.floor(v) + 0.5 + np.tanh(a * r) / (2 * np.tanh(a / 2))


def inverse64(w, a):
    w = np.asarray(w, np.float64)
    r = w - np.floor(w) - 0.5
    return np.floor(w) + 0.5 + np.arctanh(2 * r * np.tanh(a / 2)) / a


def slope(function, v, *args):
    v = tf.constant(v)
    with tf.GradientTape() as tape:
        tape.watch(v)
        value = function(v, *args)
    return tape.gradient(value, v).numpy()


@pytest.mark.parametrize("alpha", ALPHAS)
def test_soft_round_has_the_papers_value_and_slope(alpha):
    v = grid()
    np.testing.assert_allclose(rounding.soft_round(v, alpha), soft_round64(v, alpha), atol=2e-6)
    h = 1e-5
    high, low = (soft_round64(np.float64(v) + d, alpha) for d in (h, -h))
    numeric = (high - low) / (2 * h)
    np.testing.assert_allclose(slope(rounding.soft_round, v, alpha), numeric, rtol=2e-3, atol=1e-4)
    np.testing.assert_allclose(rounding.soft_round_slope(v, alpha), numeric, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_denoise_has_the_papers_value_and_slope(alpha):
    w = grid(1)
    reference = inverse64(np.float64(w) - 0.5, alpha) + 0.5
    np.testing.assert_allclose(rounding.denoise(w, alpha), reference, atol=5e-4)
    h = 1e-6
    high, low = (inverse64(np.float64(w) - 0.5 + d, alpha) for d in (h, -h))
    numeric = (high - low) / (2 * h)
    np.testing.assert_allclose(slope(rounding.denoise, w, alpha), numeric, rtol=5e-3)


@pytest.mark.parametrize("alpha", [1.0, 5.0, 12.0, 40.0])
def test_the_inverse_undoes_the_soft_round_even_where_tanh_is_one_in_float32(alpha):
    v = grid(3)
    inverse = rounding.soft_round_inverse(rounding.soft_round(v, alpha), alpha).numpy()
    assert np.all(np.isfinite(inverse))
    assert np.all(np.floor(inverse) >= np.floor(v) - 1e-6)
    if alpha <= 5:
        np.testing.assert_allclose(inverse, v, atol=1e-4)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_denoiser_keeps_the_noise_within_half_a_bin_around_v(alpha):
    v = grid(4)
    s = soft_round64(v, alpha)
    # Just inside the bin: at its end, the floor of a float32 may be on either side.
    for end in (-0.4999, 0.4999):
        w = (s + end).astype(np.float32)
        denoised = rounding.denoise(w, alpha).numpy()
        np.testing.assert_allclose(denoised, inverse64(s + end - 0.5, alpha) + 0.5, atol=0.02)
        assert np.all(np.abs(denoised - v) <= 0.5 + 1e-3)


def test_soft_round_tends_to_the_identity_and_to_rounding():
    v = grid(5)
    np.testing.assert_allclose(rounding.soft_round(v, 1e-3), v, atol=1e-5)
    far = np.abs(v - np.floor(v) - 0.5) > 0.1
    np.testing.assert_allclose(rounding.soft_round(v, 100.0)[far], np.round(v[far]), atol=1e-6)


def test_alpha_gets_no_gradient():
    alpha = tf.constant(5.0)
    with tf.GradientTape() as tape:
        tape.watch(alpha)
        value = rounding.denoise(rounding.soft_round(tf.constant(grid()), alpha), alpha)
    assert tape.gradient(value, alpha) is None


def test_dither_is_an_integer_minus_the_noise():
    u = np.random.default_rng(0).uniform(-0.5, 0.5, 400).astype(np.float32)
    v = grid(6)
    np.testing.assert_allclose(rounding.dither(v, u), np.round(v + u) - u, atol=1e-6)
    assert np.max(np.abs(rounding.dither(v, u) - v)) <= 0.5 + 1e-5


def test_the_fraction_is_the_probability_of_the_ceiling_in_stochastic_rounding():
    u = np.random.default_rng(0).uniform(-0.5, 0.5, 200_000).astype(np.float32)
    drawn = rounding.stochastic_round(np.full_like(u, 2.3), u).numpy()
    assert set(drawn) == {2.0, 3.0}
    assert abs(drawn.mean() - 2.3) < 5 * np.sqrt(0.3 * 0.7 / drawn.size)


@pytest.mark.parametrize("alpha", [0.5, 2.0, 5.0])
def test_gumbel_mix_is_the_two_class_gumbel_softmax(alpha):
    rng = np.random.default_rng(0)
    v = grid(7).astype(np.float64)
    g = rng.gumbel(size=(2, v.size))
    d = v - np.floor(v)
    logits = np.stack([-np.arctanh(d) * alpha, -np.arctanh(1 - d) * alpha])
    e = np.exp(alpha * (logits + g) - np.max(alpha * (logits + g), axis=0))
    reference = np.floor(v) + e[1] / e.sum(0)
    drawn = rounding.gumbel_mix(
        v.astype(np.float32), np.float32(alpha), (g[1] - g[0]).astype(np.float32)
    )
    np.testing.assert_allclose(drawn, reference, atol=2e-4)


def test_gumbel_mix_stays_finite_at_the_integers():
    v = tf.constant([-1.0, 0.0, 3.0])
    with tf.GradientTape() as tape:
        tape.watch(v)
        mixed = rounding.gumbel_mix(v, tf.constant(5.0), tf.zeros(3))
    np.testing.assert_allclose(mixed, v, atol=1e-4)
    assert np.all(np.isfinite(tape.gradient(mixed, v)))
