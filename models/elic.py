"""ELIC, a codec with a space-channel context.

Source: He et al., "ELIC: Efficient Learned Image Compression with Unevenly Grouped Space-Channel
Contextual Adaptive Coding" (2022).

    x --> g_a --> y --- group k ---> Q --> y_hat_k, of all k --> g_s --> x_hat
                  |                  |       |
                  |     aggregation_k(h_s, g_ch_k, g_sp_k): p(anchors), then p(others)
                  |                  |
                 h_a --> z --> Q --> h_s

Latents: y has M channels at 1/16 of the resolution, in five groups of increasing width. Each group
is coded as two halves of a checkerboard. z has N channels at 1/64 and a factorized density. `g_ch`
depends on all previous groups. `g_sp` depends on the anchors of the same group, and is 0 for the
anchors themselves. y is quantized around mu.

Differences from the paper: there is no latent residual prediction. Networks predict log sigma (see
`tfquant/entropy/conditional.py`). `g_sp` stores no weights for the taps that its mask would hide.
Hidden widths are the paper's at N = 192, M = 320 and scale with N and M. Parameters at that size:
33.0 M (`elic_sm_zero`: 25.9 M). The layers of CompressAI's `elic2022-chandelier` have 33.8 M: 1.1 M
more under the masks of `g_sp`, and 0.4 M less in `g_ch`, which depends only on the first group and
the previous one.
"""

from __future__ import annotations

from tfquant.models.hyperprior import ContextHyperprior

from tfquant.contexts.space_channel import SpaceChannelContext
from tfquant.entropy.conditional import ConditionalModel
from tfquant.layers.blocks import PreciseConv, conv, deconv
from tfquant.layers.chain import Chain


def group_sizes(M: int) -> tuple[int, ...]:
    """Returns the channels of each group: 16, 16, 32, 64 and the rest, for M of 192 or more.

    For smaller M, the first four shrink in proportion.

    Raises:
      ValueError: M is below 12.
    """
    unit = min(16, M // 12)
    if unit < 1:
        raise ValueError(f"ELIC's groups need M to be 12 or more, got {M}")
    return unit, unit, 2 * unit, 4 * unit, M - 8 * unit


class Elic(ContextHyperprior):
    """Codec with a mean-scale Gaussian, coded group by group.

    Args:
      small: if true, builds `elic_sm_zero`, with one residual block per stage instead of three and
        without attention.
      N: width of the transforms and channels of z, 192 in the paper.
      M: channels of y, 320 in the paper.

    Raises:
      ValueError: M is below 12.
    """

    def __init__(self, small: bool, N: int = 192, M: int = 320):
        sizes = group_sizes(M)
        model = ConditionalModel("gaussian", zero_center=True)
        kind = "elic_sm" if small else "elic"
        super().__init__(N, M, model, kind, kind, name=f"{kind}_zero")
        self.h_a = Chain(
            [
                conv(N, 3, activation="relu"),
                conv(N, 5, 2, activation="relu"),
                PreciseConv(N, 5, 2),
            ],
            name="h_a",
        )
        self.h_s = Chain(
            [
                deconv(N, activation="relu"),
                deconv(3 * N // 2, activation="relu"),
                conv(2 * M, 3),
            ],
            name="h_s",
        )
        self.context = SpaceChannelContext(M, sizes)
