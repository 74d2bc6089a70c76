"""CRC-32 with standard TensorFlow operations: the same as `zlib.crc32`, but in a graph.

With start value 0 and without the final complement (called the remainder here), CRC-32 is linear
over GF(2) in its bits, and leading zeros do not change it. The bytes are therefore padded at the
front to whole groups of 64. Each byte is looked up in the table of its position in the group, and
the values of a group are combined by exclusive or to one 32-bit word. These words, as bytes, are
the data of the next round, in which each word represents 16 times as many. Seven rounds reduce up
to 1 GiB to one word. zlib's start value is a prefix of four bytes, and its complement is the last
operation.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from tfquant.coding.requirement import require

_POLYNOMIAL = 0xEDB88320  # zlib's, reflected
_PREFIX = bytes([0x62, 0xF5, 0x26, 0x92])  # its remainder is 0xFFFFFFFF, zlib's start value
_WORDS = 16  # 32-bit words per group
_GROUP = 4 * _WORDS
_ROUNDS = 7
MAX_BYTES = 4 * _WORDS**_ROUNDS - len(_PREFIX)


def _apply(matrix: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Applies a linear map over GF(2), given by the images of single bits [32], to uint32 words."""
    bits = (words[..., None] >> np.arange(32, dtype=np.uint32)) & np.uint32(1)
    return np.bitwise_xor.reduce(bits * matrix, axis=-1)


@functools.lru_cache(maxsize=1)
def _tables() -> np.ndarray:
    """Returns remainders of every byte at every position of a group, [rounds, group * 256] int32.

    In the first round, a position is a byte of data followed by the rest of its group. In later
    rounds, the words are remainders themselves, so only the distance between them is added.
    """
    last = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        last = (last >> np.uint32(1)) ^ (np.uint32(_POLYNOMIAL) * (last & np.uint32(1)))
    units = np.uint32(1) << np.arange(32, dtype=np.uint32)
    step = (units >> np.uint32(8)) ^ last[units & np.uint32(255)]  # one zero byte appended
    for _ in range(2):
        step = _apply(step, step)  # one zero word

    tables = []
    for r in range(_ROUNDS):
        # The remainder of a word of data is that of its little-endian value with one word appended.
        distance = step if r == 0 else units
        columns = []
        for _ in range(_WORDS):
            columns.append(distance)
            distance = _apply(step, distance)
        matrix = np.stack(columns[::-1]).reshape(_WORDS, 4, 8)  # word, byte, bit
        bits = (np.arange(256)[:, None] >> np.arange(8)) & 1
        images = np.bitwise_xor.reduce(
            bits.astype(np.uint32) * matrix[:, :, None, :], axis=-1
        )  # [word, byte, 256]
        tables.append(images.reshape(-1))
        for _ in range(4):
            step = _apply(step, step)  # 16 times as far
    return np.stack(tables).view(np.int32)


# A separate function, so that a graph contains its tables of 0.5 MB only once.
@tf.function(input_signature=[tf.TensorSpec([None], tf.uint8)], autograph=False)
def _remainder(data: tf.Tensor) -> tf.Tensor:
    """Computes the remainder of [n] uint8, int32 scalar."""
    tables = tf.constant(_tables())
    positions = tf.range(_GROUP) * 256
    for r in range(_ROUNDS):
        data = tf.pad(data, [[-tf.size(data) % _GROUP, 0]])
        groups = tf.cast(tf.reshape(data, [-1, _GROUP]), tf.int32)
        words = tf.gather(tables[r], groups + positions)  # [groups, 64]
        width = _GROUP
        while width > 1:
            width //= 2
            words = tf.bitwise.bitwise_xor(words[:, :width], words[:, width:])
        data = tf.reshape(tf.bitcast(words, tf.uint8), [-1])
    return tf.bitcast(data, tf.int32)


def crc32(data: tf.Tensor) -> tf.Tensor:
    """Returns the CRC-32 of a string scalar, or of a uint8 or int32 tensor's bytes in row-major
    order.

    Args:
      data: string [], uint8 [...] or int32 [...] (little-endian); at most MAX_BYTES.

    Returns:
      int64 scalar, 0 ... 2**32 - 1.
    """
    data = tf.convert_to_tensor(data)
    if data.dtype == tf.string:
        data = tf.io.decode_raw(data, tf.uint8)
    elif data.dtype == tf.int32:
        data = tf.bitcast(data, tf.uint8)
    elif data.dtype != tf.uint8:
        raise ValueError(f"cannot checksum {data.dtype.name}; known: string, uint8, int32")
    data = tf.reshape(data, [-1])
    prefix = tf.constant(list(_PREFIX), tf.uint8)
    too_long = f"more than {MAX_BYTES} bytes to checksum"
    with tf.control_dependencies([require(tf.size(data) <= MAX_BYTES, too_long)]):
        remainder = _remainder(tf.concat([prefix, data], 0))
    return tf.cast(tf.bitcast(tf.bitwise.invert(remainder), tf.uint32), tf.int64)


def crc32_of_symbols(symbols: Iterable[tf.Tensor]) -> tf.Tensor:
    """Returns the CRC-32 of consecutive int32 tensors, as little-endian bytes: int64 scalar."""
    return crc32(tf.concat([tf.reshape(s, [-1]) for s in symbols], 0))
