"""Trains a learned image codec.

    python train.py --flagfile=configs/quickstart.flags

Flags become an `Experiment`; the same command goes on where it was stopped.
"""

from __future__ import annotations

import math
import os
import sys

# Read when TensorFlow loads; level 3 hides the plugin errors that 2.14 prints on every machine.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf
from absl import app, flags, logging

import models
from tfquant import data, export
from tfquant.images import ImageError
from tfquant.plans import PLANS
from tfquant.training import callbacks, losses, run, schedules
from tfquant.training.experiment import STAGES, Experiment
from tfquant.training.trainer import Trainer

_DEFAULT = Experiment()

MODEL_DIR = flags.DEFINE_string(
    "model_dir", None, "Folder of the run: checkpoints, TensorBoard logs, exported model.",
    required=True,
)  # fmt: skip

# What is trained.
flags.DEFINE_enum("codec", _DEFAULT.codec, list(models.CODECS), "The codec.")
flags.DEFINE_integer("N", 128, "Width of the transforms (and channels of z).")
flags.DEFINE_integer("M", 192, "Channels of the latent y.")
flags.DEFINE_string("family", "", "ms_hyper*: entropy family gaussian, laplacian or mixture.")
flags.DEFINE_string("g_a", "", "ms_hyper*: analysis transform plain, res or res_attn.")
flags.DEFINE_string("g_s", "", "ms_hyper*: synthesis transform plain, res or res_attn.")
flags.DEFINE_float("lmbda", _DEFAULT.lmbda, "Weight of the distortion against bits per pixel.")
flags.DEFINE_enum(
    "distortion", _DEFAULT.distortion, list(losses.DISTORTIONS),
    "Training distortion: 255^2 MSE, or 1 - MS-SSIM.",
)  # fmt: skip

# How rounding is replaced.
flags.DEFINE_enum("plan", _DEFAULT.plan, list(PLANS), "Named quantization plan of the joint stage.")
for _role in ("rate", "distortion", "context"):
    flags.DEFINE_string(
        f"{_role}_branch", "",
        f"surrogate:estimator in place of the plan's {_role} branch, such as aun:pathwise.",
    )  # fmt: skip
flags.DEFINE_bool("stop_gradient", True, "Partial stop-gradient of the offset (zero-center).")
flags.DEFINE_bool("hyper_aun", False, "Keep additive uniform noise for z whatever the plan is.")
flags.DEFINE_float("alpha_min", _DEFAULT.alpha_min, "Temperature at the start of annealing.")
flags.DEFINE_float("alpha_max", _DEFAULT.alpha_max, "Temperature at its end.")
flags.DEFINE_float("joint_sigma_bound", _DEFAULT.joint_sigma_bound, "Lower bound of sigma, joint.")
flags.DEFINE_float("post_sigma_bound", _DEFAULT.post_sigma_bound, "Lower bound of sigma, post.")

# How long and how fast.
flags.DEFINE_list("stages", list(_DEFAULT.stages), f"Stages in order, of: {', '.join(STAGES)}.")
for _stage in STAGES:
    flags.DEFINE_integer(f"{_stage}_steps", getattr(_DEFAULT, f"{_stage}_steps"),
                         f"Training steps of stage {_stage}.")  # fmt: skip
    flags.DEFINE_float(f"{_stage}_learning_rate", getattr(_DEFAULT, f"{_stage}_learning_rate"),
                       f"Peak learning rate of stage {_stage}.")  # fmt: skip
    flags.DEFINE_enum(f"{_stage}_schedule", getattr(_DEFAULT, f"{_stage}_schedule"),
                      list(schedules.LEARNING_RATES),
                      f"Learning-rate schedule of stage {_stage}.")  # fmt: skip
flags.DEFINE_float("clip_norm", _DEFAULT.clip_norm, "Global norm gradients are clipped to; 0: off.")
flags.DEFINE_integer("batch_size", _DEFAULT.batch_size, "Global batch size, over all devices.")
flags.DEFINE_integer("crop", _DEFAULT.crop, "Side of the training crops, a multiple of 64.")
flags.DEFINE_integer(
    "epoch_steps", 1000, "Steps between validations, checkpoints and logs.", lower_bound=1
)
flags.DEFINE_integer("seed", _DEFAULT.seed, "Seed of everything random.")
flags.DEFINE_enum(
    "precision", _DEFAULT.precision, list(models.PRECISIONS),
    "Arithmetic of the networks; quantization and likelihoods stay in float32.",
)  # fmt: skip
flags.DEFINE_bool("jit_compile", False, "Compile the step with XLA: for GPUs, slow on CPUs.")

