"""Checks of a sweep before its first run: the flags of all runs, their codecs, and the pictures.

A wrong value is then one line at the start instead of a run that fails after days.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from absl import flags

from tfquant import models
from tfquant.codec import Codec
from tfquant.commands import experiment_flags, train
from tfquant.data import background, sources
from tfquant.data.images import ImageError
from tfquant.evaluation import EvaluationError
from tfquant.evaluation import pictures as picture_sets
from tfquant.evaluation.sweep import STAGES, Grid, Pictures, Run, has_ended
from tfquant.training import roles
from tfquant.training import run as training
from tfquant.training.experiment import Experiment
from tfquant.training.trainer import check_mean_gradient

# Flags of the base that the sweep replaces.
_REPLACED = ("lmbda", "model_dir", "stages", "train_images")


def parsed(arguments: Iterable[str]) -> flags.FlagValues:
    """Returns the flags of train.py that arguments give. The last value of a flag counts.

    Raises:
      ValueError: an argument is no flag of train.py.
      flags.Error: a value is not possible.
    """
    values = flags.FlagValues()
    train.define_flags(values)
    _, *others = values(["train.py", "--model_dir=unused", *arguments], known_only=True)
    of_absl = {
        flag.name
        for module, found in flags.FLAGS.flags_by_module_dict().items()
        if module.startswith("absl.")
        for flag in found
    }
    for argument in others:
        title = argument.lstrip("-").partition("=")[0]
        if not argument.startswith("-") or not {title, title.removeprefix("no")} & of_absl:
            raise ValueError(f"{title!r} is not a flag of train.py")
    return values


def base_flags(arguments: Iterable[str], option: str = "base") -> list[str]:
    """Returns the flags of a base in one spelling, sorted, without those that the sweep replaces.

    Args:
      arguments: the contents of a flagfile.
      option: the flag of sweep.py that names the file, for messages.

    Raises:
      EvaluationError: a flag is unknown, or its value is not possible.
    """
    try:
        values = parsed(arguments)
    except (ValueError, flags.Error) as error:
        raise EvaluationError(f"--{option}: {error}") from None
    if values.explore_qr:
        raise EvaluationError(f"--{option}: a sweep cannot search for a weight (explore_qr)")
    given = [values[name] for name in values if values[name].present and name not in _REPLACED]
    return sorted(filter(None, (flag.serialize() for flag in given)))


def check_runs(grid: Grid, base: Sequence[str], folder: Path) -> None:
    """Checks the flags of every run as train.py would.

    Args:
      grid: the grid.
      base: arguments of train.py that all runs have.
      folder: folder of the sweep.

    Raises:
      EvaluationError: train.py would reject a run, or two runs are the same.
    """
    known: dict[str, Run] = {}
    places: dict[Path, Run] = {}
    for run in grid.runs():
        given = _given(grid, run)
        reason, identity = _problem(base, given)
        if reason:
            raise EvaluationError(f"--{_culprit(base, given, reason)}: {reason}")
        other = known.setdefault(identity, run), places.setdefault(run.folder(folder), run)
        if other != (run, run):
            same = other[0] if other[0] != run else other[1]
            raise EvaluationError(f"--grid: the runs {same!s} and {run!s} are the same")


def _given(grid: Grid, run: Run) -> dict[str, dict[str, str]]:
    """Returns flag of sweep.py -> {flag of train.py: value} that it gives a run."""
    own = {"seed": run.seed, "alpha_max": run.alpha}
    own = {name: value for name, value in own.items() if value}
    return {
        "choose_alpha": {name: value for name, value in own.items() if name == "alpha_max"},
        "seeds": {name: value for name, value in own.items() if name == "seed"},
        "lmbda": {"lmbda": run.lmbda},
        "follow": grid.expanded(grid.followed(run.lmbda)),
        "grid": grid.expanded(run.cell),
    }


def _problem(base: Sequence[str], given: Mapping[str, Mapping[str, str]]) -> tuple[str, str]:
    """Returns (reason why train.py would reject a run or "", text of everything that it computes).

    The stages are those of the sweep, each in its own folder.
    """
    words = [
        f"--{name}={value}"
        for option in ("follow", "grid", "seeds", "choose_alpha", "lmbda")  # as in the run
        for name, value in given.get(option, {}).items()
    ]
    identity = ""
    for stage in STAGES:
        first = [] if stage == STAGES[0] else ["--init_from=unused"]
        try:
            values = parsed([*base, *words, f"--stages={stage}", *first])
            experiment = experiment_flags.experiment(values)
            settings = train.settings_from_flags(values)
            for each in experiment.all_stages():
                training.epoch_length(each, settings.epoch_steps)
            _check_codec(experiment)
        except (ValueError, flags.Error) as error:
            return str(error), ""
        identity += f"{experiment.to_json()} {settings}"
    return "", identity


def _culprit(base: Sequence[str], given: Mapping[str, Mapping[str, str]], reason: str) -> str:
    """Returns the flag of sweep.py without which a run would not be rejected for this reason."""
    if _problem(base, {})[0] == reason:
        return "base"
    for option, values in given.items():
        others = {name: each for name, each in given.items() if name != option}
        if values and _problem(base, others)[0] != reason:
            return option
    return "grid"


def _check_codec(experiment: Experiment) -> None:
    """Raises a ValueError if the codec cannot have its options or its gradient to the mean.

    Of a codec that a user has registered, only the names of the options are checked: its
    constructor may need eager execution.
    """
    codec, options = experiment.codec, experiment.codec_options
    models.check_options(codec, options)
    if codec in roles.PROPERTIES:
        check_mean_gradient(_layers(codec, tuple(sorted(options.items()))), experiment)


@functools.cache
def _layers(codec: str, options: tuple[tuple[str, Any], ...]) -> Codec:
    """Returns a codec without weights, in a graph: this does not occupy a GPU that the runs need.

    Raises:
      ValueError: the codec does not allow a value of an option.
    """
    with tf.Graph().as_default():
        return models.CODECS[codec](**dict(options))


def check_pictures(
    runs: Iterable[Run], sets: Iterable[Pictures], train_images: str, colour: str, folder: Path
) -> None:
    """Checks that there are pictures for what is not yet trained or measured.

    Args:
      runs: the runs.
      sets: the sets of pictures of the measurement.
      train_images: training pictures, as in train.py.
      colour: value of `--background`, or "".
      folder: folder of the sweep.

    Raises:
      EvaluationError: pictures are missing, or none of them can be read.
    """
    behind = background.parse(colour) if colour else None
    places = [run.folder(folder) for run in runs]
    ended = all(has_ended(place / stage) for place in places for stage in STAGES)
    if not ended:
        try:
            _check_training(train_images, behind)
        except (ValueError, OSError) as error:
            raise EvaluationError(f"--train_images: {error}") from None
    for each in sets:
        if not ended or any(each.report(place) is None for place in places):
            try:
                _check_measurement(each.images, behind)
            except (ValueError, OSError) as error:
                raise EvaluationError(f"--images: {error}") from None


def _check_training(spec: str, behind: tuple[int, int, int] | None) -> None:
    """Raises an error unless two pictures can be read: one for training, one for validation."""
    if sources.canonical(spec).startswith(("dead_leaves:", "tfds:")):
        return  # made when training starts, or downloaded
    crop = Experiment.crop
    sources.split(sources.open_source(spec, 0, crop, cache_mib=0, background=behind))


def _check_measurement(spec: str, behind: tuple[int, int, int] | None) -> None:
    """Raises an error unless a picture can be read."""
    if spec == picture_sets.SAMPLE:
        return  # made by eval.py
    found = picture_sets.find_pictures(spec, Path(), behind).pictures
    errors = []
    for picture in found:
        try:
            picture.read()
        except ImageError as error:
            errors.append(error)
        else:
            return
    raise ImageError(f"none of {len(found)} pictures can be read; first: {errors[0]}")
