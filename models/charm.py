"""Channel-wise autoregressive codec, without latent residual prediction.

Source: Minnen and Singh, "Channel-wise Autoregressive Entropy Models for Learned Image Compression"
(2020).

    x --> g_a --> y --- slice k ---> Q --> y_hat_k, of all k --> g_s --> x_hat
                  |                  |       |
                  |    p(y_k | means, scales, y_hat of the first slices)
                  |                  |
                 h_a --> z --> Q --> h_s_mean, h_s_scale

Latents: y has M channels at 1/16 of the resolution, in slices of equal width. z has N channels at
1/64 and a factorized density. Each slice has its own two networks, one for its mean and one for its
log sigma. Their inputs are the features of the mean or scale hyper-decoder and the first five
decoded slices (fewer if fewer precede).

Differences from the paper: there is no latent residual prediction, because it corrects rounding
errors and would hide the differences between surrogates. Networks predict log sigma (see
`tfquant/entropy/conditional.py`). Hidden widths are the paper's at N = 192, M = 320 and scale with
N and M. Parameters at that size: 80.5 M, including 63.5 M for the slices' networks. Latent residual
prediction would add 33.5 M.
"""

from __future__ import annotations

import tensorflow as tf
from tfquant.models.hyperprior import Hyperprior

from tfquant.entropy.conditional import ConditionalModel
from tfquant.exchange import Exchange, Groups
from tfquant.layers.blocks import PreciseConv, conv, deconv
from tfquant.layers.chain import Chain
from tfquant.layers.context import ParameterNetwork
from tfquant.legacy_keras import keras

# A slice depends on at most the first five slices. In the paper, more of them hardly lower the
# rate.
SUPPORT = 5


class SliceContext(keras.layers.Layer):
    """Predicts the entropy parameters of each slice from hyper-decoder features and decoded slices.

    Args:
      M: channels of the latent.
      slices: number of slices.
    """

    def __init__(self, M: int, slices: int):
        super().__init__(name="context")
        widths, kernels = (7 * M // 10, 2 * M // 5, M // slices), (5, 5, 3)
        self.mean, self.scale = (
            [ParameterNetwork(widths, kernels) for _ in range(slices)] for _ in range(2)
        )

    def call(self, means: tf.Tensor, scales: tf.Tensor, decoded: list) -> tf.Tensor:
        """Predicts the next slice's `raw: [B, h, w, 2 M / slices]` float32.

        Args:
          means: [B, h, w, M] float, features for the mean.
          scales: [B, h, w, M] float, features for the scale.
          decoded: the previous slices, [B, h, w, M / slices] each.
        """
        k, support = len(decoded), decoded[:SUPPORT]
        mu = self.mean[k]([means, *support])
        log_sigma = self.scale[k]([scales, *support])
        return tf.concat([mu, log_sigma], axis=-1)


class Charm(Hyperprior):
    """Codec with a mean-scale Gaussian, coded slice by slice.

    Args:
      N: width of the transforms and channels of z, 192 in the paper.
      M: channels of y, 320 in the paper.
      slices: number of slices, a divisor of M; 10 in the paper.
      zero_center: if true, quantizes as `round(y - mu) + mu`, otherwise as `round(y)`.

    Raises:
      ValueError: `slices` does not divide M.
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

    def transmit(self, y: tf.Tensor | None, exchange: Exchange) -> tf.Tensor:
        z_hat = self.transmit_hyper(y, exchange)
        means, scales = self.h_s_mean(z_hat), self.h_s_scale(z_hat)
        parts = tf.split(y, self.slices, axis=-1) if exchange.has_latents else [None] * self.slices
        groups, decoded = Groups(exchange, self.y_model), []
        for part in parts:
            raw = self.context(means, scales, decoded)
            decoded.append(groups.send(part, raw).context)
        return groups.close(y, lambda parts: tf.concat(parts, axis=-1)).distortion
