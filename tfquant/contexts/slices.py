"""Channel slices: the distribution of a slice depends on the previous slices.

Source: Minnen and Singh, "Channel-wise Autoregressive Entropy Models for Learned Image Compression"
(2020). Each slice has its own two networks, one for its mean and one for its log sigma. Their
inputs are the features of the mean or scale hyper-decoder and the first five decoded slices (fewer
if fewer precede).
"""

from __future__ import annotations

import tensorflow as tf

from tfquant.contexts.base import Context
from tfquant.contexts.networks import ParameterNetwork
from tfquant.entropy.conditional import ConditionalModel
from tfquant.exchange import Exchange, Groups, Received

# A slice depends on at most the first five slices. In the paper, more of them hardly lower the
# rate.
SUPPORT = 5


class SliceContext(Context):
    """Transmits a latent slice by slice; the features are those of the means, then of the scales.

    Args:
      M: channels of the latent.
      slices: number of slices.
    """

    def __init__(self, M: int, slices: int):
        super().__init__()
        self.slices = slices
        widths, kernels = (7 * M // 10, 2 * M // 5, M // slices), (5, 5, 3)
        self.mean, self.scale = (
            [ParameterNetwork(widths, kernels) for _ in range(slices)] for _ in range(2)
        )

    def call(self, features: tf.Tensor, decoded: list[tf.Tensor]) -> tf.Tensor:
        """Predicts the next slice's `raw: [B, h, w, 2 M / slices]` float32.

        Args:
          features: [B, h, w, 2 M] float.
          decoded: the previous slices, [B, h, w, M / slices] each.
        """
        means, scales = tf.split(features, 2, axis=-1)
        k, support = len(decoded), decoded[:SUPPORT]
        mu = self.mean[k]([means, *support])
        log_sigma = self.scale[k]([scales, *support])
        return tf.concat([mu, log_sigma], axis=-1)

    def transmit(
        self,
        y: tf.Tensor | None,
        exchange: Exchange,
        model: ConditionalModel,
        features: tf.Tensor,
    ) -> Received:
        parts = [None] * self.slices if y is None else tf.split(y, self.slices, axis=-1)
        groups = Groups(exchange, model)
        decoded: list[tf.Tensor] = []
        for part in parts:
            raw = self(features, decoded)
            decoded.append(groups.send(part, raw).context)
        return groups.close(y, lambda parts: tf.concat(parts, axis=-1))
