"""Terminal output of a run: a bar, images per second, and a validation line per epoch."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Any

from tfquant.legacy_keras import keras
from tfquant.training.experiment import Stage
from tfquant.training.gap import trains_encoder, validated

# Choices of the output -> `verbose` of Keras' `fit`.
VERBOSE = {"bar": 1, "line": 2, "silent": 0}


class Throughput(keras.callbacks.Callback):
    """Adds `images_per_s` to the logs, the mean over the epoch's training steps so far.

    Validation is not counted. The first step of a stage traces or compiles the graph; it is not
    counted as soon as there is a second step.
    """

    def __init__(self) -> None:
        super().__init__()
        self._first = True

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._start()

    def _start(self) -> None:
        self._since, self._steps = time.perf_counter(), 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
        self._steps += 1
        elapsed = time.perf_counter() - self._since
        self._rate = self._steps * self.model.experiment.batch_size / elapsed
        logs["images_per_s"] = self._rate
        if self._first:
            self._first = False
            self._start()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        logs["images_per_s"] = self._rate


class ProgressBar(keras.callbacks.ProgbarLogger):
    """Keras' bar, limited to the width of the terminal, followed by a line for the validation.

    A bar that is wider than its line cannot be redrawn and fills the screen. If the output is not a
    terminal, each epoch prints one line.
    """

    # Columns of the bar itself, and of an entry without its name.
    _WIDTH, _ENTRY = 10, 13

    def __init__(self, stage: Stage, earlier_steps: int):
        super().__init__(count_mode="steps", stateful_metrics=("images/s", "skipped"))
        self._stage = stage
        self._earlier_steps = earlier_steps

    def set_params(self, params: dict[str, Any]) -> None:
        if params["verbose"] and not sys.stdout.isatty():
            params = {**params, "verbose": 2}
        super().set_params(params)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        self.progbar.width = self._WIDTH

    def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
        super().on_train_batch_end(batch, self._shown(logs))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        super().on_epoch_end(epoch, self._shown(logs))
        if not self.verbose:
            return
        step = self._earlier_steps + self.model.stage_step.numpy()
        values = validated(logs, self.model.experiment).items()
        line = f"{self._stage.name}, step {step}: psnr {logs['val_psnr']:.2f} dB"
        line += "".join(f", {symbol} {rounding:.4g}" for symbol, (rounding, _) in values)
        if trains_encoder(self._stage):
            gap = (
                f"{symbol} {surrogate - rounding:+.3g}" for symbol, (rounding, surrogate) in values
            )
            line += f"; surrogate - rounding: {', '.join(gap)}"
        print(line, flush=True)

    def _shown(self, logs: dict[str, Any]) -> dict[str, Any]:
        """Returns the entries that fit, in order of importance."""
        logs = {**logs, "images/s": logs["images_per_s"]}
        names = ["loss", "images/s", "bpp", self.model.experiment.distortion]
        if logs["skipped"]:
            names.insert(1, "skipped")
        names += [n for n in logs if n.startswith("bpp_")]
        taken = 2 * len(str(self.target)) + self._WIDTH + len("/ [] - 1234s 1234ms/step")
        shown = {}
        for name in names:
            taken += len(name) + self._ENTRY
            if self.verbose != 1 or taken <= shutil.get_terminal_size().columns:
                shown[name] = logs[name]
        return shown
