"""Tests means and intervals against calculations by hand with a table of Student's distribution."""

import math

import numpy as np
import pytest

from tfquant.evaluation.estimate import Estimate


@pytest.mark.parametrize(
    "values,quantile",
    [
        ([1.0, 2.0, 6.0], 4.302653),  # two degrees of freedom
        ([1.0, 2.0, 3.0, 6.0, 7.0], 2.776445),  # four
    ],
)
def test_three_values_or_more_have_students_interval(values, quantile):
    found = Estimate.of([None, *values])
    half = quantile * np.std(values, ddof=1) / math.sqrt(len(values))
    assert (found.mean, found.count) == (pytest.approx(np.mean(values)), len(values))
    assert (found.low, found.high) == (
        pytest.approx(found.mean - half, rel=1e-6),
        pytest.approx(found.mean + half, rel=1e-6),
    )


def test_two_values_have_their_range_and_one_has_none():
    assert Estimate.of([3.0, 1.0]) == Estimate(2.0, 1.0, 3.0, 2)
    assert Estimate.of([3.0, 1.0]).text(1) == "2.0 [1.0, 3.0]"
    assert Estimate.of([3.0]).text(2) == "3.00"
    assert Estimate.of([None]) is None


def test_nineteen_of_twenty_intervals_contain_the_mean():
    samples = np.random.default_rng(0).normal(5.0, 2.0, (2000, 4))
    estimates = [Estimate.of(row.tolist()) for row in samples]
    held = np.mean([each.low <= 5.0 <= each.high for each in estimates])
    assert held == pytest.approx(0.95, abs=0.015)  # three standard errors
