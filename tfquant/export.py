"""From a trained codec to an exported model: a SavedModel that needs nothing of this package.

The export holds integer coding tables made once from the weights. They, and the weights that the
bits' meaning depends on (priors, hyper-decoder, context), are what the fingerprint covers; `g_s` is
not, so a better decoder still reads old files.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Callable

import tensorflow as tf

import tfquant
from tfquant import rectified
from tfquant.codec import Codec
from tfquant.coding import model_file
from tfquant.coding.checksum import crc32_of_symbols
from tfquant.coding.container import FINGERPRINT_DIGITS
from tfquant.exchange import Reading, Rounding, Writing
from tfquant.pixels import to_float, to_uint8
from tfquant.training import checkpoint, folder
from tfquant.training.experiment import Experiment

_IMAGE = tf.TensorSpec([None, None, 3], tf.uint8, name="image")
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


class CodecModule(tf.Module):
    """What an exported model can do; each function takes a picture of any size.

    Pictures go through one at a time: the parameters that the range coder depends on must come out
    bit-equal when the file is read, alone.
    """

    def __init__(self, codec: Codec):
        super().__init__(name="codec")
        # The weights are saved. The Keras object is hidden from the saver behind a function: Keras
        # would try to trace its call with one argument.
        self._codec = lambda: codec
        self._weights = list(codec.variables)
        self._tables = {model.name: model.coding_table() for model in codec.entropy_models}

    def fingerprint(self) -> str:
        """16 hex digits over all that gives a file's bits their meaning."""
        digest = hashlib.sha256(self._codec().name.encode())
        for name, table in sorted(self._tables.items()):
            digest.update(name.encode() + table.to_bytes())
        for name, part in sorted(self._codec().group("entropy").items()):
            digest.update(name.encode())
            for weight in part.weights:
                digest.update(weight.numpy().tobytes())
        return digest.hexdigest()[:FINGERPRINT_DIGITS]

    @tf.function(input_signature=[_IMAGE])
    def encode(self, image):
        """`image: uint8 [H, W, 3]` -> streams (string [S]), symbols_crc (int64), bits (float32)."""
        exchange = Writing(self._tables)
        self._codec().transmit(self._codec().analyze(to_float(image[None])), exchange)
        return {
            "streams": exchange.streams(),
            "symbols_crc": crc32_of_symbols(exchange.symbols),
            "bits": exchange.bits_per_image()[0],
        }

    @tf.function(input_signature=_CODED)
    def decode(self, streams, height, width, symbols_crc):
        """Streams, the picture's size and its `symbols_crc` -> image (uint8 [H, W, 3]).

        InvalidArgumentError if the streams hold other symbols, before the synthesis transform runs:
        it takes most of the time and memory that a size asks for, and the size may be forged.
        """
        exchange = Reading(self._tables, streams, self._codec().latent_shapes(height, width))
        y_hat = self._codec().transmit(None, exchange)
        same = tf.equal(crc32_of_symbols(exchange.symbols), symbols_crc)
        with tf.control_dependencies([tf.debugging.Assert(same, [_OTHER_SYMBOLS])]):
            y_hat = tf.identity(y_hat)
        y_bar = self._codec().rectify(y_hat)
        return {"image": to_uint8(self._codec().synthesize(y_bar, height, width)[0])}

    @tf.function(input_signature=[_IMAGE])
    def evaluate(self, image):
        """`image` -> the image that `decode` would give, the model's bits, and y on its way.

        `y`, `y_hat` and `y_bar`, float32 [1, h, w, M], are the latent before quantization, as a
        decoder has it, and as `g_s` decodes it: `y_hat` itself in a codec without rectifier.
        """
        exchange = Rounding(self._tables)
        y = self._codec().analyze(to_float(image[None]))
        y_hat = self._codec().transmit(y, exchange)
        y_bar = self._codec().rectify(y_hat)
        x_hat = self._codec().synthesize(y_bar, tf.shape(image)[0], tf.shape(image)[1])
        return {
            "image": to_uint8(x_hat[0]),
            "bits": exchange.bits_per_image()[0],
            "y": y,
            "y_hat": y_hat,
            "y_bar": y_bar,
        }


def export_codec(codec: Codec, experiment: Experiment, path: str) -> None:
    """Writes the exported model to `path`, complete or not at all.

    Args:
      codec: built in float32, with its trained weights.
      experiment: recorded in the manifest.
      path: the folder to write; an exported model that is there is replaced.

    Raises:
      ValueError: there is something else at `path`.
    """
    is_model = tf.io.gfile.exists(tf.io.gfile.join(path, model_file.MANIFEST))
    if tf.io.gfile.exists(path) and not is_model:
        raise ValueError(f"{path} is there and no exported model: it is not replaced")
    module = CodecModule(codec)
    manifest = {
        "format": model_file.FORMAT,
        "version": tfquant.__version__,
        "codec": experiment.codec,
        "fingerprint": module.fingerprint(),
        "experiment": json.loads(experiment.to_json()),
    }
    partial = path.rstrip("/") + ".partial"
    if tf.io.gfile.exists(partial):
        tf.io.gfile.rmtree(partial)
    tf.saved_model.save(module, partial)
    with tf.io.gfile.GFile(tf.io.gfile.join(partial, model_file.MANIFEST), "w") as f:
        f.write(json.dumps(manifest, indent=2) + "\n")
    if tf.io.gfile.exists(path):
        tf.io.gfile.rmtree(path)
    tf.io.gfile.rename(partial, path)


def export_run(
    run_dir: str, build_codec: Callable[..., Codec], path: str | None = None
) -> tuple[str, str]:
    """Exports the newest readable checkpoint of a run: finished, stopped or diverged.

    Args:
      run_dir: the run's folder.
      build_codec: `(name, precision, **options) -> codec`.
      path: the folder to write; None for `<run_dir>/export`.

    Returns:
      The exported model's folder, and the name of the checkpoint.

    Raises:
      ValueError: the folder holds no run, no readable checkpoint, or one of another version's
        codec; or there is something else at `path`.
    """
    experiment = folder.read_experiment(run_dir)
    newest = checkpoint.newest_readable(run_dir)
    if newest is None:
        raise ValueError(f"{run_dir} has no checkpoint yet")
    codec = rectified.build(experiment, build_codec, "float32")
    checkpoint.restore_codec(codec, newest)
    path = path or tf.io.gfile.join(run_dir, model_file.FOLDER)
    export_codec(codec, experiment, path)
    return path, os.path.basename(newest)
