"""One operation of this package, in its own process. `bench.py` starts it, see `piped.py`.

Settings: `what`, a key of `TASKS`, and the settings of that task. On request (`peak`), the process
also multiplies large matrices in the same precision, which measures the machine's peak.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import conditions
import measuring
import numpy as np
import piped
import tensorflow as tf
from absl import flags

import tfquant
from tfquant import cli, models
from tfquant.codec import Codec
from tfquant.coding import range_coder
from tfquant.data import crops, images, sources
from tfquant.entropy.conditional import ConditionalModel
from tfquant.export import manifest_file, model_file
from tfquant.legacy_keras import keras
from tfquant.training import callbacks
from tfquant.training.experiment import Experiment

_SIDE = 2048  # side of the matrices
_SYMBOLS = 1_000_000
_BATCHES = 20  # batches of crops
_PICTURES = 8  # pictures in a folder


def _coder(settings: dict) -> Codec:
    return models.build_for_files(settings["codec"], settings["precision"], **settings["widths"])


def _multiply_adds(settings: dict, size: tuple, without: tuple = ()) -> float:
    """Returns the multiply-adds of a picture's forward pass, which are the same in every
    precision.
    """
    codec = models.build(settings["codec"], **settings["widths"])
    return measuring.multiply_adds(codec, *size, without)


def step(settings: dict) -> tuple:
    """Prepares a training step as in Keras' `fit`."""
    experiment = Experiment(
        codec=settings["codec"], codec_options=settings["widths"], plan=settings["plan"],
        precision=settings["precision"], batch_size=settings["batch_size"], crop=settings["crop"],
    )  # fmt: skip
    made = measuring.training_step(experiment)
    # The backward pass has two products of the same size for every product: by inputs and by
    # weights.
    of_one = _multiply_adds(settings, (experiment.crop, experiment.crop))
    return made.run, {"operations": 2 * 3 * experiment.batch_size * of_one}


def compress(settings: dict) -> tuple:
    """Prepares the compression of a picture to streams, in the graph."""
    codec = _coder(settings)
    products = _multiply_adds(settings, conditions.PICTURE, codec.decoder_parts)
    return measuring.code(codec, measuring.picture()).compress, {"operations": 2 * products}


def decompress(settings: dict) -> tuple:
    """Prepares the decompression of streams to the picture, in the graph."""
    codec = _coder(settings)
    products = _multiply_adds(settings, conditions.PICTURE, codec.encoder_parts)
    return measuring.code(codec, measuring.picture()).decompress, {"operations": 2 * products}


def folder(settings: dict) -> tuple:
    """Prepares the compression of a folder by `tfquant compress`, with a loaded model."""
    codec = _coder(settings)
    products = _multiply_adds(settings, conditions.PICTURE, codec.decoder_parts)
    image = measuring.picture()
    module = measuring.code(codec, image).module
    manifest = manifest_file.Manifest(codec.name, module.fingerprint(), {}, "")
    loaded = mock.patch.object(
        model_file.ExportedModel, "load", lambda path: model_file.ExportedModel(manifest, module)
    )
    place = tempfile.TemporaryDirectory()  # noqa: SIM115  exists as long as the process
    fields = {"codec": codec.name, "fingerprint": manifest.fingerprint, "experiment": {}}
    content = {**fields, "format": manifest_file.FORMAT, "version": tfquant.__version__}
    Path(place.name, manifest_file.MANIFEST).write_text(json.dumps(content))
    pictures, made = (os.path.join(place.name, name) for name in ("pictures", "files"))
    os.mkdir(pictures)
    for number in range(_PICTURES):
        images.write_image(os.path.join(pictures, f"{number}.png"), image.numpy())

    def run():
        command = ["compress", place.name, pictures, made, "--overwrite"]
        with loaded:
            assert cli.main([*command, f"--jobs={settings['jobs']}"]) == 0

    return run, {"count": _PICTURES, "operations": 2 * products * _PICTURES}


