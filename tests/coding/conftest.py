"""Oracle that the tests of several tables share."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special


@pytest.fixture(scope="session")
def gaussian_bits():
    """Returns a function of (symbols, mu, sigma): -log2 P of rounded Gaussians, float64, in log
    space.
    """

    def bits(symbols, mu, sigma):
        d = np.abs(symbols - np.asarray(mu, np.float64))
        low, high = ((d + half) / np.asarray(sigma, np.float64) for half in (-0.5, 0.5))
        near, far = scipy.special.log_ndtr(-low), scipy.special.log_ndtr(-high)
        return -(near + np.log1p(-np.exp(far - near))) / np.log(2.0)

    return bits
