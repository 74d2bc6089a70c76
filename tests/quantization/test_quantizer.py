"""Offsets, plans and stop-gradients of the quantizer, compared with finite differences."""

import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

from tfquant.entropy.conditional import ConditionalModel
from tfquant.ops.random import example_seeds
from tfquant.quantization.plans import PLANS, QuantizationPlan, plan_named
from tfquant.quantization.quantizer import dequantize, quantize, symbols
from tfquant.quantization.surrogates import Branch

SHAPE = (2, 4, 3, 5)
SEEDS = example_seeds(0, "y", tf.range(2))
ALPHA = tf.constant(4.0)


def draw(seed=0):
    rng = np.random.default_rng(seed)
    y = tf.constant(rng.normal(0, 3, SHAPE).astype(np.float32))
    raw = tf.constant(rng.normal(0, 0.7, (*SHAPE[:-1], 2 * SHAPE[-1])).astype(np.float32))
    return y, raw


def gradients(plan, which, zero_center=True):
    """Returns gradients of the bits, or of a sum over the distortion latent, to (y, mu, log
    sigma).
    """
    y, raw = draw()
    model = ConditionalModel("gaussian", zero_center)
    model.sigma_bound.assign(1e-6)
    mu, log_sigma = tf.split(raw, 2, -1)
    with tf.GradientTape() as tape:
        tape.watch([y, mu, log_sigma])
        raw = tf.concat([mu, log_sigma], -1)
        quantized = quantize(plan, y, model.offset(raw), ALPHA, SEEDS)
        if which == "rate":
            total = tf.reduce_sum(model.bits(quantized.rate, raw))
        else:
            total = tf.reduce_sum(tf.sin(quantized.distortion))
    sources = [y, mu, log_sigma]
    return [g.numpy() for g in tape.gradient(total, sources, unconnected_gradients="zero")]


def plan(rate, distortion="aun:pathwise", **kwargs):
    return QuantizationPlan(Branch.parse(rate), Branch.parse(distortion), **kwargs)


@pytest.mark.parametrize("name", PLANS)
def test_with_partial_stop_gradient_the_distortion_gives_mu_no_gradient(name):
    dy, dmu, dsigma = gradients(PLANS[name], "distortion")
    assert np.all(dmu == 0) and np.all(dsigma == 0)
    assert np.all(np.isfinite(dy)) and np.any(dy != 0)


@pytest.mark.parametrize("branch", ["aun:pathwise", "uq_s:straight_through",
                                    "uq_i:straight_through", "sr:straight_through",
                                    "round:straight_through"])  # fmt: skip
def test_for_slope_one_surrogates_the_flag_changes_nothing_for_the_distortion(branch):
    on = gradients(plan("aun:pathwise", branch), "distortion")
    off = gradients(plan("aun:pathwise", branch, stop_gradient="none"), "distortion")
    for a, b in zip(on, off):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_for_sua_the_flag_lets_the_distortion_reach_mu():
    sua = plan("aun:pathwise", "sua:straight_through", stop_gradient="none")
    dy, dmu, _ = gradients(sua, "distortion")
    # If y and mu move together, the sample moves by the same amount: the slopes to both add up to
    # cos(.).
    y, raw = draw()
    offset = tf.split(raw, 2, -1)[0]
    sample = quantize(sua, y, offset, ALPHA, SEEDS).distortion
    np.testing.assert_allclose(dy + dmu, np.cos(sample), atol=1e-4)
    assert np.abs(dmu).max() > 0.1


@pytest.mark.parametrize("rate", ["aun:expected", "sua:expected", "sua_n:expected", "sr:expected",
                                  "sra:expected", "uq_s:expected"])  # fmt: skip
