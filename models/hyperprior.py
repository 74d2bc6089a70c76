"""Hyperprior codecs without a context model: scale only, and mean-scale.

This module also has the base classes of all codecs with a hyperprior.

Sources: Balle et al., "Variational Image Compression with a Scale Hyperprior" (2018), and Minnen,
Balle and Toderici, "Joint Autoregressive and Hierarchical Priors" (2018).

    x --> g_a --> y ----------------> Q --> y_hat --> g_s --> x_hat
                  |                   |
                 h_a --> z --> Q --> h_s --> p(y | z_hat)
                               |
                              p(z)

Latents: y has M channels at 1/16 of the resolution. z has N channels at 1/64 and a factorized
density. Difference from the papers: `h_s` predicts log sigma instead of sigma (see
`tfquant/entropy/conditional.py`), so the scale hyperprior's `h_s` has no final ReLU.

Parameters at N = 128, M = 192: 5.07 M with a scale only, 7.03 M with mean and scale. CompressAI's
models have 2,400 and 2,300 more. Their density of z has 61 parameters per channel instead of TFC's
43. Here, the scale hyperprior's `h_a` ends without a bias, as in its authors' implementation.
"""

from __future__ import annotations

import tensorflow as tf

from tfquant.codec import Codec
from tfquant.entropy.conditional import ConditionalModel
from tfquant.entropy.factorized import FactorizedModel
from tfquant.exchange import Exchange
from tfquant.layers import transforms
from tfquant.layers.blocks import PreciseConv, conv, deconv, leaky_relu
from tfquant.layers.chain import Chain


class Hyperprior(Codec):
    """Base class of codecs with a hyperprior: transmits `z`, then `y` given `z_hat`.

    A subclass defines `h_a` and `h_s`, or overrides `hyper_analysis` and `hyper_synthesis`.
    """

    def __init__(self, N: int, M: int, y_model: ConditionalModel, g_a: str, g_s: str, name: str):
        super().__init__(name=name, dtype="float32")
        self.N, self.M = N, M
        self.g_a = transforms.analysis(g_a, N, M)
        self.g_s = transforms.synthesis(g_s, N, M)
        self.z_model = FactorizedModel(N, name="z")
        self.y_model = y_model
        self.entropy_models = (self.z_model, self.y_model)

    def latent_channels(self) -> dict[str, tuple[int, int]]:
        return {"y": (16, self.M), "z": (64, self.N)}

    def hyper_analysis(self, y: tf.Tensor) -> tf.Tensor:
        """Maps y, [B, h, w, M], to z, [B, h/4, w/4, N]."""
        return self.h_a(y)

    def transmit_hyper(self, y: tf.Tensor | None, exchange: Exchange) -> tf.Tensor:
        """Transmits `z` and returns z_hat as `h_s` sees it, [B, h/4, w/4, N]."""
        z = None if y is None else self.hyper_analysis(y)
        return exchange(self.z_model, z).context

    def hyper_synthesis(self, z_hat: tf.Tensor) -> tf.Tensor:
        """Maps z_hat, [B, h/4, w/4, N], to the parameters of y, or to features of a context."""
        return self.h_s(z_hat)

    def transmit(self, y: tf.Tensor | None, exchange: Exchange) -> tf.Tensor:
        raw = self.hyper_synthesis(self.transmit_hyper(y, exchange))
        return exchange(self.y_model, y, raw).distortion


class ContextHyperprior(Hyperprior):
    """Base class of codecs whose `context`, a `Context`, transmits `y` part by part."""

    def transmit(self, y: tf.Tensor | None, exchange: Exchange) -> tf.Tensor:
        features = self.hyper_synthesis(self.transmit_hyper(y, exchange))
        return self.context.transmit(y, exchange, self.y_model, features).distortion


def mean_scale_networks(N: int, M: int, outputs: int) -> tuple:
    """Returns `h_a` and `h_s`, both with float32 outputs.

    `h_a` maps [B, h, w, M] to [B, h/4, w/4, N]. `h_s` maps [B, h/4, w/4, N] to [B, h, w, outputs].

    Args:
      N: channels of z and width of `h_a`.
      M: channels of y; `h_s` has the hidden widths M and 3 M / 2.
      outputs: channels of the output of `h_s`.
    """
    h_a = Chain(
        [
            conv(N, 3), leaky_relu(),
            conv(N, 5, 2), leaky_relu(),
            PreciseConv(N, 5, 2),
        ],
        name="h_a",
    )  # fmt: skip
    h_s = Chain(
        [
            deconv(M), leaky_relu(),
            deconv(3 * M // 2), leaky_relu(),
            PreciseConv(outputs, 3),
        ],
        name="h_s",
    )  # fmt: skip
    return h_a, h_s


class ScaleHyperprior(Hyperprior):
    """Codec with a zero-mean Gaussian `p(y | z_hat)`; the only codec whose `h_a` sees `|y|`.

    Args:
      N: width of the transforms and channels of z, 128 in the paper and 192 at high rates.
      M: channels of y, 192 in the paper and 320 at high rates.
    """

    def __init__(self, N: int = 128, M: int = 192):
        model = ConditionalModel("scale_gaussian", zero_center=False)
        super().__init__(N, M, model, "plain", "plain", name="scale_hyperprior")
        self.h_a = Chain(
            [
                conv(N, 3, activation="relu"),
                conv(N, 5, 2, activation="relu"),
                PreciseConv(N, 5, 2, use_bias=False),
            ],
            name="h_a",
        )
        self.h_s = Chain(
            [
                deconv(N, activation="relu"),
                deconv(N, activation="relu"),
                PreciseConv(M, 3),
            ],
            name="h_s",
        )

    def hyper_analysis(self, y: tf.Tensor) -> tf.Tensor:
        """Maps y, [B, h, w, M], to z, [B, h/4, w/4, N]."""
        return self.h_a(tf.abs(y))


class MeanScaleHyperprior(Hyperprior):
    """Codec whose `p(y | z_hat)` has mean and scale.

    Args:
      N: width of the transforms and channels of z, 128 in the paper and 192 at high rates.
      M: channels of y, 192 in the paper and 320 at high rates.
      zero_center: if true, quantizes as `round(y - mu) + mu`, otherwise as `round(y)`.
      family: distribution of y, "gaussian", "laplacian" or "mixture".
      g_a: kind of the analysis transform, see `tfquant/layers/transforms.py`.
      g_s: kind of the synthesis transform, likewise.
    """

    def __init__(
        self,
        N: int = 128,
        M: int = 192,
        zero_center: bool = False,
        family: str = "gaussian",
        g_a: str = "plain",
        g_s: str = "plain",
    ):
        model = ConditionalModel(family, zero_center)
        name = "ms_hyper_zero" if zero_center else "ms_hyper"
        super().__init__(N, M, model, g_a, g_s, name=name)
        self.h_a, self.h_s = mean_scale_networks(N, M, model.outputs * M)
