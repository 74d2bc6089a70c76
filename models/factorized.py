"""Factorized-prior codec, with the transforms of Balle et al. (2018).

Source: Balle, Laparra and Simoncelli, "End-to-end Optimized Image Compression" (2017).

    x --> g_a --> y --> Q --> y_hat --> g_s --> x_hat
                        |
                     p(y), one density per channel

The latent y has M channels at 1/16 of the resolution. Q rounds the distance from the channel's
median: `round(y - median) + median`.

Parameters at N = 128, M = 192: 2.99 M. CompressAI's model has 3,500 more, because its density has
61 parameters per channel instead of TFC's 43.
"""

from __future__ import annotations

import tensorflow as tf

from tfquant.codec import Codec
from tfquant.entropy.factorized import FactorizedModel
from tfquant.exchange import Exchange
from tfquant.layers import transforms


class Factorized(Codec):
    """Codec without a hyperprior.

    Args:
      N: width of the transforms, 128 in the paper and 192 at high rates.
      M: channels of y, 192 in the paper and 320 at high rates.
    """

    downsampling = 16

    def __init__(self, N: int = 128, M: int = 192):
        super().__init__(name="factorized", dtype="float32")
        self.M = M
        self.g_a = transforms.analysis("plain", N, M)
        self.g_s = transforms.synthesis("plain", N, M)
        self.y_model = FactorizedModel(M, name="y")
        self.entropy_models = (self.y_model,)

    def latent_channels(self) -> dict[str, tuple[int, int]]:
        return {"y": (16, self.M)}

    def transmit(self, y: tf.Tensor | None, exchange: Exchange) -> tf.Tensor:
        return exchange(self.y_model, y).distortion
