"""Tests conventional codecs: real bytes, plausible curves, a cache with the same numbers."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from tfquant.data import images
from tfquant.evaluation import EvaluationError, conventional
from tfquant.evaluation.pictures import Picture

AVAILABLE = [name for name in conventional.CODECS if conventional.is_available(name)]


@pytest.fixture
def pictures(tmp_path, make_photograph):
    found = []
    for i, size in enumerate([(48, 64), (170, 161)]):
        images.write_image(tmp_path / f"{i}.png", make_photograph(*size, seed=i))
        found.append(Picture(str(i), tmp_path / f"{i}.png"))
    return found


@pytest.fixture
def measurer(tmp_path):
    return conventional.Measurer(tmp_path / "cache.json")


@pytest.mark.slow
def test_a_jpeg_point_is_the_size_of_the_file_that_pillow_writes(pictures, measurer):
    points, refused = measurer.curve(conventional.CODECS["jpeg"], pictures, lambda: None)
    assert not refused
    assert [p.setting for p in points] == list(conventional.CODECS["jpeg"].settings)
    file = io.BytesIO()
    Image.open(pictures[1].path).save(file, "JPEG", quality=30, subsampling=2, optimize=True)
    point = next(p for p in points if p.setting == 30)
    assert point.images[1].bpp == 8 * len(file.getvalue()) / (170 * 161)
    decoded = np.asarray(Image.open(file), float)
    error = np.mean((decoded - pictures[1].read()) ** 2)
    np.testing.assert_allclose(point.images[1].psnr, 10 * np.log10(255**2 / error), rtol=1e-5)


@pytest.mark.parametrize("name", AVAILABLE)
def test_quality_increases_with_the_rate(name, pictures):
    codec = conventional.CODECS[name]
    picture = pictures[1].read()
    sizes, errors = [], []
    for setting in codec.settings:
        data = codec.encode(picture, setting)
        decoded = codec.decode(data)
        assert decoded.dtype == np.uint8 and decoded.shape == picture.shape
        sizes.append(len(data))
        errors.append(np.mean((decoded.astype(float) - picture) ** 2))
    assert sizes == sorted(sizes) and errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.3 * errors[0]


@pytest.mark.parametrize("name", AVAILABLE)
def test_every_codec_encodes_a_picture_of_one_pixel(name):
    codec = conventional.CODECS[name]
    picture = np.full([1, 1, 3], 90, np.uint8)
    assert codec.decode(codec.encode(picture, codec.settings[0])).shape == (1, 1, 3)


def test_jpeg_2000_uses_its_colour_transform(photograph):
    picture = photograph[..., :1] // 2 + np.array([20, 60, 90], np.uint8)
    codec = conventional.CODECS["jpeg2000"]
    file = io.BytesIO()
    options = {**codec.options(0.5), "mct": 0}
    Image.fromarray(picture).save(file, "JPEG2000", **options)
    without = np.mean((codec.decode(file.getvalue()).astype(float) - picture) ** 2)
    with_it = np.mean((codec.decode(codec.encode(picture, 0.5)).astype(float) - picture) ** 2)
    assert with_it < without


def test_the_nearest_rate_is_the_nearest_of_all_qualities(pictures, measurer):
    codec = conventional.CODECS["jpeg"]
    pictures = pictures[1:]
    point = measurer.nearest_rate(codec, pictures, 0.8)
    picture = pictures[0].read()
    rates = [8 * len(codec.encode(picture, q)) / picture[..., 0].size for q in range(1, 96)]
    assert abs(point.mean.bpp - 0.8) == np.min(np.abs(np.array(rates) - 0.8))


@pytest.mark.slow
def test_a_second_report_uses_the_cached_numbers(pictures, tmp_path, measurer, monkeypatch):
    codec = conventional.CODECS["webp"]
    first = measurer.curve(codec, pictures, lambda: None)
    monkeypatch.setattr(conventional.ConventionalCodec, "encode", None)
    again = conventional.Measurer(tmp_path / "cache.json").curve(codec, pictures, lambda: None)
    assert again == first and len(first.points) == len(codec.settings)


def test_a_corrupt_cache_is_measured_again(tmp_path, pictures, measurer):
    codec = conventional.CODECS["jpeg"]
    measurer.curve(codec, pictures[:1], lambda: None)
    text = (tmp_path / "cache.json").read_text()
    (tmp_path / "cache.json").write_text(text[: len(text) // 2])
    conventional.Measurer(tmp_path / "cache.json").curve(codec, pictures[:1], lambda: None)
    assert len(json.loads((tmp_path / "cache.json").read_text())) == len(codec.settings)


def test_an_unknown_codec_lists_the_choices():
    with pytest.raises(EvaluationError, match="unknown codec 'jpg'; known: jpeg, jpeg444"):
        conventional.choose(["jpg"])


def test_a_codec_that_pillow_lacks_is_skipped_and_named(monkeypatch):
    monkeypatch.setattr(conventional.features, "check", lambda feature: feature != "avif")
    codecs, notes = conventional.choose(["jpeg", "avif"])
    assert list(codecs) == ["jpeg"]
    assert len(notes) == 1 and notes[0].startswith("AVIF 4:2:0 is skipped: Pillow")
