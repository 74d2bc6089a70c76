"""Tests likelihoods against SciPy, closed forms in float64 and finite differences."""

import math

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from scipy import special, stats

from tfquant.entropy import distributions
from tfquant.entropy.distributions import NoisyGaussian, NoisyGaussianMixture, NoisyLaplacian


def _gaussian_oracle(c, s):
    """Returns float64 `log p` and its derivatives to c and s, from log_ndtr and SciPy's erfcx."""
    c, s = np.float64(c), np.float64(s)
    upper, lower = (0.5 - c) / s, (-0.5 - c) / s
    log_upper, log_lower = special.log_ndtr(upper), special.log_ndtr(lower)
    log_p = log_upper + np.log1p(-np.exp(np.minimum(log_lower - log_upper, -1e-300)))
    # hazard = phi(upper) / p, from log p if that is exact, from Mills ratios in the tail.
    with np.errstate(over="ignore", invalid="ignore"):
        decay = np.exp(-c / s**2)
        mills = special.erfcx(-upper / math.sqrt(2)) - decay * special.erfcx(-lower / math.sqrt(2))
        hazard = np.where(
            upper > 0, np.exp(stats.norm.logpdf(upper) - log_p), math.sqrt(2 / math.pi) / mills
        )
    d_c = hazard * np.expm1(-c / s**2) / s
    d_s = -hazard * (upper - lower * decay) / s
    return log_p, d_c, d_s


def _laplacian_oracle(c, s):
    """Returns float64 `log p` and its derivatives to c and s, from tails and densities."""
    c, s = np.float64(c), np.float64(s)
    log_tail = math.log(0.5) - (c - 0.5) / s + np.log(-np.expm1(-1 / s))
    with np.errstate(over="ignore"):
        inner = np.log1p(-0.5 * (np.exp(-(c + 0.5) / s) + np.exp(-np.abs(0.5 - c) / s)))
    log_p = np.where(c >= 0.5, log_tail, inner)
    high, low = (np.exp(math.log(0.5) - np.abs(e) / s - log_p) / s for e in (c + 0.5, c - 0.5))
    return log_p, high - low, -((c + 0.5) * high - (c - 0.5) * low) / s


FAMILIES = {
    "gaussian": (NoisyGaussian, _gaussian_oracle),
    "laplacian": (NoisyLaplacian, _laplacian_oracle),
}


def _grid():
    """Returns (c, scale) float32 pairs near, at and beyond the box's edge, and in the far tails."""
    rng = np.random.default_rng(1)
    pairs = []
    for scale in (1e-6, 1e-4, 1e-2, 0.05, 0.11, 0.3, 0.5, 1.0, 3.0, 17.0, 64.0, 256.0):
        sigmas = np.concatenate(
            [[0.0, 1000.0], 10 ** rng.uniform(-3, 3, 200), rng.uniform(0.0, 6.0, 200)]
        )
        edge = np.abs(0.5 + scale * rng.uniform(-6.0, 6.0, 100))
        near = np.concatenate([[0.5, 2.0], rng.uniform(0.0, 2.0, 100)])
        c = np.concatenate([sigmas * scale, edge, near])
        pairs.append(np.stack([c, np.full_like(c, scale)], -1))
    far = 10 ** rng.uniform(0, 4, 100)
    pairs.append(np.stack([far, np.full_like(far, 1e-6)], -1))
    c, scale = np.concatenate(pairs).astype(np.float32).T
    return c, scale


def _value_and_gradients(family, v, loc, scale, jit=False):
    @tf.function(jit_compile=jit)
    def run(v, loc, scale):
        with tf.GradientTape() as tape:
            tape.watch([v, loc, scale])
            log_p = family(loc, scale).log_prob(v)
        return (log_p, *tape.gradient(log_p, [v, loc, scale]))

    return [t.numpy() for t in run(*map(tf.constant, (v, loc, scale)))]


