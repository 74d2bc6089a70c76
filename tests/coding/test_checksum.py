"""Tests the graph's CRC-32 against zlib."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import tensorflow as tf

from tfquant.coding import checksum

crc32 = tf.function(checksum.crc32, input_signature=[tf.TensorSpec([], tf.string)])


@pytest.mark.slow
def test_equals_zlib_at_every_small_length():
    data = np.random.default_rng(0).bytes(300)
    for length in range(300):
        assert int(crc32(tf.constant(data[:length]))) == zlib.crc32(data[:length]), length


@pytest.mark.parametrize("length", [4092, 4093, 65_532, 65_535, 1_000_003])
def test_equals_zlib_at_large_lengths(length):
    data = np.random.default_rng(length).bytes(length)
    assert int(crc32(tf.constant(data))) == zlib.crc32(data)


def test_leading_zeros_and_ones_affect_the_checksum():
    for data in (b"\0", b"\0\0", b"\0" * 64, b"\0" * 65 + b"a", b"\xff" * 4, b"\xff" * 300):
        assert int(crc32(tf.constant(data))) == zlib.crc32(data)


def test_symbols_are_little_endian_and_in_order():
    symbols = [np.array([[1, -2], [3, 2**31 - 1]], np.int32), np.array([], np.int32),
               np.array([-(2**31)], np.int32)]  # fmt: skip
    expected = zlib.crc32(b"".join(s.astype("<i4").tobytes() for s in symbols))
    assert int(checksum.crc32_of_symbols([tf.constant(s) for s in symbols])) == expected


def test_bytes_as_uint8_of_any_shape():
    data = np.random.default_rng(0).integers(0, 256, [3, 5, 7]).astype(np.uint8)
    assert int(checksum.crc32(tf.constant(data))) == zlib.crc32(data.tobytes())


def test_other_types_are_refused():
    with pytest.raises(ValueError, match="float32; known: string, uint8, int32"):
        checksum.crc32(tf.constant([1.0]))


def test_uses_standard_operations_alone():
    graph = crc32.get_concrete_function().graph
    operations = {op.type for op in graph.get_operations()}
    assert not any("PyFunc" in op or "Entropy" in op for op in operations)
    assert "While" not in operations  # no loop over bytes
