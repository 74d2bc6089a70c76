"""Command-line flags of an `Experiment`, generated from its fields and the codecs' options."""

from __future__ import annotations

import dataclasses

from absl import flags

from tfquant import models
from tfquant.training.experiment import Experiment

_DEFINE = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}


def define(values: flags.FlagValues) -> None:
    """Defines a flag for every field of `Experiment` and every option of a codec.

    Args:
      values: the flags to add to.
    """
    for name, (kind, help) in models.OPTIONS.items():
        if isinstance(kind, list):
            flags.DEFINE_enum(name, None, kind, help, flag_values=values)
        else:
            flags.DEFINE_integer(name, None, help, lower_bound=1, flag_values=values)
    for field in dataclasses.fields(Experiment):
        if not field.metadata:  # codec_options
            continue
        name, help = field.name, field.metadata["help"]
        if field.metadata["choices"]:
            choices = list(field.metadata["choices"])
            flags.DEFINE_enum(name, field.default, choices, help, flag_values=values)
        elif isinstance(field.default, tuple):
            flags.DEFINE_list(name, list(field.default), help, flag_values=values)
        else:
            _DEFINE[type(field.default)](name, field.default, help, flag_values=values)


def experiment(values: flags.FlagValues) -> Experiment:
    """Builds the experiment that the flags describe.

    Raises:
      ValueError: a flag has a value that cannot be trained.
    """
    names = set(values) & {f.name for f in dataclasses.fields(Experiment) if f.metadata}
    fields = {name: getattr(values, name) for name in names}
    options = models.widths(values.codec, values.N, values.M)
    for name in models.OPTIONS:
        if name not in options and getattr(values, name) is not None:
            options[name] = getattr(values, name)
    fields.update(
        codec_options=options,
        stages=tuple(values.stages),
        downscale=_numbers("downscale", values.downscale),
        lmbda_range=_numbers("lmbda_range", values.lmbda_range),
    )
    return Experiment(**fields)


def _numbers(flag: str, words: list) -> tuple:
    try:
        return tuple(map(float, words))
    except ValueError:
        raise ValueError(f"--{flag} takes two numbers; got {','.join(words)!r}") from None
