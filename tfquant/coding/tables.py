"""Coding tables: the integers with which the range coder codes a distribution.

| table          | symbols                                     | row selected by               |
|----------------|---------------------------------------------|-------------------------------|
| ChannelTable   | of a fixed distribution per channel         | channel                       |
| ScaleTable     | of a symmetric family around zero           | scale                         |
| MeanScaleTable | of a symmetric family around any mean       | scale, distance to a boundary |
| DecisionTable  | of a mixture, one per element               | odds: see `decisions.py`      |

A table is a value: it is made once from NumPy arrays in float64, saved with the model as integers,
and never recomputed by a decoder. Each table has `lookup` (for starting the coders of
`range_coder`), `encode`, `decode`, `price` (the cost of coding, including escapes) and `to_bytes`
(for fingerprints and exported models; `table_file.py` reads them). The arguments that select the
rows are the result of an entropy model's `coding_params`. Symbols are coded flat, in row-major
order, spread over the handle's streams.

Except for decisions, rows are selected by integer operations on float32 bit patterns and by single,
correctly rounded float operations, never by a logarithm. For the same parameters, the selection
depends on neither the machine, nor an element's neighbours, nor the shape of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfquant.coding import range_coder
from tfquant.coding.pmf import PAIR_BITS, PRECISION, TOTAL, Row, fit_row, make_row
from tfquant.coding.range_coder import Handle

CPU = "/CPU:0"  # where the coder runs

Tail = Callable[[Any], Any]  # P(X > x) for scale 1 and x >= 0, of a float64 or an array of them


def clipped(x: tf.Tensor, low: float, high: float) -> tf.Tensor:
    """Returns `tf.clip_by_value`, in one pass over the memory instead of two."""
    return tf.raw_ops.ClipByValue(t=x, clip_value_min=low, clip_value_max=high)


class Table:
    """Rows of a lookup, after those that all lookups have in common."""

    BASE = range_coder.COMMON_ROWS  # index of a table's first own row

    def __init__(self, cdfs: Iterable[Sequence[int] | np.ndarray]):
        self._cdfs = tuple(np.array(cdf, np.int32) for cdf in cdfs)
        self.lookup = range_coder.lookup_of(self._cdfs)
        for numbers in (self.lookup, *self._cdfs):
            numbers.setflags(write=False)  # models share tables

    def encode(self, handle: Handle, symbols: tf.Tensor, *where: Any) -> Handle:
        """Codes symbols [...] int32 and returns the next handle.

        Args:
          handle: an encoder of `range_coder`, started with this table.
          symbols: [...] int32. Values beyond +-MAX_SYMBOL raise InvalidArgumentError.
          *where: the arguments that select the rows; each table describes its own.
        """
        raise NotImplementedError

    def decode(self, handle: Handle, *where: Any) -> tuple[Handle, tf.Tensor]:
        """Reads symbols that `encode` coded with the same `where`.

        Returns:
          The next handle, and the symbols in their original shape, int32.
        """
        raise NotImplementedError

    def price(self, bits: tf.Tensor, symbols: tf.Tensor, *where: Any) -> tf.Tensor:
        """Returns the cost of coding each symbol in bits, [...] float32.

        Args:
          bits: [...] float32, the cost of each symbol in the distribution alone. It differs for
            improbable symbols, which escape at a bounded cost.
          symbols: [...] int32.
          *where: as in `encode`.
        """
        raise NotImplementedError

    def _numbers(self) -> Sequence[int] | np.ndarray:
        """Returns the content of the table in addition to its rows: a flat list of integers."""
        return []

    def to_bytes(self) -> bytes:
        """Returns canonical bytes of everything on which the meaning of this table's codes
        depends.
        """
        numbers = np.concatenate([[len(self._cdfs)], self._numbers(), *self._cdfs])
        return type(self).__name__.encode() + b"\0" + numbers.astype("<i4").tobytes()

    @classmethod
    def from_numbers(cls, numbers: list, cdfs: list) -> Table:
        """Returns the table with these numbers, a result of `_numbers`, and these rows."""
        raise NotImplementedError


class _Windows(NamedTuple):
    """The windows of n symbols, [n] int32 each.

    Attributes:
      rows: rows of the lookup.
      first: first symbols of the windows.
      count: numbers of symbols in the windows.
      centre: numbers from which the symbols are counted; None for 0.
      direction: 1, or -1 for symbols that are mirrored around the centre; None for 1.
    """

    rows: tf.Tensor
    first: tf.Tensor
    count: tf.Tensor
    centre: tf.Tensor | None = None
    direction: tf.Tensor | None = None

    def shifted(self, symbols: tf.Tensor) -> tf.Tensor:
        """Maps symbols [...] to their distances from the window's first symbol, [n]."""
        symbols = tf.reshape(symbols, [-1])
        if self.centre is not None:
            symbols = (symbols - self.centre) * self.direction
        return symbols - self.first

    def symbols(self, shifted: tf.Tensor) -> tf.Tensor:
        """Maps distances from the window's first symbol to symbols, [n]. Undoes `shifted`."""
        symbols = shifted + self.first
        return symbols if self.centre is None else symbols * self.direction + self.centre


