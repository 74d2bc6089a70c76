"""Callbacks of a run: progress on the terminal, and TensorBoard under `<model_dir>/logs`.

There is one event file per process, with all stages on one axis: the step is the step of the run,
so the curves of a resumed run continue. Tags, by group:

| group        | one point per   | content                                                         |
|--------------|-----------------|-----------------------------------------------------------------|
| `train`      | 50 steps        | loss terms, alpha, learning rate, skipped steps, images/s       |
| `validation` | epoch           | R, D, J and PSNR under rounding; R~, D~, J~ of the surrogate    |
| `gap`        | epoch           | the train-test gap, surrogate minus rounding, same pictures     |
| `gradient`   | epoch           | bias and variance of the gradients, on request                  |
| `latents`    | epoch           | histograms of the first validation batch's latents and of sigma |
| `rectifier`  | epoch           | in its stages: error reduction in percent, gain in dB           |
| `pictures`   | 20th of a stage | originals beside their reconstructions                          |

The gap and the gradients describe the training of the encoder. While the encoder is frozen, they
are not written.

To compare runs, start TensorBoard on their common parent folder. The HPARAMS tab then has one row
per run, and the CUSTOM SCALARS tab draws surrogate and rounding in one chart.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any, Callable

import tensorflow as tf
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import summary as custom_scalar
from tensorboard.plugins.hparams import api as hp

from tfquant import files
from tfquant.data.pixels import to_float, to_uint8
from tfquant.exchange import Rounding
from tfquant.legacy_keras import keras
from tfquant.quantization.quantizer import dequantize, symbols
from tfquant.training import gradient_risk as risk
from tfquant.training import history, losses
from tfquant.training.experiment import Experiment, Stage
from tfquant.training.gap import SYMBOLS, trains_encoder, validated
from tfquant.training.history import Recording
from tfquant.training.progress import ProgressBar, Throughput

# Each point of a training scalar is the mean over this number of steps.
_WINDOW = 50
# Pictures are large (0.5 MB for one of 256x256 pixels). Limits their number, and the times per
# stage.
_PICTURES_PER_STAGE, _PICTURES = 20, 4
# Gradient risk: side of a patch in pixels, and number of validation pictures.
_PATCH, _PATCHES = 64, 2

_DISTORTION = {
    "mse": "`255^2 MSE`, mean squared error on the 8-bit scale",
    "ms_ssim": "`1 - MS-SSIM`, no unit",
}


def for_stage(
    model_dir: str, validation_data: tf.data.Dataset, gradient_risk: bool = False
) -> Callable[[Stage, int], list[keras.callbacks.Callback]]:
    """Returns a factory of a run's callbacks, for `run.run_stages`.

    Args:
      model_dir: the run's folder; logs are written to its subfolder `logs`.
      validation_data: the validation batches, `{"image": uint8 [B, H, W, 3], ...}`.
      gradient_risk: if true, also measures bias and variance of the gradients every epoch.

    Returns:
      `(stage, steps of earlier stages) -> Keras callbacks`.
    """
    log = _Log(tf.io.gfile.join(model_dir, "logs"))
    images = _FirstImages(validation_data)

    def callbacks(stage: Stage, earlier_steps: int) -> list[keras.callbacks.Callback]:
        chosen = [
            Recording(model_dir, earlier_steps, validation_data),
            Throughput(),
            Hyperparameters(log),
            TrainingScalars(log, earlier_steps),
            ValidationScalars(log, earlier_steps),
            Latents(log, earlier_steps, images),
        ]
        if trains_encoder(stage):
            chosen.append(Gap(log, earlier_steps))
        if stage.counts_gain:
            chosen.append(Rectification(log, earlier_steps, model_dir))
        if gradient_risk and trains_encoder(stage):
            chosen.append(GradientRisk(log, earlier_steps, images))
        return [*chosen, ProgressBar(stage, earlier_steps)]

    return callbacks


class _Log:
    """The run's event file, opened at the first write."""

    def __init__(self, directory: str):
        self._directory = directory
        self._writer: tf.summary.SummaryWriter | None = None

    @property
    def started(self) -> bool:
        return self._writer is not None

    @contextlib.contextmanager
    def writing(self, step: int) -> Iterator[None]:
        """Enters a context in which `tf.summary` writes to this file, at the given step of the
        run.
        """
        with files.as_oserror(self._directory):
            if self._writer is None:
                self._writer = tf.summary.create_file_writer(self._directory)
            with self._writer.as_default(step):  # flushes on exit
                yield


