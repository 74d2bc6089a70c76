"""What people see of a run: the terminal's progress, and TensorBoard under `<model_dir>/logs`.

One event file a process, all stages on one axis: the step is the run's own count, so a resumed run
goes on where its curves were. Tags, by group:

| group        | a point every   | what                                                            |
|--------------|-----------------|-----------------------------------------------------------------|
| `train`      | 50 steps        | loss terms, alpha, learning rate, skipped steps, images/s       |
| `validation` | epoch           | R, D, J and PSNR under rounding; R~, D~, J~ of the surrogate    |
| `gap`        | epoch           | the train-test gap, surrogate minus rounding, same pictures     |
| `gradient`   | epoch           | bias and variance of the gradients, on request                  |
| `latents`    | epoch           | histograms of the first validation batch's latents and of sigma |
| `pictures`   | 20th of a stage | originals beside their reconstructions                          |

The gap and the gradients are those that the encoder trains on: while it is frozen, there are none.

Point TensorBoard at the folder above several runs to compare them: its HPARAMS tab has a row for
each, its CUSTOM SCALARS tab draws surrogate and rounding into one chart.
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
from tfquant.quantizer import dequantize, symbols
from tfquant.training import gradient_risk as risk
from tfquant.training import losses
from tfquant.training.experiment import Experiment, Stage

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
        if _trains_encoder(stage):
            chosen.append(Gap(log, earlier_steps))
        if gradient_risk and _trains_encoder(stage):
            chosen.append(GradientRisk(log, earlier_steps, images))
        return [*chosen, ProgressBar(stage, earlier_steps)]

    return callbacks


def _trains_encoder(stage: Stage) -> bool:
    return "g_a" not in stage.frozen


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
        return self._writer.as_default(step)

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
        return self._log.writing(self._earlier_steps + self.model.stage_step.numpy())


class Throughput(tf.keras.callbacks.Callback):
    """Puts `images_per_s` into the logs, a mean over the epoch's training steps so far.

    Validation is left out, and so is a stage's first step, which traces or compiles the graph, as
    soon as there is a second.
    """

    def __init__(self):
        super().__init__()
        self._first = True

    def on_epoch_begin(self, epoch, logs=None):
        self._start()

    def _start(self):
        self._since, self._steps = time.perf_counter(), 0

    def on_train_batch_end(self, batch, logs=None):
        self._steps += 1
        elapsed = time.perf_counter() - self._since
        self._rate = self._steps * self.model.experiment.batch_size / elapsed
        logs["images_per_s"] = self._rate
        if self._first:
            self._first = False
            self._start()

    def on_epoch_end(self, epoch, logs=None):
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
            "skipped": logs["skipped"],
            "images_per_s": logs["images_per_s"],
        }
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
        "learning_rate": "Adam's learning rate at this step.",
        "skipped": "Steps of this stage without a finite loss and gradient; they changed nothing.",
        "images_per_s": "Training pictures per second, mean over the epoch so far.",
    }


_SYMBOLS = ("R", "D", "J")


def _validated(logs: dict, experiment: Experiment) -> dict:
    """`{"R": (rounding, surrogate), "D": ..., "J": ...}` from the logs of an epoch."""
    names = zip(_SYMBOLS, ("bpp", experiment.distortion, "loss"))
    return {s: (float(logs[f"val_{n}"]), float(logs[f"val_surrogate_{n}"])) for s, n in names}


def _meaning(experiment: Experiment) -> dict:
    return {
        "R": "bits per pixel",
        "D": _DISTORTION[experiment.distortion],
        "J": f"`R + lmbda D`, lmbda = {experiment.lmbda}, in bits per pixel",
    }


class ValidationScalars(_Logging):
    """`validation/*`: under real rounding, and under the stage's surrogates."""

    def on_epoch_end(self, epoch, logs=None):
        experiment = self.model.experiment
        meaning = _meaning(experiment)
        with self.writing():
            for symbol, (rounding, surrogate) in _validated(logs, experiment).items():
                text = f"`{symbol}` under real rounding: {meaning[symbol]}."
                tf.summary.scalar(f"validation/{symbol}", rounding, description=text)
                text = f"`{symbol}~` under the stage's surrogates: {meaning[symbol]}."
                tf.summary.scalar(f"validation/{symbol}_tilde", surrogate, description=text)
            text = "PSNR in dB under real rounding, mean over pictures."
            tf.summary.scalar("validation/psnr", logs["val_psnr"], description=text)
        self._log.flush()


