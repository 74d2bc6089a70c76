"""Building the codec of an experiment, and loading the codec of a run."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from absl import logging

from tfquant import files, models
from tfquant.codec import Codec
from tfquant.layers import transforms
from tfquant.training import checkpoint, folder
from tfquant.training.experiment import Experiment


class Trained(NamedTuple):
    """The state that a run has reached.

    Attributes:
      experiment: the run's experiment, with only the stages that the run has reached.
      codec: the codec with the checkpoint's weights. It has the rectifier only if the last of the
        stages decodes with it.
      checkpoint: path of the checkpoint.
    """

    experiment: Experiment
    codec: Codec
    checkpoint: str


def build(experiment: Experiment, precision: str) -> Codec:
    """Builds the codec of an experiment for training.

    The codec gets a rectifier if one of the stages trains it.

    Args:
      experiment: gives the codec and its options, the start of the transforms, and the rectifier's
        width and depth.
      precision: a key of `models.PRECISIONS`, the arithmetic of the networks.
    """
    return _finished(models.build(experiment.codec, precision, **experiment.codec_options),
                     experiment)  # fmt: skip


def build_as_decoded(experiment: Experiment, precision: str) -> Codec:
    """Builds the codec of an experiment for files, as it decodes after the last stage.

    The codec has no rectifier if the last stage does not decode with it.

    Args:
      experiment: as in `build`.
      precision: a key of `models.PRECISIONS`, the arithmetic of the transforms. The entropy models
        compute in float32.
    """
    codec = models.build_for_files(experiment.codec, precision, **experiment.codec_options)
    return _as_decoded(_finished(codec, experiment), experiment)


def load_run(run_dir: str, precision: str = "float32") -> Trained:
    """Loads the codec of a run from its newest readable checkpoint.

    The rectifier is left out if the decoder does not use it in the stage that the run has reached.

    Args:
      run_dir: the run's folder.
      precision: as in `build_as_decoded`. It may differ from the precision of the training.

    Raises:
      ValueError: the folder holds no run, no readable checkpoint, or a checkpoint of another
        version's codec.
      OSError: the folder cannot be read.
    """
    experiment = folder.read_experiment(run_dir)
    newest = checkpoint.newest_readable(run_dir)
    if newest is None:
        raise ValueError(f"{run_dir} has no checkpoint yet")
    codec = models.build_for_files(experiment.codec, precision, **experiment.codec_options)
    codec = _finished(codec, experiment)
    checkpoint.restore_codec(codec, newest)
    stages = experiment.stages[: checkpoint.stage_index(newest) + 1]
    reached = dataclasses.replace(experiment, stages=stages)
    trained = codec.rectifier is not None
    codec = _as_decoded(codec, reached)
    if trained and codec.rectifier is None:
        logging.warning(
            "%s has reached stage %s, which decodes without the rectifier: the rectifier is left"
            " out", files.shown(run_dir), stages[-1],
        )  # fmt: skip
    return Trained(reached, codec, newest)


def _finished(codec: Codec, experiment: Experiment) -> Codec:
    """Applies the experiment's start of the transforms; adds its gains and its rectifier."""
    if experiment.start == "glorot":
        for transform in (codec.g_a, codec.g_s):
            transforms.start_at_random(transform)
    if experiment.lmbda_range:
        codec.add_gains(experiment.gains())
    if experiment.rectified:
        codec.add_rectifier(experiment.rectifier_width, experiment.rectifier_depth)
    return codec


def _as_decoded(codec: Codec, experiment: Experiment) -> Codec:
    """Removes a rectifier that the experiment's last stage does not decode with."""
    if not experiment.all_stages()[-1].rectified:
        codec.rectifier = None
    return codec
