"""SavedModel signatures of the two flavours of an exported model, and the stock flavour.

The *stock* flavour consists of standard TensorFlow operations, so an unmodified TensorFlow Serving
can run it. It provides the transforms, which take most of the time, and the cost of a picture in
bits. The range coder's operations are in the *full* flavour (`codec_module.py`). The full flavour
can do everything, or only the rest, if stock has done the transforms:

    client                    server (stock)             client (full)
    pictures ---------------> analyze -----> y --------> encode_latent --> files
    pictures <--------------- synthesize <-- y_hat <---- decode_latent <-- files

Every signature except `about` and those named `..._one` takes a batch of pictures of one size. Each
picture is processed separately, because sums over a batch may have another order of summation. The
results are bit-equal to those of single pictures, and a batch takes little more memory than one
picture.

A model for a range of rates takes a quality with each picture, on the scale of `quality.py`. The
signatures of other models have no such input.
"""

from __future__ import annotations

import functools
from typing import Any, Callable

import tensorflow as tf

from tfquant.codec import Codec
from tfquant.coding import container, packing
from tfquant.coding.container import QUALITY_STEPS
from tfquant.coding.requirement import Checks, require
from tfquant.coding.tables import Table
from tfquant.exchange import Exchange, Rounding
from tfquant.export import quality as scale
from tfquant.export import tiles
from tfquant.export.quality import QualityRange
from tfquant.ops import gradients

IMAGE = tf.TensorSpec([None, None, 3], tf.uint8, name="image")
IMAGES = tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")
SIDES = tuple(tf.TensorSpec([None], tf.int32, name=name) for name in ("height", "width"))
QUALITY = tf.TensorSpec([], tf.float32, name="quality")
QUALITIES = tf.TensorSpec([None], tf.float32, name="quality")
PICTURE = tf.TensorSpec([None, None, 3], tf.uint8)

NO_BATCH = "a batch of 0; it takes at least 1"
_OTHER_COUNT = (
    "{count} latents, {heights} heights and {widths} widths; there must be as many of each"
)
_OTHER_QUALITIES = "{count} pictures and {qualities} qualities; there must be as many of each"
_OTHER_SIZE = (
    "pictures of {width}x{height} and {other_width}x{other_height} pixels (width x height) in one"
    " batch; the pictures of a batch have one size"
)
_NO_SIDE = "a picture of {width}x{height} pixels (width x height); a side has at least 1"
_OTHER_SHAPE = (
    "{name} has {columns}x{rows} elements; a picture of {width}x{height} pixels (width x height)"
    " needs {expected_columns}x{expected_rows}"
)


def traced(*signature: tf.TensorSpec) -> Callable[[Callable[..., Any]], Any]:
    """Returns `tf.function` with the settings of both flavours: no Python condition depends on a
    tensor, and nobody differentiates the graph.
    """

    def trace(function: Callable[..., Any]) -> Any:
        @functools.wraps(function)
        def without_gradients(*arguments: Any, **named: Any) -> Any:
            with gradients.values_only():
                return function(*arguments, **named)

        return tf.function(without_gradients, input_signature=signature, autograph=False)

    return trace


