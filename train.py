"""Trains a learned image codec.

    python train.py --flagfile=configs/quickstart.flags

Flags become an `Experiment`; the same command goes on where it was stopped. On several hosts it is
the same command on each, with TF_CONFIG set (`tfquant/training/hosts.py`).
"""

from __future__ import annotations

import dataclasses
import math
import sys

from tfquant import stack
from tfquant.export import writing

stack.prepare("train.py")

import tensorflow as tf
from absl import app, flags, logging

from tfquant import files, models
from tfquant.data import crops, sources
from tfquant.data.images import ImageError
from tfquant.entropy.conditional import FAMILIES
from tfquant.layers.transforms import ANALYSIS, STARTS, SYNTHESIS
from tfquant.legacy_keras import keras
from tfquant.quantization.plans import MEAN_GRADIENTS, PLANS, STOP_GRADIENTS
from tfquant.training import (
    callbacks,
    checkpoint,
    exploration,
    folder,
    history,
    hosts,
    losses,
    progress,
    run,
    schedules,
    trained,
)
from tfquant.training.experiment import STAGES, Experiment
from tfquant.training.hosts import Host, HostLost
from tfquant.training.trainer import Trainer

_DEFAULT = Experiment()

MODEL_DIR = flags.DEFINE_string(
    "model_dir", None, "Folder of the run: checkpoints, TensorBoard logs, exported model.",
    required=True,
)  # fmt: skip

# What is trained.
flags.DEFINE_enum("codec", _DEFAULT.codec, list(models.CODECS), "The codec.")
flags.DEFINE_integer(
    "N", None, "Width of the transforms (and channels of z); not given: the codec's own.",
    lower_bound=1,
)  # fmt: skip
flags.DEFINE_integer(
    "M", None, "Channels of the latent y; not given: the codec's own.", lower_bound=1
)
flags.DEFINE_enum(
    "family", None, [name for name, family in FAMILIES.items() if family.outputs > 1],
    "Distribution of y, for codecs that offer a choice; not given: the codec's own.",
)  # fmt: skip
flags.DEFINE_enum("g_a", None, list(ANALYSIS), "ms_hyper*: analysis transform; not given: plain.")
flags.DEFINE_enum("g_s", None, list(SYNTHESIS), "ms_hyper*: synthesis transform; not given: plain.")
flags.DEFINE_integer(
    "slices", None, "charm*: channel slices, which divide M; not given: 10.", lower_bound=1
)
flags.DEFINE_enum(
    "start", _DEFAULT.start, list(STARTS),
    "First weights of g_a and g_s: near the Karhunen-Loeve transform of a model of pictures, or at"
    " random, as in the papers (Glorot's kernels, biases 0, GDN's gamma 0.1).",
)  # fmt: skip
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
flags.DEFINE_enum(
    "stop_gradient", _DEFAULT.stop_gradient, list(STOP_GRADIENTS),
    "Zero-center: the branches whose offset mu gets no gradient. Of arXiv 2309.17051, section 5.3,"
    " both is the literal reading; with distortion, mu gets minus the rate's gradient to y.",
)  # fmt: skip
flags.DEFINE_enum(
    "mean_gradient", _DEFAULT.mean_gradient, list(MEAN_GRADIENTS),
    "The rate's gradient to mu with --stop_gradient=both: that of the sample, or its expectation in"
    " closed form, for a Gaussian or a Laplacian and a rate of aun, uq_s, uq_i, sua_n, sr or sra.",
)  # fmt: skip
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
flags.DEFINE_float(
    "clip_norm", _DEFAULT.clip_norm,
    "Global norm that gradients are clipped to; 0: no clipping. The default is this project's own:"
    " arXiv 2309.17051 names no clipping, and configs/paper_*.flags turn it off. Clipping hides the"
    " variance that gradient estimators differ in. Steps without a finite loss and gradient change"
    " nothing at any value.",
)  # fmt: skip
flags.DEFINE_integer(
    "batch_size", _DEFAULT.batch_size, "Global batch size, over all devices and hosts."
)
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

