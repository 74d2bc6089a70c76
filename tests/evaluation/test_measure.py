"""Tests measurements of a picture and their means."""

from __future__ import annotations

import numpy as np

from tfquant.evaluation import measure
from tfquant.evaluation.results import Measurement


def noisy(size, seed=0):
    rng = np.random.default_rng(seed)
    picture = rng.integers(60, 190, (*size, 3), np.uint8)
    return picture, picture + rng.integers(0, 9, picture.shape, np.uint8)


def test_a_picture_smaller_than_the_pyramid_has_no_ms_ssim_and_a_note():
    picture, decoded = noisy((160, 300))
    quality = measure.quality(picture, decoded)
    assert quality.ms_ssim is None and quality.ms_ssim_db is None and quality.psnr > 30
    row = Measurement("small", 1.0, **quality._asdict())
    (line,) = measure.missing_values({"a codec": [[row], [row]]})
    assert "both sides >= 161" in line and "1 of 1" in line and "small" in line


def test_a_picture_of_161_pixels_has_ms_ssim():
    quality = measure.quality(*noisy((161, 161)))
    assert 0.9 < quality.ms_ssim < 1
    np.testing.assert_allclose(quality.ms_ssim_db, -10 * np.log10(1 - quality.ms_ssim), 1e-4)


def test_an_identical_picture_has_no_finite_decibels():
    picture, _ = noisy((161, 170))
    assert measure.quality(picture, picture) == measure.Quality(None, 1.0, None)


def test_means_ignore_missing_values():
    rows = [
        Measurement("a", bpp=0.2, psnr=30.0, ms_ssim=0.9, ms_ssim_db=10.0),
        Measurement("b", bpp=0.4, psnr=None, ms_ssim=0.98, ms_ssim_db=17.0),
        Measurement("c", bpp=0.6, psnr=36.0, ms_ssim=None, ms_ssim_db=None),
    ]
    mean = measure.mean(rows)
    np.testing.assert_allclose(mean.bpp, 0.4)
    np.testing.assert_allclose(mean.psnr, 33.0)
    np.testing.assert_allclose(mean.ms_ssim, 0.94)
    assert mean.name == "mean" and mean.encode_s is None
    small, exact = measure.missing_values({"a codec": [rows]})
    assert "1 of 3 pictures are smaller and have none (c)" in small
    assert "1 of 3 pictures are in no curve and no BD-rate" in exact and "(b: a codec)" in exact


def test_mean_ms_ssim_decibels_are_those_of_the_mean_as_in_published_curves():
    rows = [Measurement(n, 1.0, ms_ssim=v, ms_ssim_db=0.0) for n, v in (("a", 0.9), ("b", 0.998))]
    expected = -10 * np.log10(1 - 0.949)
    np.testing.assert_allclose(measure.mean(rows).ms_ssim_db, expected, rtol=1e-5)


def test_bits_per_pixel_count_the_whole_file():
    assert measure.bits_per_pixel(100, np.zeros([10, 20, 3])) == 4.0