class _FirstImages:
    """The first validation batch's pictures, uint8 [B, H, W, 3], read only once."""

    def __init__(self, dataset: tf.data.Dataset):
        self._dataset = dataset
        self._images: tf.Tensor | None = None

    def __call__(self) -> tf.Tensor:
        if self._images is None:
            self._images = next(iter(self._dataset))["image"]
        return self._images


class _Logging(keras.callbacks.Callback):
    """A callback that writes with the step of the run."""

    def __init__(self, log: _Log, earlier_steps: int):
        super().__init__()
        self._log = log
        self._earlier_steps = earlier_steps

    def writing(self) -> contextlib.AbstractContextManager[None]:
        return self._log.writing(self._earlier_steps + self.model.stage_step.numpy())


class TrainingScalars(_Logging):
    """`train/*`: the terms of the loss, as means over the steps since the last point; schedules."""

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._seen: dict[str, tuple[float, float]] = {}

    def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
        # Not in `on_epoch_end`: Keras resets its metrics for validation before that.
        if (batch + 1) % _WINDOW == 0 or batch + 1 == self.params["steps"]:
            self._write(logs)

    def _write(self, logs: dict[str, Any]) -> None:
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

    def _means_since_last_time(self) -> dict[str, float]:
        """Returns the metrics' means over the steps since the last call.

        Skips metrics without new steps.
        """
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


def _distortion(experiment: Experiment) -> str:
    """Describes the training distortion. One that a user added is described by its name."""
    return _DISTORTION.get(experiment.distortion, f"`{experiment.distortion}`")


def _training_descriptions(experiment: Experiment) -> dict[str, str]:
    mean = f"Mean over the training steps since the last point (at most {_WINDOW})."
    D = _distortion(experiment)
    return {
        "loss": f"`J = R + lmbda D`, {_lmbda(experiment)}, in bits per pixel; while a"
        f" rectifier trains, the loss of the stage. {mean}",
        "bpp": f"`R`, bits per pixel of all latents, under the rate's surrogate. {mean}",
        "bpp_y": f"Bits per pixel of the latent y. {mean}",
        "bpp_z": f"Bits per pixel of the hyper-latent z. {mean}",
        "quantization_error": f"Mean of `(y - y_hat)^2`. {mean}",
        "rectified_error": f"Mean of `(y - y_bar)^2`, after the rectifier. {mean}",
        experiment.distortion: f"`D`, {D}, under the distortion's surrogate. {mean}",
        "alpha": "Temperature of the annealed surrogates; larger is closer to rounding.",
        "learning_rate": "Adam's learning rate at this step.",
        "skipped": "Steps of this stage that were skipped for a non-finite loss or gradient.",
        "images_per_s": "Training pictures per second, mean over the epoch so far.",
    }


def _lmbda(experiment: Experiment) -> str:
    if experiment.lmbda_range:
        return "lmbda from {:g} to {:g}".format(*experiment.lmbda_range)
    return f"lmbda = {experiment.lmbda}"


def _meaning(experiment: Experiment) -> dict[str, str]:
    return {
        "R": "bits per pixel",
        "D": _distortion(experiment),
        "J": f"`R + lmbda D`, {_lmbda(experiment)}, in bits per pixel",
    }


class ValidationScalars(_Logging):
    """`validation/*`: the loss under actual rounding, and under the stage's surrogates."""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        experiment = self.model.experiment
        meaning = _meaning(experiment)
        with self.writing():
            for symbol, (rounding, surrogate) in validated(logs, experiment).items():
                text = f"`{symbol}` under actual rounding: {meaning[symbol]}."
                tf.summary.scalar(f"validation/{symbol}", rounding, description=text)
                text = f"`{symbol}~` under the stage's surrogates: {meaning[symbol]}."
                tf.summary.scalar(f"validation/{symbol}_tilde", surrogate, description=text)
            text = "PSNR in dB under actual rounding, mean over pictures."
            tf.summary.scalar("validation/psnr", logs["val_psnr"], description=text)


