"""Conditions on tensors: a graph and eager code refuse bad data with the same words."""

from __future__ import annotations

import string
from typing import Any

import tensorflow as tf


def require(condition: tf.Tensor, text: str, **values: Any) -> tf.Operation | None:
    """Requires a condition.

    `tf.debugging.Assert` is not enough: in eager code, its message begins with "Expected
    'tf.Tensor(False, shape=(), dtype=bool)' to be true" and quotes the text after that.

    Args:
      condition: boolean scalar.
      text: the message of the error, with fields as for `str.format`.
      **values: the fields' values: tensors, numbers or text.

    Returns:
      In a graph, the operation to wait for (`tf.control_dependencies`). In eager code None, which
      `tf.control_dependencies` takes as well.

    Raises:
      tf.errors.InvalidArgumentError: the condition does not hold. A graph raises it when it runs,
        with the message "assertion failed: [TEXT]".
    """
    if not tf.executing_eagerly():
        return tf.debugging.Assert(condition, [_filled(text, values)])
    if not condition:
        message = _filled(text, values).numpy().decode()
        raise tf.errors.InvalidArgumentError(None, None, message)
    return None


class Checks:
    """A sequence of checks. Each waits for the ones before, so the first error is reported.

    Attributes:
      done: the operations to wait for (`tf.control_dependencies`).
    """

    def __init__(self) -> None:
        self.done: list[tf.Operation | None] = []

    def require(self, condition: tf.Tensor, text: str, **values: Any) -> None:
        """Adds a check; the arguments are those of `require`."""
        with tf.control_dependencies(self.done):
            self.done = [require(condition, text, **values)]


def _filled(text: str, values: dict) -> tf.Tensor:
    """Returns `text.format(**values)` for tensors, numbers or text as values."""
    parts = []
    for literal, name, _, _ in string.Formatter().parse(text):
        parts.append(tf.constant(literal))
        if name is not None:
            value = tf.convert_to_tensor(values[name])
            parts.append(value if value.dtype == tf.string else tf.strings.as_string(value))
    return tf.strings.join(parts)
