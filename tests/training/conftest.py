"""Fixtures for tests of whole runs: steps without tracing, and an interruption."""

from __future__ import annotations

import pytest
import tensorflow as tf

from tfquant.legacy_keras import keras


@pytest.fixture(scope="module")
def eagerly():
    """Runs steps eagerly, because these runs take less time than tracing."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def compiled(eagerly):
    """Runs functions in graphs for a single test in these files."""
    tf.config.run_functions_eagerly(False)
    yield
    tf.config.run_functions_eagerly(True)


class Interruption(keras.callbacks.Callback):
    """Ends a run like a kill when a stage is at `step`: within an epoch, or after its record."""

    def __init__(self, step: int, after_record: bool = False):
        super().__init__()
        self.step, self.after_record = step, after_record

    def on_train_batch_end(self, batch, logs=None):
        if not self.after_record:
            self._interrupt()

    def on_epoch_end(self, epoch, logs=None):
        if self.after_record:
            self._interrupt()

    def _interrupt(self):
        if self.model.stage_step.numpy() == self.step:
            raise KeyboardInterrupt


@pytest.fixture(scope="session")
def interruption():
    """The class `Interruption`."""
    return Interruption
