"""Range coding over several streams, with the coder of this platform.

The coder is TensorFlow Compression's operations (`operations.py`) or the portable one
(`portable.py`). Both write the same bytes.

A *handle* is a tensor or a nest of tensors that represents S coders, one per stream. Calls on a
handle form a chain: each takes the handle and returns the next one, also in `tf.while_loop` and
`tf.cond`. Symbols are flat, `[n]`, with one table row each. They are cut into S contiguous parts of
equal length. The last part is padded with a row that has a single symbol and costs no bits.

The overflow code of TFC's operations is not used. Its decoder does not return for some forged
streams (repeated 0xff), and its encoder does not return for the value -2**30. The encoder codes
-2**31, the result of a NaN, as another value. Here, an escaped value is coded as a fixed number of
ordinary symbols: side and magnitude class, then the bits of the class in three parts.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterable
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from tfquant import stack
from tfquant.coding.pmf import CLASSES, ESCAPE_CDFS, MAX_EXCESS, MAX_SYMBOL, PRECISION, TOTAL
from tfquant.coding.requirement import require

Handle = Any  # a tensor or a nest of tensors

# An additional stream costs 4 bytes of length in the container and about 1 byte in the coder, 40
# bits in all. This should stay below 0.05 % of all bits. On a few cores, more than eight streams
# save no further time.
BITS_PER_STREAM = 80_000
MAX_STREAMS = 8

# The first rows of every lookup are common: uniform over 2**0, ..., 2**8 symbols, then the escape
# rows.
_PART_BITS = 8
CERTAIN = 0  # index of the row with a single symbol
_ESCAPES = _PART_BITS + 1  # index of the first escape row
COMMON_ROWS = _ESCAPES + len(ESCAPE_CDFS)
_PARTS = -(-(CLASSES - 1) // _PART_BITS)  # parts of the bits of a class


class HasLookup(Protocol):
    """An object such as a coding table, with the rows of all symbols of a stream.

    Attributes:
      lookup: [length] int32, a result of `lookup_of`.
    """

    lookup: np.ndarray


def lookup_of(cdfs: Iterable[np.ndarray]) -> np.ndarray:
    """Concatenates integer CDFs in the coder's format: [precision, 0, ..., 2**precision].

    Args:
      cdfs: iterable of [n + 1] integer arrays.

    Returns:
      [length] int32, starting with the common rows.

    Raises:
      ValueError: a row does not rise strictly from 0 to 2**PRECISION.
    """
    head = [np.arange((1 << bits) + 1) << (PRECISION - bits) for bits in range(_PART_BITS + 1)]
    head += ESCAPE_CDFS
    rows = head + [np.asarray(cdf) for cdf in cdfs]
    numbers = np.concatenate(rows)
    lengths = np.array([len(cdf) for cdf in rows])
    ends = np.cumsum(lengths)
    starts = np.append(0, ends[:-1])
    bad = lengths < 2
    if not bad.any():
        steps = np.diff(numbers, append=0)
        steps[ends - 1] = 1  # from one row to the next
        bad = (numbers[starts] != 0) | (numbers[ends - 1] != TOTAL)
        bad |= np.minimum.reduceat(steps, starts) < 1
    if bad.any():
        row = rows[int(np.argmax(bad))]
        raise ValueError(f"a row of a table must rise strictly from 0 to {TOTAL}, got {row}")
    return np.insert(numbers, starts, PRECISION).astype(np.int32)


def choose_streams(bits: tf.Tensor) -> tf.Tensor:
    """Returns the number of streams for a payload of about `bits` bits: int32 scalar.

    It is one for small payloads, plus one for each BITS_PER_STREAM, and at most MAX_STREAMS.
    """
    return 1 + tf.cast(tf.clip_by_value(bits / BITS_PER_STREAM, 0.0, MAX_STREAMS - 1.0), tf.int32)


@functools.lru_cache(maxsize=1)
def _coder() -> ModuleType:
    """Returns the module with this process's coder."""
    return importlib.import_module(f"tfquant.coding.{stack.coder().kind}")


def start_encoder(table: HasLookup, streams: tf.Tensor | int) -> Handle:
    """Opens encoders.

    Args:
      table: has the rows of all symbols of these streams.
      streams: int32 scalar S.

    Returns:
      The handle of S encoders.
    """
    with tf.device("/CPU:0"):
        return _coder().start_encoder(tf.convert_to_tensor(streams, tf.int32), table.lookup)


def finish(handle: Handle) -> tf.Tensor:
    """Closes encoders. Maps a handle to [S] string."""
    with tf.device("/CPU:0"):
        return _coder().finish(handle)


def start_decoder(table: HasLookup, strings: tf.Tensor) -> Handle:
    """Opens decoders. Maps [S] string to a handle, with one stream for each string."""
    with tf.device("/CPU:0"):
        return _coder().start_decoder(tf.convert_to_tensor(strings, tf.string), table.lookup)


