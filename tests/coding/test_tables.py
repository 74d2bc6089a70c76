"""Tables against the distributions they stand for, and through the real coder."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from tfquant.coding import range_coder
from tfquant.coding.pmf import MAX_SYMBOL, TOTAL, quantize_pmf
from tfquant.coding.tables import (
    ChannelTable,
    DecisionTable,
    MeanScaleTable,
    ScaleTable,
    rounded_pmf,
    share_lookup,
)

UNIT = 1.0 / TOTAL


def _gaussian_tail(x):
    return scipy.special.ndtr(-x)


def _laplacian_tail(x):
    return 0.5 * np.exp(-x)


TAILS = {"gaussian": _gaussian_tail, "laplacian": _laplacian_tail}


@pytest.fixture(scope="module", params=TAILS)
def scale_table(request):
    return request.param, ScaleTable(TAILS[request.param])


@pytest.fixture(scope="module")
def gaussian_table():
    return ScaleTable(_gaussian_tail)


def _bits(strings):
    return 8 * sum(map(len, strings.numpy()))


def _gaussian_bits(symbols, mu, sigma):
    """-log2 P(symbol) of rounded Gaussians, float64, in log space."""
    d = np.abs(symbols - np.asarray(mu, np.float64))
    low, high = ((d + half) / np.asarray(sigma, np.float64) for half in (-0.5, 0.5))
    near, far = scipy.special.log_ndtr(-low), scipy.special.log_ndtr(-high)
    return -(near + np.log1p(-np.exp(far - near))) / np.log(2.0)


# --- ScaleTable -----------------------------------------------------------------------------------


def test_scale_table_is_near_the_entropy_at_every_scale(scale_table):
    family, table = scale_table
    tail = TAILS[family]
    for sigma in np.geomspace(0.02, 255.9, 300).astype(np.float32):
        reach = int(40 * sigma) + 2
        pmf = rounded_pmf(tail, 0.0, np.float64(sigma), reach)
        row = table.rows[int(table.index(tf.constant(sigma)))]
        used = pmf > 0
        entropy = -(pmf[used] * np.log2(pmf[used])).sum()
        excess = pmf @ row.bits(np.arange(-reach, reach + 1)) - entropy
        nonzero = 1.0 - pmf[reach]
        if nonzero > UNIT:  # what 16 bits can express
            assert excess <= 0.0025 * entropy + 0.15 * UNIT, sigma
        else:  # the least frequency of all that is not zero
            assert excess <= UNIT / np.log(2.0) * 1.001, sigma


def test_scale_is_never_off_by_more_than_a_hundred_and_twenty_eighth(gaussian_table):
    sigma = np.geomspace(gaussian_table.levels[0], 256.0, 5000).astype(np.float32)
    level = gaussian_table.levels[gaussian_table.index(tf.constant(sigma)).numpy()]
    ratio = level / sigma
    assert np.abs(np.log(ratio)).max() <= 1.01 / 128
    assert abs(np.log(ratio).mean()) < 2e-4  # neither up nor down


def test_scale_table_takes_any_float(gaussian_table):
    sigma = tf.constant([0.0, -1.0, 1e-30, 1e30, np.inf, np.nan], tf.float32)
    index = gaussian_table.index(sigma).numpy()
    assert index.min() >= 0 and index.max() < len(gaussian_table.rows)


@pytest.mark.parametrize("streams", [1, 5])
def test_scale_table_round_trip_costs_the_models_bits(gaussian_table, streams):
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
    model = _gaussian_bits(symbols, 0.0, sigma).sum()
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


def test_symbol_of_a_latent_that_is_not_finite_is_refused(gaussian_table):
    for symbol in (-(2**31), 2**31 - 1, 2**30):
        with pytest.raises(tf.errors.InvalidArgumentError, match="not finite"):
            gaussian_table.encode(
                range_coder.start_encoder(gaussian_table, 1),
                tf.constant([symbol]),
                tf.constant([1.0]),
            )


# --- MeanScaleTable -------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=TAILS)
def mean_table(request):
    return request.param, MeanScaleTable(TAILS[request.param])


def test_probabilities_of_a_rounded_variable():
    pmf = rounded_pmf(_gaussian_tail, 0.3, 2.0, 30)
    edges = np.arange(-30, 32) - 0.5
    np.testing.assert_allclose(pmf, np.diff(scipy.special.ndtr((edges - 0.3) / 2.0)), atol=1e-15)
    narrow = rounded_pmf(_gaussian_tail, 0.3, 0.02, 2)  # 10 sigmas from the boundary
    np.testing.assert_allclose(narrow[3], scipy.special.ndtr(-10.0), rtol=1e-9)


def test_mean_scale_table_is_near_the_entropy_at_every_mean_and_scale(mean_table):
    family, table = mean_table
    tail = TAILS[family]
    rng = np.random.default_rng(0)
    for sigma in np.geomspace(1e-3, 255.9, 90).astype(np.float32):
        # Means all over the interval, and those where small sigmas have an entropy at all.
        near = 0.5 - sigma * rng.uniform(0, 5, 3)
        for mu in np.append(near[near > 0], rng.uniform(0, 0.5, 3)).astype(np.float32):
            reach = int(40 * sigma) + 2
            pmf = rounded_pmf(tail, np.float64(mu), np.float64(sigma), reach)
            row = table.rows[int(table.row(tf.constant(mu), tf.constant(sigma)))]
            used = pmf > 0
            entropy = -(pmf[used] * np.log2(pmf[used])).sum()
            excess = pmf @ row.bits(np.arange(-reach, reach + 1)) - entropy
            away = 1.0 - pmf[reach]
            if away > UNIT:  # what 16 bits can express
                assert excess <= 0.005 * entropy + 0.4 * UNIT, (mu, sigma)
            else:  # the least frequency of all that is not the centre
                assert excess <= UNIT / np.log(2.0) * 1.001, (mu, sigma)


@pytest.mark.parametrize("streams", [1, 5])
def test_mean_scale_table_round_trip_costs_the_models_bits(streams):
    table = MeanScaleTable(_gaussian_tail)
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
    model = _gaussian_bits(symbols, mu, sigma).sum()
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


def test_mean_scale_table_refuses_parameters_that_are_not_numbers():
    table = MeanScaleTable(_gaussian_tail)
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
def test_channel_table_round_trip_costs_the_models_bits(channel_table, streams):
    rng = np.random.default_rng(streams)
    symbols = np.rint(rng.logistic(CENTRE, SCALE, [3, 50, 50, 4])).astype(np.int32)
    handle = channel_table.encode(range_coder.start_encoder(channel_table, streams), symbols)
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
    handle = channel_table.encode(range_coder.start_encoder(channel_table, 1), symbols)
    handle = range_coder.start_decoder(channel_table, range_coder.finish(handle))
    _, decoded = channel_table.decode(handle, tf.constant([7, 4]))
    np.testing.assert_array_equal(decoded, symbols)


def test_support_of_a_heavy_tail_is_bounded():
    table = ChannelTable.from_cdf(lambda x: 0.5 + np.arctan(x) / np.pi, 1)  # Cauchy
    assert 10 < table.rows[0].count < 10_000


def test_cdf_of_the_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r"shape \(18, 3\)"):
        ChannelTable.from_cdf(lambda x: x[:, :1], 3)


# --- DecisionTable --------------------------------------------------------------------------------


def _gaussian_survival(params, x):
    mu, sigma = params
    z = (x - mu) / sigma * np.float32(np.sqrt(0.5))
    return 0.5 * tf.math.erfc(-z), 0.5 * tf.math.erfc(z)


def _mixture_survival(params, x):
    weights, mu, sigma = params
    cdf, rest = _gaussian_survival((mu, sigma), x[:, None])
    return tf.reduce_sum(weights * cdf, -1), tf.reduce_sum(weights * rest, -1)


def _laplacian_survival(params, x):
    mu, scale = params
    d = tf.abs(x - mu) / scale
    tail, rest = 0.5 * tf.exp(-d), 0.5 - 0.5 * tf.math.expm1(-d) - 0.5
    return tf.where(x < mu, tail, 0.5 + rest), tf.where(x < mu, 0.5 + rest, tail)


def _through_decisions(symbols, centre, params, survival, streams=2):
    table = DecisionTable()
    centre, params = tf.constant(centre), tuple(tf.constant(p) for p in params)

    @tf.function
    def encode(symbols):
        handle = range_coder.start_encoder(table, streams)
        return range_coder.finish(table.encode(handle, symbols, centre, params, survival))

    @tf.function
    def decode(strings):
        handle = range_coder.start_decoder(table, strings)
        return table.decode(handle, centre, params, survival)[1]

    strings = encode(tf.constant(symbols))
    np.testing.assert_array_equal(decode(strings), symbols)
    return _bits(strings)


@pytest.mark.parametrize("sigma", [0.02, 0.06, 0.12, 0.2, 0.3, 0.5, 1.0, 4.0, 30.0, 256.0])
def test_decisions_cost_the_models_bits_at_every_scale(sigma):
    rng = np.random.default_rng(int(1000 * sigma))
    n = 60_000
    mu = rng.uniform(-20, 20, n).astype(np.float32)
    sigma = np.full(n, sigma, np.float32)
    symbols = np.rint(mu + sigma * rng.normal(size=n)).astype(np.int32)
    coded = _through_decisions(
        symbols, np.rint(mu).astype(np.int32), (mu, sigma), _gaussian_survival
    )
    model = _gaussian_bits(symbols, mu, sigma).sum()
    assert abs(coded - model) < 0.002 * model + 2 * 16 + 2.0 * UNIT * n


def test_decisions_cost_the_models_bits_for_a_mixture():
    rng = np.random.default_rng(0)
    n = 30_000
    weights = rng.dirichlet(np.ones(3), n).astype(np.float32)
    mu = rng.uniform(-6, 6, [n, 3]).astype(np.float32)
    sigma = np.exp(rng.uniform(np.log(1e-6), np.log(20), [n, 3])).astype(np.float32)
    chosen = (rng.random(n)[:, None] > np.cumsum(weights, 1)[:, :2]).sum(1)
    pick = np.arange(n), chosen
    symbols = np.rint(mu[pick] + sigma[pick] * rng.normal(size=n)).astype(np.int32)
    centre = np.rint((weights * mu).sum(1)).astype(np.int32)
    coded = _through_decisions(symbols, centre, (weights, mu, sigma), _mixture_survival)
    low, high = ((symbols[:, None] + h - mu.astype(np.float64)) / sigma for h in (-0.5, 0.5))
    flip = np.where(low + high > 0, -1.0, 1.0)  # differences in the smaller tail
    p = np.abs(scipy.special.ndtr(flip * high) - scipy.special.ndtr(flip * low))
    model = -np.log2((weights.astype(np.float64) * p).sum(1)).sum()
    assert abs(coded - model) < 0.005 * model + 2 * 16


def test_decisions_cost_the_models_bits_for_a_laplacian():
    rng = np.random.default_rng(0)
    n = 30_000
    mu = rng.uniform(-6, 6, n).astype(np.float32)
    scale = np.exp(rng.uniform(np.log(1e-6), np.log(256), n)).astype(np.float32)
    symbols = np.rint(rng.laplace(mu, scale)).astype(np.int32)
    coded = _through_decisions(
        symbols, np.rint(mu).astype(np.int32), (mu, scale), _laplacian_survival
    )

    def cdf(x):
        d = (x - mu) / scale.astype(np.float64)
        return np.where(d < 0, 0.5 * np.exp(-np.abs(d)), 1.0 - 0.5 * np.exp(-np.abs(d)))

    mirrored = np.where(symbols > mu, 2 * mu.astype(np.float64) - symbols, symbols)
    model = -np.log2(cdf(mirrored + 0.5) - cdf(mirrored - 0.5)).sum()
    assert abs(coded - model) < 0.005 * model + 2 * 16


def test_decisions_reach_any_integer_from_any_centre():
    rng = np.random.default_rng(0)
    far = np.array([0, 1, -1, 10_000, -10_000, 10_001, MAX_SYMBOL, -MAX_SYMBOL], np.int32)
    symbols = np.repeat(far, 50)
    n = symbols.size
    mu = rng.uniform(-5, 5, n).astype(np.float32)
    sigma = np.exp(rng.uniform(np.log(1e-6), np.log(256), n)).astype(np.float32)
    centre = rng.integers(-9, 10, n).astype(np.int32)  # not the best one either
    coded = _through_decisions(symbols, centre, (mu, sigma), _gaussian_survival)
    assert coded < 150 * n


def test_decoding_forged_decisions_ends():
    table = DecisionTable()
    n = 200
    params = (tf.zeros([n]), tf.fill([n], 1e-6))
    for stream in (b"", b"\0" * 50, b"\xff" * 500, np.random.default_rng(0).bytes(5000)):
        handle = range_coder.start_decoder(table, tf.constant([stream]))
        _, symbols = table.decode(handle, tf.zeros([n], tf.int32), params, _gaussian_survival)
        assert symbols.shape == [n]


def test_parameters_that_are_not_numbers_still_round_trip():
    nothing = np.full(40, np.nan, np.float32)
    symbols = np.arange(40, dtype=np.int32)
    _through_decisions(symbols, np.zeros(40, np.int32), (nothing, nothing), _gaussian_survival)


def test_odds_of_nothing_against_nothing_are_even():
    table = DecisionTable()
    row = int(table.index(tf.constant(0.0), tf.constant(0.0))) - table.base
    assert abs(table._cdfs[row][1] / TOTAL - 0.5) < 0.01
    assert int(table.index(tf.constant(1.0), tf.constant(0.0))) == table.base + len(table._cdfs) - 1
    assert int(table.index(tf.constant(0.0), tf.constant(1.0))) == table.base


# --- All tables -----------------------------------------------------------------------------------


def test_tables_with_a_common_lookup_share_streams(gaussian_table, channel_table):
    z_table, y_table, other = share_lookup(channel_table, gaussian_table, DecisionTable())
    z, y = tf.constant([[1, -2, 300, 4]]), tf.constant([5, -6, 7000])
    sigma = tf.constant([1.0, 20.0, 0.2])
    rest = (tf.constant([2]), (tf.constant([2.3]), tf.constant([0.8])), _gaussian_survival)
    handle = range_coder.start_encoder(y_table, 2)
    handle = y_table.encode(z_table.encode(handle, z), y, sigma)
    strings = range_coder.finish(other.encode(handle, tf.constant([4]), *rest))
    handle = range_coder.start_decoder(z_table, strings)
    handle, z_back = z_table.decode(handle, tf.shape(z))
    handle, y_back = y_table.decode(handle, sigma)
    handle, last = other.decode(handle, *rest)
    np.testing.assert_array_equal(z_back, z)
    np.testing.assert_array_equal(y_back, y)
    assert last.numpy().tolist() == [4]


def test_fingerprint_bytes_tell_tables_apart_and_do_not_depend_on_sharing(
    gaussian_table, channel_table
):
    tables = [
        gaussian_table,
        channel_table,
        DecisionTable(),
        ScaleTable(_laplacian_tail),
        MeanScaleTable(_gaussian_tail),
    ]
    assert len({table.to_bytes() for table in tables}) == len(tables)
    assert ScaleTable(_gaussian_tail).to_bytes() == gaussian_table.to_bytes()
    shared = share_lookup(channel_table, gaussian_table)
    assert [t.to_bytes() for t in shared] == [channel_table.to_bytes(), gaussian_table.to_bytes()]


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


def test_quantize_pmf_is_reachable_from_here():
    np.testing.assert_array_equal(quantize_pmf([1.0, 3.0], precision=2), [0, 1, 4])
