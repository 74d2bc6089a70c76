"""Any codec with a Quantization Rectifier between its quantizer and its synthesis transform.

    x --> g_a --> y ==transmit== y_hat --> rectifier --> y_bar --> g_s --> x_hat

The wrapped codec knows nothing of it. Bits are the same with and without it, and so is what gives
them their meaning: a file of the one decodes with the other, as long as neither's encoder or
entropy model is trained further.
"""

from __future__ import annotations

import dataclasses
from typing import Callable, NamedTuple

import tensorflow as tf
from absl import logging

from tfquant.codec import Codec
from tfquant.layers import transforms
from tfquant.layers.rectifier import LIGHT_DEPTH, LIGHT_WIDTH, QuantizationRectifier
from tfquant.legacy_keras import keras
from tfquant.training import checkpoint, folder
from tfquant.training.experiment import Experiment


class RectifiedCodec(Codec):
    """`codec` with a rectifier, the identity at first.

    Args:
      codec: the codec, its weights made; they are shared, not copied.
      width, depth: of the rectifier.
    """

    def __init__(self, codec: Codec, width: int = LIGHT_WIDTH, depth: int = LIGHT_DEPTH):
        super().__init__(name=codec.name, dtype="float32")
        self.codec = codec
        self.downsampling = codec.downsampling
        self.encoder_parts = codec.encoder_parts
        self.decoder_parts = (*codec.decoder_parts, "rectifier")
        self.entropy_models = codec.entropy_models
        before = keras.mixed_precision.global_policy()
        keras.mixed_precision.set_global_policy(codec.g_s.dtype_policy)
        try:
            self.rectifier = QuantizationRectifier(width, depth, name="rectifier")
            _, channels = codec.latent_channels()["y"]
            self.rectifier(tf.zeros([1, 1, 1, channels]))
        finally:
            keras.mixed_precision.set_global_policy(before)

    def transmit(self, y, exchange):
        return self.codec.transmit(y, exchange)

    def latent_channels(self):
        return self.codec.latent_channels()

    def analyze(self, x):
        return self.codec.analyze(x)

    def rectify(self, y_hat):
        return self.rectifier(y_hat)

    def synthesize(self, y_bar, height, width):
        return self.codec.synthesize(y_bar, height, width)

    def parts(self):
        return {**self.codec.parts(), "rectifier": self.rectifier}


def build(experiment: Experiment, build_codec: Callable[..., Codec], precision: str) -> Codec:
    """The codec of an experiment, with a rectifier where one of its stages trains it.

    Args:
      experiment: says which codec, where its transforms start, and the rectifier's width and depth.
      build_codec: `(name, precision, **options) -> codec`.
      precision: of the networks' arithmetic.
    """
    codec = build_codec(experiment.codec, precision, **experiment.codec_options)
    if experiment.start == "glorot":
        for transform in (codec.g_a, codec.g_s):
            transforms.start_at_random(transform)
    if not experiment.rectified:
        return codec
    return RectifiedCodec(codec, experiment.rectifier_width, experiment.rectifier_depth)


def as_decoded(codec: Codec, experiment: Experiment) -> Codec:
    """The codec as it decodes after the experiment's last stage, without an unused rectifier.

    A rectifier that is trained beside the decoder, or not yet, is left out.
    """
    decodes_with_it = experiment.all_stages()[-1].rectified
    return codec.codec if isinstance(codec, RectifiedCodec) and not decodes_with_it else codec


class Trained(NamedTuple):
    """What a run has come to.

    Attributes:
      experiment: the run's, its stages those that it has come to.
      codec: with the checkpoint's weights; without the rectifier where the last of the stages
        decodes without.
      checkpoint: its path.
    """

    experiment: Experiment
    codec: Codec
    checkpoint: str


def trained(run_dir: str, build_codec: Callable[..., Codec], precision: str = "float32") -> Trained:
    """The codec of a run as it decodes at its newest readable checkpoint.

    A rectifier that the decoder has not met in that stage, because it is trained beside it or not
    yet, is left out.

    Args:
      run_dir: the run's folder.
      build_codec: `(name, precision, **options) -> codec`.
      precision: that it is built with, whatever it was trained in.

    Raises:
      ValueError: the folder holds no run, no readable checkpoint, or one of another version's
        codec.
      OSError: it cannot be read.
    """
    experiment = folder.read_experiment(run_dir)
    newest = checkpoint.newest_readable(run_dir)
    if newest is None:
        raise ValueError(f"{run_dir} has no checkpoint yet")
    codec = build(experiment, build_codec, precision)
    checkpoint.restore_codec(codec, newest)
    reached = experiment.stages[: checkpoint.stage_index(newest) + 1]
    come_to = dataclasses.replace(experiment, stages=reached)
    decoded = as_decoded(codec, come_to)
    if decoded is not codec:
        logging.warning(
            "%s stands in stage %s, which decodes without the rectifier: it is left out",
            run_dir, reached[-1],
        )  # fmt: skip
    return Trained(come_to, decoded, newest)
