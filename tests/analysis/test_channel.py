"""Information and least distortion of a surrogate, compared with SciPy's integrals and limits."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, special, stats

from tfquant.analysis import channel
from tfquant.analysis.maps import Method
from tfquant.analysis.quadrature import ANY_MEAN

AUN, ROUND = Method("aun"), Method("round")


def noisy_density(v, sigma, mu=0.0):
    return special.ndtr((v + 0.5 - mu) / sigma) - special.ndtr((v - 0.5 - mu) / sigma)


def entropy_of_rounding(sigma, mu):
    k = np.arange(-60, 61)
    p = noisy_density(k, sigma, mu)
    return -np.sum(special.xlogy(p, p)) / np.log(2)


def information_of_noise(sigma):
    """Returns I = h(y + u) - h(u), where h(u) = 0."""
    reach = 0.5 + 9 * sigma
    return integrate.quad(
        lambda v: -special.xlogy(*[noisy_density(v, sigma)] * 2) / np.log(2),
        -reach, reach, points=[-0.5, 0.5], limit=400,
    )[0]  # fmt: skip


@pytest.mark.parametrize("sigma,mu", [(0.1, 0.0), (0.3, 0.5), (2.0, 0.2)])
def test_rounding_carries_its_entropy(sigma, mu):
    assert channel.information(ROUND, sigma, mu).value == pytest.approx(
        entropy_of_rounding(sigma, mu), abs=1e-6
    )


@pytest.mark.parametrize("sigma", [0.1, 0.4, 2.0])
def test_additive_noise_carries_the_entropy_of_the_sum(sigma):
    found = channel.information(AUN, sigma, 0.2)
    assert found.value == pytest.approx(information_of_noise(sigma), abs=1e-3)
    assert found.error < 0.01


@pytest.mark.slow
def test_uq_i_and_uq_s_carry_what_aun_does_for_a_single_latent():
    expected = channel.information(AUN, 0.5, 0.1).value
    for name in ("uq_i", "uq_s"):
        assert channel.information(Method(name), 0.5, 0.1).value == pytest.approx(
            expected, abs=2e-3
        )


@pytest.mark.slow
@pytest.mark.parametrize("mu", [0.0, 0.5])
def test_sua_goes_from_aun_to_rounding(mu):
    soft, hard = (channel.information(Method("sua", a), 0.3, mu).value for a in (0.01, 200.0))
    assert soft == pytest.approx(information_of_noise(0.3), abs=1e-3)
    assert hard == pytest.approx(entropy_of_rounding(0.3, mu), abs=0.02)


@pytest.mark.slow
def test_the_denoiser_neither_adds_nor_loses_information():
    with_it, without = (channel.information(Method(n, 6.0), 0.4, 0.2) for n in ("sua", "sua_n"))
    assert with_it.value == pytest.approx(without.value, abs=2e-3)
    pair = [channel.least_distortion(Method(n, 6.0), 0.4, 0.2).value for n in ("sua", "sua_n")]
    assert pair[0] == pytest.approx(pair[1], rel=5e-3)


def test_stochastic_rounding_carries_the_entropy_less_that_of_its_draws():
    sigma, mu = 0.7, 0.3
    y = np.linspace(mu - 9 * sigma, mu + 9 * sigma, 20001)
    weight = stats.norm.pdf(y, mu, sigma)
    weight /= weight.sum()
    up = y - np.floor(y)
    k = np.arange(-9, 10)[:, None]
    p = np.sum(weight * ((np.floor(y) == k) * (1 - up) + (np.floor(y) + 1 == k) * up), axis=1)
    draws = np.sum(weight * (special.entr(up) + special.entr(1 - up)))
    expected = (np.sum(special.entr(p)) - draws) / np.log(2)
    assert channel.information(Method("sr"), sigma, mu).value == pytest.approx(expected, abs=2e-3)


def test_on_average_over_the_mean_aun_and_rounding_carry_the_same():
    found = [channel.information(m, 0.2, ANY_MEAN).value for m in (AUN, ROUND)]
    assert found[0] == pytest.approx(found[1], abs=1e-3)


def test_a_soft_staircase_without_noise_loses_nothing():
    assert channel.information(Method("sha", 5.0), 0.5, 0.0).value == np.inf
    assert channel.least_distortion(Method("sha", 5.0), 0.5, 0.0).value == 0.0


def test_least_distortion_of_rounding_is_the_variance_within_a_bin():
    sigma = 0.6
    expected = 0.0
    for k in range(-6, 7):
        a, b = (k - 0.5) / sigma, (k + 0.5) / sigma
        p = special.ndtr(b) - special.ndtr(a)
        if p > 1e-12:
            expected += p * stats.truncnorm.var(a, b, scale=sigma)
    assert channel.least_distortion(ROUND, sigma, 0.0).value == pytest.approx(expected, rel=1e-4)


def test_least_distortion_of_additive_noise_is_that_of_the_conditional_mean():
    sigma = 0.5
    y, v = np.linspace(-4.5, 4.5, 3001), np.linspace(-5, 5, 1501)
    weight = stats.norm.pdf(y, 0, sigma) * (y[1] - y[0])
    joint = weight * (np.abs(v[:, None] - y) < 0.5)
    mass, first = joint.sum(1), joint @ y
    explained = np.sum(np.where(mass > 0, first**2 / np.maximum(mass, 1e-300), 0)) * (v[1] - v[0])
    assert channel.least_distortion(AUN, sigma, 0.0).value == pytest.approx(
        sigma**2 - explained, rel=0.01
    )


@pytest.mark.slow
def test_a_pair_carries_more_information_only_with_independent_noise():
    sigma = 0.5
    one = information_of_noise(sigma)
    assert channel.pair_information(Method("uq_s"), sigma, 0.0).value == pytest.approx(
        one, abs=2e-3
    )
    own = channel.pair_information(Method("uq_i"), sigma, 0.0).value
    # Density of the two observations: the probability that y is within 1/2 of both.
    v = (np.arange(1200) + 0.5) / 150 - 4
    low, high = np.minimum(v[:, None], v), np.maximum(v[:, None], v)
    p = np.maximum(special.ndtr((low + 0.5) / sigma) - special.ndtr((high - 0.5) / sigma), 0)
    expected = np.sum(special.entr(p)) * (v[1] - v[0]) ** 2 / np.log(2)
    assert own == pytest.approx(expected, abs=0.02)
    assert own > one + 0.3
    assert channel.pair_information(ROUND, sigma, 0.0).value == pytest.approx(
        entropy_of_rounding(sigma, 0.0), abs=1e-6
    )


def test_a_mistake_in_the_table_is_visible(alter):
    alter("aun", "louder", forward=lambda v, alpha, u: v + 2 * u)
    louder = channel.information(Method("louder"), 0.5, 0.0).value
    assert louder < information_of_noise(0.5) - 0.3
