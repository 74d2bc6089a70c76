"""Checkpoints of a run: weights, optimizer, stage and step, so that a killed run goes on.

Random numbers and data order are functions of the seed and the step, so nothing else is needed.
TensorFlow writes a checkpoint's files first and renames its index last: a run killed while saving
keeps the checkpoint before.
"""

from __future__ import annotations

import tensorflow as tf
from absl import logging

from tfquant.training.trainer import Trainer

_KEPT = 3


class RunCheckpoint:
    """Saves and restores `trainer` in `<run_dir>/checkpoints`.

    Use: `stage_index()` says where the run stood (None for a new run); after the trainer began that
    stage, `restore()` brings back its state; `save(stage_index)` keeps the current one.

    Raises:
      ValueError: there are checkpoints, but none is readable.
    """

    def __init__(self, run_dir: str, trainer: Trainer):
        self._trainer = trainer
        self._directory = tf.io.gfile.join(run_dir, "checkpoints")
        self._stage_index = tf.Variable(0, dtype=tf.int64, trainable=False, name="stage_index")
        self._resume_from = self._newest_readable()

    def _newest_readable(self) -> str | None:
        """Path of the newest checkpoint that is whole, or None for a new run."""
        state = tf.train.get_checkpoint_state(self._directory)
        paths = state.all_model_checkpoint_paths if state else []
        for path in reversed(paths):
            try:
                _read_all(path)
            except (tf.errors.OpError, ValueError, IndexError) as error:  # the last: cut short
                logging.warning("%s is unreadable (%s): trying the one before", path, error)
            else:
                return path
        if paths:
            raise ValueError(f"none of {len(paths)} checkpoints in {self._directory} is readable")
        return None

    def _checkpoint(self) -> tf.train.Checkpoint:
        # A stage has its own optimizer, so its checkpoint object is made when it is needed.
        trainer = self._trainer
        return tf.train.Checkpoint(
            codec=trainer.codec,
            optimizer=trainer.optimizer,
            stage_index=self._stage_index,
            stage_step=trainer.stage_step,
            skipped=trainer.skipped,
            skipped_in_a_row=trainer.skipped_in_a_row,
        )

    def stage_index(self) -> int | None:
        """Index of the stage that the run goes on in, or None for a new run."""
        if self._resume_from is None:
            return None
        key = "stage_index/.ATTRIBUTES/VARIABLE_VALUE"
        return int(tf.train.load_checkpoint(self._resume_from).get_tensor(key))

    def restore(self) -> None:
        """Brings the state back into the stage that the trainer began."""
        self._checkpoint().restore(self._resume_from).assert_existing_objects_matched()
        logging.info("Went on from %s", self._resume_from)

    def save(self, stage_index: int, number: int) -> None:
        """Keeps the current state; `number` is the run's total of steps."""
        self._stage_index.assign(stage_index)
        manager = tf.train.CheckpointManager(
            self._checkpoint(), self._directory, max_to_keep=_KEPT
        )
        manager.save(checkpoint_number=number)


def _read_all(path: str) -> None:
    """Reads every tensor of a checkpoint, whose own checksums find what is damaged."""
    reader = tf.train.load_checkpoint(path)
    for name in reader.get_variable_to_shape_map():
        reader.get_tensor(name)
