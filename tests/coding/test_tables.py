"""Tests tables against the distributions that they represent, and through the real coder."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from tfquant.coding import range_coder
from tfquant.coding.decisions import DecisionTable
from tfquant.coding.pmf import MAX_SYMBOL, TOTAL
from tfquant.coding.tables import ChannelTable, MeanScaleTable, ScaleTable, Table, rounded_pmf

UNIT = 1.0 / TOTAL


def _gaussian_tail(x):
    return scipy.special.ndtr(-x)


def _laplacian_tail(x):
    return 0.5 * np.exp(-x)


TAILS = {"gaussian": _gaussian_tail, "laplacian": _laplacian_tail}


@pytest.fixture(scope="module", params=TAILS)
def scale_table(request):
    return request.param, ScaleTable(TAILS[request.param], 256.0)


@pytest.fixture(scope="module")
def gaussian_table():
    return ScaleTable(_gaussian_tail, 256.0)


def _row_of(table, *parameters):
    """Returns the row that codes an element with these parameters."""
    row, *_ = table._windows(*(tf.constant(p) for p in parameters))
    return table.rows[row.numpy().item() - table.BASE]


def _bits(strings):
    return 8 * sum(map(len, strings.numpy()))


def test_the_numbers_of_a_table_cannot_be_changed():
    cdf = np.array([0, TOTAL // 4, TOTAL], np.int32)
    table = Table([cdf])
    for numbers in (table.lookup, *table._cdfs):
        with pytest.raises(ValueError, match="read-only"):
            numbers[1] = 1
    cdf[1] = 1  # the table has a copy
    assert table._cdfs[0][1] == TOTAL // 4


# --- ScaleTable -----------------------------------------------------------------------------------


def test_scale_table_is_near_the_entropy_at_every_scale(scale_table):
    family, table = scale_table
    tail = TAILS[family]
    for sigma in np.geomspace(0.02, 255.9, 300).astype(np.float32):
        reach = int(40 * sigma) + 2
        pmf = rounded_pmf(tail, 0.0, np.float64(sigma), reach)
        row = _row_of(table, sigma)
        used = pmf > 0
        entropy = -(pmf[used] * np.log2(pmf[used])).sum()
        excess = pmf @ row.bits(np.arange(-reach, reach + 1)) - entropy
        nonzero = 1.0 - pmf[reach]
        if nonzero > UNIT:  # what 16 bits can express
            assert excess <= 0.0025 * entropy + 0.15 * UNIT, sigma
        else:  # the least frequency of all that is not zero
            assert excess <= UNIT / np.log(2.0) * 1.001, sigma


@pytest.mark.slow
def test_the_error_of_a_scale_is_at_most_one_128th(gaussian_table):
    levels = gaussian_table._levels
    sigma = np.geomspace(levels.centre(levels.bottom), 256.0, 5000).astype(np.float32)
    buckets, _ = levels.of(tf.constant(sigma))
    ratio = np.array([levels.centre(int(bucket)) for bucket in buckets]) / sigma
    assert np.abs(np.log(ratio)).max() <= 1.01 / 128
    assert abs(np.log(ratio).mean()) < 2e-4  # neither up nor down


def test_scale_table_accepts_any_float(gaussian_table):
    sigma = tf.constant([0.0, -1.0, 1e-30, 1e30, np.inf, np.nan], tf.float32)
    row = gaussian_table._windows(sigma)[0].numpy() - gaussian_table.BASE
    assert row.min() >= 0 and row.max() < len(gaussian_table.rows)


@pytest.mark.parametrize("streams", [1, 5])
def test_the_cost_of_a_scale_table_round_trip_is_the_models_bits(
    gaussian_table, streams, gaussian_bits
):
    rng = np.random.default_rng(streams)
    sigma = np.exp(rng.uniform(np.log(0.05), np.log(200.0), [40, 50, 30])).astype(np.float32)
    symbols = np.rint(rng.normal(size=sigma.shape) * sigma).astype(np.int32)

    @tf.function
    def through(symbols, sigma):
        handle = range_coder.start_encoder(gaussian_table, streams)
        strings = range_coder.finish(gaussian_table.encode(handle, symbols, sigma))
        handle = range_coder.start_decoder(gaussian_table, strings)
        return strings, gaussian_table.decode(handle, sigma)[1]

    strings, decoded = through(tf.constant(symbols), tf.constant(sigma))
    np.testing.assert_array_equal(decoded, symbols)
    model = gaussian_bits(symbols, 0.0, sigma).sum()
    assert abs(_bits(strings) - model) < 0.001 * model + 16 * streams


def test_scale_table_codes_any_integer_at_any_scale(scale_table):
    _, table = scale_table
    values = [0, 1, -1, 3, -7, 10_000, -10_000, MAX_SYMBOL, -MAX_SYMBOL]
    symbols, sigma = np.meshgrid(np.array(values, np.int32), np.float32([1e-6, 0.11, 0.3, 5, 256]))
    handle = table.encode(range_coder.start_encoder(table, 2), symbols, tf.constant(sigma))
    strings = range_coder.finish(handle)
    _, decoded = table.decode(range_coder.start_decoder(table, strings), tf.constant(sigma))
    np.testing.assert_array_equal(decoded, symbols)
    assert _bits(strings) < 60 * symbols.size


def test_latents_that_are_not_finite_are_rejected(gaussian_table):
    for symbol in (-(2**31), 2**31 - 1, 2**30):
        with pytest.raises(tf.errors.InvalidArgumentError, match="not finite"):
            gaussian_table.encode(
                range_coder.start_encoder(gaussian_table, 1),
                tf.constant([symbol]),
                tf.constant([1.0]),
            )
        with pytest.raises(tf.errors.InvalidArgumentError, match="not finite"):
            gaussian_table.price(tf.constant([1.0]), tf.constant([symbol]), tf.constant([1.0]))


# --- MeanScaleTable -------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=TAILS)
def mean_table(request):
    return request.param, MeanScaleTable(TAILS[request.param], 256.0)


def test_probabilities_of_a_rounded_variable():
    pmf = rounded_pmf(_gaussian_tail, 0.3, 2.0, 30)
    edges = np.arange(-30, 32) - 0.5
    np.testing.assert_allclose(pmf, np.diff(scipy.special.ndtr((edges - 0.3) / 2.0)), atol=1e-15)
    narrow = rounded_pmf(_gaussian_tail, 0.3, 0.02, 2)  # 10 sigmas from the boundary
    np.testing.assert_allclose(narrow[3], scipy.special.ndtr(-10.0), rtol=1e-9)


@pytest.mark.slow
def test_mean_scale_table_is_near_the_entropy_at_every_mean_and_scale(mean_table):
    family, table = mean_table
    tail = TAILS[family]
    rng = np.random.default_rng(0)
    for sigma in np.geomspace(1e-3, 255.9, 90).astype(np.float32):
        # Means in the whole interval, and means at which small sigmas have an entropy above zero.
        near = 0.5 - sigma * rng.uniform(0, 5, 3)
        for mu in np.append(near[near > 0], rng.uniform(0, 0.5, 3)).astype(np.float32):
            reach = int(40 * sigma) + 2
            pmf = rounded_pmf(tail, np.float64(mu), np.float64(sigma), reach)
            row = _row_of(table, mu, sigma)
            used = pmf > 0
            entropy = -(pmf[used] * np.log2(pmf[used])).sum()
            excess = pmf @ row.bits(np.arange(-reach, reach + 1)) - entropy
            away = 1.0 - pmf[reach]
            if away > UNIT:  # what 16 bits can express
                assert excess <= 0.005 * entropy + 0.4 * UNIT, (mu, sigma)
            else:  # the least frequency of all that is not the centre
                assert excess <= UNIT / np.log(2.0) * 1.001, (mu, sigma)


@pytest.mark.slow
@pytest.mark.parametrize("streams", [1, 5])
def test_the_cost_of_a_mean_scale_table_round_trip_is_the_models_bits(streams, gaussian_bits):
    table = MeanScaleTable(_gaussian_tail, 256.0)
    rng = np.random.default_rng(streams)
    n = [60, 50, 30]
    sigma = np.exp(rng.uniform(np.log(1e-6), np.log(200.0), n)).astype(np.float32)
    mu = np.where(rng.random(n) < 0.5, rng.uniform(-300, 300, n), rng.integers(-9, 9, n) + 0.5)
    mu = mu.astype(np.float32)
    symbols = np.rint(mu + sigma * rng.normal(size=n)).astype(np.int32)

    @tf.function
    def through(*tensors):
        symbols, mu, sigma = tensors
        handle = range_coder.start_encoder(table, streams)
        strings = range_coder.finish(table.encode(handle, symbols, mu, sigma))
        return strings, table.decode(range_coder.start_decoder(table, strings), mu, sigma)[1]

    strings, decoded = through(*(tf.constant(t) for t in (symbols, mu, sigma)))
    np.testing.assert_array_equal(decoded, symbols)
    model = gaussian_bits(symbols, mu, sigma).sum()
    assert abs(_bits(strings) - model) < 0.003 * model + 16 * streams


def test_mean_scale_table_codes_any_integer_at_any_mean_and_scale(mean_table):
    _, table = mean_table
    values = [0, 1, -1, 3, -7, 10_000, -10_000, 10**6, -(10**6)]
    means = [0.0, 0.5, -0.5, 0.49999997, -3.2, 7.75, 1e5, 8388609.0]
    scales = [0.0, 1e-6, 0.11, 0.3, 3.9999998, 4.0, 4.125, 256.0, 1e9, np.inf]
    grid = np.meshgrid(np.array(values, np.int32), np.float32(means), np.float32(scales))
    symbols, mu, sigma = (g.reshape(-1) for g in grid)
    symbols = symbols + np.rint(mu).astype(np.int32)
    mu, sigma = tf.constant(mu), tf.constant(sigma)
    handle = table.encode(range_coder.start_encoder(table, 2), tf.constant(symbols), mu, sigma)
    handle = range_coder.start_decoder(table, range_coder.finish(handle))
    np.testing.assert_array_equal(table.decode(handle, mu, sigma)[1], symbols)


@pytest.mark.slow
def test_mean_scale_table_rejects_nan_parameters():
    table = MeanScaleTable(_gaussian_tail, 256.0)
    with pytest.raises(tf.errors.InvalidArgumentError):
        mu = tf.constant([np.nan])
        table.encode(range_coder.start_encoder(table, 1), tf.constant([0]), mu, tf.constant([1.0]))


# --- ChannelTable ---------------------------------------------------------------------------------


def _logistic_cdf(points, centre, scale):
    return scipy.special.expit((points - centre) / scale)


CENTRE, SCALE = np.array([0.0, 0.3, -5.0, 40.0]), np.array([0.05, 1.0, 4.0, 20.0])


@pytest.fixture(scope="module")
def channel_table():
    return ChannelTable.from_cdf(lambda points: _logistic_cdf(points, CENTRE, SCALE), 4)


def test_channel_table_is_near_the_entropy_in_every_channel(channel_table):
    k = np.arange(-1000, 1001)
    for row, centre, scale in zip(channel_table.rows, CENTRE, SCALE):
        pmf = np.diff(_logistic_cdf(np.append(k - 0.5, 1000.5), centre, scale))
        used = pmf > 0
        entropy = -(pmf[used] * np.log2(pmf[used])).sum()
        assert pmf @ row.bits(k) - entropy < 0.001 * entropy + 2 * UNIT


@pytest.mark.parametrize("streams", [1, 3])
def test_the_cost_of_a_channel_table_round_trip_is_the_models_bits(channel_table, streams):
    rng = np.random.default_rng(streams)
    symbols = np.rint(rng.logistic(CENTRE, SCALE, [3, 50, 50, 4])).astype(np.int32)
    handle = channel_table.encode(
        range_coder.start_encoder(channel_table, streams), symbols, tf.shape(symbols)
    )
    strings = range_coder.finish(handle)
    handle = range_coder.start_decoder(channel_table, strings)
    _, decoded = channel_table.decode(handle, tf.constant([3, 50, 50, 4]))
    np.testing.assert_array_equal(decoded, symbols)
    p = _logistic_cdf(symbols + 0.5, CENTRE, SCALE) - _logistic_cdf(symbols - 0.5, CENTRE, SCALE)
    model = -np.log2(p).sum()
    assert abs(_bits(strings) - model) < 0.001 * model + 16 * streams


def test_channel_table_codes_any_integer(channel_table):
    values = np.array([-MAX_SYMBOL, -10_000, -300, 0, 300, 10_000, MAX_SYMBOL], np.int32)
    symbols = np.repeat(values[:, None], 4, axis=1)
    handle = channel_table.encode(
        range_coder.start_encoder(channel_table, 1), symbols, tf.shape(symbols)
    )
    handle = range_coder.start_decoder(channel_table, range_coder.finish(handle))
    _, decoded = channel_table.decode(handle, tf.constant([7, 4]))
    np.testing.assert_array_equal(decoded, symbols)


def test_support_of_a_heavy_tail_is_bounded():
    table = ChannelTable.from_cdf(lambda x: 0.5 + np.arctan(x) / np.pi, 1)  # Cauchy
    assert 10 < table.rows[0].count < 10_000


def test_a_cdf_of_the_wrong_shape_is_rejected():
    with pytest.raises(ValueError, match=r"shape \(18, 3\)"):
        ChannelTable.from_cdf(lambda x: x[:, :1], 3)


# --- All tables -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_fingerprint_bytes_distinguish_tables(gaussian_table, channel_table):
    tables = [
        gaussian_table,
        channel_table,
        DecisionTable(),
        ScaleTable(_laplacian_tail, 256.0),
        MeanScaleTable(_gaussian_tail, 256.0),
    ]
    assert len({table.to_bytes() for table in tables}) == len(tables)
    assert ScaleTable(_gaussian_tail, 256.0).to_bytes() == gaussian_table.to_bytes()


@pytest.mark.slow
def test_coding_runs_inside_a_loop_of_many_small_steps(gaussian_table):
    rng = np.random.default_rng(0)
    sigma = tf.constant(np.exp(rng.uniform(-2, 2, [50, 7])).astype(np.float32))
    symbols = tf.cast(tf.round(sigma * rng.normal(size=[50, 7]).astype(np.float32) * 2), tf.int32)

    @tf.function
    def encode():
        handle = range_coder.start_encoder(gaussian_table, 3)
        for i in tf.range(50):
            handle = gaussian_table.encode(handle, symbols[i], sigma[i])
        return range_coder.finish(handle)

    @tf.function
    def decode(strings):
        handle = range_coder.start_decoder(gaussian_table, strings)
        found = tf.TensorArray(tf.int32, 50, element_shape=[7])
        for i in tf.range(50):
            handle, row = gaussian_table.decode(handle, sigma[i])
            found = found.write(i, row)
        return found.stack()

    np.testing.assert_array_equal(decode(encode()), symbols)


def test_bytes_of_a_tiny_stream_are_pinned(gaussian_table):
    symbols = tf.constant([0, 1, -1, 2, 0, 0, -3, 5, 0, 40])
    handle = gaussian_table.encode(
        range_coder.start_encoder(gaussian_table, 1), symbols, tf.fill([10], 1.5)
    )
    assert range_coder.finish(handle).numpy()[0].hex() == "8d7521d688a0f2c6"
