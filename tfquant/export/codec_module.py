"""The functions of a full SavedModel: pictures to `.tfq` files and back, with the range coder.

`CodecModule` is the full flavour of an exported model. `PortableModule` takes its place in exports
made where the operations of the range coder are not available.
"""

from __future__ import annotations

import hashlib

import tensorflow as tf

from tfquant import exact, stack
from tfquant.codec import Codec
from tfquant.coding import container, packing
from tfquant.coding.checksum import crc32_of_symbols
from tfquant.coding.container import FINGERPRINT_DIGITS
from tfquant.exchange import Reading, Writing
from tfquant.export import stock, tiles
from tfquant.export.stock import IMAGE, IMAGES, PICTURE, SIDES, one_by_one, traced

# TensorFlow Serving writes outputs of such a name as base64 into JSON.
_FILE = tf.TensorSpec([], tf.string, name="tfq_bytes")
_FILES = tf.TensorSpec([None], tf.string, name="tfq_bytes")
_CODED = (
    tf.TensorSpec([None], tf.string, name="streams"),
    tf.TensorSpec([], tf.int32, name="height"),
    tf.TensorSpec([], tf.int32, name="width"),
    tf.TensorSpec([], tf.int64, name="symbols_crc"),
)
_OTHER_SYMBOLS = (
    "the decoded symbols are not those that were encoded: the file is forged, or the arithmetic of"
    " this machine differs from that of the encoding one (decode on one like it)"
)


_OTHER_SIZE = (
    "files of {height}x{width} and {other_height}x{other_width} pixels in one batch;"
    " the pictures of a batch have one size"
)


