"""What people see of a run: the terminal's progress, and TensorBoard under `<model_dir>/logs`.

One event file a process, all stages on one axis: the step is the run's own count, so a resumed run
goes on where its curves were. Tags, by group:

| group        | written       | what                                                                |
|--------------|---------------|---------------------------------------------------------------------|
| `train`      | every 50 steps | loss terms, alpha, learning rate, skipped steps, images per second |
| `validation` | every epoch   | R, D, J and PSNR under rounding; R~, D~, J~ of the surrogate        |
| `gap`        | every epoch   | the train-test gap, surrogate minus rounding, of the same pictures  |
| `gradient`   | every epoch   | bias and variance of the gradients (`gradient_risk.py`), on request |
| `latents`    | every epoch   | histograms of the first validation batch's latents and of sigma     |
| `pictures`   | 20 times a stage | originals beside their reconstructions                           |

Point TensorBoard at the folder above several runs to compare them: its HPARAMS tab has a row a run,
its CUSTOM SCALARS tab draws surrogate and rounding into one chart.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from typing import Callable

import tensorflow as tf
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import summary as custom_scalar
from tensorboard.plugins.hparams import api as hp

from tfquant.entropy.conditional import ConditionalModel
from tfquant.exchange import Rounding
from tfquant.training.experiment import Experiment, Stage
from tfquant.training.gradient_risk import gradient_risk

# Training scalars: the mean over so many steps a point.
_WINDOW = 50
# Pictures are large (half a megabyte for one of 256x256): so many times a stage, so many of them.
_PICTURES_PER_STAGE, _PICTURES = 20, 4
# The gradients' risk: patches of this side from so many validation pictures.
_PATCH, _PATCHES = 64, 2

_DISTORTION = {
    "mse": "`255^2 MSE`, mean squared error on the 8-bit scale",
    "ms_ssim": "`1 - MS-SSIM`, no unit",
}


def for_stage(
    model_dir: str, validation_data: tf.data.Dataset, gradient_risk: bool = False
) -> Callable[[Stage, int], list]:
    """The callbacks of a run, as `run.run_stages` asks for them.

    Args:
      model_dir: the run's folder; logs go to `logs` in it.
      validation_data: the validation batches, `{"image": uint8 [B, H, W, 3], ...}`.
      gradient_risk: also measure bias and variance of the gradients, every epoch.

    Returns:
      `(stage, steps of earlier stages) -> Keras callbacks`.
    """
    log = _Log(os.path.join(model_dir, "logs"))
    images = _FirstImages(validation_data)

    def callbacks(stage: Stage, earlier_steps: int) -> list:
        chosen = [
            Throughput(),
            Hyperparameters(log),
            TrainingScalars(log, earlier_steps),
            ValidationScalars(log, earlier_steps),
            Latents(log, earlier_steps, images),
        ]
        # Behind a frozen encoder no gradient of y is used.
        if gradient_risk and "g_a" not in stage.frozen:
            chosen.append(GradientRisk(log, earlier_steps, images))
        return [*chosen, ProgressBar(stage, earlier_steps)]

    return callbacks


class _Log:
    """The run's event file, opened when first written to."""

    def __init__(self, directory: str):
        self._directory = directory
        self._writer = None

    @property
    def started(self) -> bool:
        return self._writer is not None

    def writing(self, step: int):
        """A context in which `tf.summary` writes here, at that step of the run."""
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(self._directory)
        tf.summary.experimental.set_step(step)
        return self._writer.as_default()

    def flush(self):
        self._writer.flush()


class _FirstImages:
    """The first validation batch's pictures, uint8 [B, H, W, 3], read once."""

    def __init__(self, dataset: tf.data.Dataset):
        self._dataset = dataset
        self._images = None

    def __call__(self) -> tf.Tensor:
        if self._images is None:
            self._images = next(iter(self._dataset))["image"]
        return self._images


class _Logging(tf.keras.callbacks.Callback):
    """A callback that writes at the step of the run."""

    def __init__(self, log: _Log, earlier_steps: int):
        super().__init__()
        self._log = log
        self._earlier_steps = earlier_steps

    def writing(self):
        return self._log.writing(self._earlier_steps + int(self.model.stage_step))


class Throughput(tf.keras.callbacks.Callback):
    """Puts `images_per_s` into the logs, a mean over the epoch's training steps.

    The first step of a stage, which traces or compiles the graph, is left out, and so is
    validation.
    """

    def __init__(self):
        super().__init__()
        self._first = True
        self._since, self._steps, self._rate = 0.0, 0, None

    def on_epoch_begin(self, epoch, logs=None):
        self._since, self._steps = time.perf_counter(), 0

    def on_train_batch_end(self, batch, logs=None):
        if self._first:
            self._first = False
            self._since = time.perf_counter()
            return
        self._steps += 1
        elapsed = time.perf_counter() - self._since
        self._rate = self._steps * self.model.experiment.batch_size / elapsed
        logs["images_per_s"] = self._rate

    def on_epoch_end(self, epoch, logs=None):
        if self._rate is not None:
            logs["images_per_s"] = self._rate


