"""Tests bits, bounds, expected gradients and real coded lengths of every entropy model."""

import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from tfquant.coding import range_coder
from tfquant.entropy import factorized as entropy_factorized
from tfquant.entropy.conditional import FAMILIES, ConditionalModel
from tfquant.entropy.factorized import FactorizedModel
from tfquant.ops.random import example_seeds
from tfquant.quantization.quantizer import dequantize, symbols
from tfquant.quantization.surrogates import SURROGATES, Branch, Sample

CASES = [(family, zero) for family in FAMILIES for zero in (False, True)]


def parameters(family, shape, log_sigma=(-2.0, 2.0), seed=0):
    """Returns raw network outputs with sigma in a range and means at any place in a bin."""
    rng = np.random.default_rng(seed)
    outputs = FAMILIES[family].outputs
    chunks = {1: ["s"], 2: ["m", "s"], 9: ["w", "m", "s"]}[outputs]
    width = shape[-1] * outputs // len(chunks)
    draw = {
        "w": lambda s: rng.normal(0, 1, s),
        "m": lambda s: rng.normal(0, 4, s),
        "s": lambda s: rng.uniform(*log_sigma, s),
    }
    raw = np.concatenate([draw[c]((*shape[:-1], width)) for c in chunks], -1)
    return tf.constant(raw.astype(np.float32))


@pytest.mark.slow
@pytest.mark.parametrize("family,zero_center", CASES)
@pytest.mark.parametrize("log_sigma", [(-1.5, 3.0), (-14.0, -1.0)])
def test_a_stream_has_the_models_bits_and_decodes(family, zero_center, log_sigma):
    """Tests real bytes: within 0.5 % of -log2 p plus 8 bytes, for latents drawn from the model."""
    shape = (1, 16, 24, 32)
    model = ConditionalModel(family, zero_center)
    model.sigma_bound.assign(1e-6)
    raw = parameters(family, shape, log_sigma)
    y = model.prior(raw).base.sample(seed=(1, 2))
    offset = model.offset(raw)
    integers = symbols(y, offset)
    bits = model.bits(Sample(dequantize(integers, offset)), raw).numpy().astype(np.float64).sum()

    @tf.function(autograph=False)
    def round_trip(integers, raw):
        table = model.coding_table()
        where = model.coding_params(tf.constant(shape), raw)
        handle = range_coder.start_encoder(table, 1)
        strings = range_coder.finish(table.encode(handle, integers, *where))
        handle = range_coder.start_decoder(table, strings)
        return strings, table.decode(handle, *where)[1]

    strings, back = round_trip(integers, raw)
    np.testing.assert_array_equal(back, integers)
    spent = 8 * len(strings.numpy()[0])
    assert abs(spent - bits) <= 0.005 * bits + 64


@pytest.mark.parametrize("family,zero_center", CASES)
def test_the_bound_changes_without_retracing_and_sigma_can_increase(family, zero_center):
    model = ConditionalModel(family, zero_center)
    raw = parameters(family, (1, 2, 2, 4), (-5.0, -4.0))
    traces = []

    @tf.function
    def sigma(raw):
        traces.append(1)
        return model.prior(raw).scale

    np.testing.assert_allclose(sigma(raw), 0.11)
    model.sigma_bound.assign(1e-6)
    assert np.all(sigma(raw) < 0.02)
    assert len(traces) == 1

    model.sigma_bound.assign(0.11)
    far, near = tf.constant(5.0), tf.constant(0.0)
    for value, reaches in ((far, True), (near, False)):
        with tf.GradientTape() as tape:
            tape.watch(raw)
            bits = model.bits(Sample(tf.fill([1, 2, 2, 4], value) + model.prior(raw).mean()), raw)
        gradient = tape.gradient(bits, raw).numpy()
        assert np.all(np.isfinite(gradient))
        if reaches:
            assert np.any(gradient[..., -4:] < 0)  # descent raises log sigma
        elif FAMILIES[family].outputs < 3:
            assert np.all(gradient[..., -4:] == 0)  # and cannot lower it below the bound


