"""Table II: published numbers, limits, and integrals that are computed in another way."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy import special, stats

from tfquant.analysis import gradient_risk
from tfquant.analysis.experiment import Progress
from tfquant.quantization.surrogates import Branch


def bits_slope(d, sigma):
    """Returns `d/dv -log2 p(v)` for `v - mu = d`, from the tail that does not cancel, by
    symmetry.
    """
    c = np.abs(d)
    p = special.ndtr((0.5 - c) / sigma) - special.ndtr((-0.5 - c) / sigma)
    rise = stats.norm.pdf((c - 0.5) / sigma) - stats.norm.pdf((c + 0.5) / sigma)
    return np.sign(d) * rise / (sigma * p * np.log(2))


# "On Uniform Scalar Quantization", Table II. For sigma 1, all digits agree.
@pytest.mark.parametrize(
    "spec,alpha,sigma,bias,variance",
    [
        ("aun:pathwise", 1.0, 0.2, 0.0, 11.93),
        ("aun:pathwise", 1.0, 1.0, 0.0, 0.15),
        ("sua:straight_through", 5.0, 1.0, 0.16, 0.36),
        ("sua:straight_through", 10.0, 1.0, 0.24, 0.92),
        ("sr:straight_through", 1.0, 0.2, 2.95, None),
        ("sr:straight_through", 1.0, 1.0, 0.33, 0.30),
        ("sra:straight_through", 5.0, 1.0, 0.33, 0.62),
    ],
)
def test_the_papers_table_is_reproduced(spec, alpha, sigma, bias, variance):
    found = gradient_risk.risk(Branch.parse(spec), alpha, sigma, 16)
    assert found[0] == pytest.approx(bias, rel=0.03, abs=0.006)
    if variance is not None:
        assert found[1] == pytest.approx(variance, rel=0.05)


@pytest.mark.parametrize("name", ["uq_i", "sua_n", "sua", "sr", "sra"])
def test_the_expected_gradient_has_neither_bias_nor_variance(name):
    bias, variance = gradient_risk.risk(Branch(name, "expected"), 5.0, 0.5, 16)
    assert bias < 2e-3
    assert variance < 1e-20


@pytest.mark.slow
def test_pathwise_variance_of_sua_is_the_integral_over_the_denoised_value():
    """Uses v = r_a(s_a(y) + u): du = s_a'(v - 1/2) dv, and the slope is s_a'(y) / s_a'(v - 1/2)."""
    alpha, sigma = 5.0, 1.0

    def slope(y):
        r = y - np.floor(y) - 0.5
        return alpha / (2 * np.tanh(alpha / 2) * np.cosh(alpha * r) ** 2)

    y = (np.arange(100) + 0.5) / 100
    v = y + ((np.arange(1000) + 0.5) / 1000 - 0.5)[:, None]
    density = slope(v - 0.5)
    total = 0.0
    nodes, weights = np.polynomial.hermite_e.hermegauss(41)
    for eps, weight in zip(nodes, weights / weights.sum()):
        R = bits_slope(v - y + sigma * eps, sigma)
        mean = slope(y) * np.mean(R, axis=0)
        square = slope(y) ** 2 * np.mean(R**2 / density, axis=0)
        total += weight * np.mean(square - mean**2)
    _, found = gradient_risk.risk(Branch("sua", "pathwise"), alpha, sigma, 32)
    assert found == pytest.approx(total, rel=0.02)


@pytest.mark.slow
def test_pathwise_gradients_have_no_bias_and_straight_through_has():
    assert gradient_risk.risk(Branch("sga", "pathwise"), 4.0, 1.0, 32)[0] < 0.01
    assert gradient_risk.risk(Branch("sga", "straight_through"), 4.0, 1.0, 24)[0] > 0.5


def test_no_mean_gives_stochastic_rounding_the_papers_variance_at_small_sigma():
    branch = Branch("sr", "straight_through")
    found = [gradient_risk.risk_about(branch, 1.0, 0.2, mu, 4)[1] for mu in (0.0, 0.25, 0.5)]
    assert min(found) == pytest.approx(28.6, rel=0.01)
    assert max(found) == pytest.approx(49.6, rel=0.01)


@pytest.mark.slow
def test_the_papers_variance_of_stochastic_rounding_is_that_of_a_mean_at_the_centre_of_a_bin():
    """Checks a statement of `docs/paper.md`: `y` uniform over a bin with `mu` at its centre."""
    y = (np.arange(64) + 0.5) / 64
    for spec, alpha, variance in (
        ("sr:straight_through", 1.0, 22.1),
        ("sra:straight_through", 5.0, 45.1),
        ("sra:straight_through", 10.0, 88.3),
        ("aun:pathwise", 1.0, 17.7),
    ):
        _, found = gradient_risk.conditional_risk(
            Branch.parse(spec), alpha, 0.2, y, np.full([1, 64], 0.5), 8
        )
        assert found.mean() == pytest.approx(variance, rel=0.01)


@pytest.mark.slow
def test_the_result_contains_the_papers_numbers_and_the_differences(monkeypatch):
    monkeypatch.setattr(gradient_risk, "_RESOLUTION", 8)
    settings = gradient_risk.EXPERIMENT.settings(surrogates=("sr",))
    result = gradient_risk.run(settings, Progress("test"))
    assert ",".join(result.columns) == (
        "backward,forward,alpha,sigma,bias,variance,variance_low,variance_high,paper_bias,"
        "paper_variance"
    )
    rows = {(r["backward"], r["sigma"]): r for r in result.rows}
    assert set(rows) == {("STE", 0.2), ("STE", 1.0), ("EP", 0.2), ("EP", 1.0)}
    here = rows["STE", 0.2]
    assert here["variance_low"] <= here["variance"] <= here["variance_high"]
    assert (here["paper_bias"], here["paper_variance"]) == (2.95, 22.30)
    assert rows["EP", 1.0]["paper_bias"] is None
    assert "| SR, STE | 0.2 | variance | 38.2 | 22.3 |" in re.sub(" +", " ", result.notes)
    assert "| SR, STE | 1 |" not in re.sub(" +", " ", result.notes)
