"""Transforms tile by tile, so that the memory for large pictures does not grow with their area.

A pixel of a transform's result depends on inputs up to a limited distance. Each tile is computed
with a margin of that width from its neighbours, and the margin of the result is cut off. The result
equals that for the whole picture, except for last bits if a kernel adds in another order for
another size. A picture of one tile is computed as a whole.
"""

from __future__ import annotations

from typing import Callable

import tensorflow as tf

from tfquant.codec import Codec
from tfquant.data.pixels import to_float, to_uint8
from tfquant.layers.reach import reach
from tfquant.legacy_keras import keras

SIDE = 1024  # of a tile in pixels, a multiple of every codec's downsampling


def analyze(
    codec: Codec, image: tf.Tensor, quality: tf.Tensor | None = None, side: int = SIDE
) -> tf.Tensor:
    """Maps `image: uint8 [H, W, 3]` to y: float32 [1, h, w, M], like `Codec.analyze`.

    `quality` is [1] float32 from 0 to 1 for a codec with gains.
    """
    down, channels = codec.latent_channels()["y"]
    step = codec.downsampling
    margin = _margin(codec.g_a, 1.0, down)
    if margin is None:
        return codec.analyze(to_float(image[None]), quality)
    height, width = tf.shape(image)[0], tf.shape(image)[1]

    def tile(rows: _Span, columns: _Span) -> tf.Tensor:
        # What lies beyond the picture repeats its last row and column, as in `pad_to_multiple`.
        part = tf.gather(image, tf.minimum(tf.range(*rows.seen), height - 1))
        part = tf.gather(part, tf.minimum(tf.range(*columns.seen), width - 1), axis=1)
        y = tf.cast(codec.g_a(to_float(part)[None]), tf.float32)[0]
        return y[rows.inner(down)][:, columns.inner(down)]

    padded = [-(-extent // step) * step for extent in (height, width)]
    spec = tf.TensorSpec([None, None, channels])
    return codec.scale(_assembled(tile, spec, padded, side, margin)[None], quality)


def synthesize(
    codec: Codec,
    y_bar: tf.Tensor,
    height: tf.Tensor,
    width: tf.Tensor,
    quality: tf.Tensor | None = None,
    side: int = SIDE,
) -> tf.Tensor:
    """Maps `y_bar: float32 [1, h, w, M]` to the picture, uint8 [height, width, 3].

    `quality` is that of `analyze`.
    """
    down, _ = codec.latent_channels()["y"]
    margin = _margin(codec.g_s, float(down), down)
    if margin is None:
        return to_uint8(codec.synthesize(y_bar, height, width, quality)[0])
    y_bar = codec.scale_back(y_bar, quality)

    def tile(rows: _Span, columns: _Span) -> tf.Tensor:
        (top, bottom), (left, right) = ([end // down for end in s.seen] for s in (rows, columns))
        x_hat = tf.cast(codec.g_s(y_bar[:, top:bottom, left:right]), tf.float32)[0]
        return to_uint8(x_hat[rows.inner(1)][:, columns.inner(1)])

    padded = [down * tf.shape(y_bar)[axis] for axis in (1, 2)]
    spec = tf.TensorSpec([None, None, 3], tf.uint8)
    return _assembled(tile, spec, padded, side, margin)[:height, :width]


def _margin(transform: keras.layers.Layer, scale: float, down: int) -> int | None:
    """Returns the width of a tile's margin in pixels, a multiple of `down`.

    None if the reach of the transform is unknown: it is then computed for the whole picture.
    """
    try:
        distance, _ = reach(transform, scale)
    except TypeError:
        return None
    return int(-(-distance // down) * down)


class _Span:
    """A tile's rows or columns.

    Attributes:
      seen: the first pixel that the tile sees, and the one after the last.
    """

    def __init__(self, number: tf.Tensor, side: int, margin: int, extent: tf.Tensor):
        self._start = number * side
        self._stop = tf.minimum(self._start + side, extent)
        self.seen = (
            tf.maximum(self._start - margin, 0), tf.minimum(self._stop + margin, extent)
        )  # fmt: skip

    def inner(self, down: int) -> slice:
        """The tile without its margin, in elements of `down` pixels."""
        first, _ = self.seen
        return slice((self._start - first) // down, (self._stop - first) // down)


def _assembled(
    tile: Callable[[_Span, _Span], tf.Tensor],
    spec: tf.TensorSpec,
    padded: list[tf.Tensor],
    side: int,
    margin: int,
) -> tf.Tensor:
    """The tiles of a picture of `padded` rows and columns, side by side; `spec` says of one."""
    rows, columns = (-(-extent // side) for extent in padded)

    def line(row: tf.Tensor) -> tf.Tensor:
        def one(column: tf.Tensor) -> tf.Tensor:
            spans = zip((row, column), padded)
            made = tile(*(_Span(number, side, margin, extent) for number, extent in spans))
            return _turned(made, columns)

        # Tensors are joined along their first axis.
        return _turned(_joined(one, spec, columns), columns)

    return _joined(line, spec, rows)


def _turned(x: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """`x` with its first two axes exchanged if there are several to join, else `x`."""
    return tf.cond(count > 1, lambda: tf.transpose(x, [1, 0, 2]), lambda: tf.identity(x))


def _joined(
    make: Callable[[tf.Tensor], tf.Tensor], spec: tf.TensorSpec, count: tf.Tensor
) -> tf.Tensor:
    """`make(0) ... make(count - 1)`, made one after the other, along the first axis."""
    parts = tf.TensorArray(spec.dtype, count, infer_shape=False, element_shape=spec.shape)
    _, parts = tf.while_loop(
        lambda number, _: number < count,
        lambda number, parts: (number + 1, parts.write(number, make(number))),
        (tf.constant(0), parts),
        parallel_iterations=1,
    )
    return parts.concat()