@pytest.mark.parametrize("spec", [f"{s.name}:expected" for s in SURROGATES.values() if s.ends])
@pytest.mark.parametrize("family", list(FAMILIES))
def test_every_family_has_every_expected_gradient(family, spec):
    """Compares with slope (R(high) - R(low)), where NumPy evaluates R from the CDFs of the base."""
    shape = (2, 3, 3, 4)
    model = ConditionalModel(family, zero_center=False)
    raw = parameters(family, shape, (-0.5, 1.0))
    rng = np.random.default_rng(1)
    y = tf.constant(rng.normal(0, 3, shape).astype(np.float32))
    branch, seeds = Branch.parse(spec), example_seeds(0, "y", tf.range(2))
    with tf.GradientTape() as tape:
        tape.watch(y)
        sample = branch.sample(y, tf.zeros([]), tf.constant(3.0), seeds)
        bits = tf.reduce_sum(model.bits(sample, raw))
    gradient = tape.gradient(bits, y).numpy()

    def rate(v):
        prior = model.prior(raw)
        loc, scale = (np.asarray(t, np.float64) for t in (prior.loc, prior.scale))
        if family == "mixture":
            weights = scipy.special.softmax(np.asarray(prior.logits, np.float64), -1)
            v = np.asarray(v, np.float64)[..., None]
        else:
            weights, v = 1.0, np.asarray(v, np.float64)
        cdf = (
            scipy.special.ndtr
            if "laplac" not in family
            else (lambda x: np.where(x < 0, 0.5 * np.exp(x), 1 - 0.5 * np.exp(-np.abs(x))))
        )
        # In the lower tail, where differences are exact.
        c = -np.abs(v - loc)
        p = weights * (cdf((c + 0.5) / scale) - cdf((c - 0.5) / scale))
        return -np.log2(p.sum(-1) if family == "mixture" else p)

    e = sample.expected
    expected = np.asarray(e.slope) * (rate(e.high) - rate(e.low))
    np.testing.assert_allclose(gradient, expected, rtol=2e-3, atol=2e-3)


FLOOR = 1e-9
MOST_BITS = -np.log2(FLOOR)


def log_mass64(c, sigma):
    """Returns `log(Phi((c + 1/2) / sigma) - Phi((c - 1/2) / sigma))`, float64, for `c >= 0`."""
    upper, lower = (scipy.special.log_ndtr(-(c + d) / sigma) for d in (-0.5, 0.5))
    return upper + np.log1p(-np.exp(lower - upper))


def floored64(bits):
    """Returns the bits whose gradient training uses. Beyond the floor they grow logarithmically."""
    return np.where(
        bits < MOST_BITS, bits, MOST_BITS * (1 + np.log(np.maximum(bits, 1) / MOST_BITS))
    )


@pytest.mark.parametrize("sigma", [0.2, 0.05, 1e-3, 1e-6])
def test_below_the_floor_bits_are_limited_and_gradients_stay_finite(sigma):
    """Compares with finite differences in float64. With a sigma of 1e-6, `p` is 0 in any float."""
    c = np.array([[0.1, 0.4, 0.7, 0.9, 1.3, 2.0, 5.0, 40.0, 1e3]])
    model = ConditionalModel("gaussian", zero_center=False)
    model.sigma_bound.assign(1e-6)
    value = tf.constant(c, tf.float32)
    raw = tf.concat([tf.zeros_like(value), tf.fill(value.shape, np.float32(np.log(sigma)))], -1)
    with tf.GradientTape() as tape:
        tape.watch([value, raw])
        bits = model.bits(Sample(value), raw, floor=FLOOR)
    d_value, d_raw = tape.gradient(bits, [value, raw])
    c = value.numpy().astype(np.float64)

    def rate(c, log_sigma):
        return -log_mass64(c, np.exp(log_sigma)) / np.log(2)

    whole = rate(c, np.log(sigma))
    assert whole.max() > 100 * MOST_BITS and whole.min() < 1
    np.testing.assert_allclose(bits, np.minimum(whole, MOST_BITS), rtol=1e-4, atol=1e-6)
    h = 1e-4
    log_sigma = np.log(sigma)
    by_value = floored64(rate(c + h, log_sigma)) - floored64(rate(c - h, log_sigma))
    by_sigma = floored64(rate(c, log_sigma + h)) - floored64(rate(c, log_sigma - h))
    smooth = np.abs(c - 0.5) > 0.2  # for a finite difference
    d_sigma = d_raw[..., c.shape[-1] :].numpy()
    for found, expected in ((d_value.numpy(), by_value), (d_sigma, by_sigma)):
        np.testing.assert_allclose(found[smooth], expected[smooth] / (2 * h), rtol=5e-3, atol=1e-3)
    beyond = whole > MOST_BITS
    assert np.all(d_value.numpy()[beyond] > 0) and np.all(d_sigma[beyond] < -10)
    assert np.abs(d_value).max() < 600 and np.abs(d_sigma).max() < 600
    np.testing.assert_allclose(d_raw[..., : c.shape[-1]], -d_value, rtol=1e-5)
    # Above the floor, and without a floor, nothing changes.
    plain = model.bits(Sample(value), raw)
    np.testing.assert_array_equal(plain.numpy()[~beyond], bits.numpy()[~beyond])
    np.testing.assert_allclose(plain, whole, rtol=1e-4, atol=1e-6)


