"""Masses of a Gaussian mixture's integers, as decisions need them (`decisions.py`).

Decisions use a mixture relative to its central integer. On either side, the integers are numbered
by their distance 0, 1, 2, ... from the centre. The *edge* of a distance is the point where the
integers from that distance on begin. A heavy tail is added: on either side, distances from d on
have an additional mass of `HEAVY / (2 sqrt(1 + d))`. With it, any integer up to MAX_SYMBOL can be
coded. The added mass exceeds float32's error in the mixture's tails, so these need not be accurate.

There are three versions, because the version determines the bits of a file:

- Version 4 computes each component's tail probability by additions, multiplications, divisions and
  square roots, which give the same float32 on every machine. The relative error of a tail is below
  1e-3 up to six standard deviations. Beyond, only the heavy tail matters.
- Version 3 has a reciprocal in the heavy tail. TensorFlow's optimizer replaces it by an
  approximation that depends on the processor and on TensorFlow's version. It is needed to read
  files of version 1.
- Version 2 computes cumulative probabilities from `tf.math.erf`, whose bits changed with TensorFlow
  2.20. It is needed to read the files of models that were exported by tfquant 0.1.
"""

from __future__ import annotations

import functools
import zlib
from typing import NamedTuple

import numpy as np
import tensorflow as tf

# With this value, the first far decision of the tail is about as improbable as the coder allows.
HEAVY = 2.0**-13
HALF_HEAVY = 0.5 * HEAVY  # on either side

# erfc(u) / 2 = 1 / (2 P(u)^32) for 0 <= u <= _FAR. P(0) = 1 makes the value at 0 exact. The other
# five coefficients minimize the largest relative error compared with scipy.special.log_ndtr,
# 6.4e-4. They solve the linear program "minimize e subject to |P(u) erfc(u)^(1/32) - 1| <= e" over
# 4000 Chebyshev points (scipy.optimize.linprog). A decision's odds are rounded to 1/32, which costs
# more.
_TAIL = (1.0, 0.0354533531, 0.0199537985, 0.00443928363, -0.000496892259, 0.000133236521)
_SQUARINGS = 5
_FAR = 6.0 * np.sqrt(0.5)  # six standard deviations; beyond, only the heavy tail matters


def tail(u: tf.Tensor) -> tf.Tensor:
    """Returns `P(X > u) = erfc(u) / 2` for a Gaussian X of variance 1/2, with elementary
    operations.

    Args:
      u: [...] float32.

    Returns:
      [...] float32, relative error below 1e-3 for u <= 4.24; constant beyond.
    """
    distance = tf.minimum(tf.abs(u), np.float32(_FAR))
    power = _TAIL[-1] * distance
    for coefficient in _TAIL[-2:0:-1]:
        power = (power + coefficient) * distance
    power += _TAIL[0]
    for _ in range(_SQUARINGS):
        power = tf.square(power)
    beyond = 0.5 / power
    return tf.where(u < 0.0, 1.0 - beyond, beyond)


class Edge(NamedTuple):
    """The masses beyond the edge of a distance, [n] float32 each, up to a constant per element.

    They are separate, because in their sum the mixture's mass would round off that of the heavy
    tail.
    """

    mixture: tf.Tensor
    heavy: tf.Tensor

    def to(self, further: Edge) -> tf.Tensor:
        """Returns the mass between this edge and one further out, [n] float32."""
        # The mixture's mass may increase by a last bit if float32 cannot distinguish the edges.
        return tf.maximum(self.mixture - further.mixture, 0.0) + (self.heavy - further.heavy)


