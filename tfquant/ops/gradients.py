"""Operations that return a value with the gradient of another map.

Most use `custom_gradient` and take all tensors as arguments: a tensor that such a function captures
from outside silently gets no gradient.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Iterator
from typing import Any, Callable

import tensorflow as tf

_VALUES_ONLY = contextvars.ContextVar("values_only", default=False)


@contextlib.contextmanager
def values_only() -> Iterator[None]:
    """Enters a context in which functions with a custom gradient have no gradient of their own.

    Use it to trace graphs that nobody differentiates. A SavedModel contains a function for each
    custom gradient of its graphs, and saving, reading and loading these takes more time than the
    rest.
    """
    token = _VALUES_ONLY.set(True)
    try:
        yield
    finally:
        _VALUES_ONLY.reset(token)


def custom_gradient(function: Callable[..., tuple[Any, Callable]]) -> Callable[..., Any]:
    """Returns `tf.custom_gradient(function)`, or the value alone in the context `values_only`."""
    with_gradient = tf.custom_gradient(function)

    @functools.wraps(function)
    def either(*tensors: Any, **named: Any) -> Any:
        if _VALUES_ONLY.get():
            return function(*tensors, **named)[0]
        return with_gradient(*tensors, **named)

    return either


@custom_gradient
def straight_through(value: tf.Tensor, surrogate: tf.Tensor) -> tf.Tensor:
    """Returns `value`, with the gradient of `surrogate`.

    This is one operation instead of `surrogate + stop_gradient(value - surrogate)`, because
    rounding errors of that sum would turn integers into non-integers.

    Args:
      value: the result of the forward pass, [...] float; gets no gradient.
      surrogate: same shape; gets the whole gradient.
    """

    def grad(upstream: tf.Tensor) -> tuple[None, tf.Tensor]:
        return None, upstream

    return tf.identity(value), grad


@custom_gradient
def attach_gradient(value: tf.Tensor, v: tf.Tensor, slope: tf.Tensor) -> tf.Tensor:
    """Returns `value` unchanged and adds `d value / d v = slope` to its existing gradients.

    Args:
      value: any tensor; its own gradient passes through.
      v: same shape; gets the gradient `upstream * slope`.
      slope: same shape; gets no gradient.
    """

    def grad(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, None]:
        return upstream, upstream * slope, None

    return tf.identity(value), grad


def lower_bound(x: tf.Tensor, bound: tf.Tensor | float) -> tf.Tensor:
    """Returns `max(x, bound)`. Below the bound, only a gradient whose descent raises `x` passes.

    Args:
      x: [...] float, a tensor or a variable.
      bound: broadcasts to the shape of `x`; gets no gradient.
    """
    # tf.custom_gradient would take an autocast or replicated variable for a captured one.
    x = tf.convert_to_tensor(x)
    return _lower_bound(x, tf.convert_to_tensor(bound, x.dtype))


@custom_gradient
def _lower_bound(x: tf.Tensor, bound: tf.Tensor) -> tf.Tensor:
    def grad(upstream: tf.Tensor) -> tuple[tf.Tensor, None]:
        return tf.where((x >= bound) | (upstream < 0), upstream, tf.zeros_like(upstream)), None

    return tf.maximum(x, bound), grad


def upper_bound(x: tf.Tensor, bound: tf.Tensor | float) -> tf.Tensor:
    """Returns `min(x, bound)`. Above the bound, only a gradient whose descent lowers `x` passes.

    The arguments are those of `lower_bound`.
    """
    return -lower_bound(-x, -bound)


def beyond_floor(log_p: tf.Tensor, floor: float) -> tf.Tensor:
    """Returns `log_p`, continued below `floor` as `floor (1 + log(log_p / floor))`.

    At the floor, the continuation has the value and the slope of `log_p`. Below, its slope to
    `log_p` is `floor / log_p`. In a tail, `log_p` is proportional to a power of the distance and of
    1 / sigma. The slope to the distance is then `power floor / distance`, and the slope to log
    sigma is `power floor`, independent of sigma.

    Args:
      log_p: [...] float, log probabilities in nats.
      floor: a negative number, in nats.
    """
    below = tf.minimum(log_p, floor) / floor  # 1 above the floor
    return tf.maximum(log_p, floor) + floor * tf.math.log(below)


@custom_gradient
def floor_log(log_p: tf.Tensor, floor: float) -> tf.Tensor:
    """Returns `max(log_p, floor)`, with the gradient of `beyond_floor` if descent raises `log_p`.

    The literature bounds `p` instead. Below the floor, its gradient is then `p / exp(floor)` times
    that of `log_p`. A `p` far below the floor underflows to 0 in float32 and loses its gradient.
    The gradient of `log_p` itself would grow as 1 / sigma^2. The gradient here is finite and not 0.

    Args:
      log_p: [...] float, log probabilities in nats.
      floor: a negative number, in nats.
    """

    def grad(upstream: tf.Tensor) -> tuple[tf.Tensor, None]:
        slope = floor / tf.minimum(log_p, floor)  # 1 above the floor
        passes = (log_p >= floor) | (upstream < 0)
        return tf.where(passes, upstream * slope, tf.zeros_like(upstream)), None

    return tf.maximum(log_p, floor), grad