class _WindowTable(Table):
    """Rows with a window of symbols each, and an escape for all other integers.

    A window's position and width are computed where possible, because `tf.gather` takes 5 ns per
    element, a third of the time of the range coder.
    """

    def __init__(self, rows: Iterable[Row]):
        self.rows = tuple(rows)
        super().__init__(row.cdf for row in self.rows)
        self._escapes = np.array([row.escape for row in self.rows], np.int32)
        # The last symbol of a row is its escape.
        masses = [cdf[-1] - cdf[-2] for cdf in self._cdfs]
        self._escape_bits = np.float32(PRECISION - np.log2(masses))

    def _numbers(self) -> Sequence[int] | np.ndarray:
        return np.array([(row.first, row.count, row.escape) for row in self.rows]).reshape(-1)

    @classmethod
    def from_numbers(cls, numbers: list, cdfs: list) -> _WindowTable:
        own = len(numbers) - 3 * len(cdfs)  # the subclass's numbers precede three for each row
        rows = [
            Row(first, cdf, escape)
            for (first, _, escape), cdf in zip(np.reshape(numbers[own:], [-1, 3]).tolist(), cdfs)
        ]
        table = cls.__new__(cls)
        table._restore(numbers[:own])
        _WindowTable.__init__(table, rows)
        return table

    def _restore(self, numbers: list) -> None:
        """Restores the attributes from the subclass's own numbers."""

    def _escape_rows(self, rows: tf.Tensor) -> tf.Tensor:
        return tf.gather(self._escapes, rows - self.BASE)

    def _windows(self, *where: Any) -> _Windows:
        """Returns the windows of all symbols, in row-major order."""
        raise NotImplementedError

    def _shape(self, *where: Any) -> tf.Tensor:
        """Returns the shape of the symbols."""
        return tf.shape(where[0])

    def price(self, bits: tf.Tensor, symbols: tf.Tensor, *where: Any) -> tf.Tensor:
        rows, _, count, *_ = windows = self._windows(*where)
        shifted = windows.shifted(symbols)
        above = shifted >= count
        excess = tf.maximum(tf.where(above, shifted - count, -1 - shifted), 0)
        classes = range_coder.class_of(excess)
        pairs = tf.stack([self._escape_rows(rows), 2 * classes + tf.cast(above, tf.int32)], axis=-1)
        escaped = tf.gather(self._escape_bits, rows - self.BASE) + tf.cast(classes, tf.float32)
        escaped += tf.gather_nd(PAIR_BITS.astype(np.float32), pairs)
        bits = tf.where(above | (shifted < 0), escaped, tf.reshape(bits, [-1]))
        return tf.reshape(bits, tf.shape(symbols))

    def encode(self, handle: Handle, symbols: tf.Tensor, *where: Any) -> Handle:
        with tf.device(CPU):
            rows, _, count, *_ = windows = self._windows(*where)
            # As unsigned integers, symbols below the window are large too.
            shifted = tf.bitcast(windows.shifted(symbols), tf.uint32)
            coded = tf.bitcast(tf.minimum(shifted, tf.bitcast(count, tf.uint32)), tf.int32)
            escaped = coded == count
            handle = range_coder.encode_rows(handle, rows, coded)

            def escape() -> Handle:
                which = tf.where(escaped)[:, 0]
                value = tf.bitcast(tf.gather(shifted, which), tf.int32)
                above = value >= 0
                excess = tf.where(above, value - tf.gather(count, which), -1 - value)
                escapes = self._escape_rows(tf.gather(rows, which))
                return range_coder.encode_escapes(handle, excess, tf.cast(above, tf.int32), escapes)

            return tf.cond(tf.reduce_any(escaped), escape, lambda: range_coder.same_handle(handle))

    def decode(self, handle: Handle, *where: Any) -> tuple[Handle, tf.Tensor]:
        with tf.device(CPU):
            rows, _, count, *_ = windows = self._windows(*where)
            handle, shifted = range_coder.decode_rows(handle, rows)
            escaped = shifted == count

            def escape() -> tuple[Handle, tf.Tensor]:
                which = tf.where(escaped)
                after, excess, side = range_coder.decode_escapes(
                    handle, self._escape_rows(tf.gather(rows, which[:, 0]))
                )
                value = tf.where(side == 1, tf.gather(count, which[:, 0]) + excess, -1 - excess)
                return after, tf.tensor_scatter_nd_update(shifted, which, value)

            def keep() -> tuple[Handle, tf.Tensor]:
                return range_coder.same_handle(handle), tf.identity(shifted)

            handle, shifted = tf.cond(tf.reduce_any(escaped), escape, keep)
            return handle, tf.reshape(windows.symbols(shifted), self._shape(*where))


