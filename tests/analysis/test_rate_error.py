"""Fig. 4 and 5: rates, compared with SciPy's integrals and known limits."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, special, stats

from tfquant.analysis import quadrature, rate_error, rate_error_2d
from tfquant.analysis.experiment import Progress
from tfquant.analysis.maps import ROUNDING, Method
from tfquant.analysis.quadrature import ANY_MEAN

AUN = Method("aun")


def mass(d, sigma):
    c = np.abs(d)
    return special.ndtr((0.5 - c) / sigma) - special.ndtr((-0.5 - c) / sigma)


def noisy_rate(sigma, estimated):
    """Returns E[-log2 p_hat(y + u)], where p is the density of y + u."""
    reach = 0.5 + 9 * sigma
    return integrate.quad(
        lambda d: -mass(d, sigma) * np.log2(mass(d, estimated)),
        -reach, reach, points=[-0.5, 0.5], limit=400,
    )[0]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("mu", [0.0, 0.5, ANY_MEAN])
def test_rounding_has_no_mismatch(mu):
    exact = rate_error.rate(ROUNDING, 0.4, 0.3, mu, 24).value
    summed = np.sum(
        (points := quadrature.deviations(ROUNDING, 0.4, mu, 32)).mass
        * -np.log2(mass(points.value, 0.3))
    )
    assert summed == pytest.approx(exact, rel=1e-3)
    settings = rate_error.EXPERIMENT.settings(surrogates=("round",), sigmas=(0.4,))
    assert all(r["rate_error"] == 0.0 for r in rate_error.run(settings, Progress("test")).rows)


def test_rounding_counts_the_bits_of_integers():
    k = np.arange(-6, 8)
    expected = -np.sum(mass(k - 0.5, 0.4) * np.log2(mass(k - 0.5, 0.3)))
    assert rate_error.rate(ROUNDING, 0.4, 0.3, 0.5, 24).value == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["aun", "uq_i", "uq_s"])
@pytest.mark.parametrize("mu", [0.0, 0.5, ANY_MEAN])
def test_additive_noise_counts_the_same_bits_at_every_mean(name, mu):
    found = rate_error.rate(Method(name), 0.3, 0.2, mu, 24)
    assert found.value == pytest.approx(noisy_rate(0.3, 0.2), abs=2e-4)
    assert found.error < 5e-3


@pytest.mark.parametrize("mu", [0.0, 0.5])
def test_sua_goes_from_aun_to_rounding(mu):
    soft, hard = (rate_error.rate(Method("sua", a), 0.3, 0.3, mu, 32).value for a in (0.01, 300.0))
    assert soft == pytest.approx(noisy_rate(0.3, 0.3), abs=1e-3)
    assert hard == pytest.approx(rate_error.rate(ROUNDING, 0.3, 0.3, mu, 32).value, abs=0.02)


def test_on_average_over_the_mean_sua_counts_the_bits_of_rounding():
    found = rate_error.rate(Method("sua", 8.0), 0.3, 0.2, ANY_MEAN, 24).value
    assert found == pytest.approx(noisy_rate(0.3, 0.2), abs=1e-3)


def test_the_best_sigma_of_aun_is_the_latents_and_that_of_sr_is_larger():
    assert rate_error.best_sigma(AUN, 0.5, 0.0, 24) == pytest.approx(0.5, rel=0.005)
    assert rate_error.best_sigma(Method("sr"), 0.2, 0.0, 24) > 0.3


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.95])
def test_bits_of_a_pair_are_those_of_its_unit_square(rho):
    d, sigma = np.array([[0.1, -0.3], [1.0, 1.4], [0.0, 0.0]]), 0.7
    covariance = sigma**2 * np.array([[1, rho], [rho, 1]])
    normal = stats.multivariate_normal([0, 0], covariance)
    expected = []
    for x, y in d:
        corners = [(x + 0.5, y + 0.5), (x - 0.5, y + 0.5), (x + 0.5, y - 0.5), (x - 0.5, y - 0.5)]
        a, b, c, e = (normal.cdf(corner) for corner in corners)
        expected.append(-np.log2(a - b - c + e))
    np.testing.assert_allclose(rate_error_2d.pair_bits(d, sigma, rho), expected, rtol=2e-4)


@pytest.mark.slow
def test_shared_noise_keeps_the_rate_of_a_pair_and_noise_of_its_own_does_not(monkeypatch):
    monkeypatch.setattr(rate_error_2d, "CORRELATIONS", (0.0, 0.98))
    monkeypatch.setattr(rate_error_2d, "_SAMPLES", 8192)
    settings = rate_error_2d.EXPERIMENT.settings(
        surrogates=("round", "uq_s", "uq_i"), sigmas=(0.5,)
    )
    rows = rate_error_2d.run(settings, Progress("test")).rows
    found = {(r["surrogate"], r["correlation"], r["mu"]): r for r in rows}
    assert all(r["rate_error"] == 0.0 for r in rows if r["surrogate"] == "round")
    shared, own = found["uq_s", 0.98, ANY_MEAN], found["uq_i", 0.98, ANY_MEAN]
    assert shared["low"] < 0.03 and shared["high"] > -0.03
    assert own["low"] > 0.15
    # Independent latents: twice the bits of one.
    alone = found["uq_i", 0.0, 0.0]
    assert (
        alone["low"] - 0.01
        < 2 * (noisy_rate(0.5, 0.5) - rate_error.rate(ROUNDING, 0.5, 0.5, 0.0, 24).value)
        < alone["high"] + 0.01
    )