def test_below_the_floor_the_expected_gradient_is_not_zero():
    """Tests two ends below the floor: the mean slope between them of the growing bits."""
    y = tf.constant([[0.2, 1.8, 3.0, 700.0]])
    raw = tf.concat([tf.zeros([1, 4]), tf.fill([1, 4], np.float32(np.log(1e-3)))], -1)
    model = ConditionalModel("gaussian", zero_center=False)
    model.sigma_bound.assign(1e-6)
    branch, seeds = Branch.parse("aun:expected"), example_seeds(0, "y", tf.range(1))
    with tf.GradientTape() as tape:
        tape.watch(y)
        sample = branch.sample(y, tf.zeros([]), tf.constant(3.0), seeds)
        bits = model.bits(sample, raw, floor=FLOOR)
    found = tape.gradient(bits, y).numpy()
    assert bits.numpy().max() == pytest.approx(MOST_BITS, rel=1e-6)
    ends = [floored64(-log_mass64(np.abs(y + d), 1e-3) / np.log(2)) for d in (-0.5, 0.5)]
    np.testing.assert_allclose(found, ends[1] - ends[0], rtol=2e-3)
    assert np.all(found[0, 1:] > 0) and found.max() < 1000


@pytest.mark.parametrize("family", list(FAMILIES))
def test_every_family_has_finite_gradients_below_the_floor(family):
    shape = (1, 2, 2, 6)
    model = ConditionalModel(family, zero_center=False)
    model.sigma_bound.assign(1e-6)
    raw = parameters(family, shape, (-14.0, -13.0))
    value = tf.constant(np.random.default_rng(0).uniform(30, 50, shape), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch([value, raw])
        bits = model.bits(Sample(value), raw, floor=FLOOR)
    np.testing.assert_allclose(bits, MOST_BITS, rtol=1e-6)
    d_value, d_raw = (g.numpy() for g in tape.gradient(bits, [value, raw]))
    assert np.all(d_value > 0) and np.abs(d_value).max() < 10
    assert np.any(d_raw < 0) and np.all(np.abs(d_raw) < 100)


def factorized(channels=6, filters=(3, 3, 3)):
    tf.random.set_seed(0)
    model = FactorizedModel(channels, filters)
    rng = np.random.default_rng(0)
    for v in model.density.trainable_variables:
        v.assign_add(rng.normal(0, 0.3, v.shape))
    return model


def logit_cdf64(density, v):
    """Returns the logits of the CDF in appendix 6.1 of Balle et al. (2018), float64, for v: [n,
    C].
    """
    weights = {w.name.split("/")[-1][:-2]: w.numpy().astype(np.float64) for w in density.variables}
    units = np.asarray(v, np.float64).T[:, None]
    layers = sum(name.startswith("matrix") for name in weights)
    for k in range(layers):
        units = np.log1p(np.exp(weights[f"matrix_{k}"])) @ units + weights[f"bias_{k}"]
        if k < layers - 1:
            units = units + np.tanh(weights[f"factor_{k}"]) * np.tanh(units)
    return units[:, 0].T


@pytest.mark.parametrize("filters", [(3, 3, 3), (2,), (1, 4), ()])
def test_density_and_gradients_equal_the_papers(filters):
    density = factorized(filters=filters).density
    v = np.linspace(-60, 60, 14 * 6).reshape(14, 6)
    variables = density.trainable_variables
    point = tf.constant(v.reshape(2, 7, 6), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(point)
        log_cdf = density.log_cdf(point)
    of_v, *of_weights = tape.gradient(log_cdf, [point, *variables])

    def log_cdf64(v):
        return -np.log1p(np.exp(-logit_cdf64(density, v)))

    h = 1e-5
    np.testing.assert_allclose(log_cdf, log_cdf64(v).reshape(2, 7, 6), rtol=1e-4, atol=1e-5)
    slope = (log_cdf64(v + h) - log_cdf64(v - h)) / (2 * h)
    np.testing.assert_allclose(of_v, slope.reshape(2, 7, 6), rtol=1e-3, atol=1e-5)
    high, low = (scipy.special.expit(logit_cdf64(density, v + d)) for d in (h, -h))
    near = np.abs(logit_cdf64(density, v)) < 5  # elsewhere the difference cancels
    log_prob = density.log_prob(point).numpy().reshape(14, 6)
    np.testing.assert_allclose(log_prob[near], np.log((high - low) / (2 * h))[near], atol=1e-3)
    for weight, gradient in zip(variables, of_weights):
        start, step = weight.numpy(), np.float32(2**-10)
        direction = np.random.default_rng(5).choice(np.float32([-1, 1]), start.shape)
        sums = []
        for sign in (1, -1):
            weight.assign(start + sign * step * direction)
            sums.append(log_cdf64(v).sum())
        weight.assign(start)
        numeric = (sums[0] - sums[1]) / (2 * step)
        scale = np.sum(np.abs(gradient))
        np.testing.assert_allclose(np.sum(gradient * direction), numeric, atol=1e-3 * scale)


@pytest.mark.slow
def test_the_densitys_matrix_products_are_not_confusable(monkeypatch, onednn):
    """Tests `factorized._product`. Plain products are confusable. A step of the medians has n =
    1.
    """
    density = factorized().density

    def defects():
        @tf.function(autograph=False)
        def passes(v):
            with tf.GradientTape() as tape:
                tape.watch(v)
                logits = density.log_cdf(v)
            return tape.gradient(logits, [v, *density.trainable_variables])

        specs = [tf.TensorSpec([n, 6]) for n in (1, 2, 3, 30)]
        return onednn.in_traced(*(passes.get_concrete_function(spec).graph for spec in specs))

    assert not defects()
    monkeypatch.setattr(entropy_factorized, "_product", lambda a, b: a @ b)
    found = defects()
    assert found and all(text.startswith("(b)") for text in found)


@pytest.mark.slow
def test_medians_are_tracked_to_one_half_and_get_no_gradient():
    model = factorized()
    for _ in range(60):
        model.track_offset()
    np.testing.assert_allclose(model.density.cdf(model.medians), 0.5, atol=1e-4)
    assert not any(v is model.medians for v in model.trainable_variables)
    assert len(model.trainable_variables) == 11


@pytest.mark.slow
def test_factorized_bits_match_the_density_and_the_stream():
    model = factorized()
    for _ in range(60):
        model.track_offset()
    rng = np.random.default_rng(2)
    # Samples of the density by inversion on a fine grid.
    grid = np.linspace(-400, 400, 160_001).astype(np.float32)
    cdf = model.density.cdf(np.repeat(grid[:, None], 6, 1)).numpy()
    z = np.stack([np.interp(rng.uniform(size=4096), cdf[:, c], grid) for c in range(6)], -1)
    z = tf.constant(z.reshape(1, 64, 64, 6).astype(np.float32))
    integers = symbols(z, model.offset())
    bits = model.bits(Sample(dequantize(integers, model.offset())))
    v = np.asarray(dequantize(integers, model.offset()))
    below, above = (model.density.cdf(v + d).numpy().astype(np.float64) for d in (-0.5, 0.5))
    np.testing.assert_allclose(bits, -np.log2(above - below), rtol=1e-3, atol=2e-2)

    table = model.coding_table()
    where = model.coding_params(tf.constant(z.shape))
    handle = table.encode(range_coder.start_encoder(table, 1), integers, *where)
    strings = range_coder.finish(handle)
    _, back = table.decode(range_coder.start_decoder(table, strings), *where)
    np.testing.assert_array_equal(back, integers)
    total = float(tf.reduce_sum(tf.cast(bits, tf.float64)))
    assert abs(8 * len(strings.numpy()[0]) - total) <= 0.005 * total + 64


def test_factorized_bits_and_their_gradients_are_finite_far_out():
    model = factorized()
    far = tf.constant([[-3e7, -1e4, 0.0, 1e4, 3e7, 1e6]])
    with tf.GradientTape() as tape:
        tape.watch(far)
        bits = model.bits(Sample(far))
    gradient = tape.gradient(bits, far)
    assert np.all(np.isfinite(bits)) and np.all(np.isfinite(gradient))
    # Back in the range of the density, as far as float32 separates the ends of the box.
    assert np.all((gradient * far).numpy()[0, [1, 3]] > 0)


@pytest.mark.parametrize("spec", ["aun:expected", "sua:expected", "sr:expected"])
def test_the_factorized_model_has_the_expected_gradient(spec):
    model = factorized()
    rng = np.random.default_rng(3)
    z = tf.constant(rng.normal(0, 5, (2, 3, 3, 6)).astype(np.float32))
    branch, seeds = Branch.parse(spec), example_seeds(0, "z", tf.range(2))
    with tf.GradientTape() as tape:
        tape.watch(z)
        sample = branch.sample(z, model.offset(), tf.constant(3.0), seeds)
        bits = tf.reduce_sum(model.bits(sample))
    gradient, weights = tape.gradient(bits, [z, model.trainable_variables])
    e = sample.expected

    def rate(v):
        p = model.density.cdf(v + 0.5).numpy().astype(np.float64) - model.density.cdf(v - 0.5)
        return -np.log2(p)

    expected = np.asarray(e.slope) * (rate(e.high) - rate(e.low))
    np.testing.assert_allclose(gradient, expected, rtol=5e-3, atol=5e-3)
    assert all(np.all(np.isfinite(w)) for w in weights)


def test_a_conditional_model_maps_a_latent_to_the_bits_of_its_elements():
    mu, sigma = np.float32([0.3, -4.0, 2.0]), np.float32([0.5, 2.0, 30.0])
    y = np.float32([[1.0, -3.0, 40.0], [0.0, -9.0, 2.0]])
    raw = np.broadcast_to(np.concatenate([mu, np.log(sigma)]), (2, 6))
    found = ConditionalModel("gaussian", zero_center=False)(y, raw)
    upper, lower = (scipy.special.ndtr((y - mu + d) / sigma.astype(float)) for d in (0.5, -0.5))
    np.testing.assert_allclose(found, -np.log2(upper - lower), rtol=1e-4)


def test_a_factorized_model_maps_a_latent_to_the_bits_of_its_elements():
    model = factorized()
    z = np.linspace(-20, 20, 24, dtype=np.float32).reshape(4, 6)
    upper, lower = (
        scipy.special.expit(logit_cdf64(model.density, z + d)) for d in (0.5, -0.5)
    )  # fmt: skip
    np.testing.assert_allclose(model(z), -np.log2(upper - lower), rtol=1e-3)


def test_a_model_is_a_float32_layer_and_checks_its_family():
    assert ConditionalModel("gaussian", True).dtype == "float32"
    with pytest.raises(ValueError, match="unknown entropy family 'gauss'; known: scale_gaussian"):
        ConditionalModel("gauss", True)


@pytest.mark.parametrize("family", ["scale_gaussian", "gaussian", "laplacian"])
def test_far_below_its_bound_sigma_has_the_gradient_at_the_bound(family):
    model = ConditionalModel(family, zero_center=False)
    value = tf.fill([1, 1, 1, 2], 3.0)

    def gradient(log_sigma):
        means = tf.zeros([1, 1, 1, 2 * (model.outputs - 1)])
        raw = tf.concat([means, tf.fill([1, 1, 1, 2], log_sigma)], -1)
        with tf.GradientTape() as tape:
            tape.watch(raw)
            bits = model.bits(Sample(value), raw)
        return tape.gradient(bits, raw)[..., -2:]

    at_bound = gradient(float(np.log(0.11)) + 1e-6)
    assert np.all(at_bound < -10)
    np.testing.assert_allclose(gradient(-20.0), at_bound, rtol=1e-3)
