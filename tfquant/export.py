"""From a trained codec to an exported model: a SavedModel that needs nothing of this package.

The export holds integer coding tables made once from the weights. They, and the weights that the
bits' meaning depends on (priors, hyper-decoder, context), are what the fingerprint covers; `g_s` is
not, so a better decoder still reads old files.
"""

from __future__ import annotations

import hashlib
import json
from typing import Callable

import tensorflow as tf

import tfquant
from tfquant.codec import Codec
from tfquant.coding import model_file
from tfquant.coding.checksum import crc32_of_symbols
from tfquant.exchange import Reading, Rounding, Writing
from tfquant.training.experiment import Experiment

_FINGERPRINT_DIGITS = 16

_IMAGE = tf.TensorSpec([None, None, 3], tf.uint8, name="image")
_SIDE = tf.TensorSpec([], tf.int32)


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
        parts = [self._codec().part(name) for name in self._codec().context_parts]
        for layer in (*parts, *self._codec().entropy_models):
            for weight in layer.weights:
                digest.update(weight.numpy().tobytes())
        return digest.hexdigest()[:_FINGERPRINT_DIGITS]

    @tf.function(input_signature=[_IMAGE])
    def encode(self, image):
        """`image: uint8 [H, W, 3]` -> streams (string [S]), symbols_crc (int64), bits (float32)."""
        exchange = Writing(self._tables)
        self._codec().transmit(self._codec().analyze(_to_batch(image)), exchange)
        return {
            "streams": exchange.streams(),
            "symbols_crc": crc32_of_symbols(exchange.symbols),
            "bits": exchange.bits_per_image()[0],
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="streams"), _SIDE, _SIDE])
    def decode(self, streams, height, width):
        """Streams and the picture's size -> image (uint8 [H, W, 3]), symbols_crc (int64)."""
        exchange = Reading(self._tables, streams, self._codec().latent_shapes(height, width))
        y_hat = self._codec().transmit(None, exchange)
        return {
            "image": _to_image(self._codec().synthesize(y_hat, height, width)),
            "symbols_crc": crc32_of_symbols(exchange.symbols),
        }

    @tf.function(input_signature=[_IMAGE])
    def evaluate(self, image):
        """`image` -> the image that `decode` would give, the model's bits, and y_hat."""
        exchange = Rounding(self._tables)
        x_hat = self._codec()(_to_batch(image), exchange)
        return {
            "image": _to_image(x_hat),
            "bits": exchange.bits_per_image()[0],
            "y_hat": exchange.received["y"],
        }


def _to_batch(image: tf.Tensor) -> tf.Tensor:
    """uint8 [H, W, 3] -> float32 [1, H, W, 3] in [0, 1]."""
    return tf.cast(image[None], tf.float32) / 255.0


def _to_image(x_hat: tf.Tensor) -> tf.Tensor:
    """float32 [1, H, W, 3] in [0, 1] -> uint8 [H, W, 3], nearest."""
    return tf.cast(tf.clip_by_value(x_hat[0], 0.0, 1.0) * 255.0 + 0.5, tf.uint8)


def export_codec(codec: Codec, experiment: Experiment, path: str) -> None:
    """Writes the exported model to `path`, complete or not at all.

    Args:
      codec: built in float32, with its trained weights.
      experiment: recorded in the manifest.
      path: the folder to write; one that is there is replaced.
    """
    module = CodecModule(codec)
    manifest = {
        "format": model_file.FORMAT,
        "version": tfquant.__version__,
        "codec": experiment.codec,
        "fingerprint": module.fingerprint(),
        "downsampling": codec.downsampling,
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


def export_run(run_dir: str, build_codec: Callable[..., Codec]) -> str:
    """Exports the newest checkpoint of a run to `<run_dir>/export`.

    Args:
      run_dir: the run's folder.
      build_codec: `(name, precision, **options) -> codec`.

    Returns:
      The exported model's folder.

    Raises:
      ValueError: the folder holds no run, or no checkpoint.
    """
    path = tf.io.gfile.join(run_dir, "experiment.json")
    if not tf.io.gfile.exists(path):
        raise ValueError(f"{run_dir} is no training run: it has no experiment.json")
    with tf.io.gfile.GFile(path) as f:
        experiment = Experiment.from_json(json.dumps(json.load(f)["experiment"]))
    checkpoint = tf.train.latest_checkpoint(tf.io.gfile.join(run_dir, "checkpoints"))
    if checkpoint is None:
        raise ValueError(f"{run_dir} has no checkpoint yet")
    codec = build_codec(experiment.codec, "float32", **experiment.codec_options)
    status = tf.train.Checkpoint(codec=codec).restore(checkpoint).expect_partial()
    status.assert_existing_objects_matched()
    target = tf.io.gfile.join(run_dir, "export")
    export_codec(codec, experiment, target)
    return target
