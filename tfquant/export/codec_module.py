"""Functions of a full SavedModel: pictures to `.tfq` files and back, with the range coder.

`CodecModule` is the full flavour of an exported model. `PortableModule` replaces it in exports made
without the operations of the range coder.
"""

from __future__ import annotations

import functools
import hashlib
import zlib
from typing import Callable

import tensorflow as tf

from tfquant import exact, stack
from tfquant.codec import Codec
from tfquant.coding import container, packing
from tfquant.coding.checksum import crc32_of_symbols
from tfquant.coding.container import FINGERPRINT_DIGITS
from tfquant.coding.requirement import require
from tfquant.coding.tables import Table
from tfquant.exchange import Reading, Writing
from tfquant.export import quality as scale
from tfquant.export import stock
from tfquant.export.quality import QualityRange
from tfquant.export.stock import (
    IMAGE,
    IMAGES,
    PICTURE,
    QUALITIES,
    QUALITY,
    SIDES,
    one_by_one,
    traced,
    with_quality,
)

# TensorFlow Serving encodes outputs whose name ends in _bytes as base64 in JSON.
_FILE = tf.TensorSpec([], tf.string, name="tfq_bytes")
_FILES = tf.TensorSpec([None], tf.string, name="tfq_bytes")
_CODED = (
    tf.TensorSpec([None], tf.string, name="streams"),
    tf.TensorSpec([], tf.int32, name="height"),
    tf.TensorSpec([], tf.int32, name="width"),
    tf.TensorSpec([], tf.int64, name="symbols_crc"),
)
_DIFFER = "the decoded symbols differ from the encoded ones: the file is forged, or"
_OTHER_REAL_SYMBOLS = (
    f"{_DIFFER} the arithmetic of this machine differs from that of the encoding machine (decode"
    " on a similar machine)"
)
_OTHER_EXACT_SYMBOLS = (
    f"{_DIFFER} this process computes float32 with reduced precision (such as"
    " ONEDNN_DEFAULT_FPMATH_MODE=BF16)"
)
_OTHER_SIZE = (
    "one batch has files of {width}x{height} and {other_width}x{other_height} pixels (width x"
    " height); all pictures of a batch must have the same size"
)


