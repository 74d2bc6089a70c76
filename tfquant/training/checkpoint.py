"""Checkpoints of a run: weights, optimizer, stage and step, so that a killed run can resume.

Random numbers and data order are functions of the seed and the step, so nothing else is needed.
TensorFlow first writes a checkpoint's files and then renames its index. A run that is killed while
saving therefore keeps the previous checkpoint.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any

import tensorflow as tf
from absl import logging

import tfquant
from tfquant import files
from tfquant.codec import Codec
from tfquant.training import folder, roles
from tfquant.training.experiment import Experiment
from tfquant.training.trainer import Trainer

_KEPT = 3
_NAME = "ckpt"  # followed by a hyphen and the run's total number of steps
_LIFTED = "lifted_sigma_bound"  # in checkpoints of runs with a stage that lifts the bound

# Fields that a run and the run that initializes it should share; a difference logs a warning if
# both runs use the field. They define what is minimized: the loss, the quantization and the bounds
# of sigma. The other run's weights are at the minimum of another function if one of them differs.
# Clipping, learning rates, batches and pictures only change the way to the minimum. A run that
# continues another one often changes them on purpose.
_ALIKE = (
    "lmbda", "lmbda_range", "distortion", "plan", "rate_branch", "distortion_branch",
    "context_branch", "stop_gradient", "mean_gradient", "hyper_aun", "alpha_min", "alpha_max",
    "joint_sigma_bound", "post_sigma_bound",
)  # fmt: skip


def newest_readable(run_dir: str) -> str | None:
    """Returns the path of the run's newest readable checkpoint, or None if there are no
    checkpoints.

    Raises:
      ValueError: there are checkpoints, but all are corrupt.
      OSError: the folder or a checkpoint file cannot be opened.
    """
    directory = tf.io.gfile.join(run_dir, folder.CHECKPOINTS)
    opened = files.for_tensorflow(directory)
    with files.as_oserror(directory):
        names = tf.io.gfile.listdir(opened) if tf.io.gfile.exists(opened) else []
    # TensorFlow's own list may be corrupt too, and an index may be missing.
    state = tf.train.get_checkpoint_state(opened)
    names += state.all_model_checkpoint_paths if state else []
    found = filter(None, (re.search(rf"(?:^|/){_NAME}-(\d+)(\.index)?$", name) for name in names))
    numbers = {int(match[1]) for match in found}
    for number in sorted(numbers, reverse=True):
        path = tf.io.gfile.join(directory, f"{_NAME}-{number}")
        for name in names:
            if name.startswith(f"{_NAME}-{number}."):
                _open(tf.io.gfile.join(directory, name))
        try:
            _read_all(path)
        except (tf.errors.OpError, ValueError, IndexError) as error:  # IndexError: truncated
            logging.warning(
                "%s is corrupt (%s): trying the previous checkpoint",
                files.shown(path), files.shown(files.one_line(error)),
            )  # fmt: skip
        else:
            return path
    if numbers:
        raise ValueError(f"all {len(numbers)} checkpoints in {directory} are corrupt")
    return None


def stage_index(path: str) -> int:
    """Returns the index of the stage in which a checkpoint was saved."""
    key = "stage_index/.ATTRIBUTES/VARIABLE_VALUE"
    return int(tf.train.load_checkpoint(files.for_tensorflow(path)).get_tensor(key))


def restore_codec(codec: Codec, path: str) -> None:
    """Restores the weights of `codec` from a checkpoint, for rounding.

    If the checkpoint is of a stage that lifts the bound of sigma, the codec gets the bound of the
    stages before it.

    Raises:
      ValueError: the checkpoint belongs to another codec.
    """
    _restore(tf.train.Checkpoint(codec=_saved_form(codec)), codec.name, path)
    _end_lift(codec, path)


def _end_lift(codec: Codec, path: str) -> None:
    """Sets the bound of sigma that a stage has lifted in a checkpoint, if any."""
    reader = tf.train.load_checkpoint(files.for_tensorflow(path))
    key = f"{_LIFTED}/.ATTRIBUTES/VARIABLE_VALUE"
    bound = float(reader.get_tensor(key)) if reader.has_tensor(key) else 0.0
    if bound:
        for model in codec.entropy_models:
            model.set_sigma_bound(bound)


def start_from(codec: Codec, experiment: Experiment, newest: str | None) -> dict[str, Any]:
    """Initializes `codec` with the newest weights of the run `experiment.init_from`.

    The optimizer, the stage and the step start anew. A rectifier or gains keep their initial
    weights if the other run has none.

    Args:
      codec: the codec of `experiment`.
      experiment: the new run's experiment.
      newest: the other run's newest readable checkpoint, or None if it has none.

    Returns:
      The record of the other run, see `folder.as_start`.

    Raises:
      ValueError: the folder contains no run of this codec, or no checkpoint.
    """
    run_dir = experiment.init_from
    other = folder.read_experiment(run_dir)
    found, expected = ((e.codec, e.codec_options) for e in (other, experiment))
    if found != expected:
        raise ValueError(f"{run_dir} trained another codec: {found}; this run's is {expected}")
    if newest is None:
        raise ValueError(f"{run_dir} has no checkpoint yet")
    if other.rectified:
        theirs, ours = (_rectifier(e) for e in (other, experiment))
        if theirs != ours:
            raise ValueError(f"{run_dir} trained a rectifier of {theirs}; this run has {ours}")
    if other.lmbda_range and experiment.lmbda_range:
        levels = other.quality_levels
        if levels != experiment.quality_levels:
            raise ValueError(
                f"{run_dir} trained {levels} levels of gains; this run has"
                f" {experiment.quality_levels}: give it quality_levels={levels}"
            )
    effects = [roles.Effects(vars(each)) for each in (other, experiment)]
    for name in _ALIKE:
        theirs, ours = getattr(other, name), getattr(experiment, name)
        if theirs != ours and not any(each.reason(name, codec=False) for each in effects):
            logging.warning(
                "%s was trained with %s=%r, but this run uses %r",
                files.shown(run_dir), name, theirs, ours,
            )  # fmt: skip
    new = {"rectifier"} if experiment.rectified and not other.rectified else set()
    if experiment.lmbda_range and not other.lmbda_range:
        new |= {"gain", "inverse_gain"}
    if new:
        parts = {name: part for name, part in codec.parts().items() if name not in new}
        _restore(tf.train.Checkpoint(codec=tf.train.Checkpoint(**parts)), codec.name, newest)
        _end_lift(codec, newest)
    else:
        restore_codec(codec, newest)
    logging.info("Initialized from %s", files.shown(newest))
    return folder.as_start(run_dir, stage_index(newest) + 1)


def _rectifier(experiment: Experiment) -> str:
    if not experiment.rectified:
        return "none"
    return f"width {experiment.rectifier_width} and depth {experiment.rectifier_depth}"


class RunCheckpoint:
    """Saves and restores `trainer` in `<run_dir>/checkpoints`.

    `stage_index()` returns the stage of the newest checkpoint (None for a new run). After the
    trainer has begun that stage, `restore()` restores its state. `save(stage_index, number)` saves
    the current state.

    Attributes:
      run_dir: the run's folder.
      trainer: the trainer that is saved and restored.
      newest: path of the checkpoint from which the run resumes, or None for a new run.

    Raises:
      ValueError: there are checkpoints, but all are corrupt.
      OSError: the folder or a checkpoint file cannot be opened.
    """

    def __init__(self, run_dir: str, trainer: Trainer):
        self.run_dir = run_dir
        self.trainer = trainer
        self.newest = newest_readable(run_dir)
        self._stage_index = tf.Variable(0, dtype=tf.int64, trainable=False, name="stage_index")

    def _checkpoint(self) -> tf.train.Checkpoint:
        # Every stage has its own optimizer, so the checkpoint object is created on demand.
        trainer = self.trainer
        lifts = any(stage.lifts_sigma_bound for stage in trainer.experiment.all_stages())
        lifted = {_LIFTED: trainer.lifted_sigma_bound} if lifts else {}
        return tf.train.Checkpoint(
            codec=_saved_form(trainer.codec),
            optimizer=trainer.optimizer,
            stage_index=self._stage_index,
            stage_step=trainer.stage_step,
            skipped=trainer.skipped,
            skipped_in_a_row=trainer.skipped_in_a_row,
            **lifted,
        )

    def stage_index(self) -> int | None:
        """Returns the index of the stage in which the run resumes, or None for a new run."""
        return None if self.newest is None else stage_index(self.newest)

    def restore(self) -> None:
        """Restores the state into the stage that the trainer has begun.

        Raises:
          ValueError: the checkpoint belongs to the codec of another version.
        """
        assert self.newest is not None  # else there is no stage to resume in
        _restore(self._checkpoint(), self.trainer.codec.name, self.newest)
        logging.info("Resumed from %s", files.shown(self.newest))

    def save(self, stage_index: int, number: int) -> None:
        """Saves the current state.

        Args:
          stage_index: index of the current stage.
          number: the run's total number of steps.

        Raises:
          OSError: the checkpoint cannot be written.
        """
        self._stage_index.assign(stage_index)
        directory = tf.io.gfile.join(self.run_dir, folder.CHECKPOINTS)
        manager = tf.train.CheckpointManager(
            self._checkpoint(),
            files.for_tensorflow(directory),
            max_to_keep=_KEPT,
            checkpoint_name=_NAME,
        )
        advice = "cannot save; run the same command again to resume from the last checkpoint: "
        with files.as_oserror(directory, advice):
            manager.save(checkpoint_number=number)


def _saved_form(codec: Codec) -> Codec | tf.train.Checkpoint:
    """Returns a codec's weights, grouped as in checkpoints.

    With a rectifier, the keys are `codec/codec/...` and `codec/rectifier/...`, as in tfquant 0.1.
    """
    if codec.rectifier is None:
        return codec
    return tf.train.Checkpoint(codec=codec, rectifier=codec.rectifier)


def _restore(target: tf.train.Checkpoint, codec: str, path: str) -> None:
    try:
        target.restore(
            files.for_tensorflow(path)
        ).expect_partial().assert_existing_objects_matched()
    except (AssertionError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{path} does not fit the codec {codec}: it belongs to another codec or another version"
            f" (see {folder.EXPERIMENT}; this is {tfquant.__version__}): {reason}"
        ) from None


def _open(path: str) -> None:
    """Raises OSError if a file exists but cannot be opened, because it may still be intact."""
    missing = contextlib.suppress(tf.errors.NotFoundError)
    opened = files.for_tensorflow(path)
    with files.as_oserror(path), missing, tf.io.gfile.GFile(opened, "rb") as file:
        file.read(1)


def _read_all(path: str) -> None:
    """Reads every tensor of a checkpoint. TensorFlow's checksums detect corrupt data."""
    reader = tf.train.load_checkpoint(files.for_tensorflow(path))
    for name in reader.get_variable_to_shape_map():
        reader.get_tensor(name)
