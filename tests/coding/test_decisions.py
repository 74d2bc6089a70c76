"""Binary decisions against the distributions that they stand for, through the real coder."""

from __future__ import annotations

import functools
import zlib

import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from tfquant.coding import decisions, range_coder
from tfquant.coding.decisions import DecisionTable
from tfquant.coding.pmf import MAX_SYMBOL, TOTAL
from tfquant.entropy.conditional import ConditionalModel

UNIT = 1.0 / TOTAL


def _gaussian(u):
    return tf.math.erf(u * np.float32(np.sqrt(0.5)))


def _laplacian(u):
    return tf.sign(u) * (1.0 - tf.exp(-tf.abs(u)))


def _mixture(centre, mu, sigma, weights=None):
    """What a table takes of components `mu, sigma: [n]` or [K, n]."""
    mu, sigma = np.atleast_2d(mu), np.atleast_2d(sigma)
    start = (centre - np.float32(0.5) - mu) / sigma
    weights = np.ones_like(mu) if weights is None else weights
    return tuple(np.float32(part) for part in (weights, start, 1 / sigma))


@functools.cache
def _coder(odd):
    """Encoder and decoder, traced once for every number of elements."""
    table = DecisionTable()

    @tf.function(autograph=False)
    def encode(symbols, *where):
        handle = range_coder.start_encoder(table, 2)
        return range_coder.finish(table.encode(handle, symbols, *where, odd))

    @tf.function(autograph=False)
    def decode(strings, *where):
        handle = range_coder.start_decoder(table, strings)
        return table.decode(handle, *where, odd)[1]

    return encode, decode


def _through_decisions(symbols, centre, reach, mixture, odd=_gaussian):
    encode, decode = _coder(odd)
    where = tf.constant(centre), tf.constant(reach, tf.float32), tuple(map(tf.constant, mixture))
    strings = encode(tf.constant(symbols), *where)
    np.testing.assert_array_equal(decode(strings, *where), symbols)
    return 8 * sum(map(len, strings.numpy()))


@pytest.mark.parametrize("sigma", [0.02, 0.06, 0.12, 0.2, 0.3, 0.5, 1.0, 4.0, 30.0, 256.0])
def test_decisions_cost_the_models_bits_at_every_scale(sigma, gaussian_bits):
    rng = np.random.default_rng(int(1000 * sigma))
    n = 60_000
    mu = rng.uniform(-20, 20, n).astype(np.float32)
    sigma = np.full(n, sigma, np.float32)
    symbols = np.rint(mu + sigma * rng.normal(size=n)).astype(np.int32)
    centre = np.rint(mu).astype(np.int32)
    coded = _through_decisions(symbols, centre, 5 * sigma, _mixture(centre, mu, sigma))
    model = gaussian_bits(symbols, mu, sigma).sum()
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
    reach = np.max(np.abs(mu - centre[:, None]) + 5 * sigma, axis=1)
    mixture = _mixture(centre, mu.T, sigma.T, weights.T)
    coded = _through_decisions(symbols, centre, reach, mixture)
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
    centre = np.rint(mu).astype(np.int32)
    mixture = _mixture(centre, mu, scale)
    coded = _through_decisions(symbols, centre, 8 * scale, mixture, _laplacian)

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
    coded = _through_decisions(symbols, centre, 5 * sigma, _mixture(centre, mu, sigma))
    assert coded < 50 * n


@pytest.mark.parametrize("distance", [0, 1, 2, 5, 20, 120, 400, 1500, 10_000, 1_000_000])
@pytest.mark.parametrize("sigma", [1e-6, 0.1, 1.0, 20.0, 60.0, 256.0])
def test_the_price_is_what_coding_takes_at_any_distance(distance, sigma, gaussian_bits):
    n = 2000
    rng = np.random.default_rng(0)
    mu = rng.uniform(-5, 5, n).astype(np.float32)
    centre, sigma = np.rint(mu).astype(np.int32), np.full(n, sigma, np.float32)
    symbols = centre + distance * rng.choice([-1, 1], n).astype(np.int32)
    bits = np.minimum(gaussian_bits(symbols, mu, sigma), 1e6).astype(np.float32)
    arguments = centre, 5 * sigma, _mixture(centre, mu, sigma)
    price = np.sum(DecisionTable().price(bits, symbols, *arguments))
    assert price <= np.sum(bits) + 2.0**-12 * n
    coded = _through_decisions(symbols, *arguments)
    assert abs(coded - price) < 0.04 * price + 2 * 16 + 2.0 * UNIT * n


