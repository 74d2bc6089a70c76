"""Pictures in TFRecord shards: creation from files and random access.

    SET/00000-of-00002.tfrecord     `tf.train.Example`s in the order of the files
    SET/records.json                the index: {"format": 1, "shards": {"00000-of-00002.tfrecord":
                                    [bytes of each record, ...], ...}}

A record has `image/encoded`, the bytes of a picture file, and `image/filename`. Training reads
pictures by number in an order that changes every epoch, so it must know the position of each one.
The index has these positions. Other TFRecord files with `image/encoded` are read completely once,
when they are opened.

TFRecord adds 16 bytes to a record of n bytes: the length (8) and its checksum (4) before it, and
the checksum of the record (4) after it. TensorFlow's reader checks both checksums.
"""

from __future__ import annotations

import functools
import json
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable

import numpy as np
import tensorflow as tf
from absl import logging
from tensorflow.python.lib.io import tf_record  # the only way to read a record at an offset

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
    """The pictures of a set or of other TFRecord files: `records[i]` is (name, encoded bytes).

    Args:
      spec: a set's folder, or a glob of TFRecord files, which are sorted by name.

    Raises:
      ImageError: there are no such records, or the index does not match its shards.
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

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, i: int) -> tuple[str, bytes]:
        shard = int(np.searchsorted(self._ends, i, side="right"))
        place = int(i) - (int(self._ends[shard - 1]) if shard else 0)
        name = f"{files.shown(self.paths[shard])}, record {place}"
        reader, lock = self._reader(shard)
        try:
            with lock:
                data, _ = reader.read(int(self._offsets[shard][place]))
            values = tf.train.Example.FromString(data).features.feature
        except Exception as error:  # from TensorFlow or protobuf
            raise ImageError(f"{name}: unreadable: {files.one_line(error)}") from None
        if not values[ENCODED].bytes_list.value:
            found = ", ".join(sorted(values.keys() - {ENCODED})) or "nothing"
            raise ImageError(f"{name}: expected a feature {ENCODED!r}, got {found}")
        filename = b"".join(values[FILENAME].bytes_list.value).decode(errors="backslashreplace")
        return f"{name} ({filename})" if filename else name, values[ENCODED].bytes_list.value[0]

    def _open(self, shard: int) -> tuple[Any, threading.Lock]:
        path = files.for_tensorflow(self.paths[shard])
        return tf_record.tf_record_random_reader(path), threading.Lock()


def _read_index(folder: str) -> dict[str, np.ndarray]:
    """Returns a map from a shard's path to its records' offsets, int64, from the set's index."""
    path = tf.io.gfile.join(folder, INDEX)
    if not files.exists(path):
        raise ImageError(
            f"{folder}: not a set of records, because it has no {INDEX}; name a glob of files"
        )
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
    return tf.io.gfile.stat(files.for_tensorflow(path)).length if files.exists(path) else 0


def _scan(path: str) -> np.ndarray:
    """Returns the offsets of a file's records, int64. Reads the whole file."""
    logging.info("Looking for the records of %s", files.shown(path))
    reader, offsets, offset = tf_record.tf_record_random_reader(files.for_tensorflow(path)), [], 0
    try:
        while True:
            _, end = reader.read(offset)
            offsets.append(offset)
            offset = end
    except IndexError:
        return np.array(offsets, np.int64)
    except tf.errors.OpError as error:
        raise ImageError(f"{path}: not a TFRecord file: {error.message}") from None


def write(
    paths: list[str],
    out: str,
    shards: int,
    *,
    jobs: int,
    skip: Callable[[ImageError], None],
    done: Callable[[], None] = lambda: None,
    background: Sequence[float] | None = None,
    page: int | None = None,
    note: Callable[[str, str], None] | None = None,
) -> tuple[int, int]:
    """Writes a set of picture files, in their order.

    PNG and JPEG files are copied unchanged, others are converted to PNG. Every picture is decoded
    as a check. A few pictures at a time are in memory. The same pictures give the same bytes.

    Args:
      paths: paths of the pictures.
      out: the set's folder. An existing set is replaced when the new one is complete.
      shards: number of files, each with the same number of pictures.
      jobs: number of threads.
      skip: function that is called with the error of each skipped picture that cannot be read.
      done: function that is called after each picture.
      background, page: see `images.read`.
      note: function that is called with the path and a line for each converted picture.

    Returns:
      (number of pictures, number of shards). Shards without any readable picture are omitted.

    Raises:
      ImageError: there are fewer pictures than shards, none can be read, or `out` exists and is not
        a set.
    """
    if not 1 <= shards <= len(paths):
        raise ImageError(f"{len(paths)} pictures do not fill {shards} shards")
    if files.exists(out) and not files.exists(tf.io.gfile.join(out, INDEX)):
        raise ImageError(f"refusing to overwrite {out}: it exists and is not a set of records")
    common = os.path.commonprefix(paths).rfind("/") + 1
    bounds = [len(paths) * shard // shards for shard in range(shards + 1)]
    sizes: dict[str, list[int]] = {}

    def encode(path: str) -> bytes:
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


def _named_shards(folder: str, sizes: dict[str, list[int]]) -> dict[str, list[int]]:
    """Removes empty shards and renames the others. Returns name -> bytes of each record."""
    filled = [name for name, values in sizes.items() if values]
    index: dict[str, list[int]] = {}
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
    """Returns a serialized record."""
    # A name may have bytes that are not UTF-8.
    values = {ENCODED: encoded, FILENAME: filename.encode("utf-8", "surrogateescape")}
    features = {
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        for name, value in values.items()
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)