class ChannelTable(_WindowTable):
    """One fixed distribution per channel: the prior of z, or of y in the factorized codec.

    Its methods take the shape of the symbols, [..., C], as an int32 tensor.

    Args:
      pmfs: C arrays, probabilities of consecutive integers.
      firsts: C integers, the first symbol of each.
    """

    # Tails below this mass are coded by the escape.
    _TAIL = 2.0**-20
    _WIDEST = 1 << 14

    def __init__(self, pmfs: Sequence[np.ndarray], firsts: Sequence[int]):
        if len(pmfs) != len(firsts) or not len(pmfs):
            raise ValueError(
                f"need one first symbol per channel, got {len(firsts)} for {len(pmfs)}"
            )
        super().__init__(fit_row(p, int(first)) for p, first in zip(pmfs, firsts))

    @classmethod
    def from_cdf(cls, cdf: Callable[[np.ndarray], np.ndarray], channels: int) -> ChannelTable:
        """Returns the table of the distributions of `cdf`; integer k has the mass of k - 1/2 ... k
        + 1/2.

        The support grows until the tails of every channel have a mass below 2**-20, but at most to
        2**14.

        Args:
          cdf: maps points [P, C] float64, relative to each channel's offset, to cumulative
            probabilities [P, C].
          channels: number of channels C.
        """
        reach = 8
        while True:
            edges = np.arange(-reach, reach + 2) - 0.5
            points = np.broadcast_to(edges[:, None], [edges.size, channels])
            cumulative = np.asarray(cdf(points), np.float64)
            if cumulative.shape != points.shape or not np.all(np.isfinite(cumulative)):
                raise ValueError(
                    f"cdf must give finite values of shape {points.shape}, got {cumulative.shape}"
                )
            tails = np.maximum(cumulative[0], 1.0 - cumulative[-1])
            if np.all(tails < cls._TAIL) or reach >= cls._WIDEST:
                break
            reach *= 2
        pmfs = np.maximum(np.diff(cumulative, axis=0), 0.0)
        # The outermost symbols get the mass outside, which belongs to the escape.
        pmfs[0] += np.maximum(cumulative[0], 0.0)
        pmfs[-1] += np.maximum(1.0 - cumulative[-1], 0.0)
        return cls(list(pmfs.T), [-reach] * channels)

    @property
    def channels(self) -> int:
        return len(self.rows)

    def _windows(self, shape: tf.Tensor) -> _Windows:
        numbers = np.array([(row.first, row.count) for row in self.rows], np.int32)
        per_channel = (self.BASE + np.arange(self.channels, dtype=np.int32), *numbers.T)
        return _Windows(*(tf.reshape(tf.broadcast_to(value, shape), [-1]) for value in per_channel))

    def _shape(self, shape: tf.Tensor) -> tf.Tensor:
        return shape


# For symmetric families: tail masses P(X > x) at either end, of a window before it is rounded
# inwards, and of the probabilities from which rows are made.
_WINDOW_TAIL = 2.0**-13
_SUPPORT_TAIL = 2.0**-44