class CodecModule(tf.Module):
    """The full flavour: all functions of an exported model, for pictures of any size.

    Pictures are coded one at a time. The parameters for the range coder must be bit-equal when a
    file is decoded alone.

    Every function that takes a picture or a latent takes a quality as its last argument if the
    model has a range of rates.

    Args:
      codec: the codec with its trained weights.
      tables: latent's name -> its coding table; None makes them from the weights.
      max_pixels: limit of the pictures that the signatures write or read.
      qualities: the model's qualities; None for a model with one rate.

    Attributes:
      transforms: the codec's transforms, tile by tile.
    """

    _IN_GRAPHS = True  # if false, the transforms run eagerly when they are called eagerly

    def __init__(
        self,
        codec: Codec,
        tables: dict[str, Table] | None = None,
        max_pixels: int = container.MAX_PIXELS,
        qualities: QualityRange | None = None,
    ):
        super().__init__(name="codec")
        # Saves the weights, but hides the Keras object from the saver behind a function: Keras
        # would otherwise try to trace its call with one argument.
        self._codec = lambda: codec
        self._weights = list(codec.variables)
        if tables is None:
            tables = {model.name: model.coding_table() for model in codec.entropy_models}
        self._tables = tables
        self._max_pixels = max_pixels
        self._qualities = qualities
        y = stock.latent_spec(codec, "y")
        one, several = ((), ()) if qualities is None else ((QUALITY,), (QUALITIES,))
        self.transforms = stock.Transforms(codec, qualities, self._IN_GRAPHS)
        self.encode = traced(IMAGE, *one)(self._encode)
        self.decode = traced(*_CODED, *one)(self._decode)
        self.evaluate = traced(IMAGE, *one)(self._evaluate)
        self.compress = traced(IMAGES, *several)(self._compress)
        self.compress_one = traced(IMAGE, *one)(self._compress_one)
        self.encode_latent = traced(y, *SIDES, *several)(self._encode_latent)
        self._write = traced(tf.TensorSpec([1, *y.shape[1:]], name="y"))(self._write_latent)

    @property
    def tables(self) -> dict[str, Table]:
        """The coding tables, by the name of the latent."""
        return self._tables

    @property
    def codec(self) -> Codec:
        """The codec."""
        return self._codec()

    @property
    def version(self) -> int:
        """The format of the files that this module writes."""
        return container.VERSION if exact.is_exact(self._codec()) else 1

    @property
    def weights(self) -> list[tf.Variable]:
        """The codec's variables."""
        return list(self._weights)

    def signatures(self) -> dict[str, Callable]:
        """Returns name -> function, for `tf.saved_model.save`.

        Raises:
          StackError: this process uses the portable coder, which a graph cannot contain.
        """
        stack.load_operations()
        names = ("compress", "decompress", "compress_one", "decompress_one",
                 "encode_latent", "decode_latent")  # fmt: skip
        return {name: getattr(self, name) for name in names}

    def fingerprint(self) -> str:
        """Returns 16 hex digits that identify everything on which the meaning of a file's bits
        depends.
        """
        digest = hashlib.sha256(self._codec().name.encode())
        digest.update(exact.digest_of(self._codec()))
        for name, table in sorted(self._tables.items()):
            digest.update(name.encode() + table.to_bytes())
        with tf.init_scope():  # also called while a graph is traced
            for name, part in sorted(self._codec().group("entropy").items()):
                digest.update(name.encode())
                for weight in part.weights:
                    digest.update(weight.numpy().tobytes())
        return digest.hexdigest()[:FINGERPRINT_DIGITS]

    def _encode(self, image: tf.Tensor, quality: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        """Encodes `image: uint8 [H, W, 3]`.

        Returns:
          A dictionary with streams (string [S]), symbols_crc (int64) and bits (float32).
        """
        return self._write(self.transforms.analyze(image, quality))

    def _decode(
        self,
        streams: tf.Tensor,
        height: tf.Tensor,
        width: tf.Tensor,
        symbols_crc: tf.Tensor,
        quality: tf.Tensor | None = None,
    ) -> dict[str, tf.Tensor]:
        """Decodes streams of a picture with that size and `symbols_crc` to image (uint8 [H, W, 3]).

        Raises InvalidArgumentError if the streams contain other symbols. The check runs before the
        synthesis transform, which takes most of the time and memory for the given size, because the
        size may be forged.
        """
        y_bar = self._codec().rectify(self.read(streams, height, width, symbols_crc))
        return {"image": self.transforms.synthesize(y_bar, height, width, quality)}

    def _evaluate(self, image: tf.Tensor, quality: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        """Returns the results of `stock.evaluate` for `image: uint8 [H, W, 3]`."""
        return stock.evaluate(self._codec(), self._tables, self.transforms, image, quality)[0]

    def rate_map(self, image: tf.Tensor, quality: tf.Tensor | None = None) -> tf.Tensor:
        """Returns the bits spent on each pixel of `image: uint8 [H, W, 3]`, float32 [H, W]."""
        codec = self._codec()
        _, exchange = stock.evaluate(codec, self._tables, self.transforms, image, quality)
        return stock.rate_map(codec, exchange, *image.shape[:2])

    def _compress(
        self, images: tf.Tensor, quality: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        """Compresses `images: uint8 [B, H, W, 3]` to tfq_bytes: string [B], one `.tfq` file
        each.
        """

        def one(image: tf.Tensor, *quality: tf.Tensor) -> tf.Tensor:
            return self.compress_one(image, *quality)["tfq_bytes"]

        batch = with_quality(images, quality)
        return {"tfq_bytes": one_by_one(one, batch, tf.TensorSpec([], tf.string))}

    @traced(_FILES)
    def decompress(self, tfq_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Decompresses `tfq_bytes: string [B]`, files of one size, to images: uint8 [B, H, W, 3].

        Raises InvalidArgumentError for a file that is corrupt, not a .tfq file, or from another
        model, with the messages of `container.py`.
        """
        of_one_size = self._of_one_size(tfq_bytes)

        def one(data: tf.Tensor) -> tf.Tensor:
            return self._picture(of_one_size(self._unpack(data)))

        return {"images": one_by_one(one, (tfq_bytes,), PICTURE)}

    def _compress_one(
        self, image: tf.Tensor, quality: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        """Compresses `image: uint8 [H, W, 3]` to tfq_bytes: string scalar."""
        image = stock.picture_within(image, self._max_pixels)
        height, width = tf.shape(image)[0], tf.shape(image)[1]
        coded = self.encode(image, quality)
        return {"tfq_bytes": self._pack(coded, height, width, quality)}

    @traced(_FILE)
    def decompress_one(self, tfq_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Decompresses `tfq_bytes: string scalar` to image: uint8 [H, W, 3]."""
        return {"image": self._picture(self._unpack(tfq_bytes))}

    def _encode_latent(
        self,
        y: tf.Tensor,
        height: tf.Tensor,
        width: tf.Tensor,
        quality: tf.Tensor | None = None,
    ) -> dict[str, tf.Tensor]:
        """Codes `y: float32 [B, h, w, M]` of pictures with sizes int32 [B] to tfq_bytes: string
        [B].
        """

        def one(
            y: tf.Tensor, height: tf.Tensor, width: tf.Tensor, quality: tf.Tensor | None = None
        ) -> tf.Tensor:
            return self._pack(self._write(y[None]), height, width, quality)

        codec, limit = self._codec(), self._max_pixels
        y, *sides = stock.with_sides(codec, "y", y, height, width, limit)
        batch = with_quality(y, quality, *sides)
        return {"tfq_bytes": one_by_one(one, batch, tf.TensorSpec([], tf.string))}

    @traced(_FILES)
    def decode_latent(self, tfq_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Decodes `tfq_bytes: string [B]` to `y_hat: float32 [B, h, w, M]`, height and width: int32
        [B]. A model for a range of rates also returns the files' quality: float32 [B].
        """
        of_one_size = self._of_one_size(tfq_bytes)
        y_hat = stock.latent_spec(self._codec(), "y_hat")
        side = tf.TensorSpec([], tf.int32)
        spec = {"y_hat": tf.TensorSpec(y_hat.shape[1:]), "height": side, "width": side}
        if self._qualities is not None:
            spec["quality"] = tf.TensorSpec([], tf.float32)

        def one(data: tf.Tensor) -> dict[str, tf.Tensor]:
            file = of_one_size(self._unpack(data))
            y_hat = self.read(*_coded(file))[0]
            found = {"y_hat": y_hat, "height": file.height, "width": file.width}
            if self._qualities is not None:
                found["quality"] = self._quality_of(file)
            return found

        return one_by_one(one, (tfq_bytes,), spec)

    def _write_latent(self, y: tf.Tensor) -> dict[str, tf.Tensor]:
        """Codes `y: [1, h, w, M]`. Returns the same as `encode`."""
        exchange = Writing(self._tables)
        self._codec().transmit(y, exchange)
        return {
            "streams": exchange.streams(),
            "symbols_crc": self._crc(exchange.symbols),
            "bits": exchange.bits_per_image()[0],
        }

    @traced(*_CODED)
    def read(
        self, streams: tf.Tensor, height: tf.Tensor, width: tf.Tensor, symbols_crc: tf.Tensor
    ) -> tf.Tensor:
        """Decodes the arguments of `decode` to y_hat: [1, h, w, M]."""
        exchange = Reading(self._tables, streams, self._codec().latent_shapes(height, width))
        y_hat = self._codec().transmit(None, exchange)
        same = tf.equal(self._crc(exchange.symbols), symbols_crc)
        with tf.control_dependencies([require(same, self._other_symbols)]):
            return tf.identity(y_hat)

    @functools.cached_property
    def _other_symbols(self) -> str:
        """The message for decoded symbols that differ; the same for all files of the model."""
        is_exact = self.version > 1 and not exact.real_weights(self._codec())
        return _OTHER_EXACT_SYMBOLS if is_exact else _OTHER_REAL_SYMBOLS

    def _crc(self, symbols: list[tf.Tensor]) -> tf.Tensor:
        """Returns the checksum of integers in coding order, int64 scalar."""
        return crc32_of_symbols(symbols)

    def _pack(
        self,
        coded: dict[str, tf.Tensor],
        height: tf.Tensor,
        width: tf.Tensor,
        quality: tf.Tensor | None,
    ) -> tf.Tensor:
        steps = 0 if self._qualities is None else stock.steps_of(self._qualities, quality)
        return packing.pack(
            coded["streams"],
            height,
            width,
            coded["symbols_crc"],
            self._codec().name,
            self.fingerprint(),
            steps,
            self.version,
        )

    @traced(_FILE)
    def _unpack(self, tfq_bytes: tf.Tensor) -> packing.Unpacked:
        codec, fingerprint = self._codec().name, self.fingerprint()
        steps = scale.stored_range(self._qualities)
        limit = self._max_pixels
        return packing.unpack(tfq_bytes, codec, fingerprint, limit, steps, self.version)

    def _picture(self, file: packing.Unpacked) -> tf.Tensor:
        quality = () if self._qualities is None else (self._quality_of(file),)
        return self.decode(*_coded(file), *quality)["image"]

    def _quality_of(self, file: packing.Unpacked) -> tf.Tensor:
        """Returns the quality with which a model for a range of rates decodes a file, float32
        scalar.
        """
        assert self._qualities is not None
        stored = tf.cast(file.quality, tf.float32) / container.QUALITY_STEPS
        return tf.where(file.quality > 0, stored, self._qualities.base)

    def _of_one_size(self, files: tf.Tensor) -> Callable[[packing.Unpacked], packing.Unpacked]:
        """Returns a function that checks that a file has the size of the first one."""
        with tf.control_dependencies([require(tf.size(files) > 0, stock.NO_BATCH)]):
            first = packing.sizes(files[:1])

        def check(file: packing.Unpacked) -> packing.Unpacked:
            size = tf.cast([file.height, file.width], tf.int64)
            values = {"height": first[0, 0], "width": first[0, 1],
                      "other_height": size[0], "other_width": size[1]}  # fmt: skip
            same = tf.reduce_all(size == first[0])
            with tf.control_dependencies([require(same, _OTHER_SIZE, **values)]):
                return tf.nest.map_structure(tf.identity, file)

        return check


def _coded(file: packing.Unpacked) -> tuple[tf.Tensor, ...]:
    """Returns the tensors of `_CODED`."""
    return file.streams, file.height, file.width, file.symbols_crc


# Numbers of pixels from which a graph is worth its tracing time: because its GDN takes less memory,
# and because Python takes most of the time if a latent has many parts.
_LARGE_PICTURE, _LARGE_WITH_MANY_PARTS = 1 << 22, 1 << 14


class EagerModule(CodecModule):
    """A `CodecModule` that encodes, decodes and evaluates eagerly.

    No graph is traced, so the first picture takes no longer than the others. A large picture uses a
    graph, which needs less memory. With a serial context, nearly every picture uses a graph. The
    arguments are those of `CodecModule`.
    """

    _IN_GRAPHS = False

    def __init__(
        self,
        codec: Codec,
        tables: dict[str, Table] | None = None,
        max_pixels: int = container.MAX_PIXELS,
        qualities: QualityRange | None = None,
    ):
        super().__init__(codec, tables, max_pixels, qualities)
        self._traced = CodecModule(codec, self.tables, max_pixels, qualities)
        many_parts = any(getattr(part, "many_parts", False) for part in codec.parts().values())
        self._large = _LARGE_WITH_MANY_PARTS if many_parts else _LARGE_PICTURE
        self.encode, self.decode = self._encode_eagerly, self._decode_eagerly
        self.evaluate = self._evaluate
        self._write = self._write_latent

    def _encode_eagerly(self, image: tf.Tensor, *quality: tf.Tensor) -> dict[str, tf.Tensor]:
        height, width, _ = image.shape
        encode = self._traced.encode if height * width >= self._large else self._encode
        return encode(image, *quality)

    def _decode_eagerly(
        self, streams: tf.Tensor, height: tf.Tensor, width: tf.Tensor, *others: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        is_large = int(height) * int(width) >= self._large
        decode = self._traced.decode if is_large else self._decode
        return decode(streams, height, width, *others)

    def read(
        self, streams: tf.Tensor, height: tf.Tensor, width: tf.Tensor, symbols_crc: tf.Tensor
    ) -> tf.Tensor:
        return CodecModule.read.python_function(self, streams, height, width, symbols_crc)

    def _crc(self, symbols: list[tf.Tensor]) -> tf.Tensor:
        content = b"".join(each.numpy().astype("<i4").tobytes() for each in symbols)
        return tf.constant(zlib.crc32(content), tf.int64)


class PortableModule(tf.Module):
    """Replaces `CodecModule` if the coder's operations are not available.

    It saves the same weights under the same names. Its only function is `evaluate`.
    """

    def __init__(self, full: CodecModule):
        super().__init__(name="codec")
        self._weights = full.weights
        self.evaluate = full.evaluate

    def signatures(self) -> dict[str, Callable]:
        """Returns name -> function, for `tf.saved_model.save`."""
        return {}
