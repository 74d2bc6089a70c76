"""Keras 2, which has different names in different versions of TensorFlow.

    from tfquant.legacy_keras import keras

TensorFlow up to 2.15 contains Keras 2 as `tf.keras`. From 2.16 on, `tf.keras` is Keras 3, and Keras
2 is the package `tf_keras`. This project uses Keras 2 with every TensorFlow, so that checkpoints,
variable names and the optimizer stay the same. A user's own Keras 3 is not affected.
"""

from __future__ import annotations

import random
import sys
import types
from typing import TYPE_CHECKING

from tfquant import stack

stack.require()  # must come before the import of TensorFlow, which may fail

import tensorflow as tf

if TYPE_CHECKING:
    import tf_keras as keras  # a type checker cannot follow a choice at run time
elif stack.has_keras_2():
    keras = tf.keras
else:
    import tf_keras

    keras = tf_keras


class _WholeRandom(random.Random):
    """Draws integers between bounds of any type, as Python did before version 3.12."""

    def randint(self, a: float, b: float) -> int:
        return super().randint(int(a), int(b))


def _accept_float_bounds() -> None:
    """Makes `tf_keras` up to 2.18 draw seeds on Python 3.12 and later.

    It calls `random.randint(1, 1e9)`, which Python 3.12 rejects because 1e9 is a float. The seeds,
    and therefore the initial weights, are the same as with older Pythons.
    """
    from tf_keras.src.utils import tf_utils

    module = types.ModuleType("random")
    module.__dict__.update(
        random.__dict__, Random=_WholeRandom, randint=lambda a, b: random.randint(int(a), int(b))
    )
    tf_utils.random = module


if sys.version_info >= (3, 12) and not stack.has_keras_2():
    _accept_float_bounds()