@pytest.mark.parametrize(
    "sigma,distance,more",
    [(20.0, 105, 12), (60.0, 297, 12), (256.0, 1365, 12), (1.0, MAX_SYMBOL - 9, 16)],
)
def test_coding_takes_little_more_where_float32_has_no_more_of_an_integers_mass(
    sigma, distance, more, gaussian_bits
):
    n = 500
    mu = np.random.default_rng(0).uniform(-5, 5, n).astype(np.float32)
    centre, sigma = np.rint(mu).astype(np.int32), np.full(n, sigma, np.float32)
    symbols = centre + np.int32(distance)
    bits = np.minimum(gaussian_bits(symbols, mu, sigma), 1e6).astype(np.float32)
    arguments = centre, 5 * sigma, _mixture(centre, mu, sigma)
    price = np.sum(DecisionTable().price(bits, symbols, *arguments))
    assert _through_decisions(symbols, *arguments) < price + more * n


@pytest.mark.parametrize("distance", [0, 40, 150, 300, 3000, 1_000_000, 5_000_000])
def test_the_price_holds_where_neither_of_two_components_is(distance):
    """Between them, at the centre and off it, and beyond; weights that add up to 1 but nearly."""
    n = 2000
    rng = np.random.default_rng(0)
    mu = np.float32([[-500], [500]]) + rng.uniform(-5, 5, (2, n)).astype(np.float32)
    weights = tf.nn.softmax(tf.constant(rng.normal(0, 0.1, (2, n)), tf.float32), axis=0).numpy()
    symbols = distance * rng.choice([-1, 1], n).astype(np.int32)
    centre, sigma = np.zeros(n, np.int32), np.ones((2, n), np.float32)
    arguments = centre, np.full(n, 510.0), _mixture(centre, mu, sigma, weights)
    price = np.sum(DecisionTable().price(np.full(n, 1e6, np.float32), symbols, *arguments))
    coded = _through_decisions(symbols, *arguments)
    # It may take less: no decision costs more than the coder's 16 bits.
    assert 0.8 * price < coded < 1.04 * price + 2 * 16


def test_other_bytes_are_another_version():
    """Files of before could not be read: `decisions._VERSION` tells their fingerprints apart."""
    model = ConditionalModel("mixture", zero_center=False)
    table, rng = model.coding_table(), np.random.default_rng(0)
    logits, mu = rng.integers(-8, 9, (2, 1, 200, 3)) / 4
    log_sigma = rng.integers(-8, 17, (1, 200, 3)) / 8
    raw = tf.constant(np.concatenate([logits, 4 * mu, log_sigma], -1)[:, :, None], tf.float32)
    integers = tf.constant(rng.integers(-12, 13, (1, 200, 1, 1)), tf.int32)
    handle = model.write(table, range_coder.start_encoder(table, 1), integers, raw)
    (coded,) = range_coder.finish(handle).numpy()
    assert (decisions._VERSION, zlib.crc32(coded)) == (2, 0x2A5C6B49)


def test_decoding_forged_decisions_ends():
    table = DecisionTable()
    n = 200
    mixture = _mixture(np.zeros(n), np.zeros(n), np.full(n, 1e-6))
    for stream in (b"", b"\0" * 50, b"\xff" * 500, np.random.default_rng(0).bytes(5000)):
        handle = range_coder.start_decoder(table, tf.constant([stream]))
        centre, reach = tf.zeros([n], tf.int32), tf.fill([n], 5e-6)
        _, symbols = table.decode(handle, centre, reach, mixture, _gaussian)
        assert symbols.shape == [n]


def test_parameters_that_are_not_numbers_still_round_trip():
    nothing = np.full(40, np.nan, np.float32)
    symbols = np.arange(40, dtype=np.int32)
    centre = np.zeros(40, np.int32)
    _through_decisions(symbols, centre, nothing, _mixture(centre, nothing, nothing))


def test_odds_of_nothing_against_nothing_are_even():
    table = DecisionTable()
    row = int(table.index(tf.constant(0.0), tf.constant(0.0))) - table.BASE
    assert abs(table._cdfs[row][1] / TOTAL - 0.5) < 0.01
    assert int(table.index(tf.constant(1.0), tf.constant(0.0))) == table.BASE + len(table._cdfs) - 1
    assert int(table.index(tf.constant(0.0), tf.constant(1.0))) == table.BASE
