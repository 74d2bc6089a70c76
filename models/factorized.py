"""Factorized-prior codec: Balle, Laparra and Simoncelli, "End-to-end Optimized Image Compression"
(2017), with the transforms of Balle et al. (2018).

    x --> g_a --> y --> Q --> y_hat --> g_s --> x_hat
                        |
                     p(y), one density a channel

Latent: M channels at 1/16. The offset of Q is each channel's median.

Parameters at 128/192: 2.99 M; CompressAI's have 3,500 more, 61 a channel in the density where TFC's
has 43.
"""

from __future__ import annotations

from tfquant.codec import Codec
from tfquant.entropy.factorized import FactorizedModel
from tfquant.layers import transforms


class Factorized(Codec):
    """Args: N, M: transform and latent widths, 128/192 (192/320 at high rates) in the paper."""

    downsampling = 16

    def __init__(self, N: int = 128, M: int = 192):
        super().__init__(name="factorized", dtype="float32")
        self.M = M
        self.g_a = transforms.analysis("plain", N, M)
        self.g_s = transforms.synthesis("plain", N, M)
        self.y_model = FactorizedModel(M, name="y")
        self.entropy_models = (self.y_model,)

    def latent_channels(self):
        return {"y": (16, self.M)}

    def transmit(self, y, exchange):
        return exchange(self.y_model, y).distortion
