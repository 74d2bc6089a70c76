"""Channel groups, each with two halves of a checkerboard.

Source: He et al., "ELIC: Efficient Learned Image Compression with Unevenly Grouped Space-Channel
Contextual Adaptive Coding" (2022). In the paper's notation:

    p(anchors of group k) from aggregation_k(features, g_ch_k, 0)
    p(others of group k)  from aggregation_k(features, g_ch_k, g_sp_k)

`g_ch` depends on all previous groups. `g_sp` depends on the anchors of the same group.
"""

from __future__ import annotations

import tensorflow as tf

from tfquant.contexts import checkerboard
from tfquant.contexts.base import Context
from tfquant.contexts.networks import ContextNetwork, ParameterNetwork
from tfquant.entropy.conditional import ConditionalModel
from tfquant.exchange import Exchange, Groups, Received


class SpaceChannelContext(Context):
    """Transmits a latent group by group, and in each group the anchors before the others.

    Args:
      M: channels of the latent; the features have 2 M.
      sizes: channels of each group.
    """

    def __init__(self, M: int, sizes: tuple[int, ...]):
        super().__init__()
        self.sizes = sizes
        self.g_ch = [
            ContextNetwork((7 * M // 10, 2 * M // 5, 2 * size), (5, 5, 5)) for size in sizes[1:]
        ]
        self.g_sp = [checkerboard.CheckerboardConv(2 * size) for size in sizes]
        self.aggregation = [
            ParameterNetwork((2 * M, 8 * M // 5, 2 * size), (1, 1, 1)) for size in sizes
        ]

    def transmit(
        self,
        y: tf.Tensor | None,
        exchange: Exchange,
        model: ConditionalModel,
        features: tf.Tensor,
    ) -> Received:
        of_halves = [[half] for half in checkerboard.split(features)]
        parts = [None] * len(self.sizes) if y is None else tf.split(y, self.sizes, axis=-1)
        groups = Groups(exchange, model)
        decoded: list[tf.Tensor] = []
        for k, part in enumerate(parts):
            known = of_halves
            if decoded:
                seen = checkerboard.split(self.g_ch[k - 1](decoded))
                known = [[*half, more] for half, more in zip(of_halves, seen)]
            decoded.append(self._send(part, groups, k, *known))

        def join(parts: list[tf.Tensor]) -> tf.Tensor:
            anchors, others = tf.concat(parts[::2], axis=-1), tf.concat(parts[1::2], axis=-1)
            return checkerboard.merge(anchors, others)

        return groups.close(y, join)

    def _send(
        self,
        part: tf.Tensor | None,
        groups: Groups,
        k: int,
        of_anchors: list[tf.Tensor],
        of_others: list[tf.Tensor],
    ) -> tf.Tensor:
        """Transmits group k, anchors first, and returns it as a context sees it, [B, h, w, size].

        Args:
          part: [B, h, w, size] float, or None in a decoder.
          groups: the latent's `Groups`.
          k: index of the group.
          of_anchors: inputs of the parameter network for the anchors, a list of [B, h, w/2, C].
          of_others: inputs of the parameter network for the others, likewise.
        """
        anchors, others = (None, None) if part is None else checkerboard.split(part)
        half = tf.shape(of_anchors[0])[:-1]
        nothing = tf.zeros(tf.concat([half, [2 * self.sizes[k]]], axis=0), of_anchors[0].dtype)
        raw = self.aggregation[k]([*of_anchors, nothing])
        anchors = groups.send(anchors, raw).context
        raw = self.aggregation[k]([*of_others, self.g_sp[k](anchors)])
        return checkerboard.merge(anchors, groups.send(others, raw).context)