def encode(settings: dict) -> tuple:
    """Prepares range coding of a million symbols by a table of scales, with a file's number of
    streams.
    """
    del settings
    model, table, integers, raw, streams = _symbols()

    @tf.function
    def run():
        where = model.coding_params(tf.shape(integers), raw)
        handle = range_coder.start_encoder(table, streams)
        return range_coder.finish(table.encode(handle, integers, *where))

    return lambda: run().numpy(), {"count": _SYMBOLS}


def decode(settings: dict) -> tuple:
    """Prepares range decoding of the same symbols."""
    del settings
    model, table, integers, raw, streams = _symbols()
    where = model.coding_params(tf.shape(integers), raw)
    handle = table.encode(range_coder.start_encoder(table, streams), integers, *where)
    strings = range_coder.finish(handle)

    @tf.function
    def run():
        where = model.coding_params(tf.shape(integers), raw)
        return table.decode(range_coder.start_decoder(table, strings), *where)[1]

    assert np.array_equal(run(), integers)
    return lambda: run().numpy(), {"count": _SYMBOLS}


def _symbols() -> tuple:
    model, rng = ConditionalModel("gaussian", zero_center=True), np.random.default_rng(0)
    sigma = np.exp(rng.uniform(-2, 2, (1, 1, 1, _SYMBOLS))).astype(np.float32)
    integers = tf.constant(np.round(rng.normal(size=sigma.shape) * sigma).astype(np.int32))
    raw = tf.constant(np.concatenate([0 * sigma, np.log(sigma)], -1))
    streams = range_coder.choose_streams(tf.constant(2.0 * _SYMBOLS))
    return model, model.coding_table(), integers, raw, streams


def training(settings: dict) -> tuple:
    """Prepares training batches of crops."""
    source = sources.open_source(settings["images"], 0, settings["crop"])
    batches = iter(
        crops.training_crops(
            source, seed=0, crop=settings["crop"], batch_size=settings["batch_size"],
            downscale=(0.6, 0.95) if settings["images"] else (),
        )
    )  # fmt: skip

    def run():
        for _ in range(_BATCHES):
            next(batches)

    return run, {"count": _BATCHES}


class _FirstStepIsOver(Exception):
    pass


def start(settings: dict) -> tuple:
    """Runs `train.py` until the end of its first step, and returns an empty task."""
    from tfquant.commands import train

    class FirstStep(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise _FirstStepIsOver

    chosen = callbacks.for_stage
    callbacks.for_stage = lambda *a, **k: lambda *stage: [*chosen(*a, **k)(*stage), FirstStep()]
    widths = [f"--{name}={width}" for name, width in settings["widths"].items()]
    names = ("codec", "precision", "plan", "batch_size", "crop")
    given = [f"--{name}={settings[name]}" for name in names]
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(_FirstStepIsOver):
        train.define_flags(flags.FLAGS)
        flags.FLAGS(["train.py", f"--model_dir={folder}", f"--train_images={settings['images']}",
                     "--progress=silent", *widths, *given])  # fmt: skip
        train.main(["train.py"])
    return lambda: None, {}


TASKS = {
    "step": step,
    "compress": compress,
    "decompress": decompress,
    "folder": folder,
    "encode": encode,
    "decode": decode,
    "crops": training,
    "start": start,
}


def prepare(settings: dict) -> tuple:
    run, facts = TASKS[settings["what"]](settings)
    run()
    dtype = tf.bfloat16 if settings.get("precision") == "bfloat16" else tf.float32
    a, b = (tf.cast(tf.random.stateless_normal([_SIDE] * 2, [0, i]), dtype) for i in range(2))

    def peak():
        return tf.linalg.matmul(a, b)[0, 0].numpy()

    peak()
    version = f"TensorFlow {tf.__version__}"
    facts = {**facts, "peak_operations": 2 * _SIDE**3, "version": version}
    return {"run": run, "peak": peak}, facts


if __name__ == "__main__":
    piped.serve(prepare)