class Gap(_Logging):
    """`gap/*`: how far training and testing disagree about the same pictures."""

    def on_epoch_end(self, epoch, logs=None):
        experiment = self.model.experiment
        meaning = _meaning(experiment)
        with self.writing():
            for symbol, (rounding, surrogate) in _validated(logs, experiment).items():
                text = (
                    f"Train-test gap `{symbol}~ - {symbol}`, surrogate minus rounding:"
                    f" {meaning[symbol]}. Below 0, training takes itself for better than it is."
                )
                tf.summary.scalar(f"gap/{symbol}", surrogate - rounding, description=text)
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
            offset = mu = model.offset(*params)
            if isinstance(model, ConditionalModel):
                mu = model.prior(*params).mean()
                values["log10_sigma"] = tf.math.log(model.sigma(*params)) / math.log(10.0)
            values[name] = exchange.latents[name]
            # y_hat - mu, exact where the offset is mu: float errors would split its integers.
            integers = symbols(exchange.latents[name], offset)
            values[f"{name}_hat_minus_mu"] = dequantize(integers, offset - mu)
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
        self._measure = tf.function(self._measure_once, autograph=False)

    def _measure_once(self, x, alpha) -> dict:
        trainer = self.model
        return risk.gradient_risk(
            trainer.codec,
            trainer.stage.plan,
            alpha,
            x,
            distortion=losses.distortion(trainer.experiment.distortion),
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
                text = f"Gradient of {_LOSSES[branch]} with respect to y: {_QUANTITIES[quantity]}."
                tf.summary.scalar(f"gradient/{name}", value, description=text)
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
    """What tells runs apart, as plain values; the same names for every run."""
    e = experiment
    plan = e.joint_plan().describe()
    widths = {k: v for k, v in e.codec_options.items() if k in ("N", "M")}
    others = [f"{k}={v}" for k, v in e.codec_options.items() if k not in widths]
    # TensorBoard shows the first five columns, until more are ticked.
    return {
        "plan": e.plan,
        "rate_branch": plan["rate"],
        "distortion_branch": plan["distortion"],
        "codec": e.codec,
        "lmbda": e.lmbda,
        "alpha_max": e.alpha_max,
        "distortion": e.distortion,
        "context_branch": plan["context"],
        "stop_gradient": plan["stop_gradient"],
        "hyper_aun": plan["hyper_aun"],
        **widths,
        "codec_options": ", ".join(others),
        "joint_sigma_bound": e.joint_sigma_bound,
        "post_sigma_bound": e.post_sigma_bound,
        "steps": ", ".join(f"{stage.name} {stage.steps}" for stage in e.all_stages()),
        "learning_rate": e.joint_learning_rate,
        "schedule": e.joint_schedule,
        "batch_size": e.batch_size,
        "crop": e.crop,
        "train_images": e.train_images or "dead leaves",
        "precision": e.precision,
        "seed": e.seed,
    }


def _hparam(name: str, value) -> hp.HParam:
    # A type and no values: TensorBoard hides runs that lie outside a domain.
    dtype = float if type(value) is int else type(value)
    return hp.HParam(name, hp.Discrete([], dtype))


_METRICS = [
    hp.Metric("validation/J", display_name="J"),
    hp.Metric("validation/R", display_name="R (bpp)"),
    hp.Metric("validation/psnr", display_name="PSNR (dB)"),
    hp.Metric("gap/J", display_name="gap J~ - J"),
    hp.Metric("gap/R", display_name="gap R~ - R"),
    hp.Metric("gap/D", display_name="gap D~ - D"),
]

# Every symbol's rounding and surrogate in one chart.
_LAYOUT = layout_pb2.Layout(
    category=[
        layout_pb2.Category(
            title="Train-test gap",
            chart=[
                layout_pb2.Chart(
                    title=f"{symbol}: rounding, and {symbol}~: surrogate",
                    multiline=layout_pb2.MultilineChartContent(
                        tag=[f"^validation/{symbol}$", f"^validation/{symbol}_tilde$"]
                    ),
                )
                for symbol in _SYMBOLS
            ],
        )
    ]
)


class ProgressBar(tf.keras.callbacks.ProgbarLogger):
    """Keras' bar, as wide as the terminal allows; validation has a line of its own below it.

    A bar that is too wide for its line cannot be redrawn and fills the screen. Where the output is
    no terminal, there is a line an epoch.
    """

    # Columns: of the bar itself; of an entry beside its name.
    _WIDTH, _ENTRY = 10, 13

    def __init__(self, stage: Stage, earlier_steps: int):
        super().__init__(count_mode="steps", stateful_metrics=("images/s", "skipped"))
        self._stage = stage
        self._earlier_steps = earlier_steps

    def set_params(self, params):
        if params["verbose"] and not sys.stdout.isatty():
            params = {**params, "verbose": 2}
        super().set_params(params)

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        self.progbar.width = self._WIDTH

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, self._shown(logs))

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, self._shown(logs))
        if not self.verbose:
            return
        step = self._earlier_steps + self.model.stage_step.numpy()
        validated = _validated(logs, self.model.experiment).items()
        line = f"{self._stage.name}, step {step}: psnr {logs['val_psnr']:.2f} dB"
        line += "".join(f", {symbol} {rounding:.4g}" for symbol, (rounding, _) in validated)
        if _trains_encoder(self._stage):
            gap = (
                f"{symbol} {surrogate - rounding:+.3g}"
                for symbol, (rounding, surrogate) in validated
            )
            line += f"; surrogate - rounding: {', '.join(gap)}"
        print(line, flush=True)

    def _shown(self, logs: dict) -> dict:
        """The entries that fit, the most telling ones first."""
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