class CodecModule(tf.Module):
    """The full flavour: all that an exported model can do, with pictures of any size.

    Pictures go through one at a time: the parameters that the range coder depends on must come out
    bit-equal when the file is read, alone.

    Args:
      codec: with its trained weights.
      tables: latent's name -> its coding table; None makes them from the weights.
      max_pixels: of a picture that the signatures write or read.
    """

    def __init__(
        self, codec: Codec, tables: dict | None = None, max_pixels: int = container.MAX_PIXELS
    ):
        super().__init__(name="codec")
        # The weights are saved. The Keras object is hidden from the saver behind a function: Keras
        # would try to trace its call with one argument.
        self._codec = lambda: codec
        self._weights = list(codec.variables)
        if tables is None:
            tables = {model.name: model.coding_table() for model in codec.entropy_models}
        self._tables = tables
        self._max_pixels = max_pixels
        y = stock.latent_spec(codec, "y")
        self.encode_latent = traced(y, *SIDES)(self._encode_latent)
        self._write = traced(tf.TensorSpec([1, *y.shape[1:]], name="y"))(self._write_latent)

    @property
    def tables(self) -> dict:
        """Latent's name -> its coding table."""
        return self._tables

    @property
    def version(self) -> int:
        """The format of the files that this module writes."""
        return container.VERSION if exact.is_exact(self._codec()) else 1

    @property
    def weights(self) -> list:
        """The codec's variables."""
        return list(self._weights)

    def signatures(self) -> dict:
        """Name -> function, for `tf.saved_model.save`.

        Raises:
          StackError: this process has the portable coder, which a graph cannot contain.
        """
        stack.load_operations()
        names = ("compress", "decompress", "compress_one", "decompress_one",
                 "encode_latent", "decode_latent")  # fmt: skip
        return {name: getattr(self, name) for name in names}

    def fingerprint(self) -> str:
        """16 hex digits over all that gives a file's bits their meaning."""
        digest = hashlib.sha256(self._codec().name.encode())
        digest.update(exact.digest_of(self._codec()))
        for name, table in sorted(self._tables.items()):
            digest.update(name.encode() + table.to_bytes())
        with tf.init_scope():  # it is asked for while a graph is traced as well
            for name, part in sorted(self._codec().group("entropy").items()):
                digest.update(name.encode())
                for weight in part.weights:
                    digest.update(weight.numpy().tobytes())
        return digest.hexdigest()[:FINGERPRINT_DIGITS]

    @traced(IMAGE)
    def encode(self, image):
        """`image: uint8 [H, W, 3]` -> streams (string [S]), symbols_crc (int64), bits (float32)."""
        return self._write(tiles.analyze(self._codec(), image))

    @traced(*_CODED)
    def decode(self, streams, height, width, symbols_crc):
        """Streams, the picture's size and its `symbols_crc` -> image (uint8 [H, W, 3]).

        InvalidArgumentError if the streams hold other symbols, before the synthesis transform runs:
        it takes most of the time and memory that a size asks for, and the size may be forged.
        """
        y_bar = self._codec().rectify(self.read(streams, height, width, symbols_crc))
        return {"image": tiles.synthesize(self._codec(), y_bar, height, width)}

    @traced(IMAGE)
    def evaluate(self, image):
        """What `stock.evaluate` says of `image: uint8 [H, W, 3]`."""
        return stock.evaluate(self._codec(), self._tables, image)[0]

    @traced(IMAGES)
    def compress(self, images):
        """`images: uint8 [B, H, W, 3]` -> tfq_bytes: string [B], each a whole `.tfq` file."""

        def one(image):
            return self.compress_one(image)["tfq_bytes"]

        return {"tfq_bytes": one_by_one(one, images, tf.TensorSpec([], tf.string))}

    @traced(_FILES)
    def decompress(self, tfq_bytes):
        """`tfq_bytes: string [B]`, `.tfq` files of one size -> images: uint8 [B, H, W, 3].

        InvalidArgumentError for what is damaged, foreign or another model's, with the words of
        `container.py`.
        """
        of_one_size = self._of_one_size(tfq_bytes)

        def one(data):
            return self._picture(of_one_size(self._unpack(data)))

        return {"images": one_by_one(one, tfq_bytes, PICTURE)}

    @traced(IMAGE)
    def compress_one(self, image):
        """`image: uint8 [H, W, 3]` -> tfq_bytes: string scalar."""
        height, width = self._within_limit(tf.shape(image)[0], tf.shape(image)[1])
        with tf.control_dependencies([height]):
            image = tf.identity(image)
        return {"tfq_bytes": self._pack(self.encode(image), height, width)}

    @traced(_FILE)
    def decompress_one(self, tfq_bytes):
        """`tfq_bytes: string scalar` -> image: uint8 [H, W, 3]."""
        return {"image": self._picture(self._unpack(tfq_bytes))}

    def _encode_latent(self, y, height, width):
        """`y: float32 [B, h, w, M]`, the pictures' sizes, int32 [B] -> tfq_bytes: string [B]."""

        def one(inputs):
            y, height, width = inputs
            height, width = self._within_limit(height, width)
            with tf.control_dependencies([height]):
                y = tf.identity(y)
            return self._pack(self._write(y[None]), height, width)

        fitting = stock.with_sides(self._codec(), "y", y, height, width)
        return {"tfq_bytes": one_by_one(one, fitting, tf.TensorSpec([], tf.string))}

    @traced(_FILES)
    def decode_latent(self, tfq_bytes):
        """`tfq_bytes: string [B]` -> `y_hat: float32 [B, h, w, M]`, height and width: int32 [B]."""
        of_one_size = self._of_one_size(tfq_bytes)
        y_hat = stock.latent_spec(self._codec(), "y_hat")

        def one(data):
            file = of_one_size(self._unpack(data))
            y_hat = self.read(*_what_decodes(file))[0]
            return {"y_hat": y_hat, "height": file.height, "width": file.width}

        side = tf.TensorSpec([], tf.int32)
        spec = {"y_hat": tf.TensorSpec(y_hat.shape[1:]), "height": side, "width": side}
        return one_by_one(one, tfq_bytes, spec)

    def _write_latent(self, y):
        """`y: [1, h, w, M]` -> what `encode` gives."""
        exchange = Writing(self._tables)
        self._codec().transmit(y, exchange)
        return {
            "streams": exchange.streams(),
            "symbols_crc": crc32_of_symbols(exchange.symbols),
            "bits": exchange.bits_per_image()[0],
        }

    @traced(*_CODED)
    def read(self, streams, height, width, symbols_crc):
        """What `decode` takes -> y_hat: [1, h, w, M]."""
        exchange = Reading(self._tables, streams, self._codec().latent_shapes(height, width))
        y_hat = self._codec().transmit(None, exchange)
        same = tf.equal(crc32_of_symbols(exchange.symbols), symbols_crc)
        with tf.control_dependencies([packing.require(same, _OTHER_SYMBOLS)]):
            return tf.identity(y_hat)

    def _pack(self, coded: dict, height, width) -> tf.Tensor:
        return packing.pack(
            coded["streams"],
            height,
            width,
            coded["symbols_crc"],
            self._codec().name,
            self.fingerprint(),
            version=self.version,
        )

    @traced(_FILE)
    def _unpack(self, tfq_bytes):
        return packing.unpack(tfq_bytes, self._codec().name, self.fingerprint(), self._max_pixels)

    def _within_limit(self, height, width) -> tuple:
        """The sides of a picture, if it is not larger than what is read."""
        pixels = tf.cast(height, tf.int64) * tf.cast(width, tf.int64)
        values = {"height": height, "width": width, "pixels": pixels,
                  "max_pixels": self._max_pixels}  # fmt: skip
        small = packing.require(pixels <= self._max_pixels, container.TOO_LARGE_TO_WRITE, **values)
        with tf.control_dependencies([small]):
            return tf.identity(height), tf.identity(width)

    def _picture(self, file: packing.Unpacked) -> tf.Tensor:
        return self.decode(*_what_decodes(file))["image"]

    def _of_one_size(self, files):
        """A function that lets a file pass if it has the size of the first."""
        with tf.control_dependencies([packing.require(tf.size(files) > 0, stock.NO_BATCH)]):
            first = packing.sizes(files[:1])

        def check(file: packing.Unpacked) -> packing.Unpacked:
            size = tf.cast([file.height, file.width], tf.int64)
            values = {"height": first[0, 0], "width": first[0, 1],
                      "other_height": size[0], "other_width": size[1]}  # fmt: skip
            same = tf.reduce_all(size == first[0])
            with tf.control_dependencies([packing.require(same, _OTHER_SIZE, **values)]):
                return tf.nest.map_structure(tf.identity, file)

        return check


def _what_decodes(file: packing.Unpacked) -> tuple:
    """The arguments of `CodecModule.decode`."""
    return file.streams, file.height, file.width, file.symbols_crc


class PortableModule(tf.Module):
    """In place of `CodecModule` where the coder's operations are not available.

    It saves the same weights under the same names, and evaluates.
    """

    def __init__(self, full: CodecModule):
        super().__init__(name="codec")
        self._weights = full.weights
        self.evaluate = full.evaluate

    def signatures(self) -> dict:
        """Name -> function, for `tf.saved_model.save`."""
        return {}