# The Quantization Rectifier, in the stages qr_soft and qr_predictive.
flags.DEFINE_string(
    "init_from", _DEFAULT.init_from,
    "Folder of a run of the same codec whose weights this one starts with; a rectifier is added.",
)  # fmt: skip
flags.DEFINE_integer(
    "rectifier_width", _DEFAULT.rectifier_width,
    "Channels inside the rectifier; 0: none, and the stages train the codec alone, for comparison.",
)  # fmt: skip
flags.DEFINE_integer("rectifier_depth", _DEFAULT.rectifier_depth, "Its residual blocks.")
flags.DEFINE_enum(
    "qr_distance", _DEFAULT.qr_distance, list(losses.FEATURE_DISTANCES),
    "Feature distance d(y, y_bar) that trains it, a mean over elements.",
)  # fmt: skip
flags.DEFINE_float(
    "qr_weight", _DEFAULT.qr_weight,
    "Weight a_qr of the feature distance; for ms_ssim about a tenth of that for mse.",
)  # fmt: skip
flags.DEFINE_bool(
    "qr_stop_gradient", _DEFAULT.qr_stop_gradient,
    "Stage qr_soft: keep the feature distance's gradient from the encoder.",
)  # fmt: skip
flags.DEFINE_bool(
    "explore_qr", False,
    "Search for the best --qr_weight from --init_from, instead of training; writes a table and a"
    " plot into --model_dir. The same command goes on where it was stopped.",
)  # fmt: skip
flags.DEFINE_float("explore_start", 10.0, "First and largest weight that is tried.")
flags.DEFINE_float("explore_factor", 0.1, "From one weight to the next, below 1.")
flags.DEFINE_float("explore_minimum", 1e-3, "No weight below it is tried.")
flags.DEFINE_integer(
    "explore_patience", 5,
    "Epochs without a lower loss that end a stage; 0: all its steps. A weight is judged by its best"
    " epoch, whose checkpoint is not kept.",
    lower_bound=0,
)  # fmt: skip
flags.DEFINE_integer(
    "explore_rises", 0, "Stop once the result was worse so many times in a row; 0: try all.",
    lower_bound=0,
)  # fmt: skip
flags.DEFINE_bool(
    "explore_warm_start", False, "Start from the weight before instead of --init_from."
)
flags.DEFINE_string(
    "explore_images", "", "Training pictures of the search, a smaller set; empty: --train_images."
)

# On what.
flags.DEFINE_string(
    "train_images", _DEFAULT.train_images,
    "Folder, glob or comma-separated list of training pictures, records:SET as `tfquant records`"
    " makes them, or tfds:NAME; empty: the embedded dead-leaves images.",
)  # fmt: skip
flags.DEFINE_list(
    "downscale", [],
    "Two numbers: random downscaling before cropping; 0.6,0.95 is usual where pictures were JPEGs.",
)  # fmt: skip
flags.DEFINE_integer("validation_images", _DEFAULT.validation_images, "Crops for validation.")
flags.DEFINE_enum(
    "progress", "bar", list(progress.VERBOSE),
    "What the terminal shows: a bar, a line an epoch (also where it is no terminal), or nothing.",
)  # fmt: skip
flags.DEFINE_bool(
    "gradient_risk", False,
    "Log bias and variance of the rate's and distortion's gradient for the plan, every epoch.",
)  # fmt: skip


def experiment_from_flags(values: flags.FlagValues) -> Experiment:
    """The experiment that the flags describe; a ValueError says what is wrong."""
    names = set(values) & set(Experiment.__dataclass_fields__)
    fields = {name: getattr(values, name) for name in names}
    options = models.widths(values.codec, values.N, values.M)
    for name in ("family", "g_a", "g_s", "slices"):
        if getattr(values, name) is not None:
            options[name] = getattr(values, name)
    fields.update(
        codec_options=options,
        stages=tuple(values.stages),
        downscale=_numbers("downscale", values.downscale),
    )
    return Experiment(**fields)


def _numbers(flag: str, words: list) -> tuple:
    try:
        return tuple(map(float, words))
    except ValueError:
        raise ValueError(f"--{flag} takes two numbers; got {','.join(words)!r}") from None


def warn_of_flags(experiment: Experiment, values: flags.FlagValues) -> None:
    """Names the flags that were given but are not followed to the letter."""
    plan = experiment.joint_plan()
    search = sorted(name for name in values if name.startswith("explore_") and name != "explore_qr")
    for names, followed, reason in (
        (
            ("alpha_min", "alpha_max"),
            any(stage.plan.annealed for stage in experiment.all_stages()),
            f"no branch of the plan is annealed ({plan.rate}, {plan.distortion})",
        ),
        (
            ("rectifier_depth", "qr_distance"),
            experiment.rectified,
            "no stage trains a rectifier, or its width is 0",
        ),
        (
            ("qr_stop_gradient",),
            experiment.rectified and "qr_soft" in experiment.stages,
            "no stage qr_soft trains a rectifier",
        ),
        (("start",), not experiment.init_from, "the weights are those of --init_from"),
        (search, values.explore_qr, "only --explore_qr searches"),
    ):
        given = [f"--{name}" for name in names if values[name].present]
        if given and not followed:
            logging.warning("%s: no effect, %s", ", ".join(given), reason)
    if validation_count(experiment) != experiment.validation_images:
        logging.warning(
            "--validation_images=%d: validation takes whole batches of %d, so %d pictures",
            experiment.validation_images, experiment.batch_size, validation_count(experiment),
        )  # fmt: skip


