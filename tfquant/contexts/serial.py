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

from typing import Any, Callable

import numpy as np
import tensorflow as tf

from tfquant.coding.requirement import require
from tfquant.contexts.base import Context
from tfquant.contexts.causal import NEIGHBOURS, REACH, CausalConv
from tfquant.entropy.conditional import ConditionalModel
from tfquant.exchange import Exchange, Passed, Received
from tfquant.layers.blocks import leaky_relu
from tfquant.layers.chain import Chain
from tfquant.layers.exact import Dense

# One row up counts as this many columns to the left, which is beyond the window's right end.
_ROW = REACH + 1
# Distance to the farthest neighbour, in fronts.
_FRONTS = -min(column + _ROW * row for row, column in NEIGHBOURS)


class SerialContext(Context):
    """Transmits a latent that is quantized around 0, element by element in raster order.

    Args:
      M: channels of the latent.
      outputs: number of parameters per channel.
      widths: widths of the hidden 1x1 convolutions.
    """

    many_parts = True

    def __init__(self, M: int, outputs: int, widths: tuple[int, ...]):
        super().__init__()
        self.M = M
        self.causal = CausalConv(2 * M)
        hidden = [layer for width in widths for layer in (Dense(width), leaky_relu())]
        last = Dense(outputs * M, dtype="float32")
        self.parameters = Chain([*hidden, last])

    def call(self, features: tf.Tensor, decoded: tf.Tensor) -> tf.Tensor:
        """Predicts the parameters of all elements at once, [B, h, w, outputs * M] float32.

        Args:
          features: [B, h, w, F] float.
          decoded: [B, h, w, M] float; an element's parameters depend on the elements before it.
        """
        parts = [features, tf.cast(self.causal(decoded), features.dtype)]
        self.parameters.layers[0].parts = np.array([part.shape[-1] for part in parts])
        return self.parameters(tf.concat(parts, axis=-1))

    def transmit(
        self,
        y: tf.Tensor | None,
        exchange: Exchange,
        model: ConditionalModel,
        features: tf.Tensor,
    ) -> Received:
        """Transmits a latent; the arguments are those of `Context.transmit`.

        If `exchange` replays, only one picture is possible: a batch raises InvalidArgumentError.

        Raises:
          ValueError: the model is zero-center.
        """
        if model.zero_center:
            raise ValueError("a serial context quantizes around 0: zero_center must be False")
        if not exchange.replays:
            return exchange.with_context(model, y, lambda context: (self(features, context),))
        one = require(tf.shape(features)[0] == 1, "a serial context codes one picture at a time")
        with tf.control_dependencies([one]):
            features = tf.identity(features)
        return self._by_fronts(y, exchange, model, features)

    def _by_fronts(
        self,
        y: tf.Tensor | None,
        exchange: Exchange,
        model: ConditionalModel,
        features: tf.Tensor,
    ) -> Received:
        """Transmits one picture's latent; the arguments are those of `transmit`."""
        fronts = _Fronts(tf.shape(features)[1], tf.shape(features)[2], self.M)
        of_features, raw_of = self._split(features)
        of_features = fronts.in_order(of_features)
        y_in_order = None if y is None else fronts.in_order(tf.reshape(y, [-1, self.M]))
        contexts, bits = (
            tf.TensorArray(tf.float32, 0, True, infer_shape=False, element_shape=[None, self.M])
            for _ in range(2)
        )

        def step(
            number: tf.Tensor,
            recent: tf.Tensor,
            state: Any,
            contexts: tf.TensorArray,
            bits: tf.TensorArray,
        ) -> tuple[tf.Tensor, tf.Tensor, Any, tf.TensorArray, tf.TensorArray]:
            start, size = fronts.starts[number], fronts.sizes[number]
            rows = slice(start, start + fronts.longest)
            window = tf.gather(recent, fronts.neighbours[rows])
            raw = raw_of(of_features[rows], self.causal.at(window))[:size]
            latent = None if y_in_order is None else y_in_order[start : start + size]
            state, passed = exchange.send(model, state, number, latent, raw)
            if passed.bits is not None:
                bits = bits.write(number, passed.bits)
            context = passed.received.context
            recent = fronts.with_newest(recent, self.causal.seen_as(context))
            return number + 1, recent, state, contexts.write(number, context), bits

        _, _, state, contexts, bits = tf.while_loop(
            lambda number, *_: number < tf.size(fronts.sizes),
            step,
            (0, fronts.nothing_decoded(), exchange.open(model), contexts, bits),
            parallel_iterations=1,
        )
        y_hat = fronts.in_place(contexts)
        element_bits = None if y is None else fronts.in_place(bits)
        passed = Passed(Received(y_hat, y_hat), element_bits, tf.cast(y_hat, tf.int32))
        return exchange.close(model, state, y, passed, ())

    def _split(self, features: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        """Precomputes the part of `call` that depends only on the features, in the first layer.

        Returns:
          This part, [h w, width] for `features: [1, h, w, F]`, and a function that maps some of its
          rows and those of the causal convolution to `raw`.
        """
        first, *rest = self.parameters.layers
        size = features.shape[-1]
        features = tf.reshape(features, [-1, size])
        integers = first.integers

        def after_first(x: tf.Tensor) -> tf.Tensor:
            for layer in rest:
                x = layer(x)
            return x

        if integers is not None:
            of_features = first.products(integers.of(features, slice(size)), first.kernel[:size])

            def exact_raw_of(hidden: tf.Tensor, context: tf.Tensor) -> tf.Tensor:
                context = integers.of(context, slice(size, None))
                sums = hidden + first.products(context, first.kernel[size:])
                return after_first(first.finish(sums))

            return of_features, exact_raw_of

        kernel, bias = (tf.cast(w, features.dtype) for w in (first.kernel, first.bias))
        of_features, of_context = kernel[:size], kernel[size:]

        def raw_of(hidden: tf.Tensor, context: tf.Tensor) -> tf.Tensor:
            return after_first(hidden + tf.matmul(tf.cast(context, hidden.dtype), of_context))

        return tf.matmul(features, of_features) + bias, raw_of


class _Fronts:
    """The fronts of a picture's elements, and the memory of the elements decoded last.

    The memory contains the last `_FRONTS` fronts with `longest` elements each, and one element of
    zeros for window positions outside the picture.

    Args:
      height: h, int32 scalar.
      width: w, int32 scalar.
      channels: C of the latent.

    Attributes:
      sizes: [fronts] int32, the number of elements in each front.
      starts: [fronts] int32, the number of elements in all fronts before it.
      longest: int32 scalar, the largest size.
      neighbours: [h w + longest, 12] int32, the places in the memory of the elements in the window
        of each element, front by front.
    """

    def __init__(self, height: tf.Tensor, width: tf.Tensor, channels: int):
        self._height, self._width, self._channels = height, width, channels
        cells = tf.range(height * width)
        row, column = cells // width, cells % width
        front = column + _ROW * row
        self._order = tf.argsort(front * height + row)
        self.sizes = tf.math.bincount(front)
        self.starts = tf.cumsum(self.sizes, exclusive=True)
        self.longest = tf.minimum(height, -(-width // _ROW))
        self.neighbours = self.in_order(self._places_of_neighbours(row, column, front))

    def _places_of_neighbours(
        self, row: tf.Tensor, column: tf.Tensor, front: tf.Tensor
    ) -> tf.Tensor:
        """Returns places in the memory, [h w, 12] int32, for elements in row-major order."""
        up, right = np.array(NEIGHBOURS, np.int32).T
        above, beside = row[:, None] + up, column[:, None] + right
        seen = beside + _ROW * above  # the neighbours' fronts; their first rows are:
        first = tf.maximum((seen - self._width) // _ROW + 1, 0)
        places = (_FRONTS - front[:, None] + seen) * self.longest + above - first
        inside = (above >= 0) & (beside >= 0) & (beside < self._width)
        return tf.where(inside, places, _FRONTS * self.longest)

    def in_order(self, t: tf.Tensor) -> tf.Tensor:
        """Sorts [h w, C] front by front, and pads with zeros to [h w + longest, C]."""
        return tf.pad(tf.gather(t, self._order), [[0, self.longest], [0, 0]])

    def in_place(self, fronts: tf.TensorArray) -> tf.Tensor:
        """Returns the elements of all fronts, [size, C] each, in their places, [1, h, w, C]."""
        elements = tf.gather(fronts.concat(), tf.math.invert_permutation(self._order))
        return tf.reshape(elements, [1, self._height, self._width, self._channels])

    def nothing_decoded(self) -> tf.Tensor:
        """Returns the memory before the first front, [_FRONTS longest + 1, C]."""
        return tf.zeros([_FRONTS * self.longest + 1, self._channels])

    def with_newest(self, memory: tf.Tensor, newest: tf.Tensor) -> tf.Tensor:
        """Returns the memory after a front, [size, C], without the oldest front."""
        missing = self.longest - tf.shape(newest)[0]
        newest = tf.pad(newest, [[0, missing + 1], [0, 0]])
        return tf.concat([memory[self.longest : -1], newest], axis=0)
