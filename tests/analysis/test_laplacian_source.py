"""Fig. 7: the limits, and the scalar codec's distortion, rate and expected gradient."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from scipy import integrate, stats

from tfquant.analysis import laplacian, laplacian_source, networks
from tfquant.quantization.surrogates import Branch


def quantizer_by_integrals(t, s):
    """Returns rate and distortion for a dead zone of half-width t and steps s, bin by bin."""

    def density(x):
        return 0.5 * np.exp(-abs(x))

    edges = [(-t, t)] + [(t + k * s, t + (k + 1) * s) for k in range(60)]
    edges += [(-b, -a) for a, b in edges[1:]]
    rate = distortion = 0.0
    for a, b in edges:
        p, first, second = (
            integrate.quad(lambda x, n=n: x**n * density(x), a, b)[0] for n in range(3)
        )
        if p > 1e-14:
            rate -= p * np.log2(p)
            distortion += second - first**2 / p
    return rate, distortion


@pytest.mark.parametrize("t,s", [(0.4, 0.6), (1.2, 1.5)])
def test_a_threshold_quantizers_formulas_are_its_integrals(t, s):
    found = laplacian.threshold_quantizer(t, s)
    np.testing.assert_allclose(found, quantizer_by_integrals(t, s), rtol=1e-6)


@pytest.mark.parametrize("lmbda", [0.8, 3.0, 40.0])
def test_no_threshold_quantizer_is_better_than_the_best(lmbda):
    rate, distortion = laplacian.best_scalar_quantizer(lmbda)
    rng = np.random.default_rng(0)
    for t, s in np.exp(rng.uniform(-3, 1, (300, 2))):
        r, d = laplacian.threshold_quantizer(t, s)
        assert r + lmbda * d >= rate + lmbda * distortion - 1e-6
    assert distortion > laplacian.shannon_lower_bound(rate)


def test_at_high_rate_the_best_quantizer_is_a_quarter_bit_from_shannons_bound():
    rate, distortion = laplacian.best_scalar_quantizer(3000.0)
    bound = 0.5 * np.log2(laplacian.shannon_lower_bound(0.0) / distortion)
    assert rate - bound == pytest.approx(0.5 * np.log2(np.pi * np.e / 6), abs=2e-3)


def test_combinations_are_the_papers_and_mix():
    found = laplacian_source.combinations(("round", "sr", "sua"))
    assert [(c.name, str(c.rate), str(c.distortion)) for c in found] == [
        ("round", "round:straight_through", "round:straight_through"),
        ("sr", "sr:straight_through", "sr:straight_through"),
        ("sr", "sr:expected", "sr:expected"),
        ("sua", "sua:expected", "sua:pathwise"),
        ("sua", "sua:expected", "sua:straight_through"),
        ("mix", "aun:pathwise", "round:straight_through"),
    ]


def test_the_source_is_the_laplacians_inverse_distribution_and_finite_at_its_end():
    """Includes -1, which is among float32's uniform numbers."""
    u = np.float32([-1.0, -0.5, 0.0, 0.25, 1.0 - 2.0**-23])
    x = laplacian_source.source(tf.constant(u)).numpy()
    np.testing.assert_allclose(
        x[1:], stats.laplace.ppf((1 + u[1:].astype(np.float64)) / 2), rtol=1e-5
    )
    assert -17.0 < x[0] < -16.0


def test_a_method_that_diverged_is_named_and_comes_last():
    rows = [
        {"transform": "linear", "method": name, "loss_to_optimum": loss}
        for name, loss in (("a", np.nan), ("b", 1.5), ("b", 0.5), ("c", 0.25))
    ]
    assert "- linear: c 0.25 dB, b 1.00 dB, a diverged\n" in laplacian_source._notes(rows)


@pytest.fixture(scope="module")
def untrained():
    combination = laplacian_source.combinations(("sr",))[1]
    return laplacian_source.ScalarCodec(networks.Affine, combination, 1.0, steps=0)


def test_measurement_is_the_integral_over_the_source(untrained):
    _, distortion = untrained.measure()
    for lmbda, found in zip(laplacian_source.LMBDAS, distortion):
        step = np.sqrt(6 / (lmbda * np.log(2)))
        x = np.linspace(-30, 30, 600_001)
        error = (x - step * np.round(x / step)) ** 2
        expected = np.sum(error * 0.5 * np.exp(-np.abs(x))) * (x[1] - x[0])
        assert found == pytest.approx(expected, rel=2e-3)


def test_expected_gradient_of_the_distortion_is_the_derivative_of_its_expectation(untrained):
    """Uses SR: E[D] = (1 - f) D(floor) + f D(ceiling), whose slope is D(ceiling) - D(floor)."""
    x = tf.constant([[0.7]])
    scale = 1.0 / np.sqrt(6 / (np.array(laplacian_source.LMBDAS) * np.log(2)))
    v = tf.constant((0.7 * scale)[None, None], tf.float32)
    seeds = tf.zeros([1, 3], tf.int64)
    with tf.GradientTape() as tape:
        tape.watch(v)
        sample = Branch("sr", "expected").sample(v, tf.zeros([]), tf.ones([]), seeds)
        total = tf.reduce_sum(untrained._distortion(x, sample))
    floor = np.floor(0.7 * scale)
    expected = (0.7 - (floor + 1) / scale) ** 2 - (0.7 - floor / scale) ** 2
    np.testing.assert_allclose(tape.gradient(total, v)[0, 0], expected, rtol=1e-4, atol=1e-5)
