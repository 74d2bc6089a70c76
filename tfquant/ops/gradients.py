"""Values with another map's gradient.

All are `tf.custom_gradient` over tensors that come in as arguments: a tensor that such a function
captures from outside silently gets no gradient.
"""

from __future__ import annotations

import tensorflow as tf


@tf.custom_gradient
def straight_through(value: tf.Tensor, surrogate: tf.Tensor) -> tf.Tensor:
    """`value` forward, the gradient of `surrogate` backward.

    Written as one op rather than `surrogate + stop_gradient(value - surrogate)`, whose rounding
    errors would make integers non-integers.

    Args:
      value: what the forward pass sees; gets no gradient.
      surrogate: same shape; gets the whole gradient.
    """

    def grad(upstream):
        return None, upstream

    return tf.identity(value), grad


@tf.custom_gradient
def attach_gradient(value: tf.Tensor, v: tf.Tensor, slope: tf.Tensor) -> tf.Tensor:
    """`value` unchanged, with `d value / d v = slope` added to the gradients it has already.

    Args:
      value: any tensor; its own gradient passes through.
      v: same shape; the point that gets `upstream * slope`.
      slope: same shape; gets no gradient.
    """

    def grad(upstream):
        return upstream, upstream * slope, None

    return tf.identity(value), grad


def lower_bound(x: tf.Tensor, bound) -> tf.Tensor:
    """`max(x, bound)`; below the bound the gradient still passes where descent would raise `x`.

    Args:
      x: [...] float.
      bound: broadcasts to the shape of `x`; gets no gradient.
    """
    x = tf.convert_to_tensor(x)  # a variable would not be an argument of the custom gradient
    return _lower_bound(x, tf.convert_to_tensor(bound, x.dtype))


@tf.custom_gradient
def _lower_bound(x, bound):
    def grad(upstream):
        return tf.where((x >= bound) | (upstream < 0), upstream, tf.zeros_like(upstream)), None

    return tf.maximum(x, bound), grad


def upper_bound(x: tf.Tensor, bound) -> tf.Tensor:
    """`min(x, bound)`; above the bound the gradient still passes where descent would lower `x`.

    Arguments as in `lower_bound`.
    """
    return -lower_bound(-x, -bound)
