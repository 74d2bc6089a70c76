"""Tests curves: BD-rates with known results, interpolation, published files."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tfquant.evaluation import EvaluationError, curves


def curve(name, bpp, psnr, kind="model"):
    return curves.Curve(name, kind, tuple(map(curves.Point, bpp, psnr)))


BPP = np.array([0.1, 0.2, 0.35, 0.6, 1.0])
PSNR = np.array([27.0, 29.5, 31.6, 33.8, 36.1])


@pytest.mark.parametrize("method", curves.METHODS)
@pytest.mark.parametrize("factor, percent", [(1.1, 10.0), (0.8, -20.0), (1.0, 0.0)])
def test_bd_rate_of_a_curve_at_scaled_rates_is_the_scaling(method, factor, percent):
    result = curves.bd_rate(curve("a", BPP, PSNR), curve("b", factor * BPP, PSNR), "psnr", method)
    np.testing.assert_allclose(result.percent, percent, atol=1e-6)
    assert result.quality == (27.0, 36.1) and not result.note


def test_bd_rate_of_two_points_averages_over_the_common_qualities_alone():
    anchor = curve("a", 0.1 * 2 ** ((np.linspace(20, 44, 49) - 20) / 6), np.linspace(20, 44, 49))
    test = curve("b", [0.5, 1.0], [31.0, 37.0])  # Two points on 2^(PSNR / 6) too, shifted.
    result = curves.bd_rate(anchor, test, "psnr", "akima")
    expected = 100 * (0.5 / (0.1 * 2 ** (11 / 6)) - 1)
    np.testing.assert_allclose(result.percent, expected, rtol=1e-6)
    assert result.quality == (31.0, 37.0)


@pytest.mark.parametrize(
    "test, method, words",
    [
        (curve("one", [0.3], [30.0]), "akima", "one: 1 point.* akima needs 2"),
        (curve("three", BPP[:3], PSNR[:3]), "cubic", "three: 3 point.* cubic needs 4"),
        (curve("bent", BPP, [27, 29, 28.5, 33, 36]), "pchip", "bent: PSNR .* does not grow"),
        (curve("apart", BPP, PSNR + 20), "akima", "a and apart have no PSNR .* in common: 27.00"),
    ],
)
def test_an_undefined_bd_rate_has_a_reason_in_one_line(test, method, words):
    result = curves.bd_rate(curve("a", BPP, PSNR), test, "psnr", method)
    assert result.percent is None
    assert "\n" not in result.note
    assert re.search(words, result.note)


def line(name, low, high, rate=0.1):
    """Returns two points on `rate * 2^(PSNR / 6)`. BD-rates of such curves are ratios of rates."""
    return curve(name, [rate * 2 ** (q / 6) for q in (low, high)], [low, high])


@pytest.mark.parametrize("method", ["akima", "pchip"])
@pytest.mark.parametrize(
    "low, high, enough",
    [
        (32.98, 36.0, False),  # 0.02 dB
        (31.51, 36.0, False),  # less than half of a's 3 dB
        (31.49, 36.0, True),
        (29.0, 30.51, False),  # of its own 1.51 dB
        (29.0, 31.01, True),
        (29.0, 31.0, True),
        (31.0, 31.09, False),  # all of it, and yet nothing
        (31.0, 31.11, True),
        (10.0, 50.0, True),  # all of a's
    ],
)
def test_a_bd_rate_needs_half_of_the_shorter_curve_and_a_tenth_of_a_decibel(
    low, high, enough, method
):
    anchor, test = line("a", 30.0, 33.0), line("b", low, high, 0.11)
    result = curves.bd_rate(anchor, test, "psnr", method)
    np.testing.assert_allclose(result.quality, (max(low, 30), min(high, 33)))
    if enough:
        np.testing.assert_allclose(result.percent, 10)
        assert not result.note
    else:
        assert result.percent is None
        assert result.note == curves.bd_rate(test, anchor, "psnr", method).note


def test_a_bd_rate_with_too_little_overlap_reports_the_overlap():
    result = curves.bd_rate(line("b", 30.0, 33.0), line("a", 32.98, 36.5), "psnr", "akima")
    assert result.note == (
        "a and b overlap by 0.020 dB of PSNR [dB], from 32.98 to 33.00, 0.7 % of the shorter curve;"
        " at least 50 % and 0.1 dB are needed"
    )


def test_the_rate_for_a_quality_is_interpolated_in_its_logarithm():
    c = curve("a", [0.1, 0.4], [30.0, 36.0])
    np.testing.assert_allclose(curves.bpp_at(c, "psnr", 33.0), 0.2)
    np.testing.assert_allclose(curves.bpp_at(c, "psnr", 30.0), 0.1)
    assert curves.bpp_at(c, "psnr", 29.9) is None and curves.bpp_at(c, "psnr", 36.1) is None


def write(path, text):
    path.write_text(text)
    return path


PUBLISHED = """metric,codec,bpp,value
PSNR,BPG 4:4:4,0.2,29.0
MS-SSIM,BPG 4:4:4,0.2,0.9
PSNR,"Codec, with a comma",0.2,31.0
PSNR,BPG 4:4:4,0.1,27.0
"""


def test_published_points_are_read_with_ms_ssim_in_decibels(tmp_path):
    c = curves.read_published(write(tmp_path / "a.csv", PUBLISHED), "BPG 4:4:4")
    np.testing.assert_allclose(c.samples("psnr"), [[0.1, 27], [0.2, 29]])
    np.testing.assert_allclose(c.samples("ms_ssim_db"), [[0.2, 10]], rtol=1e-5)


@pytest.mark.parametrize(
    "text, codec, words",
    [
        (PUBLISHED, "HEIC", "no codec 'HEIC'; known: 'BPG 4:4:4', 'Codec, with a comma'"),
        ("metric,codec,rate\n", "x", "lacks the column.* bpp, value; expected metric,codec"),
        ("metric,codec,bpp,value\nPSNR,x,low,30\n", "x", "line 2: expected numbers .* 'low'"),
        ("", "x", "lacks the column"),
    ],
)
def test_an_invalid_anchor_is_rejected_in_one_line(tmp_path, text, codec, words):
    with pytest.raises(EvaluationError, match=words):
        curves.read_published(write(tmp_path / "a.csv", text), codec)


def test_a_missing_anchor_is_rejected(tmp_path):
    with pytest.raises(EvaluationError, match="none.csv cannot be read: No such file"):
        curves.read_published(tmp_path / "none.csv", "x")