def validation_count(experiment: Experiment) -> int:
    """Validation pictures in whole batches, so that each has the training step's static shape."""
    batches = max(1, round(experiment.validation_images / experiment.batch_size))
    return batches * experiment.batch_size


def train(
    experiment: Experiment, run_dir: str, values: flags.FlagValues, host: Host, patience: int = 0
) -> None:
    """Trains each stage to its end, or until its loss stays up for `patience` epochs (0: never)."""
    strategy = host.strategy()
    keras.utils.set_random_seed(experiment.seed)
    downscale = experiment.downscale
    min_side = math.ceil(experiment.crop / (downscale[0] if downscale else 1.0))
    source = sources.open_source(experiment.train_images, experiment.seed, min_side)
    training_source, validation_source = sources.split(source)
    for stage in experiment.all_stages():
        run.epoch_length(stage, values.epoch_steps)
    with strategy.scope():
        codec = trained.build(experiment, experiment.precision)
        trainer = Trainer(codec, experiment)
    kept = checkpoint.RunCheckpoint(run_dir, trainer)
    starts = bool(experiment.init_from) and kept.newest is None
    start = checkpoint.newest_readable(experiment.init_from) if starts else None
    facts = {
        "flags": (experiment, values.epoch_steps, values.gradient_risk, values.jit_compile),
        "number of pictures": len(source),
        "newest checkpoint": hosts.identity(kept.newest),
        "newest checkpoint of --init_from": hosts.identity(start),
    }
    host.check_agreement(strategy, facts)
    # Only now: a wrong flag is answered before it becomes part of the folder.
    if starts:
        checkpoint.start_from(codec, experiment, start)
    folder.prepare(run_dir, experiment)
    warn_of_flags(experiment, values)

    def training_data(first_example: int) -> tf.data.Dataset:
        def draw(offset: int, size: int) -> tf.data.Dataset:
            return crops.training_crops(
                training_source,
                seed=experiment.seed,
                crop=experiment.crop,
                batch_size=size,
                first_example=first_example + offset,
                stride=experiment.batch_size,
                downscale=downscale,
            )

        return hosts.shares(strategy, experiment.batch_size, draw)

    validation = crops.validation_crops(
        validation_source,
        seed=experiment.seed,
        crop=experiment.crop,
        count=validation_count(experiment),
        downscale=downscale,
    )
    validation_data = tf.data.Dataset.from_tensor_slices(validation)
    validation_data = validation_data.batch(experiment.batch_size, drop_remainder=True)
    run.run_stages(
        kept,
        training_data=training_data,
        validation_data=validation_data,
        epoch_steps=values.epoch_steps,
        callbacks=callbacks.for_stage(run_dir, validation_data, values.gradient_risk),
        is_over=history.patience(run_dir, patience),
        jit_compile=values.jit_compile,
        verbose=progress.VERBOSE[values.progress if host.is_chief else "silent"],
    )


def train_and_export(experiment: Experiment, model_dir: str, values: flags.FlagValues) -> None:
    host = Host.from_environment()
    with host.together(), host.folder(model_dir) as run_dir:
        train(experiment, run_dir, values, host)
    if host.is_chief:
        exported, name = writing.export_run(model_dir)
        logging.info("Exported model: %s, from %s", exported, name)


def explore(experiment: Experiment, directory: str, values: flags.FlagValues) -> None:
    """Tries weights of the feature distance, largest first, each in a run of its own."""
    host = Host.from_environment()
    if host.count > 1:
        raise ValueError(f"--explore_qr searches on one host; TF_CONFIG names {host.count}")
    search = exploration.Search(
        values.explore_start, values.explore_factor, values.explore_minimum, values.explore_rises
    )
    images = values.explore_images or experiment.train_images
    patience = values.explore_patience
    found = exploration.run_search(
        directory,
        search,
        dataclasses.replace(experiment, train_images=images),
        train=lambda one, run_dir: train(one, run_dir, values, host, patience),
        patience=patience,
        epoch_steps=values.epoch_steps,
        warm_start=values.explore_warm_start,
    )
    print(f"\n{found}")


def main(argv) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"arguments that are no flags: {' '.join(argv[1:])}")
    tf.get_logger().setLevel("WARNING")
    try:
        experiment = experiment_from_flags(flags.FLAGS)
        if not MODEL_DIR.value:
            raise ValueError("--model_dir must name a folder; got ''")
        for name in (MODEL_DIR.value, experiment.init_from):
            files.exists(name)  # or why nobody can tell
        task = explore if flags.FLAGS.explore_qr else train_and_export
        task(experiment, MODEL_DIR.value, flags.FLAGS)
    except (ValueError, OSError, ImageError, run.TrainingDiverged, HostLost) as error:
        sys.exit(f"train.py: {error}")


if __name__ == "__main__":
    app.run(main)
