"""Tests TFRecord sets against their source files, `struct` and TensorFlow's reader."""

from __future__ import annotations

import json
import os
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfquant import cli
from tfquant.data import crops, images, records, sources
from tfquant.data.images import ImageError

NAMES = ["a.jpg", "b.png", "deep/c.tif", "deep/d.webp", "e.png"]


@pytest.fixture(name="pictures")
def _pictures(tmp_path, make_photograph):
    """Writes five pictures in four formats, and two files that are not pictures."""
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    for seed, name in enumerate(NAMES):
        image = Image.fromarray(make_photograph(40 + seed, 56, seed))
        image.save(folder / name, **({"lossless": True} if name.endswith("webp") else {}))
    (folder / "broken.png").write_bytes((folder / "b.png").read_bytes()[:-200])
    (folder / "text.jpg").write_text("no picture")
    return folder


@pytest.fixture(name="made")
def _made(pictures, tmp_path, capsys):
    out = tmp_path / "set"
    assert cli.main(["records", str(pictures), str(out), "--shards=3"]) == 1
    printed = capsys.readouterr()
    assert printed.out == f"{out}: 5 of 7 pictures in 3 shards\n"
    broken, text, counted = printed.err.splitlines()
    assert counted == "tfquant: 2 of 7 pictures are not in the set"
    assert broken.startswith(f"tfquant: {pictures / 'broken.png'}: unreadable: ")
    assert text.startswith(f"tfquant: {pictures / 'text.jpg'}: not a picture")
    return out


def parsed(path):
    """Returns a shard's (encoded, filename)s, read by TensorFlow's reader and parser."""
    features = {name: tf.io.FixedLenFeature([], tf.string)
                for name in ("image/encoded", "image/filename")}  # fmt: skip
    for record in tf.data.TFRecordDataset(str(path)):
        values = tf.io.parse_single_example(record, features)
        yield values["image/encoded"].numpy(), values["image/filename"].numpy().decode()


def test_png_and_jpeg_keep_their_bytes_and_others_their_pixels(made, pictures):
    shards = sorted(made.glob("*.tfrecord"))
    assert [path.name for path in shards] == [f"{k:05d}-of-00003.tfrecord" for k in range(3)]
    found = {name: encoded for path in shards for encoded, name in parsed(path)}
    assert list(found) == NAMES
    for name, encoded in found.items():
        if name.endswith(("jpg", "png")):
            assert encoded == (pictures / name).read_bytes()
        else:
            assert encoded.startswith(b"\x89PNG")
        expected = images.read_image(pictures / name)
        np.testing.assert_array_equal(images.read_image(name, data=encoded), expected)


def test_the_index_has_the_offsets_of_every_record(made):
    index = json.loads((made / "records.json").read_text())
    for name, sizes in index["shards"].items():
        rest = (made / name).read_bytes()
        for size in sizes:
            (length,) = struct.unpack("<Q", rest[:8])
            assert length == size
            rest = rest[8 + 4 + size + 4 :]
        assert not rest
    assert [len(sizes) for sizes in index["shards"].values()] == [2, 1, 2]


def test_a_set_gives_the_same_examples_as_its_folder(made, pictures):
    """Tests that example i is the same for every start of the stream."""
    for name in ("broken.png", "text.jpg"):
        (pictures / name).unlink()
    options = {"seed": 3, "crop": 16, "batch_size": 4, "downscale": (0.6, 0.95)}
    for first in (0, 17):
        of_files, of_records, uncached = (
            next(iter(crops.training_crops(source, first_example=first, **options)))
            for source in (
                sources.open_source(str(pictures), 0, 16),
                sources.open_source(f"records:{made}", 0, 16),
                sources.open_source(f"records:{made}", 0, 16, cache_mib=0),
            )
        )
        np.testing.assert_array_equal(of_records["image"], of_files["image"])
        np.testing.assert_array_equal(uncached["image"], of_files["image"])