class TrainingScalars(_Logging):
    """`train/*`: every term of the loss, mean over the steps since the point before; schedules."""

    def on_epoch_begin(self, epoch, logs=None):
        self._seen = {}

    def on_train_batch_end(self, batch, logs=None):
        # Keras resets its metrics for validation, before `on_epoch_end`.
        if (batch + 1) % _WINDOW == 0 or batch + 1 == self.params["steps"]:
            self._write(logs)

    def _write(self, logs):
        trainer = self.model
        values = {
            **self._means_since_last_time(),
            "alpha": trainer.alpha(),
            "learning_rate": trainer.optimizer.learning_rate,
        }
        for name in ("skipped", "images_per_s"):
            if name in logs:
                values[name] = logs[name]
        describe = _training_descriptions(trainer.experiment)
        with self.writing():
            for name, value in values.items():
                text = describe.get(name, f"Training loss term `{name}`.")
                tf.summary.scalar(f"train/{name}", value, description=text)

    def _means_since_last_time(self) -> dict:
        """The metrics' means over the steps since the last call; none for metrics without any."""
        means = {}
        for metric in self.model.metrics:
            total, count = (
                float(tf.convert_to_tensor(variable)) for variable in (metric.total, metric.count)
            )
            total_before, count_before = self._seen.get(metric.name, (0.0, 0.0))
            self._seen[metric.name] = total, count
            if count > count_before:
                means[metric.name] = (total - total_before) / (count - count_before)
        return means


def _training_descriptions(experiment: Experiment) -> dict:
    mean = f"Mean over the training steps since the point before (at most {_WINDOW})."
    D = _DISTORTION[experiment.distortion]
    return {
        "loss": f"`J = R + lmbda D`, lmbda = {experiment.lmbda}, in bits per pixel. {mean}",
        "bpp": f"`R`, bits per pixel of all latents, under the rate's surrogate. {mean}",
        "bpp_y": f"Bits per pixel of the latent y. {mean}",
        "bpp_z": f"Bits per pixel of the hyper-latent z. {mean}",
        experiment.distortion: f"`D`, {D}, under the distortion's surrogate. {mean}",
        "alpha": "Temperature of the annealed surrogates; larger is harder.",
        "learning_rate": "Adam's learning rate.",
        "skipped": "Steps of this stage without a finite loss and gradient; they changed nothing.",
        "images_per_s": "Training pictures per second, mean over the epoch so far.",
    }


# Keras' name of the validation metric, less `val_`; the symbol. {D} is the distortion's own name.
_SYMBOLS = {"R": "bpp", "D": "{D}", "J": "loss"}


def _gap(logs: dict, distortion: str) -> dict:
    """`{"R": (rounding, surrogate), "D": ..., "J": ...}` from the logs of an epoch."""
    names = {symbol: name.format(D=distortion) for symbol, name in _SYMBOLS.items()}
    return {
        symbol: (float(logs[f"val_{name}"]), float(logs[f"val_surrogate_{name}"]))
        for symbol, name in names.items()
        if f"val_{name}" in logs
    }


class ValidationScalars(_Logging):
    """`validation/*` and `gap/*`: rounding, surrogate, and their difference."""

    def on_epoch_end(self, epoch, logs=None):
        experiment = self.model.experiment
        meaning = {
            "R": "bits per pixel",
            "D": _DISTORTION[experiment.distortion],
            "J": f"`R + lmbda D`, lmbda = {experiment.lmbda}, in bits per pixel",
        }
        with self.writing():
            for symbol, (rounding, surrogate) in _gap(logs, experiment.distortion).items():
                what = meaning[symbol]
                tf.summary.scalar(
                    f"validation/{symbol}", rounding,
                    description=f"`{symbol}` under real rounding: {what}.",
                )  # fmt: skip
                tf.summary.scalar(
                    f"validation/{symbol}_tilde", surrogate,
                    description=f"`{symbol}~` under the stage's surrogates, same pictures: {what}.",
                )  # fmt: skip
                tf.summary.scalar(
                    f"gap/{symbol}", surrogate - rounding,
                    description=f"Train-test gap `{symbol}~ - {symbol}` on the same pictures:"
                    f" {what}. Below 0, training believes too much of itself.",
                )  # fmt: skip
            if "val_psnr" in logs:
                tf.summary.scalar(
                    "validation/psnr", logs["val_psnr"],
                    description="PSNR in dB under real rounding, mean over pictures.",
                )  # fmt: skip
        self._log.flush()


