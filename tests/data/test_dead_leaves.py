"""Tests the statistics of generated canvases against photographs and closed forms."""

import numpy as np
import pytest

from tfquant.data import dead_leaves


@pytest.fixture(scope="module")
def canvases():
    return [dead_leaves.dead_leaves([7, i], 256) for i in range(6)]


def spectrum_slope(canvas):
    """Returns the slope of log power over log frequency, from 4 / canvas to 1/4 per pixel."""
    gray = canvas.mean(axis=-1)
    size = len(gray)
    window = np.hanning(size)
    power = np.abs(np.fft.fft2((gray - gray.mean()) * window * window[:, None])) ** 2
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)) * size
    ring = np.rint(frequency).astype(int).ravel()
    radial = np.bincount(ring, power.ravel()) / np.bincount(ring)
    rings = np.arange(4, size // 4)
    return np.polyfit(np.log(rings), np.log(radial[rings]), 1)[0]


def test_the_slope_of_a_known_spectrum_is_measured():
    rng = np.random.default_rng(0)
    for slope in (0.0, 2.0):
        field = dead_leaves._power_law_field(rng, 256, slope)
        assert spectrum_slope(np.repeat(field[..., None], 3, -1)) == pytest.approx(-slope, abs=0.1)


def test_canvases_have_the_spectrum_of_photographs(canvases):
    slopes = [spectrum_slope(canvas) for canvas in canvases]
    assert -2.7 < np.mean(slopes) < -1.7
    assert min(slopes) > -3.2 and max(slopes) < -1.2


def test_canvases_use_the_range_of_values_and_differ_in_colour(canvases):
    values = np.stack(canvases)
    assert 70 < values.mean() < 150
    assert np.mean([canvas.std() for canvas in canvases]) > 25
    chroma = values[..., 0].astype(float) - values[..., 2]
    assert 5 < chroma.std() < 60


def test_radii_follow_the_inverse_cube_law():
    radius = np.sort(dead_leaves._radii(np.random.default_rng(0), 10000, 2.0, 100.0))
    cumulative = (2.0**-2 - radius**-2) / (2.0**-2 - 100.0**-2)  # The integral of r^-3, normalized.
    distance = np.abs(cumulative - (np.arange(10000) + 0.5) / 10000).max()
    assert distance < 1.95 / np.sqrt(10000)  # Kolmogorov's bound at 0.1 %.


def test_a_canvas_is_a_function_of_its_seed(canvases):
    np.testing.assert_array_equal(canvases[2], dead_leaves.dead_leaves([7, 2], 256))
    assert all((canvases[0] != other).any() for other in canvases[1:])


def test_a_canvas_smaller_than_the_grid_is_rejected():
    with pytest.raises(ValueError, match="size 32: expected at least 64"):
        dead_leaves.dead_leaves(0, 32)
