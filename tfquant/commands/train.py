"""Trains a learned image codec and exports it.

    python train.py --flagfile=configs/quickstart.flags
    tfquant train --flagfile=configs/quickstart.flags

The flags describe an `Experiment`. After an interruption, run the same command again to resume. To
train on several hosts, run the same command on each, with TF_CONFIG set
(`tfquant/training/hosts.py`).
"""

from __future__ import annotations

import dataclasses
import math
import sys
from typing import Callable

import tensorflow as tf
from absl import app, flags, logging

from tfquant import files, stack
from tfquant.commands import experiment_flags
from tfquant.commands.outcome import one_line
from tfquant.commands.program import (
    LEFT_OUT,
    Flag,
    define,
    end,
    expand_paths,
    first_of,
    program_name,
)
from tfquant.data import background, crops, sources
from tfquant.data.images import ImageError
from tfquant.export import manifest_file, writing
from tfquant.legacy_keras import keras
from tfquant.training import (
    callbacks,
    checkpoint,
    exploration,
    folder,
    history,
    hosts,
    progress,
    resuming,
    roles,
    run,
    trained,
)
from tfquant.training.experiment import Experiment
from tfquant.training.hosts import Host, HostLost
from tfquant.training.trainer import Trainer


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a run that do not change what it computes.

    Attributes:
      epoch_steps: number of steps between validations, checkpoints and logs.
      progress: terminal output, a key of `progress.VERBOSE`.
      gradient_risk: if true, logs bias and variance of the plan's gradients every epoch.
      jit_compile: if true, compiles the training step with XLA.
    """

    epoch_steps: int = 1000
    progress: str = "bar"
    gradient_risk: bool = False
    jit_compile: bool = False


def train(
    experiment: Experiment,
    model_dir: str,
    *,
    epoch_steps: int = 1000,
    progress: str = "bar",
    gradient_risk: bool = False,
    jit_compile: bool = False,
) -> str:
    """Trains every stage of an experiment and exports the model.

    To resume an interrupted run, call this function again with the same arguments.

    Args:
      experiment: the experiment.
      model_dir: folder of the run, for checkpoints, TensorBoard logs and the exported model. It is
        created if it does not exist.
      epoch_steps: number of steps between validations, checkpoints and logs. It must divide the
        number of steps of each stage that has more steps than this.
      progress: terminal output: "bar", "line" (one line per epoch) or "silent".
      gradient_risk: if true, logs bias and variance of the gradients of rate and distortion every
        epoch.
      jit_compile: if true, compiles the training step with XLA. This is for GPUs; it is slow on
        CPUs.

    Returns:
      The folder of the exported model.

    Raises:
      ValueError: the folder contains another run, or an argument is invalid.
      ImageError: there are no training pictures.
      OSError: a file cannot be read or written.
      TrainingDiverged: the loss was not finite for too many steps in a row.
      HostLost: another host ended before the training did.
    """
    model_dir = files.expanded(model_dir)
    train_and_export(
        experiment, model_dir, Settings(epoch_steps, progress, gradient_risk, jit_compile)
    )
    return tf.io.gfile.join(model_dir, manifest_file.FOLDER)


def train_and_export(experiment: Experiment, model_dir: str, settings: Settings) -> list[str]:
    """Trains and exports like `train`. Returns one line for each unreadable picture."""
    host = Host.from_environment()
    opened = files.utf8_folder(model_dir)
    with host.together(), host.folder(opened) as run_dir:
        left_out = train_stages(experiment, run_dir, settings, host)
    if host.is_chief:
        _, name = writing.export_run(opened)
        exported = files.shown(tf.io.gfile.join(model_dir, manifest_file.FOLDER))
        logging.info("Exported model: %s, from %s", exported, name)
    return left_out


def train_stages(
    experiment: Experiment, run_dir: str, settings: Settings, host: Host, patience: int = 0
) -> list[str]:
    """Trains each stage to its end, or until its loss has not decreased for `patience` epochs.

    Args:
      experiment: the experiment.
      run_dir: folder of the run.
      settings: further settings of the run.
      host: this host.
      patience: number of epochs; 0 trains every stage to its end.

    Returns:
      One line for each picture that was skipped because it could not be read.
    """
    init_from = files.expanded(experiment.init_from)
    experiment = dataclasses.replace(experiment, init_from=init_from)
    strategy = host.strategy()
    keras.utils.set_random_seed(experiment.seed)
    source = _open_source(experiment)
    training_source, validation_source = sources.split(source)
    for stage in experiment.all_stages():
        run.epoch_length(stage, settings.epoch_steps)
    with strategy.scope():
        codec = trained.build(experiment, experiment.precision)
        trainer = Trainer(codec, experiment)
    kept = checkpoint.RunCheckpoint(run_dir, trainer)
    starts = bool(experiment.init_from) and kept.newest is None
    start = checkpoint.newest_readable(experiment.init_from) if starts else None
    facts = {
        "flags": (
            experiment, settings.epoch_steps, settings.gradient_risk, settings.jit_compile,
        ),
        "number of pictures": len(source),
        "newest checkpoint": hosts.identity(kept.newest),
        "newest checkpoint of --init_from": hosts.identity(start),
    }  # fmt: skip
    host.check_agreement(strategy, facts)
    # Nothing is written before this point, so that a wrong flag is not recorded in the folder.
    record = checkpoint.start_from(codec, experiment, start) if starts else None
    folder.prepare(run_dir, experiment, kept.newest, record)
    changed = folder.note_pictures(run_dir, source.listing())
    if changed and kept.newest is not None:
        logging.warning("%s: %s", files.shown(run_dir), files.shown(changed))
    warn_of_validation(experiment)
    warn_of_precision(experiment)
    validation_data = _validation_data(validation_source, experiment)
    run.run_stages(
        kept,
        training_data=_training_data(training_source, experiment, strategy),
        validation_data=validation_data,
        epoch_steps=settings.epoch_steps,
        callbacks=callbacks.for_stage(run_dir, validation_data, settings.gradient_risk),
        is_over=history.patience(run_dir, patience),
        jit_compile=settings.jit_compile,
        verbose=progress.VERBOSE[settings.progress if host.is_chief else "silent"],
    )
    return source.left_out()


def _open_source(experiment: Experiment) -> sources.ImageSource:
    """Opens the experiment's pictures, with the smallest side that its crops need."""
    downscale = experiment.downscale
    min_side = math.ceil(experiment.crop / (downscale[0] if downscale else 1.0))
    colour = background.parse(experiment.background) if experiment.background else None
    return sources.open_source(
        experiment.train_images, experiment.seed, min_side, background=colour
    )


