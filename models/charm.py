"""Channel-wise autoregressive codec: Minnen and Singh, "Channel-wise Autoregressive Entropy Models
for Learned Image Compression" (2020), without its latent residual prediction.

    x --> g_a --> y --- slice k ---> Q --> y_hat_k, of all k --> g_s --> x_hat
                  |                  |       |
                  |    p(y_k | means, scales, y_hat of the first slices)
                  |                  |
                 h_a --> z --> Q --> h_s_mean, h_s_scale

Latents: y, M channels at 1/16, in slices of equal width; z, N channels at 1/64, factorized. Each
slice has two networks of its own, for its mean and for its log sigma; both see the first five
decoded slices, or as many as there are before it, beside the features of their hyper-decoder.

Differences from the paper: no latent residual prediction, which mends rounding errors and so would
hide what surrogates differ in; networks predict log sigma (see `tfquant/entropy/conditional.py`).
Inner widths are the paper's at N = 192, M = 320 and in proportion elsewhere. Parameters there:
80.5 M, of which the slices' networks are 63.5 M; latent residual prediction would be 33.5 M more.
"""

from __future__ import annotations

import tensorflow as tf
from tfquant.models.hyperprior import Hyperprior

from tfquant.entropy.conditional import ConditionalModel
from tfquant.exchange import Groups
from tfquant.layers.blocks import PreciseConv, conv, deconv
from tfquant.layers.chain import Chain
from tfquant.layers.context import ParameterNetwork
from tfquant.legacy_keras import keras

# A later slice sees this many, the first ones: in the paper more of them hardly lower the rate.
SUPPORT = 5


class SliceContext(keras.layers.Layer):
    """What the hyper-decoders and decoded slices say about each slice.

    Args:
      M: the latent's channels.
      slices: how many slices it has.
    """

    def __init__(self, M: int, slices: int):
        super().__init__(name="context")
        widths, kernels = (7 * M // 10, 2 * M // 5, M // slices), (5, 5, 3)
        self.mean, self.scale = (
            [ParameterNetwork(widths, kernels) for _ in range(slices)] for _ in range(2)
        )

    def call(self, means, scales, decoded: list):
        """The next slice's `raw: [B, h, w, 2 M / slices]` float32.

        Args:
          means, scales: [B, h, w, M] float, features.
          decoded: the slices before it, [B, h, w, M / slices] each.
        """
        k, support = len(decoded), decoded[:SUPPORT]
        mu = self.mean[k]([means, *support])
        log_sigma = self.scale[k]([scales, *support])
        return tf.concat([mu, log_sigma], axis=-1)


class Charm(Hyperprior):
    """Mean-scale Gaussian, slice after slice, quantized around 0 or around its mean.

    Args:
      N, M: 192/320 in the paper.
      slices: 10 in the paper; divides M.
      zero_center: `round(y - mu) + mu` instead of `round(y)`.
    """

    def __init__(self, N: int = 192, M: int = 320, slices: int = 10, zero_center: bool = False):
        if slices < 1 or M % slices:
            raise ValueError(f"slices must divide M: got {slices} slices of {M} channels")
        model = ConditionalModel("gaussian", zero_center)
        name = "charm_zero" if zero_center else "charm"
        super().__init__(N, M, model, "plain", "plain", name=name)
        self.slices = slices
        middle = (N + M) // 2
        self.h_a = Chain(
            [
                conv(M, 3, activation="relu"),
                conv(middle, 5, 2, activation="relu"),
                PreciseConv(N, 5, 2, use_bias=False),
            ],
            name="h_a",
        )
        self.h_s_mean, self.h_s_scale = (
            Chain(
                [
                    deconv(N, activation="relu"),
                    deconv(middle, activation="relu"),
                    conv(M, 3, activation="relu"),
                ],
                name=name,
            )
            for name in ("h_s_mean", "h_s_scale")
        )
        self.context = SliceContext(M, slices)

    def transmit(self, y, exchange):
        z_hat = self.transmit_hyper(y, exchange)
        means, scales = self.h_s_mean(z_hat), self.h_s_scale(z_hat)
        parts = tf.split(y, self.slices, axis=-1) if exchange.has_latents else [None] * self.slices
        groups, decoded = Groups(exchange, self.y_model), []
        for part in parts:
            raw = self.context(means, scales, decoded)
            decoded.append(groups.send(part, raw).context)
        return groups.close(y, lambda parts: tf.concat(parts, axis=-1)).distortion
