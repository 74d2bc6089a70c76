"""Runs the programs that take absl flags: train, eval, sweep and analyze.

`python train.py ...` and `tfquant train ...` run the same program.
"""

from __future__ import annotations

import importlib
import sys

from tfquant import stack

# Name of the program -> the module that implements it. The module has `define_flags(values)` and
# `main(argv)`.
PROGRAMS = {
    "train": "tfquant.commands.train",
    "eval": "tfquant.commands.evaluate",
    "sweep": "tfquant.commands.sweep",
}


def run_program(name: str, arguments: list | None = None) -> None:
    """Runs a program and ends the process with its exit code.

    Args:
      name: a key of `PROGRAMS`.
      arguments: the command line, with the name of the program first; None for `sys.argv`.
    """
    arguments = sys.argv if arguments is None else arguments
    stack.prepare(program_name(arguments))
    from absl import app, flags

    module = importlib.import_module(PROGRAMS[name])
    before = set(flags.FLAGS)
    module.define_flags(flags.FLAGS)
    for flag in set(flags.FLAGS) - before:  # so that --help shows them
        flags.FLAGS.register_key_flag_for_module(arguments[0], flags.FLAGS[flag])
    sys.argv = list(arguments)
    sys.modules["__main__"].__doc__ = module.__doc__  # shown at the top of --help
    app.run(module.main, argv=sys.argv)


def program_name(arguments: list) -> str:
    """Returns the name at the start of error messages, such as `train.py` or `tfquant train`."""
    return arguments[0].replace("\\", "/").rpartition("/")[2]
