"""Layers one after the other."""

from __future__ import annotations

from tfquant.legacy_keras import keras


class Chain(keras.layers.Layer):
    """Calls `layers` in turn, each on what the one before gave.

    Keras' `Sequential` traces its layers into a graph of its own, and again when the shape of its
    input changes: for a codec of some hundred layers that is a third of the time to a first step.

    Attributes:
      layers: the list of them.
    """

    def __init__(self, layers, name: str | None = None):
        # Each layer chooses its precision itself.
        super().__init__(name=name, autocast=False)
        self.layers = list(layers)

    def call(self, x):
        for layer in self.layers:
            x = layer(x)
        return x