def _assert_gradient(actual, expected, natural):
    """Asserts a relative error of 1e-3; near a zero of the gradient, 1e-4 of nearby gradients."""
    assert np.isfinite(actual).all()
    error = np.abs(actual - expected) / (np.abs(expected) + 0.1 * natural + 1e-30)
    assert error.max() < 1e-3, (error.max(), error.argmax())


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_values_and_gradients_hold_in_every_regime_in_float32(family, jit):
    build, oracle = FAMILIES[family]
    c, scale = _grid()
    value, d_v, d_loc, d_scale = _value_and_gradients(build, c, np.zeros_like(c), scale, jit)
    expected, expected_c, expected_scale = oracle(c, scale)

    assert np.isfinite(value).all() and value.max() <= 0
    bits = np.abs(value - expected) / math.log(2)
    assert np.minimum(bits, bits / np.abs(expected).clip(1e-30)).max() < 1e-4

    _assert_gradient(d_v, expected_c, 0.0)
    np.testing.assert_array_equal(d_loc, -d_v)
    # d_scale is c d_c / scale plus the stretching of the box. Both cancel at about one sigma.
    _assert_gradient(d_scale, expected_scale, c * np.abs(expected_c) / scale)


@pytest.mark.parametrize("family", FAMILIES)
def test_jit_compiled_equals_eager(family):
    build, _ = FAMILIES[family]
    c, scale = _grid()
    loc = np.zeros_like(c)
    compiled = _value_and_gradients(build, c, loc, scale, jit=True)
    v, loc, s = (tf.constant(t) for t in (c, loc, scale))
    with tf.GradientTape() as tape:
        tape.watch([v, loc, s])
        log_p = build(loc, s).log_prob(v)
    d_v, d_loc, d_scale = (t.numpy() for t in tape.gradient(log_p, [v, loc, s]))
    np.testing.assert_allclose(compiled[0], log_p, rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose(compiled[1], d_v, rtol=2e-4)
    np.testing.assert_allclose(compiled[2], d_loc, rtol=2e-4)
    _assert_gradient(compiled[3], d_scale, c * np.abs(d_v) / scale)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_the_slopes_of_the_values(family):
    build, oracle = FAMILIES[family]
    rng = np.random.default_rng(2)
    scale = np.exp(rng.uniform(np.log(0.1), np.log(5.0), 500))
    loc = rng.normal(size=500)
    v = loc + rng.normal(size=500) * (1 + 2 * scale)
    gradients = _value_and_gradients(build, v, loc, scale)[1:]
    point, step = np.stack([v, loc, scale]), 1e-6
    for axis, gradient in enumerate(gradients):
        ahead, behind = point.copy(), point.copy()
        ahead[axis] += step
        behind[axis] -= step
        slope = (
            oracle(np.abs(ahead[0] - ahead[1]), ahead[2])[0]
            - oracle(np.abs(behind[0] - behind[1]), behind[2])[0]
        ) / (2 * step)
        np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-5)


def test_the_fitted_erfcx_has_the_stated_accuracy():
    x = np.concatenate([np.linspace(distributions._TAIL, 30, 20000), np.logspace(1, 12, 2000)])
    fitted = distributions._erfcx(tf.constant(x)).numpy()
    np.testing.assert_allclose(fitted, special.erfcx(x), rtol=7.4e-7)


