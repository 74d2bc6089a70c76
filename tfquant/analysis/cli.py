"""The command line: `python -m tfquant.analysis NAME [--surrogates=...] [--out=DIR] [--full]`.

Skips an experiment if its outputs are complete, with the same settings and with surrogates that
behave the same. `all` therefore resumes after an interruption. Bad input prints one line on
standard error and gives exit code 1. A wrong command line gives exit code 2.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from tfquant import files
from tfquant.analysis import outputs
from tfquant.analysis.experiment import AnalysisError, Experiment, Progress, Settings
from tfquant.analysis.registry import EXPERIMENTS
from tfquant.names import check_known

_PROGRAM = "python -m tfquant.analysis"


class _Parser(argparse.ArgumentParser):
    """A parser that reports a wrong command line in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{_PROGRAM}: {message} (see: {_PROGRAM} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs experiments.

    Returns the exit code: 0 for success, 1 for bad input, 2 for a wrong command line.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as stop:  # --help, errors
        return int(stop.code or 0)
    if arguments.list:
        print(listing())
        return 0
    try:
        for experiment, settings in _selected(arguments):
            command = f"{_PROGRAM} {shlex.join(argv)}"
            run(experiment, settings, Path(arguments.out), command, arguments.again)
    except AnalysisError as error:
        return _fail(error)
    except OSError as error:
        return _fail(f"{error.filename or 'input or output'}: {error.strerror or error}")
    except KeyboardInterrupt:
        return _fail("interrupted; run the same command again to resume", code=130)
    return 0


def run(
    experiment: Experiment, settings: Settings, folder: Path, command: str = "", again: bool = False
) -> None:
    """Runs one experiment and writes its files, unless they are complete."""
    wanted = outputs.record(experiment, settings)
    if not again and outputs.is_complete(folder, experiment.name, wanted):
        print(f"{experiment.name}: complete in {folder} (use --again to repeat)", file=sys.stderr)
        return
    start = time.monotonic()
    result = experiment.run(settings, Progress(experiment.name))
    seconds = time.monotonic() - start
    outputs.write(folder, experiment, result, wanted, command, seconds)
    print(f"{experiment.name}: {folder / experiment.name}.md ({seconds:.0f} s)", file=sys.stderr)


def listing() -> str:
    """Returns one line for each experiment."""
    width = max(map(len, EXPERIMENTS))
    return "\n".join(
        f"{e.name:{width}}  {e.reproduces:14}  {e.summary}" for e in EXPERIMENTS.values()
    )


def _selected(arguments: argparse.Namespace) -> list[tuple[Experiment, Settings]]:
    """Returns the chosen experiments with their settings.

    Checks all of them before the first starts.
    """
    if arguments.name is None:
        raise AnalysisError(f"missing experiment; possible: {', '.join(EXPERIMENTS)}, all")
    check_known("experiment", arguments.name, [*EXPERIMENTS, "all"], AnalysisError)
    asked = {f.name: getattr(arguments, f.name) for f in dataclasses.fields(Settings)}
    if arguments.name != "all":
        experiment = EXPERIMENTS[arguments.name]
        if experiment.needs_model and not arguments.model_dirs:
            raise AnalysisError(f"{experiment.name} analyses trained runs: give --model_dir")
        return [(experiment, experiment.settings(**asked))]
    chosen = [(e, e.settings(**asked)) for e in EXPERIMENTS.values()]
    for experiment, _ in chosen:
        if experiment.needs_model and not arguments.model_dirs:
            print(f"{experiment.name}: skipped, because it needs --model_dir", file=sys.stderr)
    return [(e, s) for e, s in chosen if s.model_dirs or not e.needs_model]


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=_PROGRAM,
        description="Train-test mismatch and gradient risk of surrogates of rounding.",
        epilog=listing(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="an experiment, or all")
    parser.add_argument("--list", action="store_true", help="print one line for each experiment")
    parser.add_argument(
        "--surrogates", type=_names, metavar="A,B", help="default: those of the paper's figure"
    )
    parser.add_argument(
        "--alphas", type=_numbers, metavar="A,B", help="temperatures of the annealed surrogates"
    )
    parser.add_argument("--sigmas", type=_numbers, metavar="A,B", help="scales of the latent")
    parser.add_argument(
        "--out", type=files.expanded, default="analyses", metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument("--full", action="store_true", help="finer and slower: about an hour")
    parser.add_argument("--again", action="store_true", help="repeat complete experiments")
    parser.add_argument("--seed", type=int, default=0, help="seed of all samples")
    parser.add_argument(
        "--model_dir", dest="model_dirs", type=_paths, default=(), metavar="RUN,RUN",
        help="training runs, for sigma_distribution",
    )  # fmt: skip
    parser.add_argument(
        "--images", default="sample", help="pictures for these runs: a folder, a glob or a file"
    )
    parser.add_argument(
        "--dataset", default="digits", metavar="NAME",
        help="small images for gradient_bias_network: digits, generated or tfds:NAME",
    )  # fmt: skip
    return parser


def _names(text: str) -> tuple[str, ...]:
    names = tuple(part for part in text.split(",") if part)
    if not names:
        raise argparse.ArgumentTypeError("expected one or more values, by commas")
    return names


def _paths(text: str) -> tuple[str, ...]:
    return tuple(files.expanded(path) for path in _names(text))


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in _names(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers, by commas; got {text!r}") from None


def _fail(message: object, code: int = 1) -> int:
    print(f"{_PROGRAM}: {files.one_line(message)}", file=sys.stderr)
    return code