@pytest.mark.parametrize("stopped", ["distortion", "none"])
def test_if_the_rates_offset_is_not_stopped_mu_gets_minus_the_expected_gradient_of_y(rate, stopped):
    """Checks every single draw: the variance is 0."""
    dy, dmu, _ = gradients(plan(rate, stop_gradient=stopped), "rate")
    np.testing.assert_allclose(dmu, -dy, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("distortion", ["aun:pathwise", "sua:pathwise", "sua:straight_through"])
def test_the_two_readings_differ_only_in_the_rate(distortion):
    """Includes equal branches of rate and distortion, which share their tensor only with one
    reading.
    """
    both = gradients(plan("aun:pathwise", distortion), "distortion")
    one = gradients(plan("aun:pathwise", distortion, stop_gradient="distortion"), "distortion")
    for a, b in zip(both, one):
        np.testing.assert_array_equal(a, b)
    (dy, dmu, ds), (dy_1, dmu_1, ds_1) = (
        gradients(plan("sua:expected", distortion, stop_gradient=stopped), "rate")
        for stopped in ("both", "distortion")
    )
    np.testing.assert_array_equal(dy, dy_1)
    np.testing.assert_allclose(ds, ds_1, rtol=1e-3, atol=1e-4)
    assert np.abs(dmu - dmu_1).max() > 0.1


CLOSED_FORMS = ["aun:pathwise", "aun:expected", "uq_s:straight_through", "uq_i:expected",
                "sua_n:pathwise", "sr:straight_through", "sra:expected"]  # fmt: skip


@pytest.mark.parametrize("family", ["gaussian", "laplacian"])
@pytest.mark.parametrize("zero_center", [False, True])
@pytest.mark.parametrize("rate", CLOSED_FORMS)
def test_the_expected_gradient_to_the_mean_is_the_mean_of_the_sampled_ones(
    rate, zero_center, family
):
    """Averages over evenly spaced noise, which gives the integral."""
    branch, count = Branch.parse(rate), 4001
    rng = np.random.default_rng(0)
    y = tf.constant(rng.normal(0, 2, 12), tf.float32)
    mu = tf.constant(rng.normal(0, 0.7, 12), tf.float32)
    log_sigma = tf.constant(rng.uniform(-0.7, 1, 12), tf.float32)
    model = ConditionalModel(family, zero_center)

    def mean_gradient(noise, expected):
        with tf.GradientTape() as tape:
            tape.watch(mu)
            raw = tf.repeat(tf.concat([mu, log_sigma], 0)[None], len(noise), 0)
            offset = tf.stop_gradient(model.offset(raw))
            v = tf.repeat(y[None], len(noise), 0) - offset
            sample = branch.sample_with(noise, v, offset, ALPHA)
            if expected:
                sample = sample._replace(mean=branch.mean_gradient(v, offset, ALPHA))
            bits = tf.reduce_mean(tf.reduce_sum(model.bits(sample, raw), 1))
        return tape.gradient(bits, mu).numpy()

    evenly = ((np.arange(count) + 0.5) / count - 0.5).astype(np.float32)[:, None]
    sampled = mean_gradient(tf.constant(np.tile(evenly, (1, 12))), expected=False)
    assert np.abs(sampled).max() > 0.5
    for noise in (evenly[:1], evenly[-1:]):
        found = mean_gradient(tf.constant(np.tile(noise, (1, 12))), expected=True)
        np.testing.assert_allclose(found, sampled, rtol=3e-3, atol=3e-3)


def test_the_expected_gradient_to_the_mean_reaches_only_the_quantizers_rate():
    """Includes AUN, for which both readings of the paper give the same expected gradient."""
    rate = "aun:expected"
    closed = gradients(plan(rate, mean_gradient="expected"), "rate")
    other = gradients(plan(rate, stop_gradient="distortion"), "rate")
    for a, b in zip(closed, other):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-3)
    sampled = gradients(plan(rate), "rate")
    np.testing.assert_array_equal(closed[0], sampled[0])
    np.testing.assert_array_equal(closed[2], sampled[2])
    assert np.abs(closed[1] - sampled[1]).max() > 0.1
    for a, b in zip(gradients(plan(rate, mean_gradient="expected"), "distortion"),
                    gradients(plan(rate), "distortion")):  # fmt: skip
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("rate", ["aun:expected", "sua:expected", "sua:pathwise"])
def test_with_both_stopped_mu_gets_only_the_rates_gradient_through_p(rate):
    """Compares with d/dmu of -log2 p(value | mu, sigma) at the sampled value, by central
    differences.
    """
    y, raw = draw()
    _, dmu, _ = gradients(plan(rate), "rate")
    model = ConditionalModel("gaussian", True)
    model.sigma_bound.assign(1e-6)
    sample = quantize(plan(rate), y, model.offset(raw), ALPHA, SEEDS).rate
    value = np.asarray(sample.value, np.float64)
    mu, log_sigma = (np.asarray(t, np.float64) for t in tf.split(raw, 2, -1))

    def bits(mu):
        c = -np.abs(value - mu)
        upper, lower = (c + 0.5) / np.exp(log_sigma), (c - 0.5) / np.exp(log_sigma)
        return -np.log2(scipy.special.ndtr(upper) - scipy.special.ndtr(lower))

    near = np.abs(value - mu) / np.exp(log_sigma) < 6  # limit of float64 differences of CDFs
    h = 1e-5
    numeric = (bits(mu + h) - bits(mu - h)) / (2 * h)
    np.testing.assert_allclose(dmu[near], numeric[near], rtol=5e-3, atol=5e-3)
    assert near.mean() > 0.5


def test_equal_branches_share_their_tensor_and_one_surrogate_shares_its_noise():
    y, _ = draw()
    quantized = quantize(PLANS["aun"], y, 0.0, ALPHA, SEEDS)
    assert quantized.rate.value is quantized.distortion is quantized.context
    quantized = quantize(PLANS["sua_ste"], y, 0.0, ALPHA, SEEDS)
    np.testing.assert_allclose(quantized.rate.value, quantized.distortion, atol=1e-6)