def same_handle(handle: Handle) -> Handle:
    """Returns the handle as new tensors, for a branch of `tf.cond` that codes nothing."""
    return tf.nest.map_structure(tf.identity, handle)


def _per_stream(handle: Handle) -> tf.Tensor:
    """Returns a tensor of the handle whose first axis has one element for each stream."""
    return tf.nest.flatten(handle)[0]


def _spread(handle: Handle, values: tf.Tensor) -> tf.Tensor:
    """Maps [n] int32 to [S, ceil(n / S)], padded with zeros (the certain row and its only
    symbol).
    """
    if _per_stream(handle).shape[0] == 1:
        return values[None]
    streams = tf.shape(_per_stream(handle))[0]
    n = tf.shape(values)[0]
    columns = -(-n // streams)
    return tf.reshape(tf.pad(values, [[0, streams * columns - n]]), [streams, columns])


def encode_rows(handle: Handle, rows: tf.Tensor, symbols: tf.Tensor) -> Handle:
    """Codes `symbols: [n] int32`, each with its row of the lookup, `rows: [n] int32`.

    Returns the next handle.
    """
    with tf.device("/CPU:0"):
        return _coder().encode(handle, _spread(handle, rows), _spread(handle, symbols))


def decode_rows(handle: Handle, rows: tf.Tensor) -> tuple[Handle, tf.Tensor]:
    """Reads one symbol for each of `rows: [n] int32`.

    Returns the next handle and the symbols, [n] int32.
    """
    with tf.device("/CPU:0"):
        handle, symbols = _coder().decode(handle, _spread(handle, rows))
        if _per_stream(handle).shape[0] == 1:
            return handle, symbols[0]
        return handle, tf.reshape(symbols, [-1])[: tf.shape(rows)[0]]


def _part_rows(classes: tf.Tensor) -> list[tf.Tensor]:
    """Returns uniform rows of the three parts with the low bits of an escaped value, [3][n]
    int32.
    """
    return [tf.clip_by_value(classes - _PART_BITS * i, 0, _PART_BITS) for i in range(_PARTS)]


def log2(n: tf.Tensor) -> tf.Tensor:
    """Returns floor(log2(n)) of int32 0 < n < 2**24, exactly: the exponent field of a float32."""
    return tf.bitwise.right_shift(tf.bitcast(tf.cast(n, tf.float32), tf.int32), 23) - 127


def class_of(excess: tf.Tensor) -> tf.Tensor:
    """Returns the classes of values outside their rows' windows: [n] int32, n > 0, like `excess`.

    Values outside 0 ... MAX_EXCESS - 1 raise InvalidArgumentError.
    """
    message = f"a symbol beyond +-{MAX_SYMBOL}: the latent is not finite, or far out of scale"
    bounded = (tf.reduce_max(excess) < MAX_EXCESS) & (tf.reduce_min(excess) >= 0)
    with tf.control_dependencies([require(bounded, message)]):
        return log2(excess + 1)


def encode_escapes(handle: Handle, excess: tf.Tensor, side: tf.Tensor, escape: tf.Tensor) -> Handle:
    """Codes values outside their rows' windows.

    Args:
      handle: the encoders.
      excess: [n] int32, n > 0, steps beyond the window, 0 for the symbol next to it. Values outside
        0 ... MAX_EXCESS - 1 raise InvalidArgumentError.
      side: [n] int32, 0 below, 1 above.
      escape: [n] int32, indices into `pmf.ESCAPE_CDFS`.

    Returns:
      The next handle.
    """
    classes = class_of(excess)
    handle = encode_rows(handle, escape + _ESCAPES, 2 * classes + side)
    low = excess + 1 - tf.bitwise.left_shift(1, classes)
    for i, rows in enumerate(_part_rows(classes)):
        part = tf.bitwise.right_shift(low, _PART_BITS * i) & ((1 << _PART_BITS) - 1)
        handle = encode_rows(handle, rows, part)
    return handle


def decode_escapes(handle: Handle, escape: tf.Tensor) -> tuple[Handle, tf.Tensor, tf.Tensor]:
    """Reads values that `encode_escapes` has written with the same `escape: [n] int32`.

    Returns:
      The next handle, excess [n] int32 and side [n] int32.
    """
    handle, pairs = decode_rows(handle, escape + _ESCAPES)
    classes, side = pairs // 2, pairs % 2
    value = tf.bitwise.left_shift(tf.ones_like(classes), classes)
    for i, rows in enumerate(_part_rows(classes)):
        handle, part = decode_rows(handle, rows)
        value += tf.bitwise.left_shift(part, _PART_BITS * i)
    return handle, value - 1, side
