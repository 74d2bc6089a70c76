"""Channel-wise autoregressive codec, without latent residual prediction.

Source: Minnen and Singh, "Channel-wise Autoregressive Entropy Models for Learned Image Compression"
(2020).

    x --> g_a --> y --- slice k ---> Q --> y_hat_k, of all k --> g_s --> x_hat
                  |                  |       |
                  |    p(y_k | means, scales, y_hat of up to five earlier slices)
                  |                  |
                 h_a --> z --> Q --> h_s_mean, h_s_scale

Latents: y has M channels at 1/16 of the resolution, in slices of equal width. z has N channels at
1/64 and a factorized density. `tfquant/contexts/slices.py` has the networks of the slices.

Differences from the paper: there is no latent residual prediction, because it corrects rounding
errors and would hide the differences between surrogates. Networks predict log sigma (see
`tfquant/entropy/conditional.py`). Hidden widths are the paper's at N = 192, M = 320 and scale with
N and M. Parameters at that size: 80.5 M, including 63.5 M for the slices' networks. Latent residual
prediction would add 33.5 M.
"""

from __future__ import annotations

import tensorflow as tf
from tfquant.models.hyperprior import ContextHyperprior

from tfquant.contexts.slices import SliceContext
from tfquant.entropy.conditional import ConditionalModel
from tfquant.layers.blocks import PreciseConv, conv, deconv
from tfquant.layers.chain import Chain


class Charm(ContextHyperprior):
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

    def hyper_synthesis(self, z_hat: tf.Tensor) -> tf.Tensor:
        """Maps z_hat, [B, h/4, w/4, N], to the features of means and scales, [B, h, w, 2 M]."""
        return tf.concat([self.h_s_mean(z_hat), self.h_s_scale(z_hat)], axis=-1)
