"""Pictures in TFRecord shards: made from files, and read at any place.

    SET/00000-of-00002.tfrecord     `tf.train.Example`s in the order of the files
    SET/records.json                the index: {"format": 1, "shards": {"00000-of-00002.tfrecord":
                                    [bytes of each record, ...], ...}}

A record holds `image/encoded`, a picture file's bytes, and `image/filename`. Training asks for
pictures by number, in an order that is new every epoch, so where each one lies must be known: the
index says it. Other TFRecord files with `image/encoded` are read through once, when opened.

TFRecord frames a record's n bytes with 16: its length (8) and that one's checksum (4) before them,
their own checksum (4) behind. TensorFlow's reader checks both.
"""

from __future__ import annotations

import functools
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Callable

import numpy as np
import tensorflow as tf
from absl import logging
from tensorflow.python.lib.io import tf_record  # the one way to read a record at an offset

from tfquant import files
from tfquant.data import images
from tfquant.data.images import ImageError
from tfquant.data.prefetch import ahead

INDEX = "records.json"
FORMAT = 1
ENCODED, FILENAME = "image/encoded", "image/filename"
_FRAME = 16
_OPEN_SHARDS = 64


class Records:
    """The pictures of a set, or of other TFRecord files: `records[i]` is (name, encoded bytes).

    Args:
      spec: a set's folder, or a glob of TFRecord files, which are sorted by name.

    Raises:
      ImageError: there are no such records, or the index does not fit its shards.
    """

    def __init__(self, spec: str):
        spec = files.expanded(spec)
        spec = spec if files.exists(spec) else files.expanded(spec.strip())
        if files.isdir(spec):
            shards = _read_index(spec)
        else:
            shards = {path: _scan(path) for path in sorted(files.matches(spec))}
        self.paths = list(shards)
        self._offsets = list(shards.values())
        self._ends = np.cumsum([len(offsets) for offsets in self._offsets])
        self._reader = functools.lru_cache(_OPEN_SHARDS)(self._open)
        if not len(self):
            raise ImageError(f"{spec}: no TFRecord files with records")

    def __len__(self):
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, i: int) -> tuple[str, bytes]:
        shard = int(np.searchsorted(self._ends, i, side="right"))
        place = int(i) - (int(self._ends[shard - 1]) if shard else 0)
        name = f"{self.paths[shard]}, record {place}"
        reader, lock = self._reader(shard)
        try:
            with lock:
                data, _ = reader.read(int(self._offsets[shard][place]))
            values = tf.train.Example.FromString(data).features.feature
        except Exception as error:  # of TensorFlow, of protobuf
            raise ImageError(f"{name}: unreadable: {' '.join(str(error).split())}") from None
        if not values[ENCODED].bytes_list.value:
            found = ", ".join(sorted(values.keys() - {ENCODED})) or "nothing"
            raise ImageError(f"{name}: expected a feature {ENCODED!r}, got {found}")
        filename = b"".join(values[FILENAME].bytes_list.value).decode(errors="backslashreplace")
        return f"{name} ({filename})" if filename else name, values[ENCODED].bytes_list.value[0]

    def _open(self, shard: int):
        return tf_record.tf_record_random_reader(self.paths[shard]), threading.Lock()


