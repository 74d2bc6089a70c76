"""Tests training pictures that cannot be read: they are skipped and named, and no run ends."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfquant.data import crops, sources
from tfquant.data.images import ImageError


@pytest.fixture
def make(tmp_path):
    """Returns a function, `make("good", "clear", ...)`, that makes a folder of numbered
    pictures.
    """

    def make(*kinds):
        folder = tmp_path / "pictures"
        folder.mkdir()
        for i, kind in enumerate(kinds):
            path = folder / f"{i:02d}.png"
            if kind == "good":
                Image.new("RGB", (20, 20), (i, i, i)).save(path)
            elif kind == "clear":
                Image.new("RGBA", (20, 20), (i, i, i, 0)).save(path)
            else:
                path.write_bytes(b"no picture")
        return str(folder)

    return make


def shown(source, count):
    """Returns the values of the pictures in crops of the source."""
    batch = crops.validation_crops(source, seed=0, crop=16, count=count)["image"]
    return set(batch[:, 0, 0, 0].tolist())


@pytest.mark.parametrize("cache_mib", [0, 2048])
@pytest.mark.parametrize("kind", ["clear", "broken"])
def test_an_unreadable_validation_picture_is_replaced(make, kind, cache_mib):
    source = sources.open_source(make(*["good"] * 9, kind), 0, 16, cache_mib=cache_mib)
    training, validation = sources.split(source)
    assert shown(validation, 4) == {8} and shown(training, 8) == set(range(8))
    (line,) = source.left_out()
    assert "09.png" in line


def test_one_unreadable_picture_of_several_does_not_change_the_split(make):
    kinds = ["good"] * 20
    kinds[9] = "broken"
    training, validation = sources.split(sources.open_source(make(*kinds), 0, 16))
    assert shown(validation, 4) == {19} and len(training) == 18


def test_training_without_pictures_gets_one_from_validation(make):
    kinds = ["broken"] * 9 + ["good"] + ["broken"] * 9 + ["good"]
    training, validation = sources.split(sources.open_source(make(*kinds), 0, 16))
    assert (shown(training, 2), shown(validation, 2)) == ({9}, {19})


@pytest.mark.parametrize("kinds", [("broken", "good"), ("good", "broken"), ("clear", "good")])
def test_one_readable_picture_of_two_is_rejected_with_the_reason(make, kinds):
    source = sources.open_source(make(*kinds), 0, 16)
    with pytest.raises(ImageError, match=r"only one of 2 pictures can be read: .*0[01].png: ") as e:
        sources.split(source)
    assert "\n" not in str(e.value)


def test_transparent_pictures_are_used_with_a_background(make):
    folder = make("good", "clear", "good")
    source = sources.open_source(folder, 0, 16, background=(7, 8, 9))
    assert source[1][0, 0].tolist() == [7, 8, 9] and source.left_out() == []


def test_pictures_deleted_during_training_end_the_run_with_one_line(make):
    folder = make("good", "good", "good")
    source = sources.open_source(folder, 0, 16, cache_mib=0)
    stream = crops.training_crops(source, seed=0, crop=16, batch_size=2)
    shutil.rmtree(folder)
    message = r"no training picture can be read; last: .*\.png: no such file$"
    with pytest.raises(ImageError, match=message), crops.picture_errors():
        for batch in stream.take(1):
            np.asarray(batch["image"])
    with pytest.raises(tf.errors.OpError), crops.picture_errors():  # others stay what they are
        tf.debugging.Assert(False, ["other"])


def test_all_spellings_of_a_source_are_equal(make, tmp_path, monkeypatch):
    folder = make("good")
    (tmp_path / "link").symlink_to("pictures")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    ways = [folder, "pictures", "pictures/", "./pictures", "link/", "~/pictures", " pictures ",
            "other/../pictures"]  # fmt: skip
    assert len({sources.canonical(way) for way in ways}) == 1
    assert sources.canonical("other") != sources.canonical(folder)
    assert sources.canonical("records:pictures/") == sources.canonical(f"records:{folder}")
    assert sources.canonical("records:pictures") != sources.canonical("pictures")
    assert sources.canonical("") == sources.canonical("dead_leaves")
    assert sources.canonical("pictures/,other") == sources.canonical("other , link")
