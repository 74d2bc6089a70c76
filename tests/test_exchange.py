"""Tests exchanges: the cost of a latent and its reconstruction, without networks."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import ndtr

from tfquant.entropy.conditional import ConditionalModel
from tfquant.entropy.factorized import FactorizedModel
from tfquant.exchange import Groups, Reading, Rounding, Surrogates, Writing
from tfquant.quantization.plans import PLANS, QuantizationPlan
from tfquant.quantization.surrogates import Branch, Sample

Z_SHAPE, Y_SHAPE = (1, 2, 3, 4), (1, 8, 12, 6)


@pytest.fixture(scope="module", name="models")
def _models():
    """Returns a prior for z with nonzero medians, and one for y with a mean and a scale."""
    tf.random.set_seed(0)
    z_model = FactorizedModel(4, name="z")
    for weight in z_model.density.trainable_variables:
        weight.assign_add(np.random.default_rng(0).normal(0, 0.3, weight.shape))
    for _ in range(60):
        z_model.track_offset()
    assert np.all(z_model.medians.numpy() != 0)
    y_model = ConditionalModel("gaussian", zero_center=True)
    y_model.sigma_bound.assign(1e-6)
    return z_model, y_model


def latents(seed=0, batch=1, y_scale=3.0):
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 8, (batch, *Z_SHAPE[1:]))
    y = rng.normal(0, y_scale, (batch, *Y_SHAPE[1:]))
    return tf.constant(z, tf.float32), tf.constant(y, tf.float32)


def walk(exchange, models, z, y, log_sigma=1.0):
    """Transmits as a codec does: z, then y with a mean that depends on the decoded z."""
    z_model, y_model = models
    z_hat = exchange(z_model, z).context
    mu = 0.1 * tf.reduce_mean(z_hat, axis=(1, 2, 3), keepdims=True)
    batch = tf.shape(z_hat)[0]
    mu = tf.broadcast_to(mu, tf.stack([batch, *Y_SHAPE[1:]]))
    raw = tf.concat([mu, tf.fill(tf.shape(mu), log_sigma)], axis=-1)
    return exchange(y_model, y, raw).distortion


def read_back(models, tables, streams, **kwargs):
    shapes = {"z": tf.constant(Z_SHAPE), "y": tf.constant(Y_SHAPE)}
    exchange = Reading(tables, streams, shapes)
    return exchange, walk(exchange, models, None, None, **kwargs)


def test_rounding_writing_and_reading_agree_bit_for_bit(models):
    z, y = latents()
    tables = {model.name: model.coding_table() for model in models}
    rounding, writing = Rounding(tables), Writing(tables)
    y_hat = walk(rounding, models, z, y)
    np.testing.assert_array_equal(walk(writing, models, z, y), y_hat)
    reading, decoded = read_back(models, tables, writing.streams())
    np.testing.assert_array_equal(decoded, y_hat)
    for name in ("z", "y"):
        np.testing.assert_array_equal(reading.received[name], rounding.received[name])
        np.testing.assert_array_equal(writing.bits[name], rounding.bits[name])
    for a, b, c in zip(rounding.symbols, writing.symbols, reading.symbols):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(np.reshape(c, a.shape), a)


def test_decoded_latents_are_integers_around_the_offset(models):
    z, y = latents()
    exchange = Rounding()
    y_hat = walk(exchange, models, z, y).numpy()
    medians = models[0].medians.numpy()
    z_hat = exchange.received["z"].numpy()
    np.testing.assert_array_equal(z_hat, np.rint(z - medians).astype(np.float32) + medians)
    mu = np.float32(0.1) * z_hat.mean()
    np.testing.assert_allclose(y_hat - mu, np.rint(y - mu), atol=1e-5)
    assert np.max(np.abs(y_hat - y)) <= 0.5 + 1e-5


def test_only_a_large_last_latent_has_several_streams(models):
    rng = np.random.default_rng(0)
    z, _ = latents()
    y = tf.constant(rng.normal(0, 50, (1, 96, 96, 6)), tf.float32)
    z_model, y_model = models
    tables = {model.name: model.coding_table() for model in models}

    def both(exchange, z, y):
        exchange(z_model, z)
        raw = tf.concat([tf.zeros([1, 96, 96, 6]), tf.fill([1, 96, 96, 6], 4.0)], axis=-1)
        return exchange(y_model, y, raw).distortion

    writing = Writing(tables)
    y_hat = both(writing, z, y)
    streams = writing.streams()
    assert streams.shape[0] > 2
    shapes = {"z": tf.constant(Z_SHAPE), "y": tf.constant([1, 96, 96, 6])}
    np.testing.assert_array_equal(both(Reading(tables, streams, shapes), None, None), y_hat)
    spent = 8 * sum(len(s) for s in streams.numpy())
    bits = float(writing.bits_per_image()[0])
    assert abs(spent - bits) <= 0.005 * bits + 64 * streams.shape[0]


@pytest.mark.parametrize("distance", [3.0, 40.0, 3000.0, 2.0e6])
def test_latents_far_outside_the_scale_round_trip_at_the_cost_of_an_escape(models, distance):
    """Tests a sigma of 1e-6, at which the density alone costs thousands of bits per element."""
    z, _ = latents()
    y = tf.constant(np.random.default_rng(0).uniform(-distance, distance, Y_SHAPE), tf.float32)
    tables = {model.name: model.coding_table() for model in models}
    writing = Writing(tables)
    y_hat = walk(writing, models, z, y, log_sigma=-20.0)
    _, decoded = read_back(models, tables, writing.streams(), log_sigma=-20.0)
    np.testing.assert_array_equal(decoded, y_hat)
    spent = 8 * len(writing.streams().numpy()[1])
    bits = float(tf.reduce_sum(writing.bits["y"]))
    assert spent < 60 * y.shape.num_elements()
    assert abs(spent - bits) <= 0.005 * bits + 64


def gaussian_bits(symbols, sigma):
    """Returns the bits of integers around the mean, with a likelihood of at least 1e-9, float64."""
    below = -np.abs(np.asarray(symbols, np.float64))
    p = ndtr((below + 0.5) / sigma) - ndtr((below - 0.5) / sigma)
    return -np.log2(np.maximum(p, 1e-9))


@pytest.mark.parametrize(
    "log_sigma,y_scale", [(1.0, 3.0), (1.0, 7.0), (0.0, 3.0), (-2.0, 1.0), (-20.0, 40.0)]
)
def test_rounding_without_tables_costs_as_much_as_rounding_in_training(models, log_sigma, y_scale):
    """Tests that both have the same floor of the likelihood: J~ - J is 0 if nothing is surrogate.

    The cases have elements of less than 24 bits, of 24 to 29.9 bits, and at the floor.
    """
    z, y = latents(y_scale=y_scale)
    index = tf.constant([0], tf.int64)
    rounding = Rounding()
    training = Surrogates(PLANS["round"], tf.constant(1.0), 3, index)
    for exchange in (rounding, training):
        walk(exchange, models, z, y, log_sigma=log_sigma)
    mu = float(rounding.params["y"][0][0, 0, 0, 0])
    symbols = np.rint(y.numpy().astype(np.float64) - mu)
    expected = gaussian_bits(symbols, max(np.exp(log_sigma), 1e-6))
    np.testing.assert_allclose(rounding.bits["y"], expected, rtol=2e-3)
    for name in ("y", "z"):
        np.testing.assert_allclose(training.bits[name], rounding.bits[name], rtol=1e-4, atol=1e-5)


def test_the_floor_is_near_the_cost_of_an_escape(models):
    """Tests at the smallest sigma that the cost that J assumes is within 5 bits of a file's."""
    _, y_model = models
    symbols = np.array([2, 3, 5, 8, 12, -4, -9, 15], np.int32).reshape(1, 1, 1, 8)
    raw = tf.concat([tf.zeros([1, 1, 1, 8]), tf.fill([1, 1, 1, 8], -20.0)], axis=-1)
    y = tf.constant(symbols, tf.float32)
    without, exact = Rounding(), Rounding({"y": y_model.coding_table()})
    for exchange in (without, exact):
        exchange(y_model, y, raw)
    np.testing.assert_allclose(without.bits["y"], gaussian_bits(symbols, 1e-6), rtol=1e-5)
    difference = exact.bits["y"].numpy() - without.bits["y"].numpy()
    assert np.max(np.abs(difference)) < 5 and abs(np.mean(difference)) < 3.5


