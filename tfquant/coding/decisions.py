"""Coding by decisions: symbols of a mixture of symmetric distributions, with no table for them.

On which side of the element's central integer is the symbol? How far from it? The distance is
halved, from the distribution's reach down to one integer; what lies beyond the reach, which is
rare, is found by doubling and then halving. The odds of a decision, two differences of the exact
CDF, choose one of 1024 binary rows by the exponent and the upper five bits of their float32: within
1/64 of the true odds.

So that any integer up to MAX_SYMBOL from the centre can be coded, each distribution has a little of
a heavy-tailed one mixed in: on either side, `HEAVY / (2 sqrt(1 + d))` more for distances from d on.
What that makes of the bits, `price` says. It lies above what float32 has of `1 - erf`, so that the
CDF need not be accurate in its tails.

Decisions go in rounds, one for each element. Encoder and decoder run the same rounds on tensors of
the same shapes, so all they compute in floats agrees bit for bit.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfquant.coding import range_coder
from tfquant.coding.pmf import MAX_SYMBOL, PRECISION, TOTAL
from tfquant.coding.tables import CPU, Table, clipped

# The tail's first far decision is then about as improbable as the coder allows.
HEAVY = 2.0**-13

# Distances to begin with, 2**4 doubled until they cover the distribution's reach, at most to 2**12.
_LOG_WIDTH, _LOG_WIDTH_MAX = 4, 12


class DecisionTable(Table):
    """1024 binary rows: two masses, as odds, choose one for each decision.

    What an element is coded by:

      centre: [n] int32, an integer near its median.
      reach: [n] float32, a distance from the centre beyond which little is left.
      mixture: (weights, start, slope), [K, n] float32 each, of K components. Weights sum to 1. The
        integers at distance d above the centre, and all beyond, begin at `start + slope d` in units
        of a component: `start = (centre - 1/2 - mu) / sigma`, `slope = 1 / sigma`.
      odd: of a component of unit scale around 0, `u -> 2 P(U <= u) - 1`; `tf.math.erf` for one.
    """

    _STEP_BITS = 5
    _SHIFT = 23 - _STEP_BITS
    _BOTTOM = (127 - PRECISION) << _STEP_BITS  # the bucket where odds of 2**-16 begin
    _ROWS = 2 * PRECISION << _STEP_BITS
    # Far above any float32 that underflows, far below all that matters: 0 : 0 becomes even odds.
    _LEAST = 1e-30

    def __init__(self):
        buckets = self._BOTTOM + np.arange(self._ROWS + 1)
        edges = (buckets.astype(np.int32) << self._SHIFT).view(np.float32).astype(np.float64)
        odds = np.sqrt(edges[:-1] * edges[1:])
        near = np.clip(np.rint(TOTAL * odds / (1.0 + odds)), 1, TOTAL - 1)
        super().__init__([0, int(n), TOTAL] for n in near)

    def _numbers(self):
        return [_LOG_WIDTH, _LOG_WIDTH_MAX, int(1 / HEAVY)]

    def index(self, near: tf.Tensor, far: tf.Tensor) -> tf.Tensor:
        """Row of a decision between masses `near` (symbol 0) and `far` (symbol 1), int32."""
        odds = tf.maximum(near, self._LEAST) / tf.maximum(far, self._LEAST)
        bucket = tf.bitwise.right_shift(tf.bitcast(odds, tf.int32), self._SHIFT)
        last = self._BOTTOM + self._ROWS - 1
        return clipped(bucket, self._BOTTOM, last) + (self.BASE - self._BOTTOM)

    def price(self, bits, symbols, centre, *_) -> tf.Tensor:
        """What coding takes, [n] float32, where the distribution alone says `bits`, [n] float32."""
        _, distance = _side_and_distance(symbols, centre)
        distance = tf.cast(distance, tf.float32)
        near, far = tf.sqrt(1.0 + distance), tf.sqrt(2.0 + distance)
        heavy = 0.5 * HEAVY / (near * far * (near + far))  # 1 / near - 1 / far, without cancelling
        return -_log2((tf.pow(2.0, -bits) + heavy) / (1.0 + HEAVY))

    def encode(self, handle, symbols, centre, reach, mixture, odd) -> tf.Tensor:
        """Codes symbols, [n] int32, within MAX_SYMBOL of 0; else an InvalidArgumentError."""
        message = f"a symbol beyond +-{MAX_SYMBOL}: the latent is not finite, or far out of scale"
        left, distance = _side_and_distance(symbols, centre)
        # From a centre that is no number, a distance wraps around.
        bounded = (tf.abs(symbols) <= MAX_SYMBOL) & (distance >= 0) & (distance <= 2 * MAX_SYMBOL)
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(bounded), [message])]):
            left, distance = tf.identity(left), tf.identity(distance)

        def exchange(handle, rows, answer):
            bits = answer(left, distance)
            return range_coder.encode_rows(handle, rows, tf.cast(bits, tf.int32)), bits

        with tf.device(CPU):
            return self._traverse(handle, centre, reach, mixture, odd, exchange)[0]

    def decode(self, handle, centre, reach, mixture, odd) -> tuple[tf.Tensor, tf.Tensor]:
        """Reads symbols, [n] int32; returns handle and symbols."""

        def exchange(handle, rows, answer):
            del answer
            handle, bits = range_coder.decode_rows(handle, rows)
            return handle, bits > 0

        with tf.device(CPU):
            return self._traverse(handle, centre, reach, mixture, odd, exchange)

    def _traverse(self, handle, centre, reach, mixture, odd, exchange):
        """Walks all decisions.

        `exchange(handle, rows, answer)` codes one round: the encoder takes the decisions, [m] bool,
        from `answer(left, distance)`, the decoder from the stream; both return (handle, decisions).
        """
        weights, start, slope = mixture
        half_weights = 0.5 * weights

        def share(distance):
            """The heavy tail's mass of `distance` and more."""
            return 0.5 * HEAVY / tf.sqrt(1.0 + tf.cast(distance, tf.float32))

        def nearer(parts, distance):
            """The mixture's mass from the median to before `distance` on the symbol's side."""
            half_weights, start, slope = parts
            points = start + slope * tf.cast(distance, tf.float32)
            return tf.reduce_sum(half_weights * odd(points), axis=0)

        def mass(parts, distance):
            """Of `distance` and more on the symbol's side."""
            return (0.5 + share(distance)) - nearer(parts, distance)

        off_median = tf.reduce_sum(half_weights * odd(start), axis=0)
        above, below = ((0.5 + 0.5 * HEAVY) + side * off_median for side in (-1.0, 1.0))
        handle, left = exchange(handle, self.index(above, below), lambda left, distance: left)
        parts = half_weights, tf.where(left, -start, start), slope

        def halve(handle, low, half, mass_low, mass_high, active=None):
            """Decides whether the distance is `low + half` or more; certain where not active."""
            middle = low + half
            mass_middle = mass(parts, middle)
            rows = self.index(mass_low - mass_middle, mass_middle - mass_high)
            if active is not None:
                rows = tf.where(active, rows, range_coder.CERTAIN)
            handle, far = exchange(
                handle, rows,
                lambda left, distance: distance >= middle if active is None
                else active & (distance >= middle),
            )  # fmt: skip
            low, mass_low = tf.where(far, middle, low), tf.where(far, mass_middle, mass_low)
            kept = far if active is None else far | ~active
            return handle, low, mass_low, tf.where(kept, mass_high, mass_middle)

        # Those with a longer reach first, until all have the same number of distances left.
        width = tf.bitwise.left_shift(tf.ones_like(centre), _log2_width(reach))
        common = 1 << _LOG_WIDTH

        def some_are_wider(handle, low, width, mass_low, mass_high):
            return tf.reduce_any(width > common)

        def narrow_wide(handle, low, width, mass_low, mass_high):
            active = width > common
            half = tf.where(active, width // 2, 0)
            handle, low, mass_low, mass_high = halve(handle, low, half, mass_low, mass_high, active)
            return handle, low, tf.where(active, half, width), mass_low, mass_high

        state = (
            handle,
            tf.zeros_like(centre),
            width,
            tf.where(left, below, above),
            tf.zeros_like(off_median),
        )
        handle, distance, _, mass_low, mass_high = tf.while_loop(some_are_wider, narrow_wide, state)
        for log_half in reversed(range(_LOG_WIDTH)):
            handle, distance, mass_low, mass_high = halve(
                handle, distance, 1 << log_half, mass_low, mass_high
            )

        # The last distance stands for all that are beyond. There the heavy tail is nearly all
        # that is left: its mass is kept apart from what would round it away.
        ids = tf.where(distance == width - 1)[:, 0]
        few = tuple(tf.gather(part, ids, axis=-1) for part in parts)
        low = tf.gather(distance, ids)
        nearer_than_low = nearer(few, low)
        state = (
            handle,
            low,  # <= distance
            tf.zeros_like(low),  # > distance, 0 for none
            nearer_than_low,
            tf.fill(tf.shape(nearer_than_low), 0.5),
        )

        def open_or_wide(handle, low, high, nearer_than_low, nearer_than_high):
            return tf.reduce_any(high != low + 1)

        def narrow(handle, low, high, nearer_than_low, nearer_than_high):
            active = high != low + 1
            middle = tf.where(high == 0, 2 * low + 1, (low + high) // 2)
            middle = tf.where(active, middle, low)
            nearer_than_middle = nearer(few, middle)
            beyond = tf.where(high == 0, 0.0, share(high))
            near = (nearer_than_middle - nearer_than_low) + (share(low) - share(middle))
            far = (nearer_than_high - nearer_than_middle) + (share(middle) - beyond)
            rows = tf.where(active, self.index(near, far), range_coder.CERTAIN)
            handle, is_far = exchange(
                handle, rows,
                lambda left, distance: active & (tf.gather(distance, ids) >= middle),
            )  # fmt: skip
            # Only a forged stream goes on beyond the largest distance.
            is_far &= middle <= 2 * MAX_SYMBOL
            is_near = active & ~is_far
            return (
                handle,
                tf.where(is_far, middle, low),
                tf.where(is_near, middle, high),
                tf.where(is_far, nearer_than_middle, nearer_than_low),
                tf.where(is_near, nearer_than_middle, nearer_than_high),
            )

        handle, low, *_ = tf.while_loop(open_or_wide, narrow, state)
        distance = tf.tensor_scatter_nd_update(distance, ids[:, None], low)
        return handle, tf.where(left, centre - 1 - distance, centre + distance)


def _side_and_distance(symbols, centre):
    """Whether below the centre, and how many integers lie between it and that side's first."""
    left = symbols < centre
    return left, tf.where(left, centre - 1 - symbols, symbols - centre)


def _log2_width(reach):
    """Exponent of the power of two above `reach`, within its bounds; whatever, for what is NaN."""
    whole = tf.cast(tf.clip_by_value(reach, 1.0, 2.0**_LOG_WIDTH_MAX), tf.int32)
    whole = tf.clip_by_value(whole, 1, 2**_LOG_WIDTH_MAX - 1)
    return tf.maximum(range_coder.log2(whole) + 1, _LOG_WIDTH)


def _log2(x):
    return tf.math.log(x) * np.float32(1.0 / np.log(2.0))
