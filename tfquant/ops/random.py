"""Noise as a pure function of seeds, with one seed per example.

The noise of an example depends on the run seed, the purpose and the example's place in the run, but
not on its batch. A run therefore gives the same numbers on one device and on two, and after an
interruption and resumption.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import tensorflow as tf

# Distance from the ends of (0, 1), where the logistic quantile is infinite.
_LOGISTIC_MARGIN = 1e-7


def example_seeds(seed: int, purpose: str, index: tf.Tensor, group: int = 0) -> tf.Tensor:
    """Returns the seeds of one purpose, one for each example.

    Args:
      seed: the run's seed, below 2**32.
      purpose: the use of the noise, such as a latent's name. Different purposes get independent
        noise.
      index: [B] int64, each example's place in the run (step times global batch plus position).
      group: index of the latent's group that gets the noise. `uniform_per_image` ignores it, so
        that all groups of an image share one draw.

    Returns:
      [B, 3] int64: purpose, place, group.
    """
    purpose_seed = (int(seed) << 32) | zlib.crc32(purpose.encode())
    purpose_seed = (purpose_seed + 2**63) % 2**64 - 2**63
    index = tf.cast(index, tf.int64)
    purposes, groups = (
        tf.fill(tf.shape(index), tf.constant(n, tf.int64)) for n in (purpose_seed, group)
    )
    return tf.stack([purposes, index, groups], axis=-1)


def salted(seeds: tf.Tensor, use: str) -> tf.Tensor:
    """Returns seeds for another use, whose noise is independent of that of `seeds`.

    Args:
      seeds: [B, 3] int64, from `example_seeds`.
      use: a name, such as that of the surrogate that draws. Different uses get independent noise.

    Returns:
      [B, 3] int64: `seeds` with the salt of `use` added to the purpose.
    """
    salt = zlib.crc32(use.encode()) * _SALT_STRIDE
    salt = (salt + 2**63) % 2**64 - 2**63
    return seeds + tf.constant([salt, 0, 0], tf.int64)


# Odd, with well-mixed bits: keeps salted purposes far apart, also from those of other groups.
_SALT_STRIDE = 0x5851F42D4C957F2D

# Odd, with well-mixed bits: keeps the seeds of groups far apart for any purpose.
_GROUP_STRIDE = -0x61C8864680B583EB


# The key with which TensorFlow's stateless random functions scramble a seed.
_PHILOX = tf.random.Algorithm.PHILOX.value
_SCRAMBLING_KEY = 0x02461E293EC8F720


def _bits(keys: tf.Tensor, counters: tf.Tensor, shape: tf.Tensor | Sequence[int]) -> tf.Tensor:
    """Draws Philox bits: `keys: [B, 1] uint64`, `counters: [B, 2] uint64` -> [B, *shape] uint32."""

    def draw(state: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        key, counter = state
        return tf.raw_ops.StatelessRandomUniformFullIntV2(
            shape=shape, key=key, counter=counter, alg=_PHILOX, dtype=tf.uint32
        )

    if keys.shape[0] is None:
        return tf.map_fn(draw, (keys, counters), fn_output_signature=tf.uint32)
    return tf.stack(list(map(draw, zip(tf.unstack(keys), tf.unstack(counters)))))


def _scrambled(seeds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns TensorFlow's keys, [B, 1], and counters, [B, 2] uint64, for `seeds: [B, 2] int64`."""
    counters = tf.bitcast(seeds, tf.uint64)
    keys = tf.fill(tf.shape(counters[:, :1]), tf.constant(_SCRAMBLING_KEY, tf.uint64))
    words = tf.cast(tf.reshape(_bits(keys, counters, [4]), [-1, 2, 2]), tf.uint64)
    mixed = tf.bitwise.bitwise_or(words[..., 0], tf.bitwise.left_shift(words[..., 1], 32))  # [B, 2]
    return mixed[:, :1], tf.stack([tf.zeros_like(mixed[:, 1]), mixed[:, 1]], axis=-1)


def uniform(seeds: tf.Tensor, shape: tf.Tensor | Sequence[int]) -> tf.Tensor:
    """Draws uniformly on [-1/2, 1/2), independently for each element.

    Args:
      seeds: [B, 3] int64, from `example_seeds`.
      shape: the shape of one example, without the batch axis.

    Returns:
      [B, *shape] float32.
    """
    purpose, place, group = tf.unstack(seeds, axis=-1)
    seeds = tf.stack([purpose + group * _GROUP_STRIDE, place], axis=-1)
    # The random bits are those of `tf.random.stateless_uniform`. That function is not used, because
    # it traces two dozen operations per example for every group of every latent, and because XLA
    # converts its bits to other floats than TensorFlow's kernel does.
    high = tf.bitcast(tf.bitwise.right_shift(_bits(*_scrambled(seeds), shape), 8), tf.int32)
    return tf.cast(high, tf.float32) * 2.0**-24 - 0.5


def uniform_per_image(seeds: tf.Tensor, shape: tf.Tensor | Sequence[int]) -> tf.Tensor:
    """Draws uniformly on [-1/2, 1/2), once per example: [B, 1, ..., 1] float32."""
    rank = len(shape) if isinstance(shape, Sequence) else int(shape.shape[0])
    return uniform(seeds * [1, 1, 0], [1] * rank)


def logistic(seeds: tf.Tensor, shape: tf.Tensor | Sequence[int]) -> tf.Tensor:
    """Draws standard logistic noise (difference of two Gumbel variables): [B, *shape] float32."""
    p = tf.clip_by_value(uniform(seeds, shape) + 0.5, _LOGISTIC_MARGIN, 1.0 - _LOGISTIC_MARGIN)
    return tf.math.log(p) - tf.math.log1p(-p)
