"""Values with another map's gradient.

Most are `tf.custom_gradient` over tensors that come in as arguments: a tensor that such a function
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
      x: [...] float, a tensor or a variable.
      bound: broadcasts to the shape of `x`; gets no gradient.
    """
    # A variable that casts itself, or that has replicas, would be taken for a captured one.
    x = tf.convert_to_tensor(x)
    return _lower_bound(x, tf.convert_to_tensor(bound, x.dtype))


@tf.custom_gradient
def _lower_bound(x: tf.Tensor, bound: tf.Tensor) -> tf.Tensor:
    def grad(upstream):
        return tf.where((x >= bound) | (upstream < 0), upstream, tf.zeros_like(upstream)), None

    return tf.maximum(x, bound), grad


def upper_bound(x: tf.Tensor, bound) -> tf.Tensor:
    """`min(x, bound)`; above the bound the gradient still passes where descent would lower `x`.

    Arguments as in `lower_bound`.
    """
    return -lower_bound(-x, -bound)


def beyond_floor(log_p: tf.Tensor, floor: float) -> tf.Tensor:
    """`log_p`; below `floor` its slow continuation `floor (1 + log(log_p / floor))`.

    The continuation has the value and the slope of `log_p` at the floor. Its slope below is
    `floor / log_p`. The log probability of a tail is a power of the distance and of 1 / sigma, so
    that the slope to the distance is `power floor / distance`, and the slope to log sigma is
    `power floor`, whatever sigma is.

    Args:
      log_p: [...] float, log probabilities.
      floor: a negative number.
    """
    below = tf.minimum(log_p, floor) / floor  # 1 above the floor
    return tf.maximum(log_p, floor) + floor * tf.math.log(below)


@tf.custom_gradient
def floor_log(log_p: tf.Tensor, floor: float) -> tf.Tensor:
    """`max(log_p, floor)`, with the gradient of `beyond_floor` where descent would raise `log_p`.

    The literature bounds `p` itself: below the floor its gradient is `p / exp(floor)` times that of
    `log_p`. A `p` far below underflows to 0 in float32, and its gradient is lost. The gradient of
    `log_p` alone would be as large as 1 / sigma^2. The one here is finite and not 0.

    Args:
      log_p: [...] float, log probabilities.
      floor: a negative number.
    """

    def grad(upstream):
        slope = floor / tf.minimum(log_p, floor)  # 1 above the floor
        passes = (log_p >= floor) | (upstream < 0)
        return tf.where(passes, upstream * slope, tf.zeros_like(upstream)), None

    return tf.maximum(log_p, floor), grad