def test_file_names_are_complete_without_a_common_folder(pictures, tmp_path, monkeypatch):
    for name in ("broken.png", "text.jpg"):
        (pictures / name).unlink()
    monkeypatch.chdir(pictures)
    assert cli.main(["records", ".", str(tmp_path / "set"), "--shards=1"]) == 0
    (shard,) = (tmp_path / "set").glob("*.tfrecord")
    assert [name for _, name in parsed(shard)] == NAMES


def test_the_same_pictures_give_the_same_set(made, pictures, tmp_path):
    copy = pictures.rename(tmp_path / "elsewhere")
    assert cli.main(["records", str(copy), str(tmp_path / "again"), "--shards=3", "--jobs=5"]) == 1
    for path in made.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_only_an_existing_set_is_overwritten(made, pictures, tmp_path, capsys):
    before = {path.name: path.read_bytes() for path in made.iterdir()}
    command = ["records", str(pictures), str(made), "--shards=2"]
    assert cli.main(command) == 1
    assert capsys.readouterr().err == (
        f"tfquant: {made}: exists already; use --overwrite to replace it\n"
    )
    assert {path.name: path.read_bytes() for path in made.iterdir()} == before
    assert cli.main([*command, "--overwrite"]) == 1
    assert len(list(made.iterdir())) == 3
    other = tmp_path / "precious"
    other.mkdir()
    (other / "letter").write_text("dear")
    capsys.readouterr()
    assert cli.main(["records", str(pictures), str(other), "--overwrite"]) == 1
    assert "it exists and is not a set of records" in capsys.readouterr().err
    assert [path.name for path in other.iterdir()] == ["letter"]


def test_a_failed_set_leaves_no_files(pictures, tmp_path, capsys):
    command = ["records", str(pictures), str(tmp_path / "set")]
    assert cli.main([*command, "--shards=8"]) == 1
    assert "7 pictures do not fill 8 shards" in capsys.readouterr().err
    for path in pictures.rglob("*.*"):
        path.write_bytes(b"no picture")
    assert cli.main(command) == 1
    assert "none of 7 pictures can be read" in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


def test_an_unreadable_picture_affects_only_its_own_record(pictures, tmp_path, capsys):
    """Tests also that by default, each shard has few pictures."""
    assert cli.main(["records", str(pictures), str(tmp_path / "set")]) == 1
    printed = capsys.readouterr()
    assert "5 of 7 pictures in 5 shards" in printed.out and "broken.png" in printed.err
    shards = sorted((tmp_path / "set").glob("*.tfrecord"))
    assert [path.name for path in shards] == [f"{k:05d}-of-00005.tfrecord" for k in range(5)]
    assert [name for path in shards for _, name in parsed(path)] == NAMES
    assert len(sources.open_source(f"records:{tmp_path}/set", 0, 16)) == 5


