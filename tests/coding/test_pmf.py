"""Tests integer probabilities: optimal, complete, and with a low cost of rare symbols."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats

from tfquant.coding import pmf


def _random_pmfs(count, size, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield rng.dirichlet(np.full(rng.integers(1, size + 1), rng.choice([0.01, 0.1, 1.0, 10.0])))


def test_every_symbol_is_possible_and_the_total_is_a_power_of_two():
    for p in [*_random_pmfs(50, 500), np.array([1.0, 0.0, 0.0]), np.ones(pmf.TOTAL)]:
        cdf = pmf.quantize_pmf(p)
        assert cdf[0] == 0 and cdf[-1] == pmf.TOTAL and np.diff(cdf).min() >= 1
        assert cdf.size == p.size + 1 and cdf.dtype == np.int32


def test_quantized_pmf_is_the_best_of_all_integer_pmfs():
    total = 1 << 4
    for p in _random_pmfs(30, 3, seed=1):
        candidates = [
            q for q in itertools.product(range(1, total + 1), repeat=p.size) if sum(q) == total
        ]
        best = min(-(p * np.log2(np.array(q) / total)).sum() for q in candidates)
        q = np.diff(pmf.quantize_pmf(p, precision=4))
        np.testing.assert_allclose(-(p * np.log2(q / total)).sum(), best, rtol=1e-12)


@pytest.mark.parametrize("bad", [[], [[0.5, 0.5]], [0.5, -0.1], [np.nan, 1.0], [0.0, 0.0]])
def test_invalid_pmfs_are_rejected(bad):
    with pytest.raises(ValueError, match="pmf"):
        pmf.quantize_pmf(np.array(bad))


def test_codes_of_escaped_values_are_complete():
    # Kraft's sum over all excesses of both sides: class k has 2**k of them, of equal length.
    k = np.arange(pmf.CLASSES)
    for row in range(len(pmf.ESCAPE_CDFS)):
        sums = [(2.0 ** (k - pmf.escape_bits(2**k - 1, side, row))).sum() for side in (0, 1)]
        assert sum(sums) == pytest.approx(1.0)
    assert pmf.class_of(pmf.MAX_EXCESS - 1) == pmf.CLASSES - 1


def test_an_escape_uses_the_row_that_fits_its_sides():
    below = pmf.make_row(np.array([0.1, 0.8, 0.1 - 1e-6, 1e-6]), -1, start=0, stop=2)
    even = pmf.make_row(np.array([0.1, 0.8, 0.1]), -1, start=0, stop=1)
    assert below.bits(-1) == pytest.approx(-np.log2(0.1), abs=0.01)
    assert even.bits(np.array([-1, 1])) == pytest.approx(-np.log2(0.1), abs=0.01)


def test_fitted_row_costs_little_more_than_the_entropy():
    for shape, scale in itertools.product([0.3, 1.0, 5.0, 40.0], [0.1, 1.0, 10.0]):  # skewed
        p = np.diff(scipy.stats.gamma(shape, scale=scale).cdf(np.arange(2000)))
        row = pmf.fit_row(p, first=-7)
        symbols = -7 + np.arange(p.size)
        used = p > 0
        entropy = -(p[used] * np.log2(p[used])).sum()
        assert p @ row.bits(symbols) - entropy < 0.005 * entropy + 2.0 / pmf.TOTAL


def test_row_prices_any_integer():
    row = pmf.fit_row(np.array([0.25, 0.5, 0.25]), first=-1)
    bits = row.bits(np.array([-pmf.MAX_SYMBOL, -10_000, -2, -1, 0, 1, 2, 10_000, pmf.MAX_SYMBOL]))
    assert np.all(np.isfinite(bits)) and bits[4] == pytest.approx(1.0, abs=1e-3)
    assert np.all(np.diff(bits[4:]) > 0) and np.all(np.diff(bits[:5]) < 0)