class Transforms(tf.Module):
    """The transforms of a codec, tile by tile. All functions of a module share their graphs.

    Args:
      codec: the codec with its trained weights.
      qualities: the model's qualities; None for a model with one rate, whose quality is None.
      in_graphs: if false, the transforms run eagerly when they are called eagerly.
    """

    def __init__(self, codec: Codec, qualities: QualityRange | None, in_graphs: bool = True):
        super().__init__(name="transforms")
        self._codec = lambda: codec  # hidden from the saver, as in `CodecModule`
        self._qualities = qualities
        quality = () if qualities is None else (QUALITY,)
        # oneDNN computes a product of `[n, 1, r, k]` with one matrix wrongly (the table of defects
        # in docs/performance.md). A batch of unknown size could be n.
        self._y_bar = tf.TensorSpec([1, *latent_spec(codec, "y_hat").shape[1:]])
        side = tf.TensorSpec([], tf.int32)
        self._run_analysis, self._run_synthesis = self._analyze, self._synthesize
        if in_graphs:
            self._run_analysis = traced(IMAGE, *quality)(self._analyze)
            self._run_synthesis = traced(self._y_bar, side, side, *quality)(self._synthesize)

    def analyze(self, image: tf.Tensor, quality: tf.Tensor | None = None) -> tf.Tensor:
        """Maps `image: uint8 [H, W, 3]` to y: float32 [1, h, w, M], which is not quantized.

        `quality` is a float32 scalar from 0 to 100; None for a model with one rate.
        """
        return self._run_analysis(image, quality)

    def synthesize(
        self,
        y_bar: tf.Tensor,
        height: tf.Tensor,
        width: tf.Tensor,
        quality: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Maps `y_bar: float32 [1, h, w, M]` to the picture, uint8 [height, width, 3].

        `quality` is a float32 scalar from 0 to 100; None for a model with one rate. Another batch
        is an InvalidArgumentError.
        """
        y_bar = tf.ensure_shape(y_bar, self._y_bar.shape)
        return self._run_synthesis(y_bar, height, width, quality)

    def _analyze(self, image: tf.Tensor, quality: tf.Tensor | None = None) -> tf.Tensor:
        with tf.control_dependencies([_has_pixels(tf.shape(image)[0], tf.shape(image)[1])]):
            image = tf.identity(image)
        return tiles.analyze(self._codec(), image, level_of(self._qualities, quality))

    def _synthesize(
        self,
        y_bar: tf.Tensor,
        height: tf.Tensor,
        width: tf.Tensor,
        quality: tf.Tensor | None = None,
    ) -> tf.Tensor:
        level = level_of(self._qualities, quality)
        return tiles.synthesize(self._codec(), y_bar, height, width, level)


class StockModule(tf.Module):
    """The stock flavour of an exported model.

    Args:
      codec: the codec with its trained weights.
      tables: latent's name -> its coding table, for the cost of escapes.
      qualities: the model's qualities; None for a model with one rate.
      max_pixels: limit of the pictures.
      transforms: the codec's transforms, whose graphs another module may have traced.
    """

    def __init__(
        self,
        codec: Codec,
        tables: dict[str, Table],
        qualities: QualityRange | None,
        max_pixels: int,
        transforms: Transforms,
    ):
        super().__init__(name="stock")
        self._max_pixels = max_pixels
        self._codec = lambda: codec  # hidden from the saver, as in `CodecModule`
        self._weights = list(codec.variables)
        self._tables = tables
        self._qualities = qualities
        quality = () if qualities is None else (QUALITIES,)
        self._transforms = transforms
        y_hat = latent_spec(codec, "y_hat")
        self.analyze = traced(IMAGES, *quality)(self._analyze)
        self.synthesize = traced(y_hat, *SIDES, *quality)(self._synthesize)
        self.reconstruct = traced(IMAGES, *quality)(self._reconstruct)

    def signatures(self) -> dict[str, Callable]:
        """Returns name -> function, for `tf.saved_model.save`."""
        names = ("analyze", "synthesize", "reconstruct")
        return {name: getattr(self, name) for name in names}

    def _analyze(self, images: tf.Tensor, quality: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        """Maps `images: uint8 [B, H, W, 3]` to y: float32 [B, h, w, M], not quantized."""

        def one(image: tf.Tensor, quality: tf.Tensor | None = None) -> tf.Tensor:
            return self._transforms.analyze(picture_within(image, self._max_pixels), quality)[0]

        spec = tf.TensorSpec(latent_spec(self._codec(), "y").shape[1:])
        return {"y": one_by_one(one, with_quality(images, quality), spec)}

    def _synthesize(
        self,
        y_hat: tf.Tensor,
        height: tf.Tensor,
        width: tf.Tensor,
        quality: tf.Tensor | None = None,
    ) -> dict[str, tf.Tensor]:
        """Maps `y_hat: float32 [B, h, w, M]` to images: uint8 [B, H, W, 3].

        `height` and `width`, int32 [B], are the sizes of the pictures. All must be equal. Other
        sides are an InvalidArgumentError.
        """

        def one(
            y_hat: tf.Tensor, height: tf.Tensor, width: tf.Tensor, quality: tf.Tensor | None = None
        ) -> tf.Tensor:
            y_bar = self._codec().rectify(y_hat[None])
            return self._transforms.synthesize(y_bar, height, width, quality)

        codec, limit = self._codec(), self._max_pixels
        y_hat, *sides = with_sides(codec, "y_hat", y_hat, height, width, limit)
        batch = with_quality(y_hat, quality, *sides)
        return {"images": one_by_one(one, batch, PICTURE)}

    def _reconstruct(
        self, images: tf.Tensor, quality: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        """Computes a decoder's pictures for `images: uint8 [B, H, W, 3]`, and their cost.

        Returns:
          A dictionary. images: uint8 [B, H, W, 3], the decoded pictures. bits: float32 [B], the
            model's estimate. rate_map: float32 [B, H, W], the bits for each pixel.
        """

        def one(image: tf.Tensor, quality: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
            codec, image = self._codec(), picture_within(image, self._max_pixels)
            evaluated, exchange = evaluate(codec, self._tables, self._transforms, image, quality)
            spent = rate_map(codec, exchange, tf.shape(image)[0], tf.shape(image)[1])
            return {"images": evaluated["image"], "bits": evaluated["bits"], "rate_map": spent}

        outputs = {
            "images": PICTURE,
            "bits": tf.TensorSpec([], tf.float32),
            "rate_map": tf.TensorSpec([None, None], tf.float32),
        }
        return one_by_one(one, with_quality(images, quality), outputs)


def with_quality(
    pictures: tf.Tensor, quality: tf.Tensor | None, *others: tf.Tensor
) -> tuple[tf.Tensor, ...]:
    """Returns the tensors of a batch for `one_by_one`, with the qualities last.

    Args:
      pictures: [B, ...], pictures or latents.
      quality: [B] float32, or None, which is left out. Another number of qualities is an
        InvalidArgumentError.
      *others: tensors [B], between the pictures and the qualities.
    """
    if quality is None:
        return (pictures, *others)
    counts = {"count": tf.shape(pictures)[0], "qualities": tf.size(quality)}
    same = counts["count"] == counts["qualities"]
    with tf.control_dependencies([require(same, _OTHER_QUALITIES, **counts)]):
        return (pictures, *others, tf.identity(quality))


def steps_of(qualities: QualityRange, quality: tf.Tensor) -> tf.Tensor:
    """Returns the quality that a file stores: int32 scalar, as `container.stored_quality`.

    Args:
      qualities: the model's qualities.
      quality: float32 scalar from 0 to 100. It is rounded to steps of 1/256, and limited to the
        model's qualities. Other numbers are an InvalidArgumentError.
    """
    valid = (quality >= scale.LOWEST) & (quality <= scale.HIGHEST)
    with tf.control_dependencies([require(valid, scale.OUT_OF_SCALE, quality=quality)]):
        steps = tf.cast(tf.round(QUALITY_STEPS * quality), tf.int32)
    return tf.clip_by_value(steps, *qualities.steps)


def level_of(qualities: QualityRange | None, quality: tf.Tensor | None) -> tf.Tensor | None:
    """Returns the codec's quality, [1] float32 from 0 to 1, or None for a model with one rate.

    The arguments are those of `steps_of`. The encoder's level equals the decoder's, because both
    come from the quality that the file stores.
    """
    if qualities is None:
        return None
    stored = tf.cast(steps_of(qualities, quality), tf.float64) / QUALITY_STEPS
    return tf.cast(qualities.level(stored), tf.float32)[None]


def one_by_one(function: Callable[..., Any], batch: tuple[tf.Tensor, ...], spec: Any) -> Any:
    """Applies `function` to the elements of tensors [B, ...]; `spec` describes its result.

    Runs sequentially, because parallel calls would take several times the memory. A batch of 0 is
    an InvalidArgumentError.
    """
    count = tf.shape(batch[0])[0]
    with tf.control_dependencies([require(count > 0, NO_BATCH)]):
        batch = tuple(map(tf.identity, batch))
    return tf.map_fn(
        lambda inputs: function(*inputs), batch, fn_output_signature=spec, parallel_iterations=1
    )


def _has_pixels(height: tf.Tensor, width: tf.Tensor) -> tf.Operation | None:
    """Requires that both sides of a picture are positive."""
    return require((height > 0) & (width > 0), _NO_SIDE, height=height, width=width)


def picture_within(image: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """Returns `image: uint8 [H, W, 3]`, if it is not larger than what is read."""
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    with tf.control_dependencies(_within_limit(height, width, max_pixels)):
        return tf.identity(image)


def _within_limit(height: tf.Tensor, width: tf.Tensor, max_pixels: int) -> list:
    """Returns the operations that check sides, int32 scalars, against a limit of pixels."""
    checks = Checks()
    height, width = tf.cast(height, tf.int64), tf.cast(width, tf.int64)
    texts = (container.TOO_LARGE_TO_WRITE, container.TOO_MUCH_PADDING_TO_WRITE)
    packing.check_limit(checks, height, width, max_pixels, texts)
    return checks.done


def with_sides(
    codec: Codec,
    name: str,
    y: tf.Tensor,
    height: tf.Tensor,
    width: tf.Tensor,
    max_pixels: int,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns latents and the sizes of their pictures, after a check that these fit.

    Args:
      codec: the codec.
      name: of `y` in the message of the InvalidArgumentError.
      y: [B, h, w, M] float32.
      height, width: [B] int32.
      max_pixels: limit of the pictures.
    """
    counts = {"count": tf.shape(y)[0], "heights": tf.size(height), "widths": tf.size(width)}
    same_count = (counts["count"] == counts["heights"]) & (counts["count"] == counts["widths"])
    with tf.control_dependencies(
        [
            require(counts["count"] > 0, NO_BATCH),
            require(same_count, _OTHER_COUNT, **counts),
        ]
    ):
        height, width = tf.identity(height), tf.identity(width)
    other = tf.argmax(tf.cast((height != height[0]) | (width != width[0]), tf.int32))
    sizes = {"height": height[0], "width": width[0],
             "other_height": height[other], "other_width": width[other]}  # fmt: skip
    with tf.control_dependencies(
        [require(other == 0, _OTHER_SIZE, **sizes), _has_pixels(height[0], width[0])]
    ):
        _, *expected, _ = tf.unstack(codec.latent_shapes(height[0], width[0])["y"])
    rows, columns = tf.shape(y)[1], tf.shape(y)[2]
    fits = (rows == expected[0]) & (columns == expected[1])
    values = {"name": tf.constant(name), "rows": rows, "columns": columns, "height": height[0],
              "width": width[0], "expected_rows": expected[0],
              "expected_columns": expected[1]}  # fmt: skip
    with tf.control_dependencies([require(fits, _OTHER_SHAPE, **values)]):
        within = _within_limit(height[0], width[0], max_pixels)
    with tf.control_dependencies(within):
        return tf.identity(y), tf.identity(height), tf.identity(width)


def evaluate(
    codec: Codec,
    tables: dict[str, Table],
    transforms: Transforms,
    image: tf.Tensor,
    quality: tf.Tensor | None = None,
) -> tuple[dict[str, tf.Tensor], Exchange]:
    """Computes a decoder's result, without coding.

    Args:
      codec: the codec.
      tables: latent's name -> its coding table, for the cost of escapes.
      transforms: the codec's transforms.
      image: uint8 [H, W, 3].
      quality: float32 scalar from 0 to 100; None for a model with one rate.

    Returns:
      A dictionary, and the exchange that transmitted all latents. The dictionary contains image:
        uint8 [H, W, 3]; bits: float32 scalar, the model's estimate; y, y_hat, y_bar: float32 [1, h,
        w, M], the latent before quantization, as a decoder receives it, and as `g_s` decodes it.
        Without a rectifier, y_bar is y_hat.
    """
    exchange = Rounding(tables)
    y = transforms.analyze(image, quality)
    y_hat = codec.transmit(y, exchange)
    y_bar = codec.rectify(y_hat)
    evaluated = {
        "image": transforms.synthesize(y_bar, tf.shape(image)[0], tf.shape(image)[1], quality),
        "bits": exchange.bits_per_image()[0],
        "y": y,
        "y_hat": y_hat,
        "y_bar": y_bar,
    }
    return evaluated, exchange


def rate_map(
    codec: Codec, exchange: Exchange, height: tf.Tensor | int, width: tf.Tensor | int
) -> tf.Tensor:
    """Returns the bits spent on each pixel: float32 [height, width].

    They sum to the picture's bits.

    An element's bits are spread evenly over its pixels. Bits of elements outside the picture, in
    the padding, are added to its last row and column of elements.
    """
    maps = []
    for name, bits in exchange.bits.items():
        down, _ = codec.latent_channels()[name]
        cells = tf.reduce_sum(bits[0], axis=-1)  # [h, w]
        for side in (height, width):  # rows, then columns; transposes each time
            last = (side - 1) // down
            cell = tf.minimum(tf.range(tf.shape(cells)[0]), last)
            cells = tf.math.segment_sum(cells, cell)
            pixels = tf.minimum(down, side - down * tf.range(last + 1))
            cells /= tf.cast(pixels, tf.float32)[:, None]
            cells = tf.transpose(tf.gather(cells, tf.range(side) // down))
        maps.append(cells)
    return tf.add_n(maps)


def about(manifest: str) -> Callable[[], dict[str, tf.Tensor]]:
    """Returns a signature that outputs the manifest, a JSON text: a `tf.function` without
    arguments.
    """
    return traced()(lambda: {"manifest": tf.constant(manifest)})


def latent_spec(codec: Codec, name: str) -> tf.TensorSpec:
    """Returns the spec of a batch of `y`: float32 [B, h, w, M]."""
    _, channels = codec.latent_channels()["y"]
    return tf.TensorSpec([None, None, None, channels], tf.float32, name=name)