# On what.
flags.DEFINE_string(
    "train_images", _DEFAULT.train_images,
    "Folder, glob or comma-separated list of training pictures, or tfds:NAME; empty: the embedded"
    " dead-leaves images.",
)  # fmt: skip
flags.DEFINE_list("downscale", [], "Two numbers: random downscaling before cropping, as 0.6,0.95.")
flags.DEFINE_integer("validation_images", _DEFAULT.validation_images, "Crops for validation.")
flags.DEFINE_enum("verbosity_of_fit", "bar", ["silent", "bar", "line"], "Progress on the terminal.")
flags.DEFINE_bool(
    "gradient_risk", False,
    "Log bias and variance of the rate's and distortion's gradient for the plan, every epoch.",
)  # fmt: skip


def experiment_from_flags(values: flags.FlagValues) -> Experiment:
    """The experiment that the flags describe; a ValueError says what is wrong."""
    names = set(values) & set(Experiment.__dataclass_fields__)
    fields = {name: getattr(values, name) for name in names}
    options = {"N": values.N, "M": values.M}
    options.update({k: getattr(values, k) for k in ("family", "g_a", "g_s") if getattr(values, k)})
    fields.update(
        codec_options=options,
        stages=tuple(values.stages),
        downscale=tuple(float(d) for d in values.downscale),
    )
    return Experiment(**fields)


def strategy() -> tf.distribute.Strategy:
    """MirroredStrategy over all GPUs, or all logical CPUs, where there are several."""
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) > 1:
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    return tf.distribute.get_strategy()


def train(experiment: Experiment, model_dir: str, values: flags.FlagValues) -> None:
    """Trains to the end and exports."""
    tf.keras.utils.set_random_seed(experiment.seed)
    downscale = experiment.downscale or None
    min_side = math.ceil(experiment.crop / (downscale[0] if downscale else 1.0))
    source = data.open_source(experiment.train_images, experiment.seed, min_side)
    training_source, validation_source = data.split(source)
    for stage in experiment.all_stages():
        run.epoch_length(stage, values.epoch_steps)
    with strategy().scope():
        codec = models.build_codec(
            experiment.codec, experiment.precision, **experiment.codec_options
        )
        trainer = Trainer(codec, experiment)
    # Only now: a wrong flag is answered before it becomes part of the folder.
    run.prepare_run_dir(model_dir, experiment)

    def training_data(first_example: int) -> tf.data.Dataset:
        return data.crops(
            training_source,
            seed=experiment.seed,
            crop=experiment.crop,
            batch_size=experiment.batch_size,
            first_example=first_example,
            downscale=downscale,
        )

    # Whole batches only, so that every validation batch has the training step's static shape.
    batches = max(1, round(experiment.validation_images / experiment.batch_size))
    validation = data.validation_crops(
        validation_source,
        seed=experiment.seed,
        crop=experiment.crop,
        count=batches * experiment.batch_size,
        downscale=downscale,
    )
    validation_data = tf.data.Dataset.from_tensor_slices(validation)
    validation_data = validation_data.batch(experiment.batch_size, drop_remainder=True)
    run.run_stages(
        trainer,
        model_dir,
        training_data=training_data,
        validation_data=validation_data,
        epoch_steps=values.epoch_steps,
        callbacks=callbacks.for_stage(model_dir, validation_data, values.gradient_risk),
        jit_compile=values.jit_compile,
        verbose=["silent", "bar", "line"].index(values.verbosity_of_fit),
    )
    exported = export.export_run(model_dir, models.build_codec)
    logging.info("Exported model: %s", exported)


def main(argv) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"arguments that are no flags: {' '.join(argv[1:])}")
    tf.get_logger().setLevel("WARNING")
    try:
        train(experiment_from_flags(flags.FLAGS), MODEL_DIR.value, flags.FLAGS)
    except (ValueError, ImageError, run.TrainingDiverged) as error:
        sys.exit(f"train.py: {error}")


if __name__ == "__main__":
    app.run(main)
