"""The range coder's operations of tensorflow-compression or tensorflow-compression-ops.

Both packages come from the same authors and write the same bytes. A handle is a `[S]` variant
tensor. The interface is documented in `portable.py`, which has the other implementation.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfquant import stack

_operations = stack.load_operations()


def start_encoder(streams: tf.Tensor, lookup: np.ndarray) -> tf.Tensor:
    return _operations.create_range_encoder(tf.reshape(streams, [1]), lookup)


def start_decoder(strings: tf.Tensor, lookup: np.ndarray) -> tf.Tensor:
    return _operations.create_range_decoder(strings, lookup)


def encode(handle: tf.Tensor, rows: tf.Tensor, symbols: tf.Tensor) -> tf.Tensor:
    return _operations.entropy_encode_index(handle, rows, symbols)


def decode(handle: tf.Tensor, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return _operations.entropy_decode_index(handle, rows, tf.shape(rows)[1:], tf.int32)


def finish(handle: tf.Tensor) -> tf.Tensor:
    return _operations.entropy_encode_finalize(handle)
