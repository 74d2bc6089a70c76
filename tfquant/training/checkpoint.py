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
    """

    def __init__(self, run_dir: str, trainer: Trainer):
        self._trainer = trainer
        self._directory = tf.io.gfile.join(run_dir, "checkpoints")
        self._stage_index = tf.Variable(0, dtype=tf.int64, trainable=False, name="stage_index")

    def _paths(self) -> list:
        """Checkpoints, newest first."""
        state = tf.train.get_checkpoint_state(self._directory)
        return list(reversed(state.all_model_checkpoint_paths)) if state else []

    def _checkpoint(self, **extra) -> tf.train.Checkpoint:
        trainer = self._trainer
        return tf.train.Checkpoint(
            codec=trainer.codec,
            stage_index=self._stage_index,
            stage_step=trainer.stage_step,
            skipped=trainer.skipped,
            skipped_in_a_row=trainer.skipped_in_a_row,
            **extra,
        )

    def _manager(self) -> tf.train.CheckpointManager:
        # A stage has its own optimizer, so its checkpoint object is made when it is needed.
        checkpoint = self._checkpoint(optimizer=self._trainer.optimizer)
        return tf.train.CheckpointManager(checkpoint, self._directory, max_to_keep=_KEPT)

    def stage_index(self):
        """Index of the stage that the newest readable checkpoint belongs to, or None."""
        for path in self._paths():
            try:
                key = "stage_index/.ATTRIBUTES/VARIABLE_VALUE"
                return int(tf.train.load_checkpoint(path).get_tensor(key))
            except (tf.errors.OpError, ValueError) as error:
                logging.warning("Checkpoint %s is unreadable: %s", path, error)
        return None

    def restore(self) -> None:
        """Brings back the newest readable checkpoint into the stage that the trainer began."""
        paths = self._paths()
        for path in paths:
            try:
                self._checkpoint(optimizer=self._trainer.optimizer).restore(path)
            except (tf.errors.OpError, ValueError) as error:
                logging.warning("%s is unreadable (%s): trying the one before", path, error)
                continue
            logging.info("Went on from %s", path)
            return
        raise ValueError(f"none of the {len(paths)} checkpoints in {self._directory} is readable")

    def restore_weights(self) -> None:
        """The codec's weights alone, for exporting a finished run."""
        checkpoint = tf.train.Checkpoint(codec=self._trainer.codec)
        checkpoint.restore(self._paths()[0]).expect_partial()

    def save(self, stage_index: int, number: int) -> None:
        """Keeps the current state; `number` is the run's total of steps."""
        self._stage_index.assign(stage_index)
        self._manager().save(checkpoint_number=number)