class Side(NamedTuple):
    """A mixture on one side of its centre, version 4.

    The attributes are as in `seen_from_centre`.
    """

    weights: tf.Tensor
    start: tf.Tensor
    slope: tf.Tensor

    def edge(self, distance: tf.Tensor) -> Edge:
        """Returns the edge of `distance`, [n] or scalar int32."""
        distance = tf.cast(distance, tf.float32)
        return Edge(self.beyond(self.start + self.slope * distance), self.heavy(distance))

    def beyond(self, points: tf.Tensor) -> tf.Tensor:
        """Returns the mass beyond `points: [K, n]`, one per component, up to a constant: [n]."""
        # A reduction: TensorFlow's optimizer would merge a chain of additions with others, and the
        # decoder would add in another order than the encoder.
        return tf.reduce_sum(self.weights * tail(points), axis=0)

    def heavy(self, distance: tf.Tensor) -> tf.Tensor:
        """Returns the heavy tail's mass beyond a distance, [n] float32."""
        # TensorFlow's optimizer would turn a division by a root into an approximate `rsqrt`, and
        # `1 / x` into an approximate reciprocal.
        return tf.sqrt(HALF_HEAVY**2 / (1.0 + distance))

    def halves(self) -> tuple:
        """Returns the mixture's masses above and below the centre, and the `mixture` of three
        edges.

        The edges are those of distance 0 above, of distance 0 below, and the edge with no mass
        beyond.
        """
        above = self.beyond(self.start)
        below = tf.reduce_sum(self.weights, axis=0) - above
        return above, below, (above, below, tf.zeros_like(above))


class SideOfVersion3(Side):
    """A mixture on one side of its centre, version 3."""

    def heavy(self, distance: tf.Tensor) -> tf.Tensor:
        return HALF_HEAVY * tf.sqrt(1.0 / (1.0 + distance))


class SideOfVersion2(Side):
    """A mixture on one side of its centre, version 2, whose `weights` are half the weights.

    The `mixture` of an edge is minus the mass between the median and the edge.
    """

    def beyond(self, points: tf.Tensor) -> tf.Tensor:
        return -tf.reduce_sum(self.weights * tf.math.erf(points), axis=0)

    def heavy(self, distance: tf.Tensor) -> tf.Tensor:
        return HALF_HEAVY / tf.sqrt(1.0 + distance)

    def halves(self) -> tuple:
        half = tf.reduce_sum(self.weights, axis=0)  # 1/2 up to rounding
        median = self.beyond(self.start)
        return half + median, half - median, (median, -median, -half)


def seen_from_centre(version: int, mixture: tuple) -> tuple:
    """Returns a mixture's masses on both sides of its centre.

    Args:
      version: version of the decisions.
      mixture: (weights, start, slope), [K, n] float32 each, of K components. Weights sum to 1. The
        edge of distance d above the centre is at `start + slope d` in units of a component with
        variance 1/2.

    Returns:
      above: [n] float32, the mass of the integers from the centre on.
      below: [n] float32, the mass of those below.
      turn: maps `left: [n] bool`, the symbols' sides, to the `Side`, the edge of its distance 0,
        and the edge with no mass beyond.
    """
    weights, start, slope = mixture
    both: Side
    if version == 2:
        both = SideOfVersion2(0.5 * weights, start, slope)
    else:
        both = {3: SideOfVersion3, 4: Side}[version](*mixture)
    above, below, (first_above, first_below, last) = both.halves()

    def turn(left: tf.Tensor) -> tuple[Side, Edge, Edge]:
        side = both._replace(start=tf.where(left, -1.0, 1.0) * start)
        nothing = tf.zeros_like(last)
        first = Edge(tf.where(left, first_below, first_above), nothing + HALF_HEAVY)
        return side, first, Edge(last, nothing)

    return above + HALF_HEAVY, below + HALF_HEAVY, turn


# CRC-32 of `tf.math.erf` at 2**14 points from -4 to 4, in TensorFlow 2.14 to 2.19.
_ERF_CHECKSUM = 0x456582F1


@functools.lru_cache(maxsize=1)
def has_version_2() -> bool:
    """Returns true if `tf.math.erf` gives the bits that files of version 2 need."""
    with tf.init_scope(), tf.device("/CPU:0"):
        values = tf.math.erf(tf.range(-(2**13), 2**13, dtype=tf.float32) / 2**11)
    return zlib.crc32(values.numpy().tobytes()) == _ERF_CHECKSUM
