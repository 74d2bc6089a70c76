"""Coding by decisions: symbols of any distribution whose CDF can be computed, such as a mixture.

On which side of the element's central integer is the symbol? How far from it? The distance is
halved, from the distribution's reach down to one integer; what lies beyond the reach, which is
rare, is found by doubling and then halving. The odds of a decision, two differences of the exact
CDF, choose one of 1024 binary rows by the exponent and the upper five bits of their float32: within
1/64 of the true odds.

So that any integer up to MAX_SYMBOL from the centre can be coded, each distribution has a little of
a heavy-tailed one mixed in: on either side, `HEAVY / (2 sqrt(1 + d))` more for distances from d on.
What that makes of the bits, `price` says.

Decisions go in rounds, one for each element. Encoder and decoder run the same rounds on tensors of
the same shapes, so all they compute in floats agrees bit for bit.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfquant.coding import range_coder
from tfquant.coding.pmf import MAX_SYMBOL, PRECISION, TOTAL
from tfquant.coding.tables import CPU, Table

# The tail's first far decision is then about as improbable as the coder allows.
HEAVY = 2.0**-13

# Distances to begin with, doubled until they cover the distribution's reach, at most to 2**12.
_LOG_WIDTH, _LOG_WIDTH_MAX = 4, 12


class DecisionTable(Table):
    """1024 binary rows: two masses, as odds, choose one for each decision.

    What an element is coded by:

      centre: [n] int32, an integer near its median.
      reach: [n] float32, a distance from the centre beyond which little is left.
      params: tuple of tensors [..., n], whose last axis is gathered where few elements are left.
      tail: maps (params, side, x), side +1 or -1 and x [n] float32, to P(X > x) for side +1 and
        P(X < x) for -1, accurate far out.
    """

    _STEP_BITS = 5
    _SHIFT = 23 - _STEP_BITS
    _BOTTOM = (127 - PRECISION) << _STEP_BITS  # the bucket where odds of 2**-16 begin
    _ROWS = 2 * PRECISION << _STEP_BITS
    # Far above any float32 that underflows, far below all that matters: 0 : 0 becomes even odds.
    _TINY = 1e-30

    def __init__(self):
        buckets = self._BOTTOM + np.arange(self._ROWS + 1)
        edges = (buckets.astype(np.int32) << self._SHIFT).view(np.float32).astype(np.float64)
        odds = np.sqrt(edges[:-1] * edges[1:])
        near = np.clip(np.rint(TOTAL * odds / (1.0 + odds)), 1, TOTAL - 1)
        super().__init__([0, int(n), TOTAL] for n in near)

    def index(self, near: tf.Tensor, far: tf.Tensor) -> tf.Tensor:
        """Row of a decision between masses `near` (symbol 0) and `far` (symbol 1), int32."""
        odds = (near + self._TINY) / (far + self._TINY)
        bucket = tf.bitwise.right_shift(tf.bitcast(odds, tf.int32), self._SHIFT)
        return tf.clip_by_value(bucket - self._BOTTOM, 0, self._ROWS - 1) + self.BASE

    def price(self, bits, symbols, centre, reach, params, tail) -> tf.Tensor:
        """What coding takes, [n] float32, where the distribution alone says `bits`, [n] float32."""
        del reach, params, tail
        _, distance = _side_and_distance(symbols, centre)
        distance = tf.cast(distance, tf.float32)
        near, far = tf.sqrt(1.0 + distance), tf.sqrt(2.0 + distance)
        heavy = 0.5 * HEAVY / (near * far * (near + far))  # 1 / near - 1 / far, without cancelling
        return -_log2((tf.pow(2.0, -bits) + heavy) / (1.0 + HEAVY))

    def encode(self, handle, symbols, centre, reach, params, tail) -> tf.Tensor:
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
            return self._traverse(handle, centre, reach, params, tail, exchange)[0]

    def decode(self, handle, centre, reach, params, tail) -> tuple[tf.Tensor, tf.Tensor]:
        """Reads symbols, [n] int32; returns handle and symbols."""

        def exchange(handle, rows, answer):
            del answer
            handle, bits = range_coder.decode_rows(handle, rows)
            return handle, bits > 0

        with tf.device(CPU):
            return self._traverse(handle, centre, reach, params, tail, exchange)

    def _traverse(self, handle, centre, reach, params, tail, exchange):
        """Walks all decisions.

        `exchange(handle, rows, answer)` codes one round: the encoder takes the decisions, [m] bool,
        from `answer(left, distance)`, the decoder from the stream; both return (handle, decisions).
        """
        origin = tf.cast(centre, tf.float32) - 0.5

        def mass(params, origin, side, distance):
            """Of `distance` and more on that side."""
            distance = tf.cast(distance, tf.float32)
            share = 0.5 * HEAVY / tf.sqrt(1.0 + distance)
            return tail(params, side, origin + side * distance) + share

        def beyond(handle, active, middle, elements, mass_low, mass_high, of=tf.identity):
            """Codes whether the distance is `middle` or more: handle, decisions, mass from there.

            `of` takes from a tensor of all elements those that are decided on.
            """
            mass_middle = mass(*elements, middle)
            odds = self.index(
                tf.maximum(mass_low - mass_middle, 0.0), tf.maximum(mass_middle - mass_high, 0.0)
            )
            rows = tf.where(active, odds, range_coder.CERTAIN)
            handle, far = exchange(
                handle, rows, lambda left, distance: active & (of(distance) >= middle)
            )
            return handle, far, mass_middle

        one = tf.ones_like(origin)
        above, below = (mass(params, origin, side, tf.zeros_like(one)) for side in (one, -one))
        handle, left = exchange(handle, self.index(above, below), lambda left, distance: left)
        side = tf.where(left, -one, one)
        exponent = _log2_width(reach)

        def unknown(handle, low, width, mass_low, mass_high):
            return tf.reduce_any(width > 1)

        def halve(handle, low, width, mass_low, mass_high):
            half = width // 2
            active, middle = half > 0, low + half
            handle, far, mass_middle = beyond(
                handle, active, middle, (params, origin, side), mass_low, mass_high
            )
            low = tf.where(far, middle, low)
            mass_high = tf.where(far | ~active, mass_high, mass_middle)
            return handle, low, half, tf.where(far, mass_middle, mass_low), mass_high

        zero = tf.zeros_like(centre)
        width = tf.bitwise.left_shift(zero + 1, exponent)
        state = (handle, zero, width, tf.where(left, below, above), tf.zeros_like(origin))
        handle, distance, _, mass_low, _ = tf.while_loop(unknown, halve, state)

        # The last distance stands for all that are beyond.
        ids = tf.where(distance == width - 1)[:, 0]
        few = tuple(tf.gather(p, ids, axis=-1) for p in params)
        few_side, few_origin = tf.gather(side, ids), tf.gather(origin, ids)
        low = tf.gather(distance, ids)
        state = (
            handle,
            low,  # <= distance
            tf.zeros_like(low),  # > distance, 0 for none
            tf.gather(mass_low, ids),
            tf.zeros_like(few_side),
        )

        def open_or_wide(handle, low, high, mass_low, mass_high):
            return tf.reduce_any(high != low + 1)

        def narrow(handle, low, high, mass_low, mass_high):
            active = high != low + 1
            middle = tf.where(high == 0, 2 * low + 1, (low + high) // 2)
            middle = tf.where(active, middle, low)
            handle, far, mass_middle = beyond(
                handle, active, middle, (few, few_origin, few_side), mass_low, mass_high,
                of=lambda every: tf.gather(every, ids),
            )  # fmt: skip
            # Only a forged stream goes on beyond the largest distance.
            far &= middle <= 2 * MAX_SYMBOL
            near = active & ~far
            high, mass_high = tf.where(near, middle, high), tf.where(near, mass_middle, mass_high)
            return (
                handle,
                tf.where(far, middle, low),
                high,
                tf.where(far, mass_middle, mass_low),
                mass_high,
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
