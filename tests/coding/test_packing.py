"""Tests the file inside a graph against `container.py`: same bytes, errors and messages."""

from __future__ import annotations

import dataclasses
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf

from tfquant.coding import container, packing
from tfquant.coding.container import Bitstream

OWN = {"codec": "ms_hyper_zero", "fingerprint": "0123456789abcdef"}
FILE = Bitstream(
    **OWN,
    height=3,
    width=500,
    symbols_crc=0xDEADBEEF,
    streams=(b"hello", b"", b"\x00\xff"),
)
MAX_PIXELS = 100_000
QUALITIES = (0, 900)  # in steps; a model has either 0 or a range above 0


def unpacking(**model):
    """Returns `packing.unpack` in a graph, for a model with these qualities and this version."""

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
    def unpacked(data):
        return packing.unpack(data, **OWN, max_pixels=MAX_PIXELS, **model)

    return unpacked


ANY_VERSION = {"qualities": QUALITIES}
unpacked = unpacking(**ANY_VERSION)


@tf.function(
    input_signature=[
        tf.TensorSpec([None], tf.string),
        tf.TensorSpec([2], tf.int32),
        tf.TensorSpec([], tf.int64),
        tf.TensorSpec([], tf.int32),
    ]
)
def packed(streams, sides, symbols_crc, quality):
    arguments = (streams, sides[0], sides[1], symbols_crc)
    old = packing.pack(*arguments, **OWN, version=1)
    return packing.pack(*arguments, **OWN, quality=quality), old


def graph_of(bitstream):
    streams = tf.constant(list(bitstream.streams))
    sides = tf.constant([bitstream.height, bitstream.width])
    symbols_crc = tf.constant(bitstream.symbols_crc, tf.int64)
    quality = container.stored_quality(bitstream.quality)
    return [data.numpy() for data in packed(streams, sides, symbols_crc, quality)]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"streams": (b"",)},
        {"streams": tuple(bytes([i]) * i for i in range(255))},
        {"streams": (bytes(range(256)) * 300, b"\0" * 70_000)},
        {"height": 1, "width": (1 << 31) - 1, "symbols_crc": (1 << 32) - 1},
        {"height": 0x01020304, "symbols_crc": 0},
        {"quality": 255.5},
    ],
)
def test_the_graph_writes_the_same_bytes_as_python(changes):
    bitstream = dataclasses.replace(FILE, **changes)
    old = dataclasses.replace(bitstream, version=1, quality=None)
    assert graph_of(bitstream) == [bitstream.to_bytes(), old.to_bytes()]


@pytest.mark.parametrize("quality, version", [(None, 1), (None, 2), (3.25, 2)])
@pytest.mark.parametrize("count", [1, 3, 255])
def test_a_written_file_is_read_back(count, quality, version):
    streams = tuple(bytes([i % 256]) * (i % 7) for i in range(count))
    bitstream = dataclasses.replace(FILE, streams=streams, quality=quality, version=version)
    found = unpacked(bitstream.to_bytes())
    assert tuple(found.streams.numpy()) == bitstream.streams
    assert (found.height.numpy(), found.width.numpy()) == (3, 500)
    assert found.symbols_crc.numpy() == 0xDEADBEEF
    assert found.quality.numpy() == container.stored_quality(quality)


def sealed(content):
    return bytes(content) + struct.pack("<I", zlib.crc32(content))


def forged(offset, field):
    content = bytearray(FILE.to_bytes()[:-4])
    content[offset : offset + len(field)] = field
    return sealed(content)


def refusal(data, **model):
    """Returns Python's error message for the bytes; None if they are a file of this model."""
    try:
        Bitstream.from_bytes(data, MAX_PIXELS).check_model(**OWN, **(model or ANY_VERSION))
    except container.BitstreamError as error:
        return str(error)
    return None


