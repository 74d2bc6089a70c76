"""Coding by decisions: symbols of a Gaussian mixture, without a table for them.

The first decision is the side of the element's central integer on which the symbol is. The others
determine its distance from the centre, by halving the range from the distribution's reach down to
one integer. A distance beyond the reach, which is rare, is found by doubling and then halving. The
odds of a decision are those of two masses (`masses.py`). They select one of 1024 binary rows by the
exponent and the upper five bits of their float32, which is within 1/64 of the true odds.

`price` returns the resulting code length. It includes the heavy tail that `masses.py` adds. An
integer further than 4e6 from the centre takes up to 16 bits more.

Decisions are coded in rounds, with one decision per element. Encoder and decoder run the same
rounds on tensors of the same shapes, so all of their floats agree bit for bit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfquant.coding import range_coder
from tfquant.coding.masses import HALF_HEAVY, HEAVY, Edge, Side, seen_from_centre
from tfquant.coding.pmf import MAX_SYMBOL, PRECISION, TOTAL
from tfquant.coding.range_coder import Handle
from tfquant.coding.requirement import require
from tfquant.coding.tables import CPU, Table, clipped

# Increases with every change that could select another row, here or in a model's arguments. Files
# of one version cannot be read as those of another. Version 1 was never released.
VERSION = 4
VERSIONS = (2, 3, VERSION)  # versions that `masses.py` supports
VERSION_OF_FILES_1 = 3  # version in models that write .tfq files of version 1

# Initial range of distances: 2**4, doubled until it covers the distribution's reach, at most 2**12.
_LOG_WIDTH, _LOG_WIDTH_MAX = 4, 12


class DecisionTable(Table):
    """1024 binary rows; the odds of two masses select one for each decision.

    Its methods take these arguments:

      centre: [...] int32, an integer near each symbol's median.
      reach: [...] float32, a distance from the centre with little mass beyond it.
      mixture: (weights, start, slope), [K, ...] float32 each, as in `masses.seen_from_centre`. With
        `unit = sqrt(2) sigma`, `start = (centre - 1/2 - mu) / unit` and `slope = 1 / unit`.

    Args:
      version: one of VERSIONS; also an attribute.

    Raises:
      ValueError: the version is unknown.
    """

    _STEP_BITS = 5
    _SHIFT = 23 - _STEP_BITS
    _BOTTOM = (127 - PRECISION) << _STEP_BITS  # the bucket of odds of 2**-16
    _ROWS = 2 * PRECISION << _STEP_BITS
    # A negligible floor: two masses of 0 give even odds.
    _LEAST = 1e-30

    def __init__(self, version: int = VERSION):
        if version not in VERSIONS:
            raise ValueError(
                f"decisions of version {version}; known: {', '.join(map(str, VERSIONS))}"
            )
        self.version = version
        buckets = self._BOTTOM + np.arange(self._ROWS + 1)
        edges = (buckets.astype(np.int32) << self._SHIFT).view(np.float32).astype(np.float64)
        odds = np.sqrt(edges[:-1] * edges[1:])
        near = np.clip(np.rint(TOTAL * odds / (1.0 + odds)), 1, TOTAL - 1)
        super().__init__([0, int(n), TOTAL] for n in near)

    def _numbers(self) -> list[int]:
        return [self.version, _LOG_WIDTH, _LOG_WIDTH_MAX, int(1 / HEAVY)]

    @classmethod
    def from_numbers(cls, numbers: list, cdfs: list) -> DecisionTable:
        return cls(numbers[0])

    def index(self, near: tf.Tensor, far: tf.Tensor) -> tf.Tensor:
        """Returns the row of a decision between masses `near` (symbol 0) and `far` (symbol 1),
        int32.
        """
        odds = tf.maximum(near, self._LEAST) / tf.maximum(far, self._LEAST)
        bucket = tf.bitwise.right_shift(tf.bitcast(odds, tf.int32), self._SHIFT)
        last = self._BOTTOM + self._ROWS - 1
        return clipped(bucket, self._BOTTOM, last) + (self.BASE - self._BOTTOM)

    def price(self, bits: tf.Tensor, symbols: tf.Tensor, *where: Any) -> tf.Tensor:
        centre, *_ = where
        _, distance = _side_and_distance(symbols, centre)
        distance = tf.cast(distance, tf.float32)
        root, next_root = tf.sqrt(1.0 + distance), tf.sqrt(2.0 + distance)
        # The difference of their reciprocals, computed without cancellation.
        heavy = HALF_HEAVY / (root * next_root * (root + next_root))
        return -_log2((tf.pow(2.0, -bits) + heavy) / (1.0 + HEAVY))

    def encode(self, handle: Handle, symbols: tf.Tensor, *where: Any) -> Handle:
        symbols, (centre, reach, mixture) = tf.reshape(symbols, [-1]), _flat(*where)
        message = f"a symbol beyond +-{MAX_SYMBOL}: the latent is not finite, or far out of scale"
        left, distance = _side_and_distance(symbols, centre)
        # With a NaN as centre, a distance wraps around.
        bounded = (tf.abs(symbols) <= MAX_SYMBOL) & (distance >= 0) & (distance <= 2 * MAX_SYMBOL)
        with tf.control_dependencies([require(tf.reduce_all(bounded), message)]):
            known = _Known(tf.identity(left), tf.identity(distance))
        with tf.device(CPU):
            return self._traverse(handle, known, centre, reach, mixture)[0]

    def decode(self, handle: Handle, *where: Any) -> tuple[Handle, tf.Tensor]:
        with tf.device(CPU):
            handle, symbols = self._traverse(handle, _Unknown(), *_flat(*where))
            return handle, tf.reshape(symbols, tf.shape(where[0]))

    def _traverse(
        self,
        handle: Handle,
        coder: _Known | _Unknown,
        centre: tf.Tensor,
        reach: tf.Tensor,
        mixture: tuple,
    ) -> tuple[Handle, tf.Tensor]:
        """Codes all decisions. Returns the handle and the symbols, [n] int32."""
        above, below, turn = seen_from_centre(self.version, mixture)
        handle, left = coder.sides(handle, self.index(above, below))
        side, low, end = turn(left)
        search = _Search(self, coder, side)
        width = tf.bitwise.left_shift(tf.ones_like(centre), _log2_width(reach))
        handle, distance, low = search.within_reach(handle, width, low, end)

        # The last distance represents all distances beyond.
        ids = tf.where(distance == width - 1)[:, 0]
        few = [_gather(part, ids) for part in (distance, low, end)]
        handle, found = search.some(ids).beyond_reach(handle, *few)
        distance = tf.tensor_scatter_nd_update(distance, ids[:, None], found)
        return handle, tf.where(left, centre - 1 - distance, centre + distance)


class _Known(NamedTuple):
    """Encodes decisions on n symbols.

    Attributes:
      left: [n] bool, true for symbols below their centre.
      distance: [n] int32, their distances from the first integer on that side.
    """

    left: tf.Tensor
    distance: tf.Tensor

    def sides(self, handle: Handle, rows: tf.Tensor) -> tuple[Handle, tf.Tensor]:
        """Codes the sides with rows [n]. Returns the handle and the sides, [n] bool."""
        return self._encode(handle, rows, self.left)

    def at_least(
        self, handle: Handle, rows: tf.Tensor, distance: tf.Tensor, active: tf.Tensor
    ) -> tuple[Handle, tf.Tensor]:
        """Codes for `active` elements if they have a `distance` or more; both broadcast to [n].

        Returns:
          The handle and the decisions, [n] bool, false for other elements.
        """
        return self._encode(handle, rows, active & (self.distance >= distance))

    def some(self, ids: tf.Tensor) -> _Known:
        """Returns the coder of some of the symbols, with indices [m]."""
        return _gather(self, ids)

    def _encode(
        self, handle: Handle, rows: tf.Tensor, decisions: tf.Tensor
    ) -> tuple[Handle, tf.Tensor]:
        return range_coder.encode_rows(handle, rows, tf.cast(decisions, tf.int32)), decisions


class _Unknown:
    """Decodes the decisions that `_Known` encodes; the methods are the same."""

    def sides(self, handle: Handle, rows: tf.Tensor) -> tuple[Handle, tf.Tensor]:
        handle, decisions = range_coder.decode_rows(handle, rows)
        return handle, decisions > 0

    def at_least(
        self, handle: Handle, rows: tf.Tensor, distance: tf.Tensor, active: tf.Tensor
    ) -> tuple[Handle, tf.Tensor]:
        del distance, active  # the row of another element has only the symbol 0
        return self.sides(handle, rows)

    def some(self, ids: tf.Tensor) -> _Unknown:
        del ids
        return self


class _Search(NamedTuple):
    """Search for the distances of n symbols between two edges each, by decisions.

    Attributes:
      table: the table with the decisions' rows.
      coder: `_Known` or `_Unknown`.
      side: the mixture on the symbols' side of the centre.
    """

    table: DecisionTable
    coder: _Known | _Unknown
    side: Side

    def some(self, ids: tf.Tensor) -> _Search:
        """Returns the search for some of the symbols, with indices [m]."""
        return _Search(self.table, self.coder.some(ids), _gather(self.side, ids))

    def _decide(
        self, handle: Handle, distance: tf.Tensor, active: tf.Tensor, low: Edge, high: Edge
    ) -> tuple[Handle, tf.Tensor, Edge]:
        """Codes for `active` elements if they have a `distance` or more; both broadcast to [n].

        Returns:
          The handle, the decisions [n] bool, and the edge of `distance`, which is between `low`
          and `high`.
        """
        middle = self.side.edge(distance)
        rows = self.table.index(low.to(middle), middle.to(high))
        rows = tf.where(active, rows, range_coder.CERTAIN)
        handle, far = self.coder.at_least(handle, rows, distance, active)
        return handle, far, middle

    def within_reach(
        self, handle: Handle, width: tf.Tensor, low: Edge, high: Edge
    ) -> tuple[Handle, tf.Tensor, Edge]:
        """Halves `width` [n] distances down to one. Returns handle, distance [n], and its edge."""

        def halve(
            handle: Handle,
            distance: tf.Tensor,
            half: tf.Tensor | int,
            active: tf.Tensor,
            low: Edge,
            high: Edge,
        ) -> tuple[Handle, tf.Tensor, Edge, Edge]:
            further = distance + half
            handle, far, middle = self._decide(handle, further, active, low, high)
            distance, low = tf.where(far, further, distance), _where(far, middle, low)
            return handle, distance, low, _where(far | ~active, high, middle)

        # Those with a larger reach first, until all have the same number of distances left.
        common = 1 << _LOG_WIDTH

        def some_are_wider(
            handle: Handle, distance: tf.Tensor, width: tf.Tensor, low: Edge, high: Edge
        ) -> tf.Tensor:
            return tf.reduce_any(width > common)

        def halve_the_wider(
            handle: Handle, distance: tf.Tensor, width: tf.Tensor, low: Edge, high: Edge
        ) -> tuple[Handle, tf.Tensor, tf.Tensor, Edge, Edge]:
            active = width > common
            half = tf.where(active, width // 2, 0)
            handle, distance, low, high = halve(handle, distance, half, active, low, high)
            return handle, distance, tf.where(active, half, width), low, high

        state = (handle, tf.zeros_like(width), width, low, high)
        handle, distance, _, low, high = tf.while_loop(some_are_wider, halve_the_wider, state)
        everyone = tf.constant(True)
        for log_half in reversed(range(_LOG_WIDTH)):
            handle, distance, low, high = halve(
                handle, distance, 1 << log_half, everyone, low, high
            )
        return handle, distance, low

    def beyond_reach(
        self, handle: Handle, nearest: tf.Tensor, low: Edge, high: Edge
    ) -> tuple[Handle, tf.Tensor]:
        """Doubles `nearest` [n] until it is too far, then halves.

        Returns handle and distances [n].
        """

        def open_or_wide(
            handle: Handle, nearest: tf.Tensor, furthest: tf.Tensor, low: Edge, high: Edge
        ) -> tf.Tensor:
            return tf.reduce_any(furthest != nearest + 1)

        def narrow(
            handle: Handle, nearest: tf.Tensor, furthest: tf.Tensor, low: Edge, high: Edge
        ) -> tuple[Handle, tf.Tensor, tf.Tensor, Edge, Edge]:
            active = furthest != nearest + 1
            further = tf.where(furthest == 0, 2 * nearest + 1, (nearest + furthest) // 2)
            further = tf.where(active, further, nearest)
            handle, far, middle = self._decide(handle, further, active, low, high)
            # Only a forged stream continues beyond the largest distance.
            far &= further <= 2 * MAX_SYMBOL
            not_far = active & ~far
            return (
                handle,
                tf.where(far, further, nearest),
                tf.where(not_far, further, furthest),
                _where(far, middle, low),
                _where(not_far, middle, high),
            )

        # The distance is at least `nearest` and below `furthest`; 0 for no upper limit.
        state = (handle, nearest, tf.zeros_like(nearest), low, high)
        handle, nearest, *_ = tf.while_loop(open_or_wide, narrow, state)
        return handle, nearest


def _gather(parts: Any, ids: tf.Tensor) -> Any:
    """Returns the elements [..., m] with indices `ids` of (a nest of) tensors [..., n]."""
    return tf.nest.map_structure(lambda t: tf.gather(t, ids, axis=-1), parts)


def _flat(centre: tf.Tensor, reach: tf.Tensor, mixture: tuple) -> tuple:
    """Returns the arguments of a `DecisionTable` as [n], [n] and three [K, n]."""
    mixture = tuple(tf.reshape(part, [part.shape[0], -1]) for part in mixture)
    return tf.reshape(centre, [-1]), tf.reshape(reach, [-1]), mixture


def _where(condition: tf.Tensor, one: Edge, other: Edge) -> Edge:
    """Selects edges like `tf.where`, with a condition [n] bool."""
    return Edge(*(tf.where(condition, a, b) for a, b in zip(one, other)))


def _side_and_distance(symbols: tf.Tensor, centre: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns true for symbols below the centre, and their distance from that side's first
    integer.
    """
    left = symbols < centre
    return left, tf.where(left, centre - 1 - symbols, symbols - centre)


def _log2_width(reach: tf.Tensor) -> tf.Tensor:
    """Returns the exponent of the power of two above `reach`; arbitrary, but in range, for NaN."""
    whole = tf.cast(tf.clip_by_value(reach, 1.0, 2.0**_LOG_WIDTH_MAX), tf.int32)
    whole = tf.clip_by_value(whole, 1, 2**_LOG_WIDTH_MAX - 1)
    return tf.maximum(range_coder.log2(whole) + 1, _LOG_WIDTH)


def _log2(x: tf.Tensor) -> tf.Tensor:
    return tf.math.log(x) * np.float32(1.0 / np.log(2.0))
