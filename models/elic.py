"""ELIC: He et al., "ELIC: Efficient Learned Image Compression with Unevenly Grouped Space-Channel
Contextual Adaptive Coding" (2022).

    x --> g_a --> y --- group k ---> Q --> y_hat_k, of all k --> g_s --> x_hat
                  |                  |       |
                  |     aggregation_k(h_s, g_ch_k, g_sp_k): p(anchors), then p(others)
                  |                  |
                 h_a --> z --> Q --> h_s

Latents: y, M channels at 1/16, in five groups that grow, each of them in two halves of a
checkerboard; z, N channels at 1/64, factorized. `g_ch` sees all groups before; `g_sp` sees the
anchors of the same group, and says 0 of the anchors themselves. Quantized around mu.

Differences from the paper: no latent residual prediction; networks predict log sigma (see
`tfquant/entropy/conditional.py`); `g_sp` has no weights at the taps that its mask would hide.
Inner widths are the paper's at N = 192, M = 320 and in proportion elsewhere. Parameters there:
33.0 M (`elic_sm` 25.9 M). The layers of CompressAI's `elic2022-chandelier` have 33.8 M: 1.1 M more
under the masks of `g_sp`, 0.4 M less in `g_ch`, which sees only the first group and the last.
"""

from __future__ import annotations

import tensorflow as tf
from tfquant.models.hyperprior import ContextHyperprior

from tfquant.entropy.conditional import ConditionalModel
from tfquant.exchange import Exchange, Groups, Received
from tfquant.layers import checkerboard
from tfquant.layers.blocks import PreciseConv, conv, deconv
from tfquant.layers.chain import Chain
from tfquant.layers.context import ContextNetwork, ParameterNetwork
from tfquant.legacy_keras import keras


def group_sizes(M: int) -> tuple:
    """Channels of each group: 16, 16, 32, 64, and the rest, where that leaves 64 or more.

    Below M = 192 the first four shrink alike.

    Raises:
      ValueError: M is below 12.
    """
    unit = min(16, M // 12)
    if unit < 1:
        raise ValueError(f"ELIC's groups need M to be 12 or more, got {M}")
    return unit, unit, 2 * unit, 4 * unit, M - 8 * unit


class SpaceChannelContext(keras.layers.Layer):
    """What the hyper-decoder and decoded elements say about each half of each group."""

    def __init__(self, M: int, sizes: tuple):
        super().__init__(name="context")
        self.sizes = sizes
        self.g_ch = [
            ContextNetwork((7 * M // 10, 2 * M // 5, 2 * size), (5, 5, 5)) for size in sizes[1:]
        ]
        self.g_sp = [checkerboard.CheckerboardConv(2 * size) for size in sizes]
        self.aggregation = [
            ParameterNetwork((2 * M, 8 * M // 5, 2 * size), (1, 1, 1)) for size in sizes
        ]

    def transmit(self, exchange: Exchange, model: ConditionalModel, y, features) -> Received:
        """Passes a latent on, quantized around its means.

        Args:
          exchange: the exchange.
          model: the latent's entropy model.
          y: [B, h, w, M] float, or None for a decoder.
          features: [B, h, w, 2 M] float.
        """
        features = [[half] for half in checkerboard.split(features)]
        parts = [None] * len(self.sizes) if y is None else tf.split(y, self.sizes, axis=-1)
        groups, decoded = Groups(exchange, model), []
        for k, part in enumerate(parts):
            known = features
            if decoded:
                seen = checkerboard.split(self.g_ch[k - 1](decoded))
                known = [[*half, more] for half, more in zip(features, seen)]
            decoded.append(self._send(groups, k, part, *known))

        def join(parts):
            anchors, others = tf.concat(parts[::2], axis=-1), tf.concat(parts[1::2], axis=-1)
            return checkerboard.merge(anchors, others)

        return groups.close(y, join)

    def _send(self, groups, k, part, of_anchors, of_others):
        """Passes group k on, anchors first; [B, h, w, size] as a context sees it.

        Args:
          groups: the latent's `Groups`.
          k: the group's number.
          part: [B, h, w, size] float, or None.
          of_anchors, of_others: what is known of each half, lists of [B, h, w/2, C].
        """
        anchors, others = (None, None) if part is None else checkerboard.split(part)
        half = tf.shape(of_anchors[0])[:-1]
        nothing = tf.zeros(tf.concat([half, [2 * self.sizes[k]]], axis=0), of_anchors[0].dtype)
        raw = self.aggregation[k]([*of_anchors, nothing])
        anchors = groups.send(anchors, raw).context
        raw = self.aggregation[k]([*of_others, self.g_sp[k](anchors)])
        return checkerboard.merge(anchors, groups.send(others, raw).context)


class Elic(ContextHyperprior):
    """Mean-scale Gaussian, group after group.

    Args:
      small: `elic_sm`: one residual block a stage rather than three, no attention.
      N, M: 192/320 in the paper.
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