@pytest.mark.parametrize("family", FAMILIES)
def test_probabilities_of_the_integers_sum_to_one(family):
    build, _ = FAMILIES[family]
    scale = np.float32([[1e-6], [0.1], [1.0], [20.0], [256.0]])
    k = np.arange(-6000, 6001, dtype=np.float32)
    total = tf.reduce_sum(build(0.3, scale).prob(k), -1)
    np.testing.assert_allclose(total, 1.0, rtol=0, atol=2e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_mean_is_the_mode_and_the_density_is_symmetric_about_it(family):
    build, _ = FAMILIES[family]
    scale = np.float32([0.2, 1.0, 30.0])[:, None]
    offset = np.arange(0, 64, dtype=np.float32) / 4
    p = build(2.0, scale)
    np.testing.assert_array_equal(p.log_prob(2.0 + offset), p.log_prob(2.0 - offset))
    value, d_v, _, d_scale = _value_and_gradients(
        build, np.full(3, 2.0, np.float32), np.full(3, 2.0, np.float32), scale[:, 0]
    )
    assert (d_v == 0).all() and (d_scale < 0).all()
    # If the density is flat, float32 may round in the other direction.
    assert (value[:, None] >= p.log_prob(2.0 + offset).numpy() - 1e-6).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_broadcast_parameters_receive_the_summed_gradient(family):
    build, _ = FAMILIES[family]
    rng = np.random.default_rng(4)
    v = rng.normal(size=(5, 4, 3)).astype(np.float32)
    loc = rng.normal(size=(4, 1)).astype(np.float32)
    scale = np.exp(rng.normal(size=3)).astype(np.float32)
    wide = [np.broadcast_to(t, v.shape).copy() for t in (loc, scale)]
    value, _, d_loc, d_scale = _value_and_gradients(build, v, loc, scale)
    full, _, full_loc, full_scale = _value_and_gradients(build, v, *wide)
    np.testing.assert_allclose(value, full, rtol=1e-6)
    np.testing.assert_allclose(d_loc, full_loc.sum((0, 2), keepdims=True)[0], rtol=1e-5)
    np.testing.assert_allclose(d_scale, full_scale.sum((0, 1)), rtol=1e-5)


def test_shapes_unknown_while_tracing_broadcast():
    spec = tf.TensorSpec([None, None], tf.float32)

    @tf.function(input_signature=[spec, spec, spec])
    def run(v, loc, scale):
        p = NoisyGaussian(loc, scale)
        return p.log_prob(v), p.sample(seed=(1, 2))

    v, loc, scale = np.ones((5, 3), "f"), np.zeros((1, 3), "f"), np.ones((5, 1), "f")
    log_p, sample = run(v, loc, scale)
    np.testing.assert_allclose(log_p, np.full((5, 3), _gaussian_oracle(1.0, 1.0)[0]), rtol=1e-5)
    assert sample.shape == (5, 3)


def _mixture_parameters(seed, shape, k):
    rng = np.random.default_rng(seed)
    logits, loc = rng.normal(size=(2, *shape, k))
    scale = np.exp(rng.uniform(np.log(0.1), np.log(4.0), (*shape, k)))
    return logits, 2 * loc, scale


def test_a_mixture_of_one_is_the_gaussian():
    logits, loc, scale = (t.astype(np.float32) for t in _mixture_parameters(5, (50,), 1))
    v = np.linspace(-20, 20, 50, dtype=np.float32)
    mixture = NoisyGaussianMixture(logits, loc, scale).log_prob(v)
    np.testing.assert_allclose(
        mixture, NoisyGaussian(loc[:, 0], scale[:, 0]).log_prob(v), rtol=1e-6
    )


def test_a_mixture_of_three_is_the_weighted_sum():
    logits, loc, scale = _mixture_parameters(6, (4, 25), 3)
    v = np.random.default_rng(7).normal(scale=3, size=(4, 25))
    w = special.softmax(logits, -1)
    c = np.abs(v[..., None] - loc)
    p = stats.norm.cdf((0.5 - c) / scale) - stats.norm.cdf((-0.5 - c) / scale)
    mixture = NoisyGaussianMixture(*(t.astype(np.float32) for t in (logits, loc, scale)))
    expected = np.log((w * p).sum(-1))
    np.testing.assert_allclose(mixture.log_prob(v.astype(np.float32)), expected, atol=2e-5)
    in_float64 = NoisyGaussianMixture(logits, loc, scale).log_prob(v)
    np.testing.assert_allclose(in_float64, expected, atol=5e-6)
    np.testing.assert_allclose(mixture.mean(), (w * loc).sum(-1), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_every_parameter_of_a_mixture_has_the_correct_gradient():
    parameters = _mixture_parameters(8, (6,), 3)
    v = np.array([0.0, 1.0, -2.0, 5.0, -8.0, 20.0])

    def log_p(logits, loc, scale):
        return NoisyGaussianMixture(logits, loc, scale).log_prob(v)

    theory, numeric = tf.test.compute_gradient(log_p, parameters, delta=1e-5)
    for ours, slope in zip(theory, numeric):
        np.testing.assert_allclose(ours, slope, rtol=1e-4, atol=1e-5)


def test_a_mixture_stays_finite_far_out_and_at_the_smallest_scale():
    v = tf.constant([0.0, 2.0, 1e4, -1e4])
    parameters = [tf.zeros([4, 3]), tf.constant([[0.0, 0.1, -0.1]] * 4), tf.fill([4, 3], 1e-6)]
    with tf.GradientTape() as tape:
        tape.watch([v, *parameters])
        log_p = NoisyGaussianMixture(*parameters).log_prob(v)
    for tensor in (log_p, *tape.gradient(log_p, [v, *parameters])):
        assert np.isfinite(tensor).all()
    # The nearest component dominates: 1.4 million sigmas of 1e-6 beyond the box's edge for v = 2.
    np.testing.assert_allclose(log_p[1], -0.5 * (1.4e6) ** 2, rtol=1e-5)


@pytest.mark.parametrize(
    "p, variance",
    [
        (NoisyGaussian([0.3, -5.0], [0.2, 3.0]), [0.04 + 1 / 12, 9 + 1 / 12]),
        (NoisyLaplacian([0.3, -5.0], [0.2, 3.0]), [0.08 + 1 / 12, 18 + 1 / 12]),
        (
            NoisyGaussianMixture(tf.zeros([2, 2]), [[-1.0, 1.0], [0.0, 0.0]], [0.1, 2.0]),
            [1 + 0.5 * (0.01 + 4) + 1 / 12, 0.5 * (0.01 + 4) + 1 / 12],
        ),
    ],
    ids=lambda p: getattr(p, "name", ""),
)
def test_samples_have_the_stated_mean_and_variance(p, variance):
    n = 200_000
    samples = p.sample(n, seed=(3, 4)).numpy()
    np.testing.assert_allclose(p.variance(), variance, rtol=1e-5)
    np.testing.assert_allclose(samples.mean(0), p.mean(), atol=5 * (max(variance) / n) ** 0.5)
    np.testing.assert_allclose(samples.var(0), variance, rtol=0.03)
    np.testing.assert_array_equal(samples, p.sample(n, seed=(3, 4)))
    # The empirical density near 0 equals log_prob's: a histogram bin against its centre.
    inside = (np.abs(samples) < 0.02).mean(0)
    np.testing.assert_allclose(inside / 0.04, p.prob(0.0), rtol=0.1, atol=0.01)


def test_samples_carry_the_gradient_of_location_and_scale():
    loc, scale = tf.constant(1.0), tf.constant(2.0)
    with tf.GradientTape() as tape:
        tape.watch([loc, scale])
        p = NoisyGaussian(loc, scale)
        total = tf.reduce_sum(p.sample(1000, seed=(5, 6)))
    d_loc, _ = tape.gradient(total, [loc, scale])
    assert p.reparameterization_type == tfp.distributions.FULLY_REPARAMETERIZED
    np.testing.assert_allclose(d_loc, 1000.0)


def test_slicing_a_batch_keeps_the_likelihood_of_its_part():
    logits, loc, scale = (t.astype(np.float32) for t in _mixture_parameters(9, (4, 5), 3))
    mixture = NoisyGaussianMixture(logits, loc, scale)
    gaussian = NoisyGaussian(loc[..., 0], scale[..., 0])
    for p in (mixture, gaussian):
        assert p.batch_shape == (4, 5) and p.event_shape == ()
        np.testing.assert_allclose(p[1, 2:].log_prob(0.7), p.log_prob(0.7)[1, 2:], rtol=1e-6)
    np.testing.assert_allclose(mixture.copy(scale=1.0 + scale).scale, 1.0 + scale)


def test_base_is_the_density_before_the_noise():
    assert isinstance(NoisyGaussian(0.0, 1.0).base, tfp.distributions.Normal)
    assert isinstance(NoisyLaplacian(0.0, 1.0).base, tfp.distributions.Laplace)
    mixture = NoisyGaussianMixture([0.0, 0.0], [-1.0, 1.0], [1.0, 1.0]).base
    np.testing.assert_allclose(mixture.prob(0.0), stats.norm.pdf(1.0), rtol=1e-6)


def test_reduced_precision_is_rejected():
    with pytest.raises(ValueError, match="NoisyGaussian: parameters of type bfloat16; known: f"):
        NoisyGaussian(tf.zeros([2], tf.bfloat16), tf.ones([2], tf.bfloat16))
