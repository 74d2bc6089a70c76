"""The library's surrogates with given noise."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from scipy import integrate

from tfquant.analysis import maps
from tfquant.analysis.maps import Method
from tfquant.ops import random
from tfquant.quantization.surrogates import SURROGATES, Branch

Y = np.linspace(-1.37, 1.41, 23)


def test_values_are_the_formulas_in_double_precision():
    u = np.linspace(-0.49, 0.49, 11)[:, None]
    np.testing.assert_allclose(maps.values(Method("aun"), Y, u), Y + u, atol=1e-15)
    np.testing.assert_allclose(maps.values(Method("uq_i"), Y, u), np.round(Y + u) - u, atol=1e-15)
    r = Y - np.floor(Y) - 0.5
    soft = np.floor(Y) + 0.5 + np.tanh(7 * r) / (2 * np.tanh(3.5))
    np.testing.assert_allclose(maps.values(Method("sua_n", 7.0), Y, u), soft + u, atol=1e-14)
    np.testing.assert_allclose(maps.values(Method("sha", 7.0), Y, 0.0), soft, atol=1e-14)


def test_the_kind_of_noise_is_found_from_draws():
    p = np.linspace(0.01, 0.99, 50)
    np.testing.assert_array_equal(maps.quantile("aun")(p), p - 0.5)
    np.testing.assert_array_equal(maps.quantile("uq_s")(p), p - 0.5)
    np.testing.assert_array_equal(maps.quantile("sga")(p), scipy.special.logit(p))
    assert maps.shares_noise("uq_s")
    assert not any(maps.shares_noise(name) for name in ("uq_i", "aun", "sga", "round"))


def test_unknown_noise_is_represented_by_its_draws(alter):
    def triangular(seeds, shape):
        # A shifted seed of the purpose gives an independent second draw.
        return random.uniform(seeds, shape) + random.uniform(seeds + 1, shape)

    alter("aun", "triangle", noise=triangular)
    p = np.array([0.02, 0.25, 0.5, 0.9])
    expected = np.where(p < 0.5, np.sqrt(2 * p) - 1, 1 - np.sqrt(2 * (1 - p)))
    np.testing.assert_allclose(maps.quantile("triangle")(p), expected, atol=0.02)


@pytest.mark.parametrize("method", maps.methods(SURROGATES, (4.0, 12.0)), ids=str)
def test_nodes_hold_all_probability_and_agree_with_random_draws(method):
    nodes = maps.noise_nodes(method, Y, 64)
    np.testing.assert_allclose(nodes.probability.sum(0), 1.0, rtol=1e-12)
    drawn = method.branch.sample(
        tf.repeat(tf.constant(Y, tf.float32)[None, None], 20000, axis=1),
        tf.zeros([]),
        tf.constant(method.temperature),
        random.example_seeds(1, "test", tf.zeros([1], tf.int64)),
    ).value.numpy()[0]
    for power in (1, 2):
        found = np.sum(nodes.probability * nodes.y_tilde**power, axis=0)
        # A shared draw is one number for all elements, so there is no average to compare with.
        if not maps.shares_noise(method.surrogate):
            np.testing.assert_allclose(found, np.mean(drawn**power, axis=0), atol=0.03)


@pytest.mark.parametrize("name", ["sr", "uq_i", "uq_s", "aun"])
def test_unbiased_maps_integrate_to_the_latent(name):
    nodes = maps.noise_nodes(Method(name), Y, 16)
    np.testing.assert_allclose(np.sum(nodes.probability * nodes.y_tilde, axis=0), Y, atol=1e-12)


def test_the_spike_of_the_denoiser_is_resolved():
    # u -> r_a(s_a(y) + u) has slope exp(12)/24 at y = 1/2. The mean square of the values has a
    # closed form in v, by du = s_a'(v - 1/2) dv.
    y, a = 0.5, 12.0
    nodes = maps.noise_nodes(Method("sua", a), np.array([y]), 64)
    v = np.linspace(y - 0.5, y + 0.5, 400001)
    r = (v - 0.5) - np.floor(v - 0.5) - 0.5
    weight = a / (2 * np.tanh(a / 2) * np.cosh(a * r) ** 2)
    expected = integrate.simpson(v**2 * weight, x=v)
    assert np.sum(nodes.probability * nodes.y_tilde**2) == pytest.approx(expected, rel=1e-6)


def test_gradients_are_those_of_the_branch():
    y = tf.constant(Y)
    with tf.GradientTape() as tape:
        tape.watch(y)
        value = maps.sample(Branch("sra", "straight_through"), y, 5.0, np.zeros_like(Y)).value
    r = Y - np.floor(Y) - 0.5
    slope = 5 / (2 * np.tanh(2.5) * np.cosh(5 * r) ** 2)
    np.testing.assert_allclose(tape.gradient(value, y), slope, rtol=1e-12)


def test_the_fingerprint_follows_what_a_surrogate_does(alter):
    before = maps.fingerprint(Method("aun"))
    alter("aun", forward=lambda v, alpha, u: v + u + 0.0)
    assert maps.fingerprint(Method("aun")) == before
    alter("aun", forward=lambda v, alpha, u: v + 0.9 * u)
    assert maps.fingerprint(Method("aun")) != before


def test_an_unknown_surrogate_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown surrogate 'stee'; known: round, sha, aun"):
        Method("stee")


def test_cells_are_equally_long_on_the_curve_and_a_jump_has_no_width():
    def curve(p):
        return np.where(p < 0.3, 0.0, 1.0) + 0.0 * p

    edges = maps.equidistributed(curve, 20, 1)[:, 0]
    jump = np.searchsorted(edges, 0.3)
    assert edges[jump] - edges[jump - 1] < 1e-9
    assert edges[0] == 0.0 and edges[-1] == 1.0 and np.all(np.diff(edges) >= 0.0)
