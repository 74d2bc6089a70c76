"""The range coder in Python and NumPy, for platforms without the coder's operations.

It offers the interface of `operations.py` and writes the same bytes. A graph calls it through
`tf.numpy_function`, so such a graph runs in the process that made it, and cannot be exported.

The coder narrows an interval `[base, base + size)` of a number that has 32 bits after the words in
the output. A symbol with the frequencies `low ... high` of 2**16 takes its share of the interval.
Whenever at most 2**16 numbers are left, the upper 16 bits move to the output. A carry out of the 32
bits is added to the words in the output.

A loop over Python integers is the fastest form that was found. With eight streams, a step of NumPy
operations on one symbol of each stream takes three times as long as eight steps of the loop.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfquant.coding.pmf import PRECISION, TOTAL

_WORD = 16  # bits that move to the output, or from the input, at once
_WORD_MASK = (1 << _WORD) - 1
_LEAST = 1 << _WORD  # an interval of at most this size moves a word
_WHOLE = 1 << 2 * _WORD
_MIDDLE = TOTAL // 2

_State = tuple[int, int, int]  # of one stream, as in `Handle.state`


class _OutsideTable(tf.errors.InvalidArgumentError, ValueError):
    """Raised inside `tf.numpy_function`: a graph turns a ValueError into InvalidArgumentError."""


class Handle(NamedTuple):
    """S coders between two calls.

    Attributes:
      state: [S, 3] int64. An encoder's `base`, `size` and 0. A decoder's distance from its base,
        `size`, and its position in `data`, in bytes.
      data: [S] string, what an encoder has written or what a decoder reads.
      lookup: [length] int32, the rows of `range_coder.lookup_of`.
      starts: [rows + 1] int32, where each row's cumulative frequencies begin in `lookup`.
      middles: [rows] int32, the place in `lookup` of each row's median symbol, which a decoder
        tries first.
    """

    state: tf.Tensor
    data: tf.Tensor
    lookup: tf.Tensor
    starts: tf.Tensor
    middles: tf.Tensor


def start_encoder(streams: tf.Tensor, lookup: np.ndarray) -> Handle:
    """Opens `streams` encoders, int32 scalar."""
    state = tf.tile([[0, _WHOLE, 0]], [streams, 1])
    return Handle(tf.cast(state, tf.int64), tf.fill([streams], ""), *_rows(lookup))


def start_decoder(strings: tf.Tensor, lookup: np.ndarray) -> Handle:
    """Opens a decoder for each of `strings`, [S] string."""
    state = tf.numpy_function(_first_state, [strings], tf.int64, stateful=False)
    state.set_shape([strings.shape[0], 3])
    return Handle(state, strings, *_rows(lookup))


def encode(handle: Handle, rows: tf.Tensor, symbols: tf.Tensor) -> Handle:
    """Codes `symbols: [S, n] int32`, each with its row of the lookup, `rows: [S, n] int32`.

    Raises:
      InvalidArgumentError: a row does not exist, or has no such symbol.
    """
    state, data = tf.numpy_function(
        _encode, [*handle, rows, symbols], (tf.int64, tf.string), stateful=False
    )
    return _next(handle, state, data)


def decode(handle: Handle, rows: tf.Tensor) -> tuple[Handle, tf.Tensor]:
    """Reads a symbol for each of `rows: [S, n] int32`: the next handle, and symbols [S, n].

    Raises:
      InvalidArgumentError: a row does not exist.
    """
    state, symbols = tf.numpy_function(
        _decode, [*handle, rows], (tf.int64, tf.int32), stateful=False
    )
    symbols.set_shape(rows.shape)
    return _next(handle, state, handle.data), symbols


def finish(handle: Handle) -> tf.Tensor:
    """Closes encoders: their strings, [S]."""
    strings = tf.numpy_function(_finish, [handle.state, handle.data], tf.string, stateful=False)
    strings.set_shape(handle.data.shape)
    return strings


def _next(handle: Handle, state: tf.Tensor, data: tf.Tensor) -> Handle:
    state.set_shape(handle.state.shape)
    data.set_shape(handle.data.shape)
    return handle._replace(state=state, data=data)


def _rows(lookup: np.ndarray) -> tuple:
    """`lookup`, `starts` and `middles` of a handle.

    Every row is [precision, 0, ..., TOTAL], and TOTAL occurs at its end alone.
    """
    starts = np.append(0, np.flatnonzero(lookup == TOTAL) + 1) + 1
    up_to_middle = np.add.reduceat(lookup <= _MIDDLE, starts[:-1] - 1)  # one for the precision
    middles = starts[:-1] + up_to_middle - 2
    return lookup, starts.astype(np.int32), middles.astype(np.int32)


def _encode(
    state: np.ndarray,
    data: np.ndarray,
    lookup: np.ndarray,
    starts: np.ndarray,
    middles: np.ndarray,
    rows: np.ndarray,
    symbols: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    del middles
    _check_rows(rows, starts)
    # A row's symbols end two places before the next row begins: at TOTAL, and before its precision.
    if np.any((symbols < 0) | (symbols >= np.diff(starts)[rows] - 2)):
        raise _OutsideTable(None, None, "a symbol lies outside its row of the coding table")
    index = starts[rows] + symbols
    low, high = lookup[index], lookup[index + 1]
    coded = [_encode_stream(*stream) for stream in zip(state.tolist(), data, low, high)]
    states, strings = ([stream[part] for stream in coded] for part in range(2))
    return _states(states), np.array(strings, object)


def _check_rows(rows: np.ndarray, starts: np.ndarray) -> None:
    if np.any((rows < 0) | (rows > len(starts) - 2)):
        raise _OutsideTable(None, None, "a row lies outside the coding table")


def _states(states: list) -> np.ndarray:
    """The array of S streams' states, [S, 3] int64. A forged file may have no stream."""
    return np.array(states, np.int64).reshape(-1, 3)


