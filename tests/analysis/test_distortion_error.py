"""Fig. 2 and 3: trained networks are close to the best transform, and the limits hold."""

from __future__ import annotations

import numpy as np
import pytest

from tfquant.analysis import channel, distortion_error, distortion_error_2d, pairs
from tfquant.analysis.maps import ROUNDING, Method

STEPS = 500


@pytest.fixture(scope="module")
def trained():
    """Returns method -> distortion for (mu, sigma), with sigma 0.4."""
    methods = (ROUNDING, Method("aun"), Method("sha", 2.0))
    return {m: distortion_error.Synthesis(m, (0.4,), STEPS).distortion() for m in methods}


@pytest.mark.slow
@pytest.mark.parametrize("mu", distortion_error.MEANS)
def test_training_finds_the_best_transform(trained, mu):
    for method in (ROUNDING, Method("aun")):
        best = channel.least_distortion(method, 0.4, mu).value
        assert trained[method][mu, 0.4][0] == pytest.approx(best, rel=0.06)


@pytest.mark.parametrize("mu", distortion_error.MEANS)
def test_the_soft_staircase_has_a_relative_error_of_about_minus_one(trained, mu):
    sha, rounding = (trained[m][mu, 0.4][0] for m in (Method("sha", 2.0), ROUNDING))
    assert -1.0 < sha / rounding - 1.0 < -0.97


def test_a_correlated_pair_has_the_moments_it_should():
    y = pairs.correlated(200_000, 0.5, 0.8, 3)
    np.testing.assert_allclose(np.cov(y.T), 0.25 * np.array([[1, 0.8], [0.8, 1]]), atol=0.004)
    np.testing.assert_array_equal(*pairs.correlated(10, 1.0, 1.0, 3).T)


def test_only_shared_noise_keeps_equal_latents_equal():
    y = np.repeat(np.linspace(-1, 1, 50)[:, None], 2, axis=1)
    for name, equal in (("round", True), ("uq_s", True), ("uq_i", False), ("sr", False)):
        y_tilde = pairs.surrogate(Method(name), y, 0)
        assert np.array_equal(y_tilde[:, 0], y_tilde[:, 1]) == equal, name
        assert np.abs(y_tilde - y).max() <= 1.0


@pytest.mark.slow
def test_two_noisy_observations_of_one_number_are_better_than_one(monkeypatch):
    monkeypatch.setattr(distortion_error_2d, "CORRELATIONS", (0.0, 1.0))
    monkeypatch.setattr(distortion_error_2d, "_SAMPLES", 1 << 15)
    monkeypatch.setattr(distortion_error_2d, "_TEST", 1 << 13)
    found = {
        name: distortion_error_2d.distortions(Method(name), (1.0,), STEPS, 0)
        for name in ("round", "uq_s", "uq_i")
    }
    # Independent latents do not help each other.
    alone = channel.least_distortion(Method("uq_i"), 1.0, 0.0).value
    assert found["uq_i"][1.0, 0.0][0] == pytest.approx(alone, rel=0.08)
    rounding, shared, own = (found[n][1.0, 1.0][0] for n in ("round", "uq_s", "uq_i"))
    assert shared == pytest.approx(rounding, rel=0.08)
    assert own < 0.7 * rounding
