"""Serial context: an element's distribution depends on the elements before it in raster order.

Minnen, Balle and Toderici, "Joint Autoregressive and Hierarchical Priors" (2018):

    y_hat --> causal 5x5 --+
                           +--> 1x1, 1x1, 1x1 --> raw --> p(y_i | z_hat, y_hat before i)
    z_hat ---> h_s --------+

Training computes all elements at once. A decoder cannot, and whoever must get its very numbers
(evaluation, the encoder) takes its steps. The window reaches two rows up and two columns to the
right, so elements with equal `column + 3 row`, a *front*, do not see each other and go together, in
`w + 3 (h - 1)` steps instead of `w h`. In a picture of 3 rows and 6 columns the fronts are

    0 1 2 3 4  5
    3 4 5 6 7  8
    6 7 8 9 10 11

Each step computes as many rows as the longest front has: the same matrix product for every front,
since the same row may come out differently in a product of another shape.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfquant.entropy.conditional import ConditionalModel
from tfquant.exchange import Exchange, Passed, Received
from tfquant.layers.blocks import leaky_relu
from tfquant.layers.causal import NEIGHBOURS, REACH, CausalConv
from tfquant.layers.chain import Chain

# One row up is as far as this many columns to the left: beyond the window's right end.
_ROW = REACH + 1


class SerialContext(tf.keras.layers.Layer):
    """`features: [B, h, w, F]` and the elements before -> `raw`, passed on with the latent.

    Args:
      M: the latent's channels.
      outputs: parameters per channel.
      widths: of the hidden 1x1 convolutions.
    """

    def __init__(self, M: int, outputs: int, widths: tuple, name: str = "context"):
        super().__init__(name=name)
        self.M = M
        self.causal = CausalConv(2 * M)
        hidden = [
            layer for width in widths for layer in (tf.keras.layers.Dense(width), leaky_relu())
        ]
        last = tf.keras.layers.Dense(outputs * M, dtype="float32")
        self.parameters = Chain([*hidden, last])

    def call(self, features, context):
        """All at once: `features: [B, h, w, F]`, `context: [B, h, w, M]` -> [B, h, w, out M]."""
        return self._raw(features, self.causal(context))

    def _raw(self, features, context):
        return self.parameters(tf.concat([features, tf.cast(context, features.dtype)], axis=-1))

    def transmit(self, exchange: Exchange, model: ConditionalModel, y, features) -> Received:
        """Passes `y: [B, h, w, M]` on, quantized around 0; one picture where `exchange` replays.

        Args:
          exchange: the exchange.
          model: the latent's entropy model, which must not be zero-center.
          y: the latent, or None for a decoder.
          features: [B, h, w, F] float.
        """
        if model.zero_center:
            raise ValueError("a serial context quantizes around 0: zero_center must be False")
        if not exchange.replays:
            return exchange.with_context(model, y, lambda context: (self(features, context),))
        return self._by_fronts(exchange, model, y, features)

    def _by_fronts(self, exchange, model, y, features):
        height, width = tf.shape(features)[1], tf.shape(features)[2]
        only_one = tf.debugging.assert_equal(tf.shape(features)[0], 1, "one picture at a time")
        with tf.control_dependencies([only_one]):
            cells = tf.range(height * width)
        row, column = cells // width, cells % width
        front = column + _ROW * row
        order = tf.argsort(front * height + row)
        sizes = tf.math.bincount(front)
        starts = tf.cumsum(sizes, exclusive=True)
        rows = tf.minimum(height, -(-width // _ROW))  # of the longest front

        def in_order(t):
            """[1, h, w, ...] -> [h w + rows, ...], fronts one after the other."""
            t = tf.gather(tf.reshape(t, [-1, t.shape[-1]]), order)
            return tf.pad(t, [[0, rows], [0, 0]])

        # Decoded elements, with a margin of zeros for the windows at the edges.
        across = width + 2 * REACH
        store = tf.zeros([(height + REACH) * across, self.M])
        home = in_order(((row + REACH) * across + column + REACH)[:, None])
        up, right = np.int32(NEIGHBOURS).T
        near = home + up * across + right
        near = tf.maximum(near, 0)  # where `rows` reaches beyond the last element
        features = in_order(features)
        y_in_order = None if y is None else in_order(y)
        bits = tf.TensorArray(tf.float32, 0, True, infer_shape=False, element_shape=[None, self.M])

        def step(number, store, state, bits):
            start, size = starts[number], sizes[number]
            window = tf.gather(store, near[start : start + rows])
            raw = self._raw(features[start : start + rows], self.causal.at(window))[:size]
            latent = None if y is None else y_in_order[start : start + size]
            state, passed = exchange.send(model, state, number, latent, raw)
            if passed.bits is not None:
                bits = bits.write(number, passed.bits)
            store = tf.tensor_scatter_nd_update(
                store, home[start : start + size], passed.received.context
            )
            return number + 1, store, state, bits

        count = tf.size(sizes)
        _, store, state, bits = tf.while_loop(
            lambda number, *_: number < count,
            step,
            (0, store, exchange.open(model), bits),
            parallel_iterations=1,
        )
        y_hat = tf.reshape(store, [1, height + REACH, across, self.M])
        y_hat = y_hat[:, REACH:, REACH:-REACH]
        element_bits = None
        if exchange.has_latents:
            back = tf.math.invert_permutation(order)
            element_bits = tf.reshape(tf.gather(bits.concat(), back), tf.shape(y_hat))
        passed = Passed(Received(y_hat, y_hat), element_bits, tf.cast(y_hat, tf.int32))
        return exchange.close(model, state, y, passed, ())