class Latents(_Logging):
    """`latents/*` and `pictures/*` of the first validation batch, under real rounding."""

    def __init__(self, log: _Log, earlier_steps: int, images: _FirstImages):
        super().__init__(log, earlier_steps)
        self._images = images
        self._look = tf.function(self._look_once)

    def _look_once(self, image) -> tuple:
        """`image: uint8 [B, H, W, 3]` -> reconstruction, same; histograms' name -> values."""
        exchange = Rounding()
        x_hat = self.model.codec(tf.cast(image, tf.float32) / 255.0, exchange)
        values = {}
        for model in self.model.codec.entropy_models:
            name, params = model.name, exchange.params[model.name]
            mu = model.offset(*params)
            if isinstance(model, ConditionalModel):
                mu = model.prior(*params).mean()
                values["log10_sigma"] = tf.math.log(model.sigma(*params)) / math.log(10.0)
            values[name] = exchange.latents[name]
            values[f"{name}_hat_minus_mu"] = exchange.received[name] - mu
        return tf.image.convert_image_dtype(x_hat, tf.uint8, saturate=True), values

    def on_epoch_end(self, epoch, logs=None):
        images = self._images()
        x_hat, values = self._look(images)
        with self.writing():
            for name, value in values.items():
                tf.summary.histogram(f"latents/{name}", value, description=_LATENTS.get(name))
            last = epoch + 1 == self.params["epochs"]
            if last or (epoch + 1) % math.ceil(self.params["epochs"] / _PICTURES_PER_STAGE) == 0:
                tf.summary.image(
                    "pictures/original_and_reconstruction",
                    tf.concat([images, x_hat], axis=2),
                    max_outputs=_PICTURES,
                    description="Validation pictures: original left, reconstruction (real"
                    " rounding) right.",
                )
        self._log.flush()


_LATENTS = {
    "log10_sigma": "Scale parameter of p(y | z), after its lower bound, as a decimal logarithm.",
    "y": "The latent before quantization.",
    "y_hat_minus_mu": "Rounded latent less its predicted mean; integers if zero-center.",
    "z": "The hyper-latent before quantization.",
    "z_hat_minus_mu": "Rounded hyper-latent less its median: the integers that are coded.",
}


class GradientRisk(_Logging):
    """`gradient/*`: what `gradient_risk.py` measures, on patches of the first validation batch."""

    def __init__(self, log: _Log, earlier_steps: int, images: _FirstImages):
        super().__init__(log, earlier_steps)
        self._images = images
        self._measure = tf.function(self._measure_once)

    def _measure_once(self, x, alpha) -> dict:
        trainer = self.model
        return gradient_risk(
            trainer.codec,
            trainer.stage.plan,
            alpha,
            x,
            distortion=trainer.distortion,
            lmbda=trainer.experiment.lmbda,
            seed=trainer.experiment.seed,
        )

    def on_epoch_end(self, epoch, logs=None):
        image = self._images()[:_PATCHES]
        top, left = (image.shape[1] - _PATCH) // 2, (image.shape[2] - _PATCH) // 2
        patch = image[:, top : top + _PATCH, left : left + _PATCH]
        measured = self._measure(tf.cast(patch, tf.float32) / 255.0, self.model.alpha())
        with self.writing():
            for name, value in measured.items():
                branch, _, quantity = name.partition("_")
                tf.summary.scalar(
                    f"gradient/{name}", value,
                    description=f"Gradient of {_LOSSES[branch]} with respect to y:"
                    f" {_QUANTITIES[quantity]}.",
                )  # fmt: skip
        self._log.flush()


_LOSSES = {
    "rate": "the rate (bits of a patch)",
    "distortion": "the distortion (`lmbda pixels D` of a patch, in bits)",
}
_QUANTITIES = {
    "gradient": "root mean square over elements of its mean over the noise, bits per unit of y",
    "variance": "over the surrogate's noise, mean over elements, bits^2",
    "bias": "root mean square over elements, against the gradient of the expected loss, in bits",
    "bias_error": "the bias that sampling alone could show: smaller ones are noise. In bits",
}


class Hyperparameters(tf.keras.callbacks.Callback):
    """Describes the run to TensorBoard's HPARAMS and CUSTOM SCALARS tabs, once."""

    def __init__(self, log: _Log):
        super().__init__()
        self._log = log

    def on_train_begin(self, logs=None):
        if self._log.started:
            return
        values = _hyperparameters(self.model.experiment)
        with self._log.writing(0):
            hp.hparams_config([_hparam(n, v) for n, v in values.items()], _METRICS)
            hp.hparams(values)
            layout = custom_scalar.pb(_LAYOUT).SerializeToString()
            tf.summary.experimental.write_raw_pb(layout, step=0)


def _hyperparameters(experiment: Experiment) -> dict:
    """What tells runs apart: plain values."""
    e = experiment
    return {
        "codec": e.codec,
        **e.codec_options,
        "plan": e.plan,
        **e.joint_plan().describe(),
        "distortion_metric": e.distortion,
        "lmbda": e.lmbda,
        "alpha_max": e.alpha_max,
        "joint_sigma_bound": e.joint_sigma_bound,
        "post_sigma_bound": e.post_sigma_bound,
        "stages": ", ".join(e.stages),
        "steps": sum(stage.steps for stage in e.all_stages()),
        "learning_rate": e.joint_learning_rate,
        "schedule": e.joint_schedule,
        "batch_size": e.batch_size,
        "crop": e.crop,
        "train_images": e.train_images or "dead leaves",
        "precision": e.precision,
        "seed": e.seed,
    }


class _AnyOf(hp.Domain):
    """A type without limits: TensorBoard would hide runs whose values lie outside a domain."""

    def __init__(self, dtype: type):
        self._dtype = dtype

    @property
    def dtype(self):
        return self._dtype