def surrogates(models, plan, index, alpha=4.0, seed=3):
    exchange = Surrogates(plan, tf.constant(alpha), seed, tf.constant(index, tf.int64))
    z, y = latents(batch=len(index))
    walk(exchange, models, z, y)
    return exchange


@pytest.mark.parametrize("plan", ["round", "aun", "sua_ste"])
def test_training_limits_the_cost_of_a_symbol_to_the_floor(models, plan):
    """Tests the floor. Without it, such a symbol costs 1e12 bits and has an equally large
    gradient.
    """
    z_model, y_model = models
    exchange = Surrogates(PLANS[plan], tf.constant(4.0), 3, tf.constant([5], tf.int64))
    y = tf.tensor_scatter_nd_update(latents()[1], [[0, 0, 0, 0]], [9.0])
    raw = tf.concat([tf.zeros(Y_SHAPE), tf.ones(Y_SHAPE)], axis=-1)
    raw = tf.tensor_scatter_nd_update(raw, [[0, 0, 0, 6]], [-20.0])
    with tf.GradientTape() as tape:
        tape.watch([y, raw])
        exchange(y_model, y, raw)
        total = tf.reduce_sum(exchange.bits["y"])
    bits = exchange.bits["y"].numpy()
    assert bits[0, 0, 0, 0] == pytest.approx(-np.log2(1e-9)) and bits.max() < 30
    for gradient in tape.gradient(total, [y, raw]):
        if gradient is not None:
            assert np.all(np.isfinite(gradient)) and np.abs(gradient).max() < 100


