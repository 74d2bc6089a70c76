"""Noise as a function of its seed, one seed an example.

An example's noise depends on `(run seed, purpose)` and on the example's place in the run, never on
the batch that it happens to sit in: the same run gives the same numbers on one device and on two,
and after it was stopped and resumed.
"""

from __future__ import annotations

import zlib

import tensorflow as tf

# Stay off the ends of (0, 1), where the logistic quantile is infinite.
_LOGISTIC_MARGIN = 1e-7


def example_seeds(seed: int, purpose: str, index: tf.Tensor, group: int = 0) -> tf.Tensor:
    """Seeds for one purpose.

    Args:
      seed: the run's seed.
      purpose: what the noise is for, such as the latent's name; distinct purposes get independent
        noise.
      index: [B] int64, each example's place in the run (step times global batch plus position).
      group: which of the groups that the purpose draws for one after the other; only
        `uniform_per_image` gives all groups the same.

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


# Odd and with well-mixed bits: groups' seeds lie far apart, whatever the purposes' are.
_GROUP_STRIDE = -0x61C8864680B583EB


def _per_example(draw, seeds: tf.Tensor) -> tf.Tensor:
    if seeds.shape[0] is None:
        return tf.map_fn(draw, seeds, fn_output_signature=tf.float32)
    return tf.stack([draw(seed) for seed in tf.unstack(seeds)])


def uniform(seeds: tf.Tensor, shape) -> tf.Tensor:
    """Uniform on [-1/2, 1/2), independent for each element.

    Args:
      seeds: [B, 3] int64, from `example_seeds`.
      shape: an example's shape, without the batch axis.

    Returns:
      [B, *shape] float32.
    """

    def draw(seed):
        purpose, place, group = tf.unstack(seed)
        seed = tf.stack([purpose + group * _GROUP_STRIDE, place])
        # XLA draws the same bits as TensorFlow's own kernel, but turns them into other floats.
        bits = tf.random.stateless_uniform(shape, seed, None, None, tf.uint32, alg="philox")
        high = tf.bitcast(tf.bitwise.right_shift(bits, 8), tf.int32)
        return tf.cast(high, tf.float32) * 2.0**-24 - 0.5

    return _per_example(draw, seeds)


def uniform_per_image(seeds: tf.Tensor, shape) -> tf.Tensor:
    """Uniform on [-1/2, 1/2), one draw for all elements of an example: [B, 1, ..., 1] float32."""
    rank = len(shape) if isinstance(shape, (list, tuple)) else int(shape.shape[0])
    return uniform(seeds * [1, 1, 0], [1] * rank)


def logistic(seeds: tf.Tensor, shape) -> tf.Tensor:
    """Standard logistic, the difference of two standard Gumbel variables: [B, *shape] float32."""
    p = tf.clip_by_value(uniform(seeds, shape) + 0.5, _LOGISTIC_MARGIN, 1.0 - _LOGISTIC_MARGIN)
    return tf.math.log(p) - tf.math.log1p(-p)