def _training_data(
    source: sources.ImageSource, experiment: Experiment, strategy: tf.distribute.Strategy
) -> Callable[[int], tf.data.Dataset]:
    """Returns `first_example -> dataset` of training batches, each host with its own share."""

    def training_data(first_example: int) -> tf.data.Dataset:
        def draw(offset: int, size: int) -> tf.data.Dataset:
            return crops.training_crops(
                source,
                seed=experiment.seed,
                crop=experiment.crop,
                batch_size=size,
                first_example=first_example + offset,
                stride=experiment.batch_size,
                downscale=experiment.downscale,
            )

        return hosts.shares(strategy, experiment.batch_size, draw)

    return training_data


def _validation_data(source: sources.ImageSource, experiment: Experiment) -> tf.data.Dataset:
    """Returns the batches of validation crops, the same in every epoch."""
    validation = crops.validation_crops(
        source,
        seed=experiment.seed,
        crop=experiment.crop,
        count=validation_count(experiment),
        downscale=experiment.downscale,
    )
    dataset = tf.data.Dataset.from_tensor_slices(validation)
    return dataset.batch(experiment.batch_size, drop_remainder=True)


def validation_count(experiment: Experiment) -> int:
    """Returns the number of validation pictures, in whole batches of the training step's static
    shape.
    """
    batches = max(1, round(experiment.validation_images / experiment.batch_size))
    return batches * experiment.batch_size


def warn_of_validation(experiment: Experiment) -> None:
    """Logs a warning if the number of validation pictures is rounded."""
    if validation_count(experiment) != experiment.validation_images:
        logging.warning(
            "--validation_images=%d: validation needs whole batches of %d, so it uses %d pictures",
            experiment.validation_images, experiment.batch_size, validation_count(experiment),
        )  # fmt: skip


def warn_of_precision(experiment: Experiment) -> None:
    """Logs a warning if the processor has no instructions for the experiment's precision."""
    half = experiment.precision != "float32"
    if half and not stack.has_fast_bfloat16() and not tf.config.list_physical_devices("GPU"):
        logging.warning(
            "--precision=%s: this processor has no instructions for it; steps take several times"
            " as long as with --precision=float32", experiment.precision,
        )  # fmt: skip


_DEFAULT = Settings()
_FLAGS = (
    Flag(
        "model_dir", str, None,
        "Folder of the run: checkpoints, TensorBoard logs, exported model.", required=True,
    ),
    Flag(
        "epoch_steps", int, _DEFAULT.epoch_steps,
        "Steps between validations, checkpoints and logs.", least=1,
    ),
    Flag(
        "jit_compile", bool, _DEFAULT.jit_compile,
        "Compile the step with XLA. For GPUs; slow on CPUs.",
    ),
    Flag(
        "progress", tuple(progress.VERBOSE), _DEFAULT.progress,
        "Terminal output: a bar, one line per epoch (the default if the output is not a terminal),"
        " or nothing.",
    ),
    Flag(
        "gradient_risk", bool, _DEFAULT.gradient_risk,
        "Log bias and variance of the plan's gradients of rate and distortion every epoch.",
    ),
    Flag(
        "explore_qr", bool, False,
        "Search for the best --qr_weight, starting from --init_from, instead of training. Writes a"
        " table and a plot to --model_dir. Run the same command again to resume.",
    ),
    Flag("explore_start", float, 10.0, "First and largest weight to try."),
    Flag("explore_factor", float, 0.1, "Ratio of successive weights, below 1."),
    Flag("explore_minimum", float, 1e-3, "Lower limit of the weights."),
    Flag(
        "explore_patience", int, 5,
        "Number of epochs without a lower loss that ends a stage; 0: train all its steps. The"
        " result of a weight is that of its best epoch, whose checkpoint is not saved.", least=0,
    ),
    Flag(
        "explore_rises", int, 0,
        "Stop after the result was worse this many times in a row; 0: try all weights.", least=0,
    ),
    Flag(
        "explore_warm_start", bool, False,
        "Start from the previous weight instead of --init_from.",
    ),
    Flag(
        "explore_images", str, "",
        "Training pictures of the search, a smaller set. Empty: those of --train_images.",
    ),
)  # fmt: skip