class Gap(_Logging):
    """`gap/*`: the difference between training and testing on the same pictures."""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        experiment = self.model.experiment
        meaning = _meaning(experiment)
        with self.writing():
            for symbol, (rounding, surrogate) in validated(logs, experiment).items():
                text = (
                    f"Train-test gap `{symbol}~ - {symbol}`, surrogate minus rounding:"
                    f" {meaning[symbol]}. Below 0, the training loss is better than the actual one."
                )
                tf.summary.scalar(f"gap/{symbol}", surrogate - rounding, description=text)


class Rectification(_Logging):
    """`rectifier/*`: the rectifier's error reduction, and the gain since the start of the stage.

    If the encoder is frozen, the gain is in quality at constant bits.
    """

    def __init__(self, log: _Log, earlier_steps: int, model_dir: str):
        super().__init__(log, earlier_steps)
        self._model_dir = model_dir

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        records = [r for r in history.read(self._model_dir) if r["stage"] == self.model.stage.name]
        first, last = records[0], records[-1]
        text = "Reduction of the mean squared error of y by the rectifier, in percent."
        values = {
            "error_reduction": (last["error_reduction"], text),
            "psnr_gain": (last["psnr"] - first["psnr"], "PSNR gain since the stage began, dB."),
        }
        if self.model.experiment.distortion == "ms_ssim":
            gain = 10.0 * math.log10(first["D"] / last["D"])
            values["ms_ssim_gain"] = gain, "MS-SSIM gain since the stage began, dB."
        with self.writing():
            for name, (value, text) in values.items():
                tf.summary.scalar(f"rectifier/{name}", value, description=text)


class Latents(_Logging):
    """`latents/*` and `pictures/*` of the first validation batch, under actual rounding."""

    def __init__(self, log: _Log, earlier_steps: int, images: _FirstImages):
        super().__init__(log, earlier_steps)
        self._images = images
        self._look = tf.function(self._look_once, autograph=False)

    def _look_once(self, image: tf.Tensor) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Returns the reconstruction and the values of the histograms.

        Args:
          image: uint8 [B, H, W, 3].

        Returns:
          The reconstruction, like `image`, and a dictionary of histogram name -> values.
        """
        exchange = Rounding()
        quality = self.model.experiment.middle_quality
        qualities = None if quality is None else tf.fill([tf.shape(image)[0]], quality)
        x_hat = self.model.outcome(to_float(image), exchange, qualities).x_hat
        values = {}
        for model in self.model.codec.entropy_models:
            name, params = model.name, exchange.params[model.name]
            offset, mu, sigma = model.offset(*params), model.mean(*params), model.sigma(*params)
            if sigma is not None:
                values["log10_sigma"] = tf.math.log(sigma) / math.log(10.0)
            values[name] = exchange.latents[name]
            # y_hat - mu, exact if the offset is mu. Float errors would split the bars of its
            # integers.
            integers = symbols(exchange.latents[name], offset)
            values[f"{name}_hat_minus_mu"] = dequantize(integers, offset - mu)
        return to_uint8(x_hat), values

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
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
                    description="Validation pictures: original on the left, reconstruction (actual"
                    " rounding) on the right.",
                )


_LATENTS = {
    "log10_sigma": "Scale parameter of p(y | z), after its lower bound, as a decimal logarithm.",
    "y": "The latent before quantization.",
    "y_hat_minus_mu": "Rounded latent minus its predicted mean; integers if zero-center.",
    "z": "The hyper-latent before quantization.",
    "z_hat_minus_mu": "Rounded hyper-latent minus its median: the coded integers.",
}


class GradientRisk(_Logging):
    """`gradient/*`: results of `gradient_risk.py` on patches of the first validation batch."""

    def __init__(self, log: _Log, earlier_steps: int, images: _FirstImages):
        super().__init__(log, earlier_steps)
        self._images = images
        self._measure = tf.function(self._measure_once, autograph=False)

    def _measure_once(self, x: tf.Tensor, alpha: tf.Tensor) -> dict[str, tf.Tensor]:
        trainer = self.model
        return risk.gradient_risk(
            trainer.codec,
            trainer.stage.plan,
            alpha,
            x,
            distortion=losses.distortion(trainer.experiment.distortion),
            lmbda=trainer.experiment.middle_lmbda,
            quality=trainer.experiment.middle_quality,
            seed=trainer.experiment.seed,
        )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        image = self._images()[:_PATCHES]
        top, left = (image.shape[1] - _PATCH) // 2, (image.shape[2] - _PATCH) // 2
        patch = image[:, top : top + _PATCH, left : left + _PATCH]
        measured = self._measure(to_float(patch), self.model.alpha())
        with self.writing():
            for name, value in measured.items():
                branch, _, quantity = name.partition("_")
                text = f"Gradient of {_LOSSES[branch]}: {_QUANTITIES[quantity]}."
                tf.summary.scalar(f"gradient/{name}", value, description=text)


_LOSSES = {
    "rate": "the rate (bits of a patch) with respect to y",
    "mean": "the rate (bits of a patch) with respect to mu, the offset of y",
    "distortion": "the distortion (`lmbda pixels D` of a patch, in bits) with respect to y",
}
_QUANTITIES = {
    "gradient": "root mean square over elements of its mean over the noise, bits",
    "variance": "over the surrogate's noise, mean over elements, bits^2",
    "bias": "root mean square over elements, against the gradient of the expected loss, in bits",
    "bias_error": "the bias that sampling alone may cause; a smaller bias is noise. In bits",
}


class Hyperparameters(keras.callbacks.Callback):
    """Describes the run to TensorBoard's HPARAMS and CUSTOM SCALARS tabs, once."""

    def __init__(self, log: _Log):
        super().__init__()
        self._log = log

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self._log.started:
            return
        values = _hyperparameters(self.model.experiment)
        with self._log.writing(0):
            hp.hparams_config([_hparam(n, v) for n, v in values.items()], _METRICS)
            hp.hparams(values)
            layout = custom_scalar.pb(_LAYOUT).SerializeToString()
            tf.summary.experimental.write_raw_pb(layout, step=0)


