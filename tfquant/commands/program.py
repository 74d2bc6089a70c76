"""Runs the programs that take absl flags: train, eval and sweep.

`python train.py ...` and `tfquant train ...` run the same program.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tfquant import files, startup
from tfquant.commands import flagfiles
from tfquant.commands.outcome import one_line
from tfquant.names import first_few

if TYPE_CHECKING:
    from absl import flags

# Name of the program -> the module that implements it. The module has `define_flags(values)` and
# `main(argv)`.
PROGRAMS = {
    "train": "tfquant.commands.train",
    "eval": "tfquant.commands.evaluate",
    "sweep": "tfquant.commands.sweep",
}


# Exit code of a program that finished but skipped some pictures, which it has listed.
LEFT_OUT = 3

_SHOWN = 5  # number of skipped pictures in the last line


def run_program(name: str, arguments: list[str] | None = None) -> None:
    """Runs a program and ends the process with its exit code.

    Args:
      name: a key of `PROGRAMS`.
      arguments: the command line, with the name of the program first; None for `sys.argv`.
    """
    arguments = sys.argv if arguments is None else arguments
    files.lenient_output()
    try:
        _run(name, list(arguments))
    except flagfiles.FlagfileError as error:
        sys.exit(f"{program_name(arguments)}: {error}")
    except KeyboardInterrupt:
        end(f"{program_name(arguments)}: interrupted", 130)


def _run(name: str, arguments: list[str]) -> None:
    startup.prepare(program_name(arguments), PROGRAMS[name])
    from absl import app, flags

    module = importlib.import_module(PROGRAMS[name])
    before = set(flags.FLAGS)
    module.define_flags(flags.FLAGS)
    for flag in set(flags.FLAGS) - before:  # so that --help shows them
        flags.FLAGS.register_key_flag_for_module(arguments[0], flags.FLAGS[flag])
    sys.argv = list(arguments)
    sys.modules["__main__"].__doc__ = module.__doc__  # shown at the top of --help
    app.run(module.main, argv=[arguments[0], *flagfiles.expanded(arguments[1:])])


class Flag(NamedTuple):
    """A flag of a program.

    Attributes:
      name: its name.
      kind: type of the value: str, bool, int, float, or list for words separated by commas. A tuple
        has the only possible words.
      default: value of a flag that is not given.
      help: text for --help.
      required: true if the flag must be given.
      least: least value of a number; None for no limit.
    """

    name: str
    kind: type | tuple[str, ...]
    default: Any
    help: str
    required: bool = False
    least: float | None = None


def define(values: flags.FlagValues, table: Iterable[Flag]) -> None:
    """Adds the flags of a table to `values`."""
    from absl import flags

    functions = {
        str: flags.DEFINE_string,
        list: flags.DEFINE_list,
        bool: flags.DEFINE_bool,
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
    }
    for flag in table:
        options: dict[str, Any] = {"required": flag.required, "flag_values": values}
        if flag.least is not None:
            options["lower_bound"] = flag.least
        if isinstance(flag.kind, tuple):
            flags.DEFINE_enum(flag.name, flag.default, list(flag.kind), flag.help, **options)
        else:
            functions[flag.kind](flag.name, flag.default, flag.help, **options)


def end(message: str, code: int) -> None:
    """Ends the process with a line on standard error and an exit code."""
    print(one_line(message), file=sys.stderr)
    sys.exit(code)


def first_of(reasons: list[str]) -> str:
    """Joins the first few reasons for skipped pictures, and counts the others."""
    return first_few(reasons, _SHOWN, "; ", "; ")


def expand_paths(values: flags.FlagValues, names: Iterable[str]) -> None:
    """Expands `~` in flags that are paths to the home folder.

    Args:
      values: the parsed flags.
      names: names of the flags that are a path or a list of paths.
    """
    for name in names:
        value = values[name].value
        if isinstance(value, str):
            values[name].value = files.expanded(value)
        elif value:
            values[name].value = [files.expanded(each) for each in value]


def program_name(arguments: Sequence[str]) -> str:
    """Returns the name at the start of error messages, such as `train.py` or `tfquant train`."""
    return arguments[0].replace("\\", "/").rpartition("/")[2]
