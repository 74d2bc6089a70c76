"""Tests the search for the pictures of an evaluation."""

from __future__ import annotations

import numpy as np
import pytest

from tfquant import metrics
from tfquant.data import images
from tfquant.evaluation import pictures


def test_files_with_equal_stems_get_different_names(tmp_path):
    picture = np.zeros([2, 2, 3], np.uint8)
    for name in ("a/x.png", "b/x.png"):
        (tmp_path / name).parent.mkdir()
        images.write_image(tmp_path / name, picture)
    found = pictures.find_pictures(str(tmp_path), tmp_path / "unused").pictures
    assert [p.name for p in found] == ["a__x", "b__x"]
    assert not (tmp_path / "unused").exists()


def test_an_empty_folder_is_rejected(tmp_path):
    with pytest.raises(images.ImageError):
        pictures.find_pictures(str(tmp_path), tmp_path)


@pytest.mark.slow
def test_the_sample_repeats_and_is_large_enough_for_ms_ssim(tmp_path):
    found = pictures.find_pictures(pictures.SAMPLE, tmp_path / "sample").pictures
    assert {"hopper", "leaves"} <= {p.name for p in found}
    contents = [p.read() for p in found]
    for picture in contents:
        assert min(picture.shape[:2]) >= metrics.FULL_PYRAMID_SIDE
        assert picture.std() > 20
    again = pictures.find_pictures(pictures.SAMPLE, tmp_path / "again").pictures
    for picture, other in zip(contents, again):
        np.testing.assert_array_equal(picture, other.read())
