"""Every row of the table: value and gradient compared with NumPy, and the paper's Table II."""

import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf

from tfquant.entropy.distributions import NoisyGaussian
from tfquant.ops import random
from tfquant.quantization.surrogates import ESTIMATORS, SURROGATES, Branch

SHAPE = (4, 3, 5, 2)
SEEDS = random.example_seeds(3, "test", tf.range(SHAPE[0], dtype=tf.int64))
ROWS = [(s.name, e) for s in SURROGATES.values() for e in s.estimators]


def latent(seed=0):
    rng = np.random.default_rng(seed)
    return (rng.integers(-4, 5, SHAPE) + rng.uniform(0.03, 0.97, SHAPE)).astype(np.float32)


def s_a(v, a):
    r = v - np.floor(v) - 0.5
    return np.floor(v) + 0.5 + np.tanh(a * r) / (2 * np.tanh(a / 2))


def s_a_slope(v, a):
    r = v - np.floor(v) - 0.5
    return a / (2 * np.tanh(a / 2) * np.cosh(a * r) ** 2)


def r_a(w, a):
    w = w - 0.5
    r = w - np.floor(w) - 0.5
    return np.floor(w) + 0.5 + np.arctanh(2 * r * np.tanh(a / 2)) / a + 0.5


def sga(v, a, g):
    d = v - np.floor(v)
    return np.floor(v) + 1 / (1 + np.exp(-a * (a * (np.arctanh(d) - np.arctanh(1 - d)) + g)))


# Forward maps in float64, independent of the library's.
FORWARD = {
    "round": lambda v, a, n: np.round(v),
    "sha": lambda v, a, n: s_a(v, a),
    "aun": lambda v, a, n: v + n,
    "uq_s": lambda v, a, n: np.round(v + n) - n,
    "uq_i": lambda v, a, n: np.round(v + n) - n,
    "sga": sga,
    "sua_n": lambda v, a, n: s_a(v, a) + n,
    "sua": lambda v, a, n: r_a(s_a(v, a) + n, a),
    "sr": lambda v, a, n: np.floor(v) + (n + 0.5 >= 1 - (v - np.floor(v))),
    "sra": lambda v, a, n: np.floor(v) + (n + 0.5 >= 1 - (s_a(v, a) - np.floor(v))),
}
STRAIGHT_SLOPE = {"sua": s_a_slope, "sua_n": s_a_slope, "sra": s_a_slope}
ENDS = {
    "aun": lambda v, a: (v - 0.5, v + 0.5),
    "uq_s": lambda v, a: (v - 0.5, v + 0.5),
    "uq_i": lambda v, a: (v - 0.5, v + 0.5),
    "sua": lambda v, a: (v - 0.5, v + 0.5),
    "sua_n": lambda v, a: (s_a(v, a) - 0.5, s_a(v, a) + 0.5),
    "sr": lambda v, a: (np.floor(v), np.floor(v) + 1),
    "sra": lambda v, a: (np.floor(v), np.floor(v) + 1),
}


def noise_of(name):
    noise = SURROGATES[name].noise
    return None if noise is None else noise(SEEDS, SHAPE[1:]).numpy().astype(np.float64)


def test_the_numpy_reference_covers_the_table():
    assert set(FORWARD) == set(SURROGATES)
    assert set(ENDS) == {s.name for s in SURROGATES.values() if "expected" in s.estimators}


@pytest.mark.parametrize("name,estimator", ROWS)
@pytest.mark.parametrize("alpha", [1.0, 5.0])
def test_value_and_gradient_are_the_formulas(name, estimator, alpha):
    """Runs in a graph. XLA compiles every surrogate once."""
    branch, v = Branch(name, estimator), latent()
    offset = np.float32(0.25)
    tensor = tf.constant(v)

    jit_compile = alpha == 5.0 and estimator == SURROGATES[name].estimators[0]

    @tf.function(autograph=False, jit_compile=jit_compile)
    def run(tensor):
        with tf.GradientTape() as tape:
            tape.watch(tensor)
            sample = branch.sample(tensor, tf.constant(offset), tf.constant(alpha), SEEDS)
            total = tf.reduce_sum(sample.value)
        return sample, tape.gradient(total, tensor, unconnected_gradients="zero")

    sample, gradient = run(tensor)
    noise, v64 = noise_of(name), v.astype(np.float64)
    np.testing.assert_allclose(sample.value, FORWARD[name](v64, alpha, noise) + offset, atol=1e-4)

    if estimator in ("standard", "pathwise"):
        h = 1e-6
        high, low = (FORWARD[name](v64 + d, alpha, noise) for d in (h, -h))
        slope = (high - low) / (2 * h)
        inside = np.abs(slope) < 1e3  # a finite difference across an integer is no slope
        np.testing.assert_allclose(gradient.numpy()[inside], slope[inside], rtol=2e-2, atol=2e-3)
        assert inside.mean() > 0.98
    elif estimator == "straight_through":
        slope = STRAIGHT_SLOPE.get(name, lambda v, a: np.ones_like(v))(v64, alpha)
        np.testing.assert_allclose(gradient, slope, rtol=1e-3, atol=1e-5)
    else:
        np.testing.assert_array_equal(gradient, np.zeros(SHAPE))
        low, high = ENDS[name](v64, alpha)
        np.testing.assert_allclose(sample.expected.low, low + offset, atol=1e-5)
        np.testing.assert_allclose(sample.expected.high, high + offset, atol=1e-5)
        slope = STRAIGHT_SLOPE.get(name, lambda v, a: np.ones_like(v))(v64, alpha)
        np.testing.assert_allclose(sample.expected.slope, slope, rtol=1e-3, atol=1e-5)