def test_rate_and_distortion_have_separate_branches(models):
    """Tests the mixed method: rate with noise, distortion with rounding, and z with the same
    plan.
    """
    exchange = surrogates(models, PLANS["mix"], [0, 1])
    medians = models[0].medians.numpy()
    z_hat = exchange.received["z"].numpy()
    np.testing.assert_array_equal(
        z_hat, np.rint(exchange.latents["z"] - medians).astype(np.float32) + medians
    )
    rounded = Rounding()
    z, y = latents(batch=2)
    walk(rounded, models, z, y)
    np.testing.assert_array_equal(exchange.received["y"], rounded.received["y"])
    assert np.mean(np.abs(exchange.bits["y"] - rounded.bits["y"])) > 0.1


def test_z_has_additive_noise_if_the_plan_says_so(models):
    plan = dataclasses.replace(PLANS["round"], hyper_aun=True)
    exchange = surrogates(models, plan, [0, 1])
    noise = (exchange.received["z"] - exchange.latents["z"]).numpy()
    assert np.max(np.abs(noise)) <= 0.5 + 1e-5 and len(np.unique(np.round(noise, 4))) > 40
    mu = exchange.params["y"][0][..., :6]
    np.testing.assert_allclose(
        exchange.received["y"] - mu, np.rint(exchange.latents["y"] - mu), atol=1e-5
    )


def test_a_separate_context_branch_affects_later_latents(models):
    plan = QuantizationPlan(
        rate=Branch("aun", "pathwise"),
        distortion=Branch("round", "straight_through"),
        context=Branch("aun", "pathwise"),
    )
    noisy, rounded = (surrogates(models, p, [0, 1]) for p in (plan, PLANS["mix"]))
    np.testing.assert_array_equal(noisy.received["z"], rounded.received["z"])
    mu, mu_rounded = (e.params["y"][0][:, 0, 0, 0].numpy() for e in (noisy, rounded))
    assert np.all(mu != mu_rounded)


def test_noise_is_a_function_of_seed_latent_and_position(models):
    both = surrogates(models, PLANS["aun"], [5, 9])
    z, y = latents(batch=2)

    def noise(exchange, name):
        return (exchange.received[name] - exchange.latents[name]).numpy()

    for position, place in enumerate([5, 9]):
        alone = Surrogates(PLANS["aun"], tf.constant(4.0), 3, tf.constant([place], tf.int64))
        walk(alone, models, z[position : position + 1], y[position : position + 1])
        for name in ("z", "y"):
            expected = noise(both, name)[position]
            np.testing.assert_allclose(noise(alone, name)[0], expected, atol=1e-5)
    other_seed = surrogates(models, PLANS["aun"], [5, 9], seed=4)
    for exchange, name in ((both, "y"), (both, "z"), (other_seed, "y")):
        values = noise(exchange, name).reshape(2, -1)
        assert abs(np.corrcoef(values)[0, 1]) < 0.5
    assert np.max(np.abs(noise(both, "y") - noise(other_seed, "y"))) > 0.1


def in_groups(exchange, models, z, y):
    """Transmits the same latents with y in two slices of channels, one after the other."""
    z_model, y_model = models
    z_hat = exchange(z_model, z).context
    mu = tf.fill(Y_SHAPE if y is None else tf.shape(y), 0.1 * z_hat[0, 0, 0, 0])
    groups = Groups(exchange, y_model)
    sizes, first = (2, 4), None
    for size, part in zip(sizes, (None, None) if y is None else tf.split(y, sizes, axis=-1)):
        shift = 0.0 if first is None else tf.reduce_mean(first)
        raw = tf.concat([mu[..., :size] + shift, tf.ones_like(mu[..., :size])], axis=-1)
        first = groups.send(part, raw).context
    return groups.close(y, lambda parts: tf.concat(parts, axis=-1)).distortion


