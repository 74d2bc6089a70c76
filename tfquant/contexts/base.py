"""Base class of context models."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfquant.entropy.conditional import ConditionalModel
from tfquant.exchange import Exchange, Received
from tfquant.legacy_keras import keras


class Context(keras.layers.Layer):
    """Networks that predict the entropy parameters of each part of a latent from the parts before.

    Every codec names its context "context".

    Attributes:
      many_parts: true if the number of parts grows with the picture.
    """

    many_parts = False

    def __init__(self) -> None:
        super().__init__(name="context")

    def transmit(
        self,
        y: tf.Tensor | None,
        exchange: Exchange,
        model: ConditionalModel,
        features: tf.Tensor,
    ) -> Received:
        """Transmits a latent, one part after the other.

        Args:
          y: [B, h, w, M] float, or None in a decoder.
          exchange: transmits each part.
          model: the latent's entropy model.
          features: [B, h, w, F] float, from the hyper-decoder.

        Returns:
          The whole latent, [B, h, w, M].
        """
        raise NotImplementedError

    def call(self, inputs: Any, *args: Any, **kwargs: Any) -> tf.Tensor:
        """Raises TypeError, unless the context predicts a part's parameters in one call."""
        raise TypeError(f"{type(self).__name__} is not called: use its method `transmit`")
