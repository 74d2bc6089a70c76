"""Results of every epoch of a run on the validation pictures: RUN/history.json.

The file is a list of records, one per epoch, in order:

    {"stage": "joint", "step": of the stage, "run_step": of the run, "loss": the stage's own,
     "R": bits per pixel, "D": 255^2 MSE or 1 - MS-SSIM, "J": R + lmbda D, "psnr": dB,
     "surrogate_R": ..., "surrogate_D": ..., "surrogate_J": ...}

R, D, J and psnr are computed under actual rounding, the last three under the surrogates that the
stage trains on. In post-training, which trains on rounding, both are the same. Runs of earlier
versions lack the last three. A rectifier's stages also have `error_reduction`, in percent, and a
record for step 0 with the results before the stage. A resumed run drops the records after its
checkpoint, so the list is the same as without interruption.
"""

from __future__ import annotations

from typing import Any, Callable

import tensorflow as tf

from tfquant import files, metrics
from tfquant.legacy_keras import keras
from tfquant.training import folder
from tfquant.training.experiment import Experiment, Stage
from tfquant.training.gap import validated

FILE = "history.json"


def read(run_dir: str) -> list[dict[str, Any]]:
    """Reads the records of a run. Returns an empty list if the file does not exist."""
    path = tf.io.gfile.join(run_dir, FILE)
    return folder.read_json(path) if files.exists(path) else []


class Recording(keras.callbacks.Callback):
    """Writes the records of a stage.

    Args:
      run_dir: the run's folder.
      earlier_steps: number of steps of earlier stages.
      validation_data: dataset that is evaluated before the first step of a rectifier's stage.
    """

    def __init__(self, run_dir: str, earlier_steps: int, validation_data: tf.data.Dataset):
        super().__init__()
        self._run_dir = run_dir
        self._earlier_steps = earlier_steps
        self._validation_data = validation_data

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        here = self._run_step()
        self._records = [r for r in read(self._run_dir) if r["run_step"] <= here]
        new = not any(r["stage"] == self.model.stage.name for r in self._records)
        if new and self.model.stage.counts_gain:
            logs = self.model.evaluate(self._validation_data, verbose=0, return_dict=True)
            self._keep({f"val_{name}": value for name, value in logs.items()})

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        self._keep(logs)

    def _run_step(self) -> int:
        return self._earlier_steps + int(self.model.stage_step.numpy())

    def _keep(self, logs: dict[str, Any]) -> None:
        trainer = self.model
        self._records.append(
            {
                "stage": trainer.stage.name,
                "step": int(trainer.stage_step.numpy()),
                "run_step": self._run_step(),
                **measured(logs, trainer.experiment),
            }
        )
        folder.write_json(tf.io.gfile.join(self._run_dir, FILE), self._records)


def measured(logs: dict[str, Any], experiment: Experiment) -> dict[str, float]:
    """Returns the numbers of a record, computed from the logs of an epoch."""
    costs = validated(logs, experiment)
    values = {
        "loss": float(logs["val_loss"]),
        **{symbol: rounding for symbol, (rounding, _) in costs.items()},
        "psnr": float(logs["val_psnr"]),
        **{f"surrogate_{symbol}": surrogate for symbol, (_, surrogate) in costs.items()},
    }
    if "val_rectified_error" in logs:
        errors = (float(logs[f"val_{name}"]) for name in ("quantization_error", "rectified_error"))
        values["error_reduction"] = metrics.error_reduction(*errors)
    return values


def patience(run_dir: str, epochs: int) -> Callable[[Stage, int], bool]:
    """Returns a rule that ends a stage whose loss has not decreased for some epochs in a row.

    Args:
      run_dir: the run's folder.
      epochs: number of epochs; 0 never ends a stage.

    Returns:
      `(stage, step) -> true if the stage is over`, for `run.run_stages`.
    """

    def is_over(stage: Stage, step: int) -> bool:
        losses_so_far = [
            record["loss"]
            for record in read(run_dir)
            if record["stage"] == stage.name and 0 < record["step"] <= step
        ]
        earlier, last = losses_so_far[:-epochs], losses_so_far[-epochs:]
        return bool(epochs and earlier) and min(last) >= min(earlier)

    return is_over