def test_uq_s_draws_noise_once_per_image_and_uq_i_once_per_element():
    v = tf.constant(latent())
    for name, count in (("uq_s", 1), ("uq_i", v[0].shape.num_elements())):
        sample = Branch(name, "straight_through").sample(v, 0.0, 1.0, SEEDS).value
        fraction = np.round(np.mod(sample.numpy(), 1), 4)
        assert len(np.unique(fraction[0])) == count
        assert not np.array_equal(fraction[0], fraction[1])


def test_an_examples_noise_does_not_depend_on_its_batch():
    whole = random.uniform(SEEDS, SHAPE[1:]).numpy()
    np.testing.assert_array_equal(random.uniform(SEEDS[2:3], SHAPE[1:])[0], whole[2])
    dynamic = tf.function(
        lambda s: random.uniform(s, SHAPE[1:]),
        input_signature=[tf.TensorSpec([None, 3], tf.int64)],
    )
    np.testing.assert_array_equal(dynamic(SEEDS), whole)


def even_noise(seeds, shape):
    """Evenly spaced noise instead of random noise, so that sums over it are integrals."""
    count = seeds.shape[0]
    u = (tf.range(count, dtype=tf.float32) + 0.5) / count - 0.5
    return tf.reshape(u, [count] + [1] * len(shape))


def rate_gradients(spec, alpha, sigma, points, draws, seed=0):
    """Returns gradients of the bits, [draws, points], and their expectation in closed form,
    [points].

    `y ~ N(mu, sigma^2)`, with `mu` uniform over one bin, and bits under the same Gaussian.
    """
    rng = np.random.default_rng(seed)
    mu = rng.uniform(-0.5, 0.5, points).astype(np.float32)
    y = tf.constant((mu + sigma * rng.standard_normal(points)).astype(np.float32))
    prior = NoisyGaussian(tf.constant(mu)[None], tf.constant(sigma, tf.float32))

    def rate(value):
        return -prior.log_prob(value) / math.log(2.0)

    branch, alpha = Branch.parse(spec), tf.constant(alpha)
    seeds = random.example_seeds(seed, "draws", tf.range(draws))
    tiled = tf.tile(y[None], [draws, 1])
    with tf.GradientTape() as tape:
        tape.watch(tiled)
        bits = rate(branch.sample(tiled, tf.zeros([]), alpha, seeds).value)
    sampled = tape.gradient(bits, tiled).numpy().astype(np.float64)
    closed = Branch(branch.surrogate, "expected").sample(y[None], tf.zeros([]), alpha, seeds[:1])
    e = closed.expected
    return sampled, (e.slope * (rate(e.high) - rate(e.low))).numpy()[0].astype(np.float64)


@pytest.fixture
def evenly(monkeypatch):
    """Replaces a branch's random noise by evenly spaced noise."""

    def patch(spec):
        name = Branch.parse(spec).surrogate
        monkeypatch.setitem(
            SURROGATES, name, dataclasses.replace(SURROGATES[name], noise=even_noise)
        )

    return patch


@pytest.mark.parametrize(
    "spec,alpha",
    [
        ("aun:pathwise", 1.0),
        ("uq_i:straight_through", 1.0),
        ("sua:pathwise", 2.0),
        ("sua_n:pathwise", 3.0),
    ],
)
def test_the_mean_of_the_pathwise_gradient_equals_the_expected_gradient(evenly, spec, alpha):
    evenly(spec)
    sampled, expected = rate_gradients(spec, alpha, sigma=1.0, points=200, draws=4000)
    np.testing.assert_allclose(sampled.mean(0), expected, rtol=0.01, atol=0.01)


# "On Uniform Scalar Quantization", Table II, in bits. Bias is the mean over y of its magnitude. The
# table's figures are sampled. Its variances at sigma 0.2 differ from these (SR: 22.30); these are
# the values of the integral.
@pytest.mark.parametrize(
    "spec,alpha,sigma,bias,variance",
    [
        ("aun:pathwise", 1.0, 0.2, 0.0, 11.95),
        ("aun:pathwise", 1.0, 1.0, 0.0, 0.148),
        ("sua:straight_through", 5.0, 0.2, 1.28, 29.7),
        ("sua:straight_through", 5.0, 1.0, 0.157, 0.355),
        ("sua:straight_through", 10.0, 0.2, 2.15, 75.5),
        ("sua:straight_through", 10.0, 1.0, 0.24, 0.89),
        ("sr:straight_through", 1.0, 0.2, 2.92, 38.2),
        ("sr:straight_through", 1.0, 1.0, 0.333, 0.30),
        ("sra:straight_through", 5.0, 0.2, 2.96, 61.9),
    ],
)
def test_the_layers_reproduce_table_two(evenly, spec, alpha, sigma, bias, variance):
    evenly(spec)
    sampled, expected = rate_gradients(spec, alpha, sigma, points=12_000, draws=150)
    found = np.mean(np.abs(sampled.mean(0) - expected))
    assert found == pytest.approx(bias, rel=0.05, abs=0.02 if bias == 0 else 0)
    assert sampled.var(0).mean() == pytest.approx(variance, rel=0.05)


@pytest.mark.parametrize(
    "text,message",
    [
        ("stee:pathwise", "unknown surrogate 'stee'; known: round, sha, aun"),
        ("aun:ste", "unknown gradient estimator 'ste'; known: " + ", ".join(ESTIMATORS)),
        ("round:pathwise", "'round' has no 'pathwise' gradient; possible: straight_through"),
        ("sha:expected", "'sha' has no 'expected' gradient; possible: standard"),
        ("aun", "a branch must be surrogate:estimator"),
    ],
)
def test_an_invalid_branch_is_rejected_with_the_possible_ones(text, message):
    with pytest.raises(ValueError) as error:
        Branch.parse(text)
    assert message in str(error.value)