def _hyperparameters(experiment: Experiment) -> dict[str, Any]:
    """Returns the values that distinguish runs, with the same names for every run."""
    e = experiment
    plan = e.joint_plan().describe()
    widths = {k: v for k, v in e.codec_options.items() if k in ("N", "M")}
    others = [f"{k}={v}" for k, v in e.codec_options.items() if k not in widths]
    # TensorBoard initially shows only the first five columns.
    return {
        "plan": e.plan,
        "rate_branch": plan["rate"],
        "distortion_branch": plan["distortion"],
        "codec": e.codec,
        "lmbda": e.middle_lmbda,
        "alpha_max": e.alpha_max,
        "distortion": e.distortion,
        "context_branch": plan["context"],
        "stop_gradient": plan["stop_gradient"],
        "mean_gradient": plan["mean_gradient"],
        "hyper_aun": plan["hyper_aun"],
        **widths,
        "codec_options": ", ".join(others),
        "joint_sigma_bound": e.joint_sigma_bound,
        "post_sigma_bound": e.post_sigma_bound,
        "rectifier": f"{e.rectifier_width} x {e.rectifier_depth}" if e.rectified else "none",
        "qr_weight": e.qr_weight if e.rectified else 0.0,
        "qr_distance": e.qr_distance if e.rectified else "none",
        "steps": ", ".join(f"{stage.name} {stage.steps}" for stage in e.all_stages()),
        "learning_rate": e.joint_learning_rate,
        "schedule": e.joint_schedule,
        "batch_size": e.batch_size,
        "crop": e.crop,
        "train_images": files.shown(e.train_images) or "dead leaves",
        "precision": e.precision,
        "seed": e.seed,
    }


def _hparam(name: str, value: Any) -> hp.HParam:
    # Gives a type but no values, because TensorBoard hides runs outside a domain.
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

# For every symbol, rounding and surrogate in one chart.
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
                for symbol in SYMBOLS
            ],
        )
    ]
)