def _quantile(tail: Tail, probability: float) -> float:
    """Returns the point where `tail` equals `probability`, by bisection."""
    low, high = 0.0, 1.0
    while tail(high) > probability:
        high *= 2.0
    for _ in range(50):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if tail(middle) > probability else (low, middle)
    return high


def rounded_pmf(tail: Tail, mean: float, sigma: float, radius: int) -> np.ndarray:
    """Returns the probabilities of -radius ... radius of a rounded symmetric variable; float64.

    Args:
      tail: P(X > x) for scale 1 and x >= 0.
      mean: mean of the variable.
      sigma: scale of the variable.
      radius: integers beyond it count as the outermost ones.
    """
    edges = (np.arange(-radius, radius) + 0.5 - mean) / sigma
    outer = tail(np.abs(edges))  # mass beyond each edge, away from the mean
    below, above = np.append(0.0, outer), np.append(outer, 0.0)
    left, right = np.append(-np.inf, edges), np.append(edges, np.inf)
    return np.where(
        right <= 0, above - below, np.where(left >= 0, below - above, 1 - below - above)
    )


class _Levels:
    """Levels of a scale: ranges of float32 bit patterns, 2**step_bits equal steps per octave.

    At the lowest level, 16-bit probabilities stop changing: below it, all symbols except zero have
    the least possible frequency.
    """

    def __init__(self, shift: int, bottom: int, top: int, window: int):
        """Restores the levels from the result of `numbers`."""
        self._shift, self.bottom, self.top = shift, bottom, top
        self._window = np.array(window, np.int32).view(np.float32)[()]

    @classmethod
    def fit(cls, tail: Tail, sigma_max: float, step_bits: int) -> _Levels:
        """Returns the levels of a family with `P(X > x) = tail(x)` at scale 1, up to a largest
        scale.
        """
        window = np.float32(_quantile(tail, _WINDOW_TAIL)).view(np.int32)
        levels = cls(23 - step_bits, 0, 0, int(window))
        levels.bottom = levels.top = levels.bucket(sigma_max)
        while 2.0 * tail(0.5 / levels.centre(levels.bottom)) * TOTAL > 1.0:
            levels.bottom -= 1
        return levels

    def numbers(self) -> list:
        """Returns the integers that define the levels."""
        return [self._shift, self.bottom, self.top, int(self._window.view(np.int32))]

    def bucket(self, sigma: float) -> int:
        """Returns the level of a scale, without bounds."""
        return int(np.float32(sigma).view(np.int32)) >> self._shift

    def _edge(self, bucket: int) -> Any:
        return np.array(bucket << self._shift, np.int32).view(np.float32)[()]

    def centre(self, bucket: int) -> float:
        """Returns the scale that represents a level."""
        return float(np.sqrt(np.float64(self._edge(bucket)) * np.float64(self._edge(bucket + 1))))

    def half(self, bucket: int) -> int:
        """Returns the number of symbols in a level's window on each side of zero."""
        return int(self._edge(bucket) * self._window)

    def of(self, sigma: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns level and half of the window for each sigma float32, int32 of the same shape.

        Uses integer operations and one float product, which is correctly rounded on every machine.
        """
        bucket = tf.bitwise.right_shift(tf.bitcast(sigma, tf.int32), self._shift)
        bucket = clipped(bucket, self.bottom, self.top)
        edge = tf.bitcast(tf.bitwise.left_shift(bucket, self._shift), tf.float32)
        return bucket, tf.cast(edge * self._window, tf.int32)


class ScaleTable(_WindowTable):
    """A symmetric family around zero, one row per level of its scale.

    There are 2**6 levels per octave, so the error of sigma is at most 1/128 in either direction.
    Its methods take sigma, float32 in the shape of the symbols.

    Args:
      tail: P(X > x) for scale 1 and x >= 0, NumPy float64 to float64, accurate for large x.
      sigma_max: the largest scale; larger ones are coded with this one.
    """

    _STEP_BITS = 6

    def __init__(self, tail: Tail, sigma_max: float):
        self._levels = levels = _Levels.fit(tail, sigma_max, self._STEP_BITS)
        reach = _quantile(tail, _SUPPORT_TAIL)
        rows = []
        for bucket in range(levels.bottom, levels.top + 1):
            sigma, half = levels.centre(bucket), levels.half(bucket)
            radius = int(np.ceil(reach * sigma)) + 1
            rows.append(make_row(rounded_pmf(tail, 0.0, sigma, radius), -radius, -half, half + 1))
        super().__init__(rows)

    def _numbers(self) -> Sequence[int] | np.ndarray:
        return np.concatenate([self._levels.numbers(), super()._numbers()])

    def _restore(self, numbers: list) -> None:
        self._levels = _Levels(*numbers)

    def _windows(self, sigma: tf.Tensor) -> _Windows:
        bucket, half = self._levels.of(tf.reshape(sigma, [-1]))
        return _Windows(bucket + (self.BASE - self._levels.bottom), -half, 2 * half + 1)


class MeanScaleTable(_WindowTable):
    """A symmetric family around any mean, for symbols that are rounded around zero.

    `centre` is the integer nearest to mu, and symbols are mirrored so that the mean is above it.
    The distribution then depends on sigma and on the number of sigmas from the mean to the boundary
    centre + 1/2, `g = (1/2 - |mu - centre|) / sigma`. Rows are levels of sigma, 2**5 per octave,
    times steps of 1/8 of g. At the lowest level, which is also that of `ScaleTable`, the other
    boundary is out of reach, and only g matters for any smaller sigma. From sigma 4 on, g is less
    than one step. Its methods take mu and sigma, float32 in the shape of the symbols.

    Args:
      tail: P(X > x) for scale 1 and x >= 0, NumPy float64 to float64, accurate for large x.
      sigma_max: the largest scale; larger ones are coded with this one.
    """

    _STEP_BITS = 5
    _STEPS = np.float32(8.0)  # steps of g per sigma
    # If the mass above the centre is below this, the window contains only the centre.
    _NEIGHBOUR_TAIL = 2.0**-8

    def __init__(self, tail: Tail, sigma_max: float):
        self._levels = _Levels.fit(tail, sigma_max, self._STEP_BITS)
        levels, steps = self._levels, float(self._STEPS)
        reach = _quantile(tail, _SUPPORT_TAIL)
        self._wide = levels.bucket(0.5 * steps) + 1  # the first level where g has one step
        self._columns = int(0.5 / levels.centre(levels.bottom) * steps) + 1
        self._lonely = int(_quantile(tail, self._NEIGHBOUR_TAIL) * steps)
        rows = []
        for bucket in range(levels.bottom, levels.top + 1):
            sigma, half = levels.centre(bucket), levels.half(bucket)
            radius = int(np.ceil(reach * sigma)) + 2
            columns = self._columns if bucket < self._wide else 1
            window: tuple[int, int] | None = None
            for column in range(columns):
                low, high = column / steps, min((column + 1) / steps, 0.5 / sigma)
                previous, window = window, (-half, half + 1 + int(column < self._lonely))
                # After the last reachable column, there are only copies that fill up the line.
                if low < high or window != previous:
                    if low < high:
                        pmf = rounded_pmf(tail, 0.5 - 0.5 * (low + high) * sigma, sigma, radius)
                    row = make_row(pmf, -radius, *window)
                rows.append(row)
        super().__init__(rows)

    def _numbers(self) -> Sequence[int] | np.ndarray:
        own = [self._wide, self._columns, self._lonely, int(self._STEPS)]
        return np.concatenate([self._levels.numbers(), own, super()._numbers()])

    def _restore(self, numbers: list) -> None:
        *levels, self._wide, self._columns, self._lonely, _ = numbers
        self._levels = _Levels(*levels)

    def _windows(self, mu: tf.Tensor, sigma: tf.Tensor) -> _Windows:
        levels = self._levels
        mu, sigma = tf.reshape(mu, [-1]), tf.reshape(sigma, [-1])
        nearest = tf.floor(mu + 0.5)
        fraction = mu - nearest
        steps = (0.5 - tf.abs(fraction)) / sigma * self._STEPS
        column = tf.cast(clipped(steps, 0.0, self._columns - 1.0), tf.int32)
        bucket, half = levels.of(sigma)
        row = (
            (tf.minimum(bucket, self._wide) - levels.bottom) * self._columns
            + tf.maximum(bucket - self._wide, 0)
            + column
        )
        row = clipped(row, 0, len(self.rows) - 1)
        count = 2 * half + 1 + tf.cast(column < self._lonely, tf.int32)
        direction = 1 - 2 * tf.cast(fraction < 0.0, tf.int32)
        return _Windows(row + self.BASE, -half, count, tf.cast(nearest, tf.int32), direction)
