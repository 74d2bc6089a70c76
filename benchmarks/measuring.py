"""Common parts of the benchmarks of this package: a picture, a codec to measure, medians."""

from __future__ import annotations

import statistics
import time
from typing import Callable, NamedTuple

import conditions
import numpy as np
import tensorflow as tf

from tfquant import models
from tfquant.codec import Codec
from tfquant.data.dead_leaves import dead_leaves
from tfquant.data.pixels import to_float
from tfquant.exchange import Rounding
from tfquant.export.codec_module import CodecModule
from tfquant.layers.blocks import PreciseConv
from tfquant.training.experiment import Experiment
from tfquant.training.trainer import Trainer


def picture(height: int = conditions.PICTURE[0], width: int = conditions.PICTURE[1]) -> tf.Tensor:
    """Returns a picture, uint8 [height, width, 3], the same at every call."""
    return tf.constant(dead_leaves(0, max(height, width))[:height, :width])


class TrainingStep(NamedTuple):
    """A training step as in Keras' `fit`, and a batch for it.

    Attributes:
      trainer: the trainer of the codec.
      compiled: the step, a function of a batch.
      batch: random pictures.
    """

    trainer: Trainer
    compiled: Callable
    batch: dict

    def run(self) -> float:
        """Runs one step and returns the loss."""
        return self.compiled(self.batch)["loss"].numpy()


def training_step(experiment: Experiment) -> TrainingStep:
    """Returns the step of an experiment's first stage."""
    codec = models.build(experiment.codec, experiment.precision, **experiment.codec_options)
    trainer = Trainer(codec, experiment)
    trainer.begin(experiment.all_stages()[0])
    batch_size, crop = experiment.batch_size, experiment.crop
    shape = (batch_size, crop, crop, 3)
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    batch = {"image": tf.constant(image), "index": tf.range(batch_size, dtype=tf.int64)}
    return TrainingStep(trainer, tf.function(trainer.train_step), batch)


def spread_latents(codec: Codec, image: tf.Tensor) -> None:
    """Spreads the latents of an untrained codec on `image: uint8 [H, W, 3]` to
    `conditions.DEVIATION`.

    The work of a range coder depends on the spread of the symbols. The entropy model does not fit:
    a file has 2.5 to 5.5 bits per element, more work than with a trained codec.
    """
    (last,) = (layer for layer in codec.g_a.layers if isinstance(layer, PreciseConv))
    for _ in range(3):  # repeated, because the following attention is not linear
        gain = conditions.DEVIATION / tf.math.reduce_std(codec.analyze(to_float(image[None])))
        for weight in last.weights:
            weight.assign(weight * gain)


class Coded(NamedTuple):
    """A picture, a codec and the coded picture.

    Attributes:
      module: the codec as in an export.
      image: uint8 [H, W, 3].
      file: arguments of `module.decode`.
    """

    module: CodecModule
    image: tf.Tensor
    file: tuple

    def compress(self) -> None:
        self.module.encode(self.image)["bits"].numpy()

    def decompress(self, module: CodecModule | None = None) -> None:
        (module or self.module).decode(*self.file)["image"].numpy()

    def bpp(self) -> float:
        """Returns the bits per pixel of the streams."""
        size = sum(map(len, self.file[0].numpy()))
        return 8 * size / (self.image.shape[0] * self.image.shape[1])


def code(codec: Codec, image: tf.Tensor) -> Coded:
    """Compresses `image: uint8 [H, W, 3]` with an untrained codec after spreading its latents."""
    spread_latents(codec, image)
    module = CodecModule(codec)
    coded = module.encode(image)
    height, width, _ = image.shape
    return Coded(module, image, (coded["streams"], height, width, coded["symbols_crc"]))


def multiply_adds(codec: Codec, height: int, width: int, without: tuple = ()) -> float:
    """Returns the multiply-adds of a picture's forward pass, in convolutions and matrix products.

    Args:
      codec: a codec in float32. Other precisions contain convolutions that only gradients need.
      height: height of the picture in pixels.
      width: width of the picture in pixels.
      without: names of networks that are not counted.
    """
    x = tf.TensorSpec([1, height, width, 3])
    graph = tf.function(lambda x: codec(x, Rounding())).get_concrete_function(x).graph
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    options["output"] = "none"
    options["account_type_regexes"] = ["Conv2D", "Conv2DBackpropInput", "MatMul"]
    options["hide_name_regexes"] = [rf".*\b{name}/.*" for name in without]
    tf.get_logger().setLevel("ERROR")  # the profiler warns about deprecated parts of itself
    profile = tf.compat.v1.profiler.profile(graph, options=options)
    return profile.total_float_ops / 2


def median_seconds(candidates: dict[str, Callable], rounds: int) -> dict[str, float]:
    """Returns the median of each candidate after one warm-up, with one run of each per round."""
    for run in candidates.values():
        run()
    seconds = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}