def _read_index(folder: str) -> dict:
    """Shard's path -> its records' offsets, int64, as the set's index says."""
    path = tf.io.gfile.join(folder, INDEX)
    if not files.exists(path):
        raise ImageError(f"{folder}: no set of records, it has no {INDEX}; name a glob of files")
    try:
        index = json.loads(files.read(path))
        if index["format"] != FORMAT:
            raise ValueError(f"format {index['format']!r}, this tfquant reads {FORMAT}")
        sizes = {name: np.array(values, np.int64) for name, values in index["shards"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ImageError(f"cannot read {path}: {error}") from None
    shards = {}
    for name, values in sizes.items():
        shard = tf.io.gfile.join(folder, name)
        ends = np.cumsum(values + _FRAME)
        expected, found = int(ends[-1]) if len(ends) else 0, _length(shard)
        if found != expected:
            raise ImageError(f"{shard}: {found} bytes, {expected} by {INDEX}: make the set again")
        shards[shard] = ends - values - _FRAME
    return shards


def _length(path: str) -> int:
    return tf.io.gfile.stat(path).length if files.exists(path) else 0


def _scan(path: str) -> np.ndarray:
    """The offsets of a file's records, int64, found by reading it to its end."""
    logging.info("Looking for the records of %s", path)
    reader, offsets, offset = tf_record.tf_record_random_reader(path), [], 0
    try:
        while True:
            _, end = reader.read(offset)
            offsets.append(offset)
            offset = end
    except IndexError:
        return np.array(offsets, np.int64)
    except tf.errors.OpError as error:
        raise ImageError(f"{path}: no TFRecord file: {error.message}") from None


def write(
    paths: list,
    out: str,
    shards: int,
    *,
    jobs: int,
    skip: Callable[[ImageError], None],
    done: Callable[[], None] = lambda: None,
    background=None,
    page: int | None = None,
    note: Callable[[str, str], None] | None = None,
) -> tuple[int, int]:
    """Makes a set of picture files, in their order.

    PNG and JPEG files are kept as they are, others become PNG. Every picture is decoded, to see
    that it can be; a few at a time are in memory. The same pictures give the same bytes.

    Args:
      paths: of the pictures.
      out: the set's folder. One that is there is replaced, when the new one is complete.
      shards: files, of as many pictures each.
      jobs: threads.
      skip: takes the error of each picture that cannot be read and is left out.
      done: called after each picture.
      background, page: see `images.read`.
      note: takes the path and a line of each picture that was converted.

    Returns:
      (pictures in the set, its shards). Shards of which no picture can be read are left out.

    Raises:
      ImageError: there are fewer pictures than shards, none can be read, or there is something
        else at `out`.
    """
    if not 1 <= shards <= len(paths):
        raise ImageError(f"{len(paths)} pictures do not fill {shards} shards")
    if files.exists(out) and not files.exists(tf.io.gfile.join(out, INDEX)):
        raise ImageError(f"{out} is there and no set of records: it is not replaced")
    common = os.path.commonprefix(paths).rfind("/") + 1
    bounds = [len(paths) * shard // shards for shard in range(shards + 1)]
    sizes = {}

    def encode(path):
        said = (lambda text: note(path, text)) if note else None
        return images.encoded_image(path, background, page=page, note=said)

    with files.new_folder(out) as folder, ThreadPoolExecutor(jobs) as pool:
        encoded = ahead(pool, encode, paths, 2 * jobs)
        for shard in range(shards):
            name = f"{shard:05d}.partial"
            sizes[name] = []
            with tf.io.TFRecordWriter(tf.io.gfile.join(folder, name)) as writer:
                for path in paths[bounds[shard] : bounds[shard + 1]]:
                    try:
                        example = _example(next(encoded)(), path[common:])
                    except ImageError as error:
                        skip(error)
                    else:
                        writer.write(example)
                        sizes[name].append(len(example))
                    done()
        index = _named_shards(folder, sizes)
        if not index:
            raise ImageError(f"none of {len(paths)} pictures can be read: there is no set to make")
        with tf.io.gfile.GFile(tf.io.gfile.join(folder, INDEX), "w") as file:
            file.write(json.dumps({"format": FORMAT, "shards": index}) + "\n")
    return sum(map(len, index.values())), len(index)


def _named_shards(folder: str, sizes: dict) -> dict:
    """Removes empty shards and gives the others their names; name -> bytes of each record."""
    filled = [name for name, values in sizes.items() if values]
    index = {}
    for name in sizes:
        path = tf.io.gfile.join(folder, name)
        if name in filled:
            final = f"{len(index):05d}-of-{len(filled):05d}.tfrecord"
            tf.io.gfile.rename(path, tf.io.gfile.join(folder, final))
            index[final] = sizes[name]
        else:
            tf.io.gfile.remove(path)
    return index


def _example(encoded: bytes, filename: str) -> bytes:
    """A record."""
    # A name may hold bytes that are no UTF-8.
    values = {ENCODED: encoded, FILENAME: filename.encode("utf-8", "surrogateescape")}
    features = {
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        for name, value in values.items()
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)