def test_groups_are_rounded_written_and_read_bit_for_bit(models):
    z, y = latents()
    tables = {model.name: model.coding_table() for model in models}
    rounding, writing = Rounding(tables), Writing(tables)
    y_hat = in_groups(rounding, models, z, y)
    np.testing.assert_array_equal(in_groups(writing, models, z, y), y_hat)
    streams = writing.streams()
    shapes = {"z": tf.constant(Z_SHAPE), "y": tf.constant(Y_SHAPE)}
    reading = Reading(tables, streams, shapes)
    np.testing.assert_array_equal(in_groups(reading, models, None, None), y_hat)
    for a, b in zip(rounding.symbols, reading.symbols):
        np.testing.assert_array_equal(np.reshape(b, a.shape), a)
    spent = 8 * sum(len(s) for s in streams.numpy())
    bits = float(rounding.bits_per_image()[0])
    assert abs(spent - bits) <= 0.005 * bits + 64 * 2


def test_groups_with_a_forged_number_of_streams_are_read_or_refused(models):
    """One stream too many is read, because the checksum of the file detects wrong symbols. One too
    few is refused.
    """
    tables = {model.name: model.coding_table() for model in models}
    writing = Writing(tables)
    in_groups(writing, models, *latents())
    z, y = writing.streams().numpy()
    shapes = {"z": tf.constant(Z_SHAPE), "y": tf.constant(Y_SHAPE)}
    reading = Reading(tables, tf.constant([z, y, y]), shapes)
    y_hat = in_groups(reading, models, None, None)
    assert y_hat.shape == Y_SHAPE and np.all(np.isfinite(y_hat))
    with pytest.raises(tf.errors.InvalidArgumentError, match="fewer streams than the model has"):
        in_groups(Reading(tables, tf.constant([z]), shapes), models, None, None)


def test_groups_have_the_parameters_of_the_whole_latent(models):
    """Tests that means stay with means and scales with scales: the bits equal those of the
    whole.
    """
    z, y = latents()
    exchange = Rounding()
    y_hat = in_groups(exchange, models, z, y)
    (raw,) = exchange.params["y"]
    whole = models[1].bits(Sample(y_hat), raw)
    np.testing.assert_allclose(exchange.bits["y"], whole, rtol=1e-5)
    mu = raw[..., :6]
    assert len(np.unique(mu)) == 2 and np.all(raw[..., 6:] == 1)
    np.testing.assert_allclose(y_hat - mu, np.rint(y - mu), atol=1e-5)


@pytest.mark.parametrize("plan,alike", [("uq_i", False), ("uq_s", True)])
def test_groups_have_separate_noise_unless_a_picture_has_its_own(models, plan, alike):
    exchange = Surrogates(PLANS[plan], tf.constant(4.0), 3, tf.constant([5, 9], tf.int64))
    groups = Groups(exchange, models[1])
    v = tf.zeros([2, 8, 12, 3])
    parts = [groups.send(v, tf.zeros([2, 8, 12, 6])).distortion for _ in range(2)]
    groups.close(tf.concat([v, v], -1), lambda parts: tf.concat(parts, -1))
    assert np.array_equal(*parts) == alike
    if not alike:
        assert abs(np.corrcoef(np.reshape(parts, [2, -1]))[0, 1]) < 0.1


def test_an_autoregressive_context_sees_its_own_branch(models):
    y_model = ConditionalModel("gaussian", zero_center=False)
    _, y = latents(batch=2)
    seen = []

    def params_of(context):
        seen.append(context)
        return (tf.concat([0.5 * context, tf.ones_like(context)], axis=-1),)

    plan = dataclasses.replace(PLANS["mix"], context=Branch("uq_s", "straight_through"))
    exchange = Surrogates(plan, tf.constant(4.0), 3, tf.constant([5, 9], tf.int64))
    received = exchange.with_context(y_model, y, params_of)
    np.testing.assert_array_equal(received.distortion, np.rint(y))
    u = (seen[0] - y).numpy()
    assert np.max(np.abs(u)) <= 0.5 + 1e-5 and np.mean(seen[0] != np.rint(y)) > 0
    rounding = Rounding()
    rounding.with_context(y_model, y, params_of)
    np.testing.assert_array_equal(seen[1], np.rint(y))
    sigma, mu = np.e, 0.5 * np.rint(y.numpy().astype(np.float64))
    upper = ndtr((np.rint(y) - mu + 0.5) / sigma)
    lower = ndtr((np.rint(y) - mu - 0.5) / sigma)
    np.testing.assert_allclose(rounding.bits["y"], -np.log2(upper - lower), rtol=1e-3)
