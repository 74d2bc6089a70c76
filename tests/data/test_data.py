"""Tests crops as a function of (seed, index), and sources."""

from __future__ import annotations

import subprocess
import sys
import types

import numpy as np
import pytest
from absl import logging
from PIL import Image

from tfquant.data import crops, images, sources
from tfquant.data.images import ImageError, write_image


class Arrays(sources.ImageSource):
    """Pictures in memory; None is a picture that cannot be read."""

    def __init__(self, pictures):
        self.pictures = pictures

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, i):
        if self.pictures[i] is None:
            raise ImageError(f"picture {i}: unreadable")
        return self.pictures[i]


def flat(count, height=40, width=50):
    """Returns picture i, filled with the value i, so that a crop shows its source."""
    return Arrays([np.full((height, width, 3), i, np.uint8) for i in range(count)])


def noise(count, height=60, width=90, seed=0):
    rng = np.random.default_rng(seed)
    return Arrays(list(rng.integers(0, 256, (count, height, width, 3), np.uint8)))


def take(source, examples, *, seed=3, crop=16, batch_size=4, downscale=(0.6, 0.95), **options):
    """Returns the first examples: images [examples, crop, crop, 3] and indices [examples]."""
    options.update(seed=seed, crop=crop, batch_size=batch_size, downscale=downscale)
    dataset = crops.training_crops(source, **options)
    batches = list(dataset.take(examples // batch_size).as_numpy_iterator())
    images = np.concatenate([batch["image"] for batch in batches])
    return images, np.concatenate([batch["index"] for batch in batches])


# Order, resumption, repetition


def test_a_stream_resumed_at_any_example_equals_the_uninterrupted_one():
    source = noise(7)
    images, index = take(source, 48)
    np.testing.assert_array_equal(index, np.arange(48))
    for first in (1, 8, 27):
        resumed, resumed_index = take(source, 20, first_example=first)
        np.testing.assert_array_equal(resumed_index, np.arange(first, first + 20))
        np.testing.assert_array_equal(resumed, images[first : first + 20])


def test_the_batch_size_changes_no_example():
    source = noise(5)
    np.testing.assert_array_equal(take(source, 24)[0], take(source, 24, batch_size=12)[0])


def test_seeds_differ_and_repeat():
    source = noise(5)
    first, again, other = take(source, 8), take(source, 8), take(source, 8, seed=4)
    np.testing.assert_array_equal(first[0], again[0])
    assert (first[0] != other[0]).any(axis=(1, 2, 3)).all()


def test_every_epoch_shows_every_picture_once_in_another_order():
    images, _ = take(flat(12), 36)
    epochs = images[:, 0, 0, 0].reshape(3, 12)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(12), (3, 1)))
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_a_late_example_needs_no_earlier_ones():
    images, index = take(noise(3), 4, first_example=10**15)
    assert index[0] == 10**15
    assert images.std() > 10


def test_shapes_are_static_and_the_stream_is_endless():
    import tensorflow as tf

    dataset = crops.training_crops(noise(2), seed=0, crop=16, batch_size=4)
    assert dataset.element_spec == {
        "image": tf.TensorSpec([4, 16, 16, 3], tf.uint8),
        "index": tf.TensorSpec([4], tf.int64),
    }
    assert dataset.cardinality() == tf.data.INFINITE_CARDINALITY


ON_TWO_DEVICES = """
import numpy as np, tensorflow as tf
from tfquant.data import crops, sources

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
source = sources.DeadLeaves(0, count=2, size=64)
dataset = crops.training_crops(source, seed=1, crop=32, batch_size=6, downscale=(0.6, 0.95))
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
whole, halves = iter(dataset), iter(strategy.experimental_distribute_dataset(dataset))
for _ in range(3):
    expected, got = next(whole), next(halves)
    for key in "image", "index":
        parts = strategy.experimental_local_results(got[key])
        assert [len(part) for part in parts] == [3, 3]
        np.testing.assert_array_equal(np.concatenate(parts), expected[key])
print("equal")
"""

# Comes after the lines of ON_TWO_DEVICES.
STOPPED_AMID_DRAWING = """
source = sources.DeadLeaves(0, count=2, size=64)
batches = iter(crops.training_crops(source, seed=1, crop=64, batch_size=64))
next(batches)
print("stopped")
"""


@pytest.mark.slow
def test_two_devices_share_the_batch_and_processes_end():
    command = [sys.executable, "-c", ON_TWO_DEVICES + STOPPED_AMID_DRAWING]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["equal", "stopped"]