def _encode_stream(
    state: _State, written: bytes, low: np.ndarray, high: np.ndarray
) -> tuple[_State, bytes]:
    """Codes one stream's symbols, given their cumulative frequencies, [n] int32 each."""
    base, size, _ = state
    words = []
    for start, stop in zip(low.tolist(), high.tolist()):
        below = size * start >> PRECISION
        base += below
        size = (size * stop >> PRECISION) - below
        if size <= _LEAST:
            words.append(base >> _WORD)
            base = (base & _WORD_MASK) << _WORD
            size <<= _WORD
    return (base, size, 0), _append(written, words)


def _append(written: bytes, words: list) -> bytes:
    """Adds words to the output; what a word has above 16 bits carries into the words before it."""
    digits = np.array(words, np.int64)
    carries, digits = digits >> _WORD, digits & _WORD_MASK
    if not carries.any():
        return written + digits.astype(">u2").tobytes()
    added = int.from_bytes(digits.astype(">u2").tobytes(), "big")
    added += int.from_bytes(carries.astype(">u2").tobytes(), "big") << _WORD
    total = (int.from_bytes(written, "big") << 2 * 8 * len(words)) + added
    return total.to_bytes(len(written) + 2 * len(words), "big")


def _finish(state: np.ndarray, data: np.ndarray) -> np.ndarray:
    strings = [_finish_stream(*stream) for stream in zip(state.tolist(), data)]
    return np.array(strings, object)


def _finish_stream(state: list, written: bytes) -> bytes:
    """Writes a number of the interval in few bytes; a decoder goes on reading zeros."""
    base, size, _ = state
    carry, base = divmod(base, _WHOLE)
    reaches_over = base + size > _WHOLE
    if carry or reaches_over:
        written = _append(written, [(carry + reaches_over) << _WORD])[:-2]
    if reaches_over:
        # The number is the carry itself: the words that it turned to zeros need not be written.
        while written.endswith(b"\0\0"):
            written = written[:-2]
        return written.removesuffix(b"\0")
    if base == 0:
        return written
    one_byte = (base - 1 >> 24) + 1
    if one_byte << 24 < base + size:
        return written + one_byte.to_bytes(1, "big")
    return written + ((base - 1 >> _WORD) + 1).to_bytes(2, "big")


def _first_state(strings: np.ndarray) -> np.ndarray:
    return _states([(_word(data, 0) << _WORD | _word(data, 2), _WHOLE, 4) for data in strings])


def _word(data: bytes, position: int) -> int:
    """The word at a position; zeros follow the end."""
    return int.from_bytes(data[position : position + 2].ljust(2, b"\0"), "big")


def _decode(
    state: np.ndarray,
    data: np.ndarray,
    lookup: np.ndarray,
    starts: np.ndarray,
    middles: np.ndarray,
    rows: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    _check_rows(rows, starts)
    cumulative, bounds = lookup.data, starts.tolist()
    places = middles[rows]
    low, high = lookup[places], lookup[places + 1]
    streams = zip(state.tolist(), data, low, high, rows)
    decoded = [_decode_stream(*stream, cumulative, bounds) for stream in streams]
    states, found = ([stream[part] for stream in decoded] for part in range(2))
    others = np.array(found, np.int32).reshape(rows.shape)
    return _states(states), np.where(others == _AT_MIDDLE, places, others) - starts[rows]


_AT_MIDDLE = 0  # no symbol's place in a lookup, which begins with the precision


def _decode_stream(
    state: _State,
    data: bytes,
    low: np.ndarray,
    high: np.ndarray,
    rows: np.ndarray,
    cumulative: memoryview,
    bounds: list[int],
) -> tuple[_State, list[int]]:
    """Reads one stream's symbols.

    Args:
      state: the decoder's.
      data: its string.
      low, high: [n] int32, the cumulative frequencies of each row's median symbol.
      rows: [n] int32.
      cumulative: the lookup.
      bounds: `starts` as a list.

    Returns:
      The next state, and each symbol's place in the lookup, _AT_MIDDLE for a median symbol.
    """
    distance, size, position = state
    padded = data[position : position + 2 * len(rows)].ljust(2 * len(rows), b"\0")
    next_word = iter(np.frombuffer(padded, ">u2").tolist()).__next__
    found, words = [], 0
    for start, stop, row in zip(low.tolist(), high.tolist(), rows.tolist()):
        below, above = size * start >> PRECISION, size * stop >> PRECISION
        if below <= distance < above:
            found.append(_AT_MIDDLE)
        else:
            target = (distance << PRECISION | TOTAL - 1) // size
            place = bisect_right(cumulative, target, bounds[row], bounds[row + 1] - 2)
            below = size * cumulative[place - 1] >> PRECISION
            above = size * cumulative[place] >> PRECISION
            found.append(place - 1)
        distance -= below
        size = above - below
        if size <= _LEAST:
            size <<= _WORD
            distance = distance << _WORD | next_word()
            words += 1
    return (distance, size, position + 2 * words), found