def assert_same_words(data):
    expected = refusal(data)
    if expected is None:
        unpacked(data)
        return
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        unpacked(data)
    assert f"[{expected}]" in caught.value.message, caught.value.message


DATA, OLD = FILE.to_bytes(), dataclasses.replace(FILE, version=1).to_bytes()
WRONG = {
    "empty": b"",
    "foreign": b"GIF89a" + bytes(80),
    "begins alike": b"\x89TF",
    "begins otherwise": b"\x89PN",
    "magic alone": DATA[:4],
    "cut within the fixed fields": DATA[:41],
    "cut within the quality": DATA[:43],
    "cut within the lengths": DATA[:52],
    "cut": DATA[:-1],
    "checksum alone missing": DATA[:-4],
    "too long": DATA + b"\0\0",
    "damaged": DATA[:-6] + b"~" + DATA[-5:],
    "other version": DATA[:4] + b"\x07" + DATA[5:],
    "another quality": forged(42, struct.pack("<H", 901)),
    "no streams": sealed(DATA[:5] + b"\0" + DATA[6:44]),
    "255 streams": forged(5, b"\xff"),
    "a length beyond the file": forged(44, b"\xff\xff\xff\xff"),
    "all lengths beyond the file": forged(44, b"\xff" * 12),
    "no name": forged(6, bytes(16)),
    "a gap in the name": forged(8, b"\0"),
    "a space in the name": forged(8, b" "),
    "a name not ASCII": forged(8, b"\xe9"),
    "no height": forged(30, bytes(4)),
    "no width": forged(34, bytes(4)),
    "height beyond int32": forged(30, b"\0\0\0\x80"),
    "width beyond int32": forged(34, b"\xff\xff\xff\xff"),
    "too many pixels": forged(30, struct.pack("<I", 1000)),
    "too many pixels after padding": forged(30, struct.pack("<II", 1, 20_000)),
    "too many pixels after padding, upright": forged(30, struct.pack("<II", 20_000, 1)),
    "most pixels": forged(30, b"\xff\xff\xff\x7f" * 2),
    "other codec": forged(6, b"charm".ljust(16, b"\0")),
    "other fingerprint": forged(22, b"\xfe"),
}


@pytest.mark.parametrize("what", WRONG)
def test_the_graph_and_python_have_the_same_error_messages(what):
    assert refusal(WRONG[what]) is not None
    assert_same_words(WRONG[what])


@pytest.mark.parametrize("version", container.VERSIONS)
@pytest.mark.parametrize("steps", [(0, 0), (2560, 20_480)])
def test_the_graph_and_python_agree_on_versions_and_qualities(steps, version):
    model = {"qualities": steps, "version": version}
    graph = unpacking(**model)
    said = set()
    for data in (DATA, OLD, *(forged(42, struct.pack("<H", q)) for q in (1, 2561, 20_481, 65_535))):
        expected = refusal(data, **model)
        said.add(expected)
        if expected is None:
            graph(data)
            continue
        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            graph(data)
        assert f"[{expected}]" in caught.value.message, caught.value.message
    assert None in said and len(said) > 1


@pytest.mark.slow
def test_the_graph_and_python_agree_on_every_length_and_many_corruptions():
    for size in range(len(DATA)):
        assert_same_words(DATA[:size])
        assert_same_words(OLD[:size])
    rng = np.random.default_rng(0)
    for _ in range(100):
        content = bytearray(DATA[:-4])
        for position in rng.integers(0, len(content), rng.integers(1, 4)):
            content[position] = rng.integers(256)
        assert_same_words(sealed(content) if rng.integers(2) else bytes(content) + DATA[-4:])


def test_sizes_are_read_from_any_bytes():
    np.testing.assert_array_equal(
        packing.sizes(tf.constant([DATA, DATA[:33], b""])), [[3, 500], [3, 0], [0, 0]]
    )
    assert packing.sizes(tf.zeros([0], tf.string)).shape == [0, 2]
