"""A run from the first to the last step: stages, resuming, epochs of Keras' `fit`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Callable

import tensorflow as tf
from absl import logging

from tfquant.data import crops
from tfquant.legacy_keras import keras
from tfquant.training import folder
from tfquant.training.checkpoint import RunCheckpoint
from tfquant.training.experiment import Stage


class TrainingDiverged(RuntimeError):
    """Error: too many steps in a row had a non-finite loss or gradient."""


class Checkpointing(keras.callbacks.Callback):
    """Saves a checkpoint at the end of every epoch, unless the weights are broken.

    The weights are broken if the loss of the validation pictures is not finite. Skipped steps do
    not indicate this, because they do not change the weights.
    """

    def __init__(self, checkpoint: RunCheckpoint, stage_index: int, earlier_steps: int):
        super().__init__()
        self._checkpoint = checkpoint
        self._stage_index = stage_index
        self._earlier_steps = earlier_steps

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        number = self._earlier_steps + self.model.stage_step.numpy()
        if math.isfinite(logs["val_loss"]):
            self._checkpoint.save(self._stage_index, number)
        else:
            logging.warning("Step %d is not saved: its validation loss is not finite", number)


class DivergenceGuard(keras.callbacks.Callback):
    """Ends a run after `limit` skipped steps in a row."""

    def __init__(self, limit: int, run_dir: str):
        super().__init__()
        self._limit = limit
        self._run_dir = run_dir

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        in_a_row, step = self.model.skipped_in_a_row.numpy(), self.model.stage_step.numpy()
        if in_a_row >= self._limit:
            raise TrainingDiverged(
                f"{in_a_row} steps in a row had a non-finite loss or gradient, the last at step"
                f" {step} of stage {self.model.stage.name!r}. The last good checkpoint is in"
                f" {tf.io.gfile.join(self._run_dir, folder.CHECKPOINTS)}; export it with `tfquant"
                f" export {self._run_dir}`. To train further, lower the learning rate or alpha_max"
                " and start again in a new --model_dir."
            )


class EndEarly(keras.callbacks.Callback):
    """Ends a stage before its last step if `is_over` returns true."""

    def __init__(self, is_over: Callable[[Stage, int], bool]):
        super().__init__()
        self._is_over = is_over

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._is_over(self.model.stage, int(self.model.stage_step.numpy())):
            self.model.stop_training = True


def epoch_length(stage: Stage, epoch_steps: int) -> int:
    """Returns the number of steps of one epoch. It must divide the number of steps of the stage.

    Raises:
      ValueError: it does not divide the number of steps.
    """
    length = min(epoch_steps, stage.steps)
    if length and stage.steps % length:
        raise ValueError(
            f"stage {stage.name!r} has {stage.steps} steps, which is not a multiple of"
            f" --epoch_steps={epoch_steps}"
        )
    return length


def run_stages(
    checkpoint: RunCheckpoint,
    *,
    training_data: Callable[[int], tf.data.Dataset],
    validation_data: tf.data.Dataset,
    epoch_steps: int,
    callbacks: Callable[[Stage, int], Sequence[keras.callbacks.Callback]] = lambda *_: (),
    is_over: Callable[[Stage, int], bool] = lambda stage, step: False,
    max_skipped_in_a_row: int = 20,
    jit_compile: bool = False,
    verbose: int = 1,
) -> None:
    """Trains all unfinished stages, from the last checkpoint if there is one.

    Args:
      checkpoint: the trainer's checkpoint in the run's folder; see `folder.prepare`.
      training_data: `first_example -> dataset` of batches that start at that example.
      validation_data: a finite dataset of batches, the same in every epoch.
      epoch_steps: number of steps between validations and checkpoints.
      callbacks: `(stage, steps of earlier stages) -> Keras callbacks` of the stage.
      is_over: `(stage, step) -> true if the stage ends there`, called after every epoch.
      max_skipped_in_a_row: number of skipped steps in a row that ends the run.
      jit_compile: if true, compiles the training step with XLA.
      verbose: as in Keras' `fit`: 0 silent, 1 progress bar, 2 one line per epoch.

    Raises:
      TrainingDiverged: `max_skipped_in_a_row` steps in a row had a non-finite loss or gradient.
      ValueError: the steps of a stage, or the step from which it resumes, are not a multiple of the
        steps of an epoch.
    """
    trainer, experiment = checkpoint.trainer, checkpoint.trainer.experiment
    # A step's results are already the same on all devices. Keras would add up those of the hosts.
    trainer.distribute_reduction_method = "first"
    resume_at = checkpoint.stage_index()
    earlier_steps = 0
    for index, stage in enumerate(experiment.all_stages()):
        length = epoch_length(stage, epoch_steps)
        if stage.steps and index >= (resume_at or 0):
            trainer.begin(stage, jit_compile)
            if index == resume_at:
                checkpoint.restore()
            done = int(trainer.stage_step.numpy())
            if done % length:
                raise ValueError(
                    f"stage {stage.name!r} is at step {done}, which is not a multiple of"
                    f" --epoch_steps={epoch_steps}; to resume, use --epoch_steps of the first call"
                )
            if done < stage.steps and not is_over(stage, done):
                logging.info("Stage %s: steps %d to %d", stage.name, done, stage.steps)
                with crops.picture_errors():
                    trainer.fit(
                        training_data((earlier_steps + done) * experiment.batch_size),
                        validation_data=validation_data,
                        steps_per_epoch=length,
                        initial_epoch=done // length,
                        epochs=stage.steps // length,
                        callbacks=[
                            DivergenceGuard(max_skipped_in_a_row, checkpoint.run_dir),
                            *callbacks(stage, earlier_steps),
                            EndEarly(is_over),
                            # Last: a run that is killed in between logs an epoch twice instead of
                            # never.
                            Checkpointing(checkpoint, index, earlier_steps),
                        ],
                        verbose=verbose,
                    )
        earlier_steps += stage.steps
