"""Checkpoints of a run: weights, optimizer, stage and step, so that a killed run goes on.

Random numbers and data order are functions of the seed and the step, so nothing else is needed.
TensorFlow writes a checkpoint's files first and renames its index last: a run killed while saving
keeps the checkpoint before.
"""

from __future__ import annotations

import contextlib
import re

import tensorflow as tf
from absl import logging

import tfquant
from tfquant import files
from tfquant.codec import Codec
from tfquant.training import folder
from tfquant.training.experiment import Experiment
from tfquant.training.trainer import Trainer

_KEPT = 3
_NAME = "ckpt"  # then a hyphen and the run's total of steps

# In what a run is expected to be like the one that it starts from.
_ALIKE = (
    "lmbda", "distortion", "plan", "rate_branch", "distortion_branch", "context_branch",
    "stop_gradient", "mean_gradient", "hyper_aun",
)  # fmt: skip


def newest_readable(run_dir: str) -> str | None:
    """Path of the run's newest checkpoint that is whole, or None where there is none at all.

    Raises:
      ValueError: there are checkpoints, but none is readable.
      OSError: nobody can tell, as they or their folder cannot be opened.
    """
    directory = tf.io.gfile.join(run_dir, folder.CHECKPOINTS)
    with files.as_oserror(directory):
        names = tf.io.gfile.listdir(directory) if tf.io.gfile.exists(directory) else []
    # TensorFlow's own list may be damaged as well, and an index may be lost.
    state = tf.train.get_checkpoint_state(directory)
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
        except (tf.errors.OpError, ValueError, IndexError) as error:  # the last: cut short
            logging.warning("%s is unreadable (%s): trying the one before", path, error)
        else:
            return path
    if numbers:
        raise ValueError(f"none of {len(numbers)} checkpoints in {directory} is readable")
    return None


def stage_index(path: str) -> int:
    """Index of the stage that a checkpoint was saved in."""
    key = "stage_index/.ATTRIBUTES/VARIABLE_VALUE"
    return int(tf.train.load_checkpoint(path).get_tensor(key))


def restore_codec(codec: Codec, path: str) -> None:
    """Gives `codec` the weights of a checkpoint.

    Raises:
      ValueError: they are another codec's.
    """
    _restore(tf.train.Checkpoint(codec=_saved_form(codec)), codec.name, path)


def start_from(codec: Codec, experiment: Experiment, newest: str | None) -> None:
    """Gives `codec` the weights that `experiment.init_from` stands at; all else starts anew.

    A rectifier keeps its start where the other run has none.

    Args:
      codec: the codec of `experiment`.
      experiment: the new run's.
      newest: the other run's newest readable checkpoint.

    Raises:
      ValueError: the folder holds no run of this codec, or no checkpoint.
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
    for name in _ALIKE:
        theirs, ours = getattr(other, name), getattr(experiment, name)
        if theirs != ours:
            logging.warning(
                "%s was trained with %s=%r, this run has %r", run_dir, name, theirs, ours
            )
    if experiment.rectified and not other.rectified:
        parts = {name: part for name, part in codec.parts().items() if name != "rectifier"}
        _restore(tf.train.Checkpoint(codec=tf.train.Checkpoint(**parts)), codec.name, newest)
    else:
        restore_codec(codec, newest)
    logging.info("Started from %s", newest)


def _rectifier(experiment: Experiment) -> str:
    if not experiment.rectified:
        return "none"
    return f"width {experiment.rectifier_width} and depth {experiment.rectifier_depth}"


class RunCheckpoint:
    """Saves and restores `trainer` in `<run_dir>/checkpoints`.

    Use: `stage_index()` says where the run stood (None for a new run); after the trainer began that
    stage, `restore()` brings back its state; `save(stage_index)` keeps the current one.

    Attributes:
      run_dir: the run's folder.
      trainer: what is saved and restored.
      newest: path of the checkpoint that the run goes on from, or None for a new run.

    Raises:
      ValueError: there are checkpoints, but none is readable.
      OSError: nobody can tell, as they or their folder cannot be opened.
    """

    def __init__(self, run_dir: str, trainer: Trainer):
        self.run_dir = run_dir
        self.trainer = trainer
        self.newest = newest_readable(run_dir)
        self._stage_index = tf.Variable(0, dtype=tf.int64, trainable=False, name="stage_index")

    def _checkpoint(self) -> tf.train.Checkpoint:
        # A stage has its own optimizer, so its checkpoint object is made when it is needed.
        trainer = self.trainer
        lifts = any(stage.lifts_sigma_bound for stage in trainer.experiment.all_stages())
        lifted = {"lifted_sigma_bound": trainer.lifted_sigma_bound} if lifts else {}
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
        """Index of the stage that the run goes on in, or None for a new run."""
        return None if self.newest is None else stage_index(self.newest)

    def restore(self) -> None:
        """Brings the state back into the stage that the trainer began.

        Raises:
          ValueError: it is that of another version's codec.
        """
        _restore(self._checkpoint(), self.trainer.codec.name, self.newest)
        logging.info("Went on from %s", self.newest)

    def save(self, stage_index: int, number: int) -> None:
        """Keeps the current state; `number` is the run's total of steps.

        Raises:
          OSError: it cannot be written.
        """
        self._stage_index.assign(stage_index)
        directory = tf.io.gfile.join(self.run_dir, folder.CHECKPOINTS)
        manager = tf.train.CheckpointManager(
            self._checkpoint(), directory, max_to_keep=_KEPT, checkpoint_name=_NAME
        )
        advice = "the same command goes on from the checkpoint before, once this can be written: "
        with files.as_oserror(directory, advice):
            manager.save(checkpoint_number=number)


def _saved_form(codec: Codec):
    """Groups a codec's weights as checkpoints hold them.

    With a rectifier, the keys are `codec/codec/...` and `codec/rectifier/...`, as tfquant 0.1 wrote
    them.
    """
    if codec.rectifier is None:
        return codec
    return tf.train.Checkpoint(codec=codec, rectifier=codec.rectifier)


def _restore(target: tf.train.Checkpoint, codec: str, path: str) -> None:
    try:
        target.restore(path).expect_partial().assert_existing_objects_matched()
    except (AssertionError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{path} does not fit the codec {codec}: it is another codec's, or another"
            f" version's, which {folder.EXPERIMENT} names; this is {tfquant.__version__}: {reason}"
        ) from None


def _open(path: str) -> None:
    """Raises OSError where a file is there and cannot be opened: it may still be whole."""
    missing = contextlib.suppress(tf.errors.NotFoundError)
    with files.as_oserror(path), missing, tf.io.gfile.GFile(path, "rb") as file:
        file.read(1)


def _read_all(path: str) -> None:
    """Reads every tensor of a checkpoint, whose own checksums find what is damaged."""
    reader = tf.train.load_checkpoint(path)
    for name in reader.get_variable_to_shape_map():
        reader.get_tensor(name)
