"""Sums that approximate integrals over a latent and its noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tfquant.analysis import maps, quadrature
from tfquant.analysis.maps import ROUNDING, Method
from tfquant.analysis.quadrature import ANY_MEAN
from tfquant.quantization.surrogates import SURROGATES


def test_every_surrogate_of_the_table_commutes_with_whole_steps():
    for method in maps.methods(SURROGATES, (3.0, 12.0)):
        assert maps.commutes_with_steps(method), method


@pytest.mark.parametrize("mu", [0.0, 0.3, ANY_MEAN])
def test_additive_noise_adds_a_twelfth_to_the_variance(mu):
    for name in ("aun", "uq_i"):
        value, mass = quadrature.deviations(Method(name), 0.4, mu, 24)
        assert mass.sum() == pytest.approx(1.0, abs=1e-9)
        assert np.sum(mass * value) == pytest.approx(0.0, abs=1e-6)
        assert np.sum(mass * value**2) == pytest.approx(0.16 + 1 / 12, rel=1e-4)


@pytest.mark.parametrize("sigma,mu", [(0.05, 0.0), (0.3, 0.5), (2.0, 0.2)])
def test_rounding_has_the_probabilities_of_integers(sigma, mu):
    value, mass = quadrature.deviations(ROUNDING, sigma, mu, 32)
    for k in (0, 1):
        expected = np.diff(stats.norm.cdf([k - 0.5, k + 0.5], mu, sigma))[0]
        found = np.sum(mass[np.abs(value + mu - k) < 0.25])
        assert found == pytest.approx(expected, abs=2e-4)


def test_the_period_of_rounding_is_cut_where_it_jumps():
    p = quadrature.period(ROUNDING, 16)
    assert np.sum(p.weight[p.y < 0.5]) == pytest.approx(0.5, abs=1e-9)
    assert np.sum(p.mass) == pytest.approx(1.0)


def test_the_points_of_a_normal_have_its_moments():
    eps, weight = quadrature.normal(32)
    moments = [np.sum(weight * eps**n) for n in (0, 1, 2, 4, 6)]
    np.testing.assert_allclose(moments, [1, 0, 1, 3, 15], atol=1e-9)


def test_the_error_is_what_half_the_resolution_changes():
    found = quadrature.with_error(lambda r: 1.0 + 1.0 / r, 8)
    assert found == (1.125, pytest.approx(0.125))


def test_a_reassigned_name_is_discretized_again(alter):
    alter("aun", "guest")
    before = quadrature.deviations(Method("guest"), 0.3, 0.0, 16)
    alter("aun", "guest", forward=lambda v, alpha, u: v)
    after = quadrature.deviations(Method("guest"), 0.3, 0.0, 16)
    variances = [np.sum(mass * value**2) for value, mass in (before, after)]
    np.testing.assert_allclose(variances, [0.09 + 1 / 12, 0.09], rtol=1e-3)