# Flags that give a warning if they have no effect. Recipes for several codecs set others.
_WARNED = (
    "alpha_min", "alpha_max", "rectifier_depth", "qr_distance", "qr_stop_gradient", "start",
    "quality_levels", "stop_gradient", "hyper_aun", "background",
)  # fmt: skip


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of `train.py`."""
    define(values, [*_FLAGS, *experiment_flags.table()])


def settings_from_flags(values: flags.FlagValues) -> Settings:
    """Returns the settings that the flags describe."""
    names = [field.name for field in dataclasses.fields(Settings)]
    return Settings(**{name: getattr(values, name) for name in names})


def warn_of_flags(experiment: Experiment, values: flags.FlagValues) -> None:
    """Logs a warning for each given flag that has no effect."""
    idle = roles.without_effect(vars(experiment))
    flags_of: dict[str, list[str]] = {}
    for name in _WARNED:
        if name in idle and values[name].present:
            flags_of.setdefault(idle[name], []).append(f"--{name}")
    for name in sorted(name for name in values if name.startswith("explore_")):
        if name != "explore_qr" and values[name].present and not values.explore_qr:
            flags_of.setdefault("only --explore_qr uses it", []).append(f"--{name}")
    for reason, given in flags_of.items():
        logging.warning("%s: no effect, %s", ", ".join(given), reason)


def explore(experiment: Experiment, directory: str, values: flags.FlagValues) -> list[str]:
    """Tries weights of the feature distance, largest first, each in its own run.

    Returns:
      One line for each picture that was skipped because it could not be read.
    """
    host = Host.from_environment()
    if host.count > 1:
        raise ValueError(f"--explore_qr runs on one host; TF_CONFIG has {host.count}")
    search = exploration.Search(
        values.explore_start, values.explore_factor, values.explore_minimum, values.explore_rises
    )
    images = values.explore_images or experiment.train_images
    patience, settings = values.explore_patience, settings_from_flags(values)
    left_out = {}  # a set in order

    def train_one(one: Experiment, run_dir: str) -> None:
        left_out.update(dict.fromkeys(train_stages(one, run_dir, settings, host, patience)))

    found = exploration.run_search(
        directory,
        search,
        dataclasses.replace(experiment, train_images=images),
        train=train_one,
        patience=patience,
        epoch_steps=settings.epoch_steps,
        warm_start=values.explore_warm_start,
    )
    print(f"\n{found}")
    return list(left_out)


def main(argv: list[str]) -> None:
    """Runs the command with the flags that `app.run` has parsed."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}; use only --flags")
    values = flags.FLAGS
    program = program_name(argv)
    tf.get_logger().setLevel("WARNING")
    left_out = []
    try:
        expand_paths(values, ("model_dir", "init_from"))
        experiment = experiment_flags.experiment(values)
        if not values.model_dir:
            raise ValueError("--model_dir must name a folder; got ''")
        for name in (values.model_dir, experiment.init_from):
            files.exists(name)  # raises an error if the file system is not accessible
        warn_of_flags(experiment, values)
        if values.explore_qr:
            left_out = explore(experiment, values.model_dir, values)
        else:
            left_out = train_and_export(experiment, values.model_dir, settings_from_flags(values))
    except (ValueError, OSError, ImageError, run.TrainingDiverged, HostLost) as error:
        sys.exit(f"{program}: {one_line(error)}")
    except KeyboardInterrupt:
        end(f"{program}: interrupted; {_where_it_stands(experiment, values)}", 130)
    if left_out:
        noun = "picture" if len(left_out) == 1 else "pictures"
        message = f"the run is complete without {len(left_out)} {noun}: {first_of(left_out)}"
        end(f"{program}: {message}", LEFT_OUT)


def _where_it_stands(experiment: Experiment, values: flags.FlagValues) -> str:
    if values.explore_qr:
        return "run the same command again to resume the search"
    try:
        newest = checkpoint.newest_readable(values.model_dir)
    except (ValueError, OSError) as error:
        return str(error)
    total = sum(stage.steps for stage in experiment.all_stages())
    return resuming.where_it_stands(values.model_dir, total, newest)