def test_transparent_pictures_and_odd_names_can_be_in_a_set(tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    Image.new("RGBA", (20, 20), (255, 0, 0, 0)).save(folder / "clear.png")
    Image.new("RGB", (20, 20), (7, 7, 7)).save(folder / "a.png")
    (folder / "a.png").rename(folder / "latin\udce9.png")
    command = ["records", str(folder), str(tmp_path / "set"), "--shards=1"]
    assert cli.main(command) == 1 and "clear.png: has transparent pixels" in capsys.readouterr().err
    assert cli.main([*command, "--overwrite", "--background=10,20,30"]) == 0
    source = sources.open_source(f"records:{tmp_path}/set", 0, 16)
    assert source[0][0, 0].tolist() == [10, 20, 30] and source[1][0, 0].tolist() == [7, 7, 7]
    (shard,) = (tmp_path / "set").glob("*.tfrecord")
    names = [
        record for raw in tf.data.TFRecordDataset(str(shard))
        for record in tf.train.Example.FromString(raw.numpy()).features.feature[
            "image/filename"].bytes_list.value
    ]  # fmt: skip
    assert names == [b"clear.png", b"latin\xe9.png"]
    assert source.records[1][0].endswith("(latin\\xe9.png)")


@pytest.mark.parametrize("name", ["s\udce9t", "s [1]"])
def test_a_set_can_have_any_name(made, tmp_path, capsys, name):
    pictures, out = tmp_path / "pictures", os.path.join(tmp_path, name)
    assert cli.main(["records", str(pictures), out, "--shards=3"]) == 1
    assert capsys.readouterr().out.startswith(f"{tmp_path}/{name}: 5".replace("\udce9", "\\xe9"))
    assert sorted(os.listdir(out)) == sorted(os.listdir(made))
    for file in os.listdir(out):
        assert (tmp_path / name / file).read_bytes() == (made / file).read_bytes()
    source, same = (sources.open_source(f"records:{each}", 0, 16) for each in (out, made))
    for i in range(len(NAMES)):
        np.testing.assert_array_equal(source[i], same[i])


def test_shards_without_an_index_are_read_by_a_glob(made, pictures):
    (made / "records.json").unlink()
    source = sources.open_source(f"records:{made}/*.tfrecord", 0, 16)
    for i, name in enumerate(NAMES):
        np.testing.assert_array_equal(source[i], images.read_image(pictures / name))


def test_a_folder_that_is_not_a_set_is_rejected_in_one_line(made, tmp_path):
    def refusal(spec):
        with pytest.raises(ImageError) as error:
            sources.open_source(f"records:{spec}", 0, 16)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "no TFRecord files with records" in refusal(tmp_path / "gone*")
    assert "not a set of records, because it has no records.json" in refusal(tmp_path / "pictures")
    assert "not a TFRecord file: corrupted record at 0" in refusal(tmp_path / "pictures" / "a.jpg")
    shard = made / "00001-of-00003.tfrecord"
    whole = shard.read_bytes()
    index = (made / "records.json").read_text()
    (made / "records.json").write_text(json.dumps({"format": 1, "shards": {shard.name: []}}))
    assert f"{shard}: {len(whole)} bytes, 0 by records.json" in refusal(made)
    shard.write_bytes(b"")
    assert "no TFRecord files with records" in refusal(made)
    (made / "records.json").write_text(index)
    shard.write_bytes(whole[:-1])
    assert f"{shard}: {len(whole) - 1} bytes, {len(whole)} by records.json" in refusal(made)
    shard.unlink()
    assert f"{shard}: 0 bytes, " in refusal(made)
    (made / "records.json").write_text('{"format": 2}')
    assert "format 2, this tfquant reads 1" in refusal(made)
    (made / "records.json").write_text("[]")
    assert "cannot read" in refusal(made)


def test_a_corrupt_record_is_named_and_replaced_by_the_next_picture(made, caplog):
    shard = made / "00001-of-00003.tfrecord"
    damaged = bytearray(shard.read_bytes())
    damaged[300] ^= 1
    shard.write_bytes(damaged)
    source = sources.open_source(f"records:{made}", 0, 16)
    assert list(source.errors) == [2]
    assert f"{shard}, record 0: unreadable: corrupted record at 12" in caplog.text
    options = {"seed": 3, "crop": 40, "batch_size": 5}
    shown = next(iter(crops.training_crops(source, flip=False, **options)))["image"]
    assert len({crop.tobytes() for crop in shown.numpy()}) >= 4


def test_records_without_pictures_are_named(tmp_path):
    path = str(tmp_path / "labels.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        feature = tf.train.Feature(int64_list=tf.train.Int64List(value=[1]))
        features = tf.train.Features(feature={"label": feature})
        writer.write(tf.train.Example(features=features).SerializeToString())
    with pytest.raises(ImageError, match="record 0: expected a feature 'image/encoded', got label"):
        records.Records(path)[0]