def test_different_surrogates_draw_independently_without_changing_the_rates_draw():
    """Uses rank correlations of the noise of AUN and SUA; SUA's sample is a monotone map of its
    noise.
    """
    y = tf.zeros([2, 60, 60, 5]) + 0.3
    context = Branch.parse("uq_i:straight_through")
    mixed = plan("aun:pathwise", "sua:pathwise", context=context)
    quantized = quantize(mixed, y, 0.0, ALPHA, SEEDS)
    alone = quantize(plan("aun:pathwise"), y, 0.0, ALPHA, SEEDS)
    np.testing.assert_array_equal(quantized.rate.value, alone.rate.value)
    again = quantize(mixed, y, 0.0, ALPHA, SEEDS)
    np.testing.assert_array_equal(quantized.distortion, again.distortion)
    noise = quantized.rate.value - y, quantized.distortion, np.mod(-quantized.context.numpy(), 1)
    ranks = np.corrcoef([scipy.stats.rankdata(n) for n in noise])
    assert np.abs(ranks - np.eye(3)).max() < 0.03
    # Two estimators of one surrogate share one draw.
    one = quantize(plan("sua:expected", "sua:pathwise"), y, 0.0, ALPHA, SEEDS)
    np.testing.assert_allclose(one.rate.value, one.distortion, atol=1e-6)


def test_independent_draws_leave_the_gradients_of_rate_and_distortion_uncorrelated():
    """Guards against a shared draw, with which they would correlate at 0.7."""
    draws, sigma = 300, 0.4
    y = np.random.default_rng(0).normal(0, sigma, 64).astype(np.float32)
    y = tf.constant(np.tile(y, (draws, 1)))
    raw = tf.concat([tf.zeros_like(y), tf.fill(y.shape, np.float32(np.log(sigma)))], -1)
    model = ConditionalModel("gaussian", zero_center=False)
    seeds = example_seeds(0, "y", tf.range(draws))
    aun, sua = Branch("aun", "pathwise"), Branch("sua", "pathwise")

    def correlation(sample):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(y)
            rate, distortion = sample(y)
            bits = model.bits(rate, raw)
            error = tf.square(distortion - tf.stop_gradient(y))
        centred = [g - tf.reduce_mean(g, 0) for g in (tape.gradient(t, y) for t in (bits, error))]
        a, b = (np.ravel(c) for c in centred)
        return np.sum(a * b) / np.sqrt(np.sum(a**2) * np.sum(b**2))

    def shared(y):
        noise = aun.noise(y, seeds)
        return (
            aun.sample_with(noise, y, 0.0, ALPHA),
            sua.sample_with(noise, y, 0.0, ALPHA).value,
        )

    def independent(y):
        quantized = quantize(QuantizationPlan(aun, sua), y, 0.0, ALPHA, seeds)
        return quantized.rate, quantized.distortion

    assert correlation(shared) > 0.6
    assert abs(correlation(independent)) < 0.05


def test_the_context_branch_can_be_chosen_separately():
    y, _ = draw()
    chosen = plan("aun:pathwise", "aun:pathwise", context=Branch.parse("round:straight_through"))
    quantized = quantize(chosen, y, 0.0, ALPHA, SEEDS)
    np.testing.assert_array_equal(quantized.context, np.round(y))
    assert not np.array_equal(quantized.distortion, quantized.context)


def test_quantization_stays_in_float32_for_bfloat16_latents():
    y, _ = draw()
    quantized = quantize(PLANS["aun"], tf.cast(y, tf.bfloat16), 0.0, ALPHA, SEEDS)
    assert quantized.distortion.dtype == tf.float32


def test_symbols_and_dequantization_are_inverse_on_the_grid():
    y, raw = draw()
    offset = raw[..., : SHAPE[-1]]
    integers = symbols(y, offset)
    y_hat = dequantize(integers, offset)
    assert integers.dtype == tf.int32
    np.testing.assert_array_equal(symbols(y_hat, offset), integers)
    assert np.max(np.abs(y_hat - y)) <= 0.5 + 1e-5


def test_plans_reject_invalid_values():
    with pytest.raises(ValueError, match="distortion branch sua:expected cannot"):
        plan("aun:pathwise", "sua:expected")
    with pytest.raises(ValueError, match="unknown stop_gradient True; known: both, distortion, no"):
        plan("aun:pathwise", stop_gradient=True)
    with pytest.raises(ValueError, match="unknown mean_gradient 'exact'; known: sampled, expected"):
        plan("aun:pathwise", mean_gradient="exact")
    with pytest.raises(ValueError, match="closed form for the rate branch sua:expected; possible: "
                                         "aun, uq_s, uq_i, sua_n, sr, sra"):  # fmt: skip
        plan("sua:expected", mean_gradient="expected")
    with pytest.raises(ValueError, match="requires stop_gradient 'both'; got 'none'"):
        plan("aun:expected", mean_gradient="expected", stop_gradient="none")
    with pytest.raises(ValueError, match="unknown quantization plan 'mixx'; known: aun"):
        plan_named("mixx")


def test_z_follows_the_plan_unless_it_keeps_additive_noise():
    assert PLANS["mix"].for_hyper_latent() is PLANS["mix"]
    kept = plan("sua:expected", "sua:pathwise", hyper_aun=True).for_hyper_latent()
    assert (str(kept.rate), str(kept.distortion)) == ("aun:pathwise", "aun:pathwise")
