"""Command-line flags of an `Experiment`, generated from its fields and the codecs' options."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from absl import flags

from tfquant import models
from tfquant.commands.program import Flag
from tfquant.training.experiment import MOST_LEVELS, Experiment


def table() -> list[Flag]:
    """Returns a flag for every option of a codec, and for every field of `Experiment` except
    `codec_options`.
    """
    found = [
        Flag(name, tuple(kind), None, help)
        if isinstance(kind, list)
        else Flag(name, int, None, help, least=1)
        for name, (kind, help) in models.OPTIONS.items()
    ]
    for field in dataclasses.fields(Experiment):
        if not field.metadata:  # `codec_options`: the flags above replace it
            continue
        kind: type | tuple[str, ...] = type(field.default)
        default = field.default
        if field.metadata["choices"]:
            kind = tuple(field.metadata["choices"])
        elif isinstance(default, tuple):
            kind, default = list, list(default)
        found.append(Flag(field.name, kind, default, field.metadata["help"]))
    return found


def experiment(values: flags.FlagValues) -> Experiment:
    """Builds the experiment that the flags describe. Omitted codec options are left to the codec.

    Args:
      values: the parsed flags of `table()`.

    Raises:
      ValueError: a value is invalid; the message names the flag.
    """
    names = set(values) & {f.name for f in dataclasses.fields(Experiment) if f.metadata}
    fields = {name: getattr(values, name) for name in names}
    options = models.widths(values.codec, values.N, values.M)
    for name in models.OPTIONS:
        if name not in options and getattr(values, name) is not None:
            options[name] = getattr(values, name)
    if values.quality_levels > MOST_LEVELS:
        raise ValueError(
            f"quality_levels must be at most {MOST_LEVELS}; got {values.quality_levels}"
        )
    fields.update(
        codec_options=options,
        stages=tuple(values.stages),
        downscale=_numbers("downscale", values.downscale),
        lmbda_range=_numbers("lmbda_range", values.lmbda_range),
    )
    return Experiment(**fields)


def _numbers(flag: str, words: Sequence[str]) -> tuple[float, ...]:
    try:
        return tuple(map(float, words))
    except ValueError:
        raise ValueError(f"--{flag} takes two numbers; got {','.join(words)!r}") from None
