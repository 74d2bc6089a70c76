"""Serial context: an element's distribution depends on the previous elements in raster order.

Source: Minnen, Balle and Toderici, "Joint Autoregressive and Hierarchical Priors" (2018):

    y_hat --> causal 5x5 --+
                           +--> 1x1, 1x1, 1x1 --> raw --> p(y_i | z_hat, y_hat before i)
    z_hat ---> h_s --------+

Training computes all elements at once. A decoder cannot. Evaluation and the encoder need exactly
the decoder's numbers, so they take the same steps. The window reaches two rows up and two columns
to the right. Elements with equal `column + 3 row`, a *front*, therefore do not depend on each other
and are computed together, in `w + 3 (h - 1)` steps instead of `w h`. In a picture of 3 rows and 6
columns, the fronts are

    0 1 2 3 4  5
    3 4 5 6 7  8
    6 7 8 9 10 11

Each step computes as many rows as the longest front has. Every front then has the same matrix
product, because a row may have another result in a product of another shape.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfquant.entropy.conditional import ConditionalModel
from tfquant.exchange import Exchange, Passed, Received
from tfquant.layers.blocks import leaky_relu
from tfquant.layers.causal import NEIGHBOURS, REACH, CausalConv
from tfquant.layers.chain import Chain
from tfquant.layers.exact import Dense
from tfquant.legacy_keras import keras

# One row up counts as this many columns to the left, which is beyond the window's right end.
_ROW = REACH + 1
# Distance to the farthest neighbour, in fronts.
_FRONTS = -min(column + _ROW * row for row, column in NEIGHBOURS)


class SerialContext(keras.layers.Layer):
    """Maps `features: [B, h, w, F]` and the previous elements to `raw`, and transmits the latent.

    Args:
      M: channels of the latent.
      outputs: number of parameters per channel.
      widths: widths of the hidden 1x1 convolutions.
    """

    def __init__(self, M: int, outputs: int, widths: tuple, name: str = "context"):
        super().__init__(name=name)
        self.M = M
        self.causal = CausalConv(2 * M)
        hidden = [layer for width in widths for layer in (Dense(width), leaky_relu())]
        last = Dense(outputs * M, dtype="float32")
        self.parameters = Chain([*hidden, last])

    def call(self, features, context):
        """Computes all elements at once.

        Args:
          features: [B, h, w, F].
          context: [B, h, w, M].

        Returns:
          [B, h, w, outputs * M].
        """
        return self._raw(features, self.causal(context))

    def _raw(self, features, context):
        parts = [features, tf.cast(context, features.dtype)]
        self.parameters.layers[0].parts = np.array([part.shape[-1] for part in parts])
        return self.parameters(tf.concat(parts, axis=-1))

    def transmit(self, exchange: Exchange, model: ConditionalModel, y, features) -> Received:
        """Transmits `y: [B, h, w, M]`, quantized around 0; only one picture if `exchange` replays.

        Args:
          exchange: the exchange.
          model: the latent's entropy model, which must not be zero-center.
          y: the latent, or None in a decoder.
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
        rows = tf.minimum(height, -(-width // _ROW))  # number of elements in the longest front

        def in_order(t):
            """Sorts [h w, ...] into [h w + rows, ...], front by front."""
            return tf.pad(tf.gather(t, order), [[0, rows], [0, 0]])

        # The last `_FRONTS` fronts with `rows` elements each, and one zero element for window
        # positions outside the picture.
        recent = tf.zeros([_FRONTS * rows + 1, self.M])
        up, right = np.int32(NEIGHBOURS).T
        above, beside = row[:, None] + up, column[:, None] + right
        seen = beside + _ROW * above  # the neighbours' fronts; their first rows are:
        first = tf.maximum((seen - width) // _ROW + 1, 0)
        near = (_FRONTS - front[:, None] + seen) * rows + above - first
        inside = (above >= 0) & (beside >= 0) & (beside < width)
        near = in_order(tf.where(inside, near, _FRONTS * rows))

        hidden, raw_of = self._split(features)
        hidden = in_order(hidden)
        y_in_order = None if y is None else in_order(tf.reshape(y, [-1, self.M]))
        contexts, bits = (
            tf.TensorArray(tf.float32, 0, True, infer_shape=False, element_shape=[None, self.M])
            for _ in range(2)
        )

        def step(number, recent, state, contexts, bits):
            start, size = starts[number], sizes[number]
            window = tf.gather(recent, near[start : start + rows])
            raw = raw_of(hidden[start : start + rows], self.causal.at(window))[:size]
            latent = None if y is None else y_in_order[start : start + size]
            state, passed = exchange.send(model, state, number, latent, raw)
            if passed.bits is not None:
                bits = bits.write(number, passed.bits)
            context = passed.received.context
            newest = self.causal.seen_as(context)
            newest = tf.pad(newest, [[0, rows - size + 1], [0, 0]])
            recent = tf.concat([recent[rows:-1], newest], axis=0)
            return number + 1, recent, state, contexts.write(number, context), bits

        count = tf.size(sizes)
        _, _, state, contexts, bits = tf.while_loop(
            lambda number, *_: number < count,
            step,
            (0, recent, exchange.open(model), contexts, bits),
            parallel_iterations=1,
        )
        back = tf.math.invert_permutation(order)

        def in_place(fronts):
            return tf.reshape(tf.gather(fronts.concat(), back), [1, height, width, self.M])

        y_hat = in_place(contexts)
        element_bits = in_place(bits) if exchange.has_latents else None
        passed = Passed(Received(y_hat, y_hat), element_bits, tf.cast(y_hat, tf.int32))
        return exchange.close(model, state, y, passed, ())

    def _split(self, features):
        """Precomputes the part of `_raw` that needs no context: the features' part of the first
        layer.

        Returns:
          This part, [h w, width] for `features: [1, h, w, F]`, and a function that maps some of its
          rows and those of the causal convolution to `raw`.
        """
        first, *rest = self.parameters.layers
        size = features.shape[-1]
        features = tf.reshape(features, [-1, size])
        integers = first.integers

        def after_first(x):
            for layer in rest:
                x = layer(x)
            return x

        if integers is not None:
            of_features = first.products(integers.of(features, slice(size)), first.kernel[:size])

            def exact_raw_of(hidden, context):
                context = integers.of(context, slice(size, None))
                sums = hidden + first.products(context, first.kernel[size:])
                return after_first(first.finish(sums))

            return of_features, exact_raw_of

        kernel, bias = (tf.cast(w, features.dtype) for w in (first.kernel, first.bias))
        of_features, of_context = kernel[:size], kernel[size:]

        def raw_of(hidden, context):
            return after_first(hidden + tf.matmul(tf.cast(context, hidden.dtype), of_context))

        return tf.matmul(features, of_features) + bias, raw_of