# Windows, scales, mirrors


def ramp(height, width):
    """Returns a picture whose red is the column, green the row, and blue zero."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 0] = np.arange(width)
    picture[..., 1] = np.arange(height)[:, None]
    return picture


def test_without_downscale_crops_are_windows_from_everywhere():
    images, _ = take(Arrays([ramp(20, 30)]), 400, downscale=(), flip=False)
    corners = images[:, 0, 0, :2].astype(int)  # column, row
    for image, (column, row) in zip(images, corners):
        np.testing.assert_array_equal(image, ramp(20, 30)[row : row + 16, column : column + 16])
    assert set(corners[:, 0]) == set(range(15))
    assert set(corners[:, 1]) == set(range(5))


def test_half_of_the_crops_are_mirrored():
    images, _ = take(Arrays([ramp(40, 40)]), 400, downscale=())
    mirrored = images[:, 0, 0, 0] > images[:, 0, -1, 0]
    assert 160 <= mirrored.sum() <= 240  # four standard deviations


def test_downscale_factors_fill_their_interval():
    images, _ = take(Arrays([ramp(200, 200)]), 400, downscale=(0.5, 0.8), flip=False)
    rise = np.median(np.diff(images[..., 0].astype(float).mean(axis=1)[:, 2:-2]), axis=1)
    slopes = (images[:, :, 13, 0].mean(1) - images[:, :, 2, 0].astype(float).mean(1)) / 11
    assert rise.min() > 0  # The ramp still rises,
    assert 1.25 - 0.1 < slopes.min() < 1.35  # by 1 / factor a pixel.
    assert 1.9 < slopes.max() < 2.0 + 0.1


@pytest.mark.parametrize(("top", "left", "side"), [(0, 0, 40.0), (7.3, 30.6, 23.1), (20, 50, 40.0)])
def test_a_window_equals_a_part_of_the_whole_resized_picture(top, left, side):
    picture = noise(1).pictures[0]
    whole = Image.fromarray(picture)
    box = (left, top, left + side, top + side)
    expected = np.asarray(whole.resize((16, 16), Image.Resampling.BICUBIC, box=box), int)
    got = crops._resized_window(picture, top, left, side, 16).astype(int)
    assert np.abs(got - expected).max() <= 1


def test_small_pictures_are_enlarged_to_the_crop():
    wide = ramp(8, 12)
    images, _ = take(Arrays([wide]), 40, flip=False)
    rows = images[..., 1].astype(float)
    assert rows[:, 0].max() < 0.6 and rows[:, -1].min() > 6.4  # All 8 rows are in each crop,
    assert np.unique(images[:, 0, 0, 0]).size > 2  # and different columns.


def test_a_picture_of_one_pixel_gives_a_crop():
    images, _ = take(flat(1, 1, 1), 4)
    assert not images.any()


# Sources


@pytest.fixture
def folder(tmp_path):
    """Writes ten pictures; picture i has the value i, 3 is truncated, 7 is text."""
    for i, picture in enumerate(flat(10).pictures):
        write_image(tmp_path / f"{i}.png", picture)
    whole = (tmp_path / "3.png").read_bytes()
    (tmp_path / "3.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "7.png").write_text("no picture")
    return tmp_path


@pytest.fixture
def log(monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "warning", lambda line, *values: lines.append(line % values))
    return lines


def test_unreadable_files_are_named_counted_and_replaced(folder, log):
    source = sources.open_source(str(folder), seed=0, min_side=16)
    assert sum("3.png: unreadable" in line for line in log) == 1
    assert sum("7.png: not a picture" in line for line in log) == 1
    assert any("2 of 10 pictures skipped" in line for line in log)
    taken, _ = take(source, 20)
    seen = np.bincount(taken[:, 0, 0, 0], minlength=10)
    np.testing.assert_array_equal(seen, [2, 2, 2, 0, 4, 2, 2, 0, 4, 2])
    assert len(log) == 3  # once each, not once per epoch


@pytest.mark.parametrize("cache_mib", [0, 1])
def test_the_cache_changes_no_example(folder, log, monkeypatch, cache_mib):
    reads = []
    read_image = images.read_image

    def counting(path, *arguments, **options):
        reads.append(path)
        return read_image(path, *arguments, **options)

    monkeypatch.setattr(images, "read_image", counting)
    source = sources.ImageFiles(str(folder), cache_mib=cache_mib)
    taken, _ = take(source, 20)
    np.testing.assert_array_equal(taken, take(sources.ImageFiles(str(folder)), 20)[0])
    assert len([path for path in reads if path.endswith("/0.png")]) >= (2 if cache_mib else 3)
    if cache_mib:
        assert all(reads.count(path) == 2 for path in reads)  # one for each of the two sources


def test_a_folder_without_readable_pictures_is_an_error(tmp_path, log):
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(ImageError, match=r"none of 1 pictures can be read; first: .*a.png"):
        sources.open_source(str(tmp_path), seed=0, min_side=16)


def test_splitting_files_loses_and_duplicates_no_picture(folder, log):
    training, validation = sources.split(sources.ImageFiles(str(folder)), every=5)
    shown = set(take(training, 16)[0][:, 0, 0, 0])
    held = set(crops.validation_crops(validation, seed=0, crop=16, count=2)["image"][:, 0, 0, 0])
    assert held == {4, 9}
    assert shown == {0, 1, 2, 5, 6, 8}  # 3 and 7 cannot be read


def test_one_of_a_few_pictures_is_held_out():
    training, validation = sources.split(flat(3), every=10)
    assert (len(training), len(validation)) == (2, 1)
    with pytest.raises(ImageError, match="one picture alone"):
        sources.split(flat(1), every=10)
    with pytest.raises(ValueError, match="every 1: "):
        sources.split(flat(3), every=1)


def test_split_dead_leaves_have_no_canvas_in_common():
    training, validation = sources.split(sources.DeadLeaves(5, count=3, size=64))
    assert (len(training), len(validation)) == (3, 8)
    for canvas in validation:
        assert all((canvas != other).any() for other in training)


def test_validation_crops_are_fixed_and_spread_over_the_pictures():
    source = flat(10)
    first = crops.validation_crops(source, seed=1, crop=16, count=5, downscale=(0.6, 0.95))
    np.testing.assert_array_equal(first["image"][:, 0, 0, 0], [0, 2, 4, 6, 8])
    np.testing.assert_array_equal(first["index"], np.arange(5))
    many = crops.validation_crops(noise(3), seed=1, crop=16, count=7)["image"]
    np.testing.assert_array_equal(
        many, crops.validation_crops(noise(3), seed=1, crop=16, count=7)["image"]
    )
    assert len({image.tobytes() for image in many}) == 7


def test_tfds_without_the_package_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImageError, match=r"pip install -c constraints.txt -e '.\[tfds\]'"):
        sources.open_source("tfds:clic", seed=0, min_side=16)


def test_tfds_pictures_are_kept_as_rgb_up_to_the_cache_size(monkeypatch, log):
    gray = np.random.default_rng(0).integers(0, 256, (400, 500, 1), np.uint8)
    colour = np.random.default_rng(1).integers(0, 256, (400, 500, 3), np.uint8)
    stub = types.SimpleNamespace(
        load=lambda name, split, shuffle_files: (
            [{"image": p} for p in (gray, colour)]
            if (name, split, shuffle_files) == ("clic", "train", False)
            else [{"label": 0}]
        ),
        as_numpy=lambda examples: examples,
    )
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", stub)
    source = sources.open_source("tfds:clic", seed=0, min_side=16)
    np.testing.assert_array_equal(source[0], np.repeat(gray, 3, axis=-1))
    np.testing.assert_array_equal(source[1], colour)
    assert take(source, 4)[0].std() > 10
    assert len(sources.open_source("tfds:clic", seed=0, min_side=16, cache_mib=1)) == 1
    assert "the first 1 pictures fill the cache" in log[-1]
    with pytest.raises(ImageError, match="expected a feature 'image', got label"):
        sources.open_source("tfds:digits", seed=0, min_side=16)


def test_errors_of_arguments_name_the_valid_range():
    for wrong, message in (
        ({"crop": 0}, "crop 0: expected at least 1"),
        ({"batch_size": 0}, "batch_size 0: expected at least 1"),
        ({"seed": -1}, "seed -1: expected at least 0"),
        ({"first_example": -4}, "first_example -4: expected at least 0"),
        ({"downscale": (0.9, 0.5)}, "smallest <= largest <= 1"),
        ({"downscale": (0.5, 1.5)}, "smallest <= largest <= 1"),
        ({"downscale": (0.5,)}, r"two factors, .*; got \(0.5,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            crops.training_crops(flat(1), **{"seed": 0, "crop": 8, "batch_size": 2, **wrong})


def test_the_pool_covers_the_largest_window():
    source = sources.DeadLeaves(0, count=1, size=80)
    assert source[0].shape == (80, 80, 3)
