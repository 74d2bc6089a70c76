"""A sequence of layers."""

from __future__ import annotations

from collections.abc import Iterable

import tensorflow as tf

from tfquant.legacy_keras import keras


class Chain(keras.layers.Layer):
    """Calls `layers` in order, each on the output of the previous one.

    Keras' `Sequential` instead traces its layers into a separate graph, again for every new input
    shape. For a codec of a few hundred layers, this takes a third of the time until the first step.

    Attributes:
      layers: the list of layers.
    """

    def __init__(self, layers: Iterable[keras.layers.Layer], name: str | None = None):
        # Each layer chooses its own precision.
        super().__init__(name=name, autocast=False)
        self.layers = list(layers)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x
