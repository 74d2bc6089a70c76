"""Codecs with a hyperprior and a serial context: `ms_context`, `cheng_anchor` and `cheng_attn`.

Sources: Minnen, Balle and Toderici, "Joint Autoregressive and Hierarchical Priors" (2018), and
Cheng et al., "Learned Image Compression with Discretized Gaussian Mixture Likelihoods and Attention
Modules" (2020). The context itself is `tfquant/contexts/serial.py`.

    x --> g_a --> y ----------------> Q --> y_hat --> g_s --> x_hat
                  |                   |       |
                 h_a --> z --> Q --> h_s --> context --> p(y_i | z_hat, y_hat before i)
                               |
                              p(z)

Latents: y has M channels at 1/16 of the resolution and is quantized around 0. (Around a predicted
mean, training would need a serial pass.) z has N channels at 1/64 and a factorized density.
Differences from the papers: the networks predict log sigma (see `tfquant/entropy/conditional.py`),
and the causal convolution stores no weights under its mask.

Parameters of `ms_context`: 13.2 M at N = M = 192. CompressAI's mbt2018 has 14.13 M, including 1.0 M
under its mask and 18 more parameters per channel in the density of z. Parameters of `cheng_attn` at
N = 128: 13.8 M; of `cheng_anchor`: 12.4 M. CompressAI's cheng2020-attn has 13.18 M, with one
Gaussian, a parameter network half as wide as Cheng's, and the weights under the mask.
"""

from __future__ import annotations

from tfquant.models.hyperprior import ContextHyperprior, mean_scale_networks

from tfquant.contexts.serial import SerialContext
from tfquant.entropy.conditional import ConditionalModel
from tfquant.layers.blocks import PreciseConv, SubpixelConv, conv, leaky_relu
from tfquant.layers.chain import Chain


class MeanScaleContext(ContextHyperprior):
    """The joint autoregressive and hierarchical codec ("Joint" in the Quantization Rectifier
    paper).

    Args:
      N: width of the transforms and channels of z, 192 in the paper.
      M: channels of y, 192 in the paper and 320 at high rates.
      family: distribution of y, "gaussian", "laplacian" or "mixture".
    """

    def __init__(self, N: int = 192, M: int = 192, family: str = "gaussian"):
        model = ConditionalModel(family, zero_center=False)
        super().__init__(N, M, model, "plain", "plain", name="ms_context")
        self.h_a, self.h_s = mean_scale_networks(N, M, 2 * M)
        # Hidden widths of the parameter network: 640 and 512 in the paper, with M = 192.
        self.context = SerialContext(M, model.outputs, (10 * M // 3, 8 * M // 3))


class Cheng(ContextHyperprior):
    """Codec with residual transforms, subpixel upsampling, and a mixture of three Gaussians.

    Args:
      attention: if true, `g_a` and `g_s` have attention blocks (`cheng_attn`, "Attn" in the
        Quantization Rectifier paper), otherwise none (`cheng_anchor`).
      N: width of the transforms and channels of z, in the paper 128 at low and 192 at high rates.
      M: channels of y; None for N, as in the paper.
      family: distribution of y, "mixture", "gaussian" or "laplacian".
    """

    _HIDDEN = (5, 5)  # widths of the parameter network / M: 640 in the paper's code, with M = 128

    def __init__(
        self, attention: bool, N: int = 128, M: int | None = None, family: str = "mixture"
    ):
        M = M or N
        model = ConditionalModel(family, zero_center=False)
        kind = "res_attn" if attention else "res"
        name = "cheng_attn" if attention else "cheng_anchor"
        super().__init__(N, M, model, kind, kind, name=name)
        self.h_a = Chain(
            [
                conv(N, 3), leaky_relu(),
                conv(N, 3), leaky_relu(),
                conv(N, 3, 2), leaky_relu(),
                conv(N, 3), leaky_relu(),
                PreciseConv(N, 3, 2),
            ],
            name="h_a",
        )  # fmt: skip
        self.h_s = Chain(
            [
                conv(N, 3), leaky_relu(),
                SubpixelConv(N), leaky_relu(),
                conv(3 * N // 2, 3), leaky_relu(),
                SubpixelConv(3 * N // 2), leaky_relu(),
                conv(2 * M, 3),
            ],
            name="h_s",
        )  # fmt: skip
        self.context = SerialContext(M, model.outputs, tuple(n * M for n in self._HIDDEN))
