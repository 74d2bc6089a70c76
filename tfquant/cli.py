"""The `tfquant` command: pictures to .tfq files and back, exported models, sets to train on.

    tfquant compress --quality=50 in.png out.tfq
    tfquant compress pictures/ files/
    tfquant decompress out.tfq back.png
    tfquant decompress files/ back/
    tfquant compress MODEL in.png out.tfq
    tfquant decompress MODEL out.tfq back.png
    tfquant models
    tfquant view pictures/ --out=view.html
    tfquant demo
    tfquant info out.tfq
    tfquant export RUN --out=MODEL
    tfquant records pictures/ SET --shards=16
    tfquant doctor
    tfquant train|eval|sweep --flag=value ...
    tfquant analyze NAME

Bad input prints one line on standard error and gives exit code 1. A wrong command line gives exit
code 2. Output files are written atomically, and existing ones are replaced only with --overwrite.
In a folder, a bad file does not stop the others. `-` is standard input or output. Commands import
TensorFlow only if they need a model, after all other checks.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from tfquant import __version__, files, stack, startup
from tfquant.coding import container
from tfquant.commands import (
    choosing,
    compressing,
    demo,
    guard,
    models,
    outputs,
    recording,
    view,
)
from tfquant.commands.outcome import CommandError, fail
from tfquant.commands.program import PROGRAMS, run_program
from tfquant.data import background
from tfquant.export import manifest_file

# Arguments that are paths, in which `~` is the home folder.
_PATHS = ("model", "picture", "file", "run", "out", "set")
_JOBS = 2  # the coder works on one picture while the networks work on another
# Commands with their own flags. `main` calls them before parsing.
_PROGRAM_HELP = {
    "train": "train a codec (see: tfquant train --helpfull)",
    "eval": "measure codecs on pictures (see: tfquant eval --help)",
    "sweep": "train and measure a grid of experiments (see: tfquant sweep --help)",
    "analyze": "the paper's analyses of surrogates (see: tfquant analyze --help)",
}


class _Parser(argparse.ArgumentParser):
    """A parser that reports a wrong command line in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"tfquant: {message} (see: {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns the exit code: 0 for success, 1 for bad input, 2 for a wrong command line. Without
    `argv`, the process is the command's own: `compress` and `decompress` then work in a child, see
    `guard.py`.
    """
    stack.silence()
    files.lenient_output()
    is_own_process = argv is None
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv and argv[0] in PROGRAMS:
        run_program(argv[0], [f"tfquant {argv[0]}", *argv[1:]])
    if argv and argv[0] == "analyze":
        return _analyze(argv[1:])
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as stop:  # --help, --version, errors
        return int(stop.code or 0)
    for name in _PATHS:
        path = getattr(arguments, name, None)
        if path == "":
            return fail(f"argument {name}: an empty path; name a file or a folder", code=2)
        if path is not None:
            setattr(arguments, name, files.expanded(path))
    try:
        if arguments.command in (compressing.compress, compressing.decompress):
            journal = guard.guarded() if is_own_process else guard.Journal()
            if isinstance(journal, int):
                return journal
            arguments.journal = journal
        arguments.command(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
    except (
        container.BitstreamError, manifest_file.ModelError, stack.StackError, CommandError
    ) as error:  # fmt: skip
        return fail(error)
    except choosing.UsageError as error:
        return fail(error, code=2)
    except BrokenPipeError:  # `tfquant info ... | head`
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        system_said = f"{files.shown(error.filename or 'input or output')}: {error.strerror}"
        return fail(system_said if error.strerror else error)
    except MemoryError:
        return fail("not enough memory")
    except KeyboardInterrupt:
        return fail("interrupted", code=130)
    return 0


def _analyze(argv: list[str]) -> int:
    startup.prepare("tfquant analyze")
    from tfquant.analysis import cli

    return cli.main(argv)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="tfquant", description="Learned image compression: .tfq files.")
    parser.add_argument("--version", action="version", version=f"tfquant {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    compress, decompress = _add_coding(commands)
    export = _add_export(commands)
    records = _add_records(commands)
    viewer = commands.add_parser("view", help="make a page that compares models and other codecs")
    view.add_arguments(viewer)
    viewer.set_defaults(command=view.run)

    for command in (compress, records, viewer):
        command.add_argument("--background", type=_colour, metavar="COLOUR", help=background.HELP)
        command.add_argument(
            "--page",
            type=_positive,
            metavar="N",
            help="page or frame to read from a file with several, from 1 (default: the first that"
            " is not a thumbnail)",
        )
    for command in (compress, decompress, records):
        command.add_argument(
            "--jobs",
            type=_positive,
            default=_JOBS,
            metavar="N",
            help="number of files of a folder to process at once (default: %(default)s)",
        )
    for command in (compress, decompress, export, records, viewer):
        command.add_argument("--overwrite", action="store_true", help="replace an existing output")

    for name, help in _PROGRAM_HELP.items():
        commands.add_parser(name, help=help, add_help=False)

    doctor = commands.add_parser("doctor", help="check the installed packages and the hardware")
    doctor.set_defaults(command=_doctor)

    listing = commands.add_parser("models", help="list, add and remove installed models")
    models.add_arguments(listing)
    listing.set_defaults(command=models.run)

    shown = commands.add_parser("demo", help="show pretrained models and run two short trainings")
    demo.add_arguments(shown)
    shown.set_defaults(command=demo.run)

    info = commands.add_parser("info", help="print the header of a .tfq file")
    info.add_argument("file", help="the .tfq file; - is standard input")
    info.set_defaults(command=compressing.info)
    return parser


def _add_coding(
    commands: argparse._SubParsersAction,
) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    compress = commands.add_parser("compress", help="picture to .tfq file, or a folder of them")
    choosing.add_paths(
        compress,
        "8-bit or 16-bit RGB, grayscale or palette picture, or a folder; - is standard input",
        "the .tfq file to write, or a folder; - is standard output",
    )
    choosing.add_quality(compress)
    compress.set_defaults(command=compressing.compress)

    decompress = commands.add_parser("decompress", help=".tfq file to picture, or a folder of them")
    choosing.add_paths(
        decompress,
        "the .tfq file, or a folder; - is standard input",
        "the picture to write, in a lossless format (.png, ...), or a folder for .png files;"
        " - is a PNG on standard output",
    )
    decompress.set_defaults(command=compressing.decompress)

    for command in (compress, decompress):
        command.add_argument(
            "--max_pixels",
            type=_positive,
            metavar="N",
            help="reject larger pictures (default: the model's limit, the same in both directions)",
        )
    return compress, decompress


def _add_export(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    export = commands.add_parser(
        "export", help="training run to exported model, from its newest readable checkpoint"
    )
    export.add_argument("run", metavar="RUN", help="folder of a finished, stopped or diverged run")
    export.add_argument("--out", metavar="DIR", help="folder to write (default: RUN/export)")
    export.add_argument(
        "--precision",
        default="float32",
        metavar="P",
        help="arithmetic of the transforms, which are most of the work: float32 (default),"
        " bfloat16 for CPUs that support it in hardware, float16 for GPUs; models with different"
        " precisions can read each other's files",
    )
    export.add_argument(
        "--files",
        type=int,
        choices=container.VERSIONS,
        default=container.VERSION,
        metavar="V",
        help="version of the .tfq files: 2 (default) decodes on every machine; 1 is for reading"
        " files of a model that an older tfquant exported from the same run",
    )
    export.add_argument(
        "--max_pixels",
        type=_positive,
        default=container.MAX_PIXELS,
        metavar="N",
        help="the model's limit of a picture, in both directions (default: %(default)s)",
    )
    export.set_defaults(command=_export)
    return export


def _add_records(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    records = commands.add_parser(
        "records", help="pictures to TFRecord shards, for training with --train_images=records:SET"
    )
    records.add_argument("pictures", help="a folder, a glob or a comma-separated list")
    records.add_argument("set", metavar="SET", help="the folder to write")
    records.add_argument(
        "--shards",
        type=_positive,
        metavar="K",
        help=f"number of files (default: {recording.SHARDS}, or as many as there are pictures)",
    )
    records.set_defaults(command=recording.records)
    return records


def _doctor(arguments: argparse.Namespace) -> None:
    del arguments
    from tfquant.commands import doctor

    report = doctor.examine()
    print(report)
    if not report.healthy:
        raise CommandError(dict(report.lines)["problem"])


def _export(arguments: argparse.Namespace) -> None:
    out = arguments.out or os.path.join(arguments.run, manifest_file.FOLDER)
    outputs.check_new(out, arguments.overwrite)
    if not files.isdir(arguments.run):
        raise CommandError(f"{files.shown(arguments.run)}: no such folder")
    startup.import_tensorflow()
    import tensorflow as tf

    from tfquant.export import writing

    try:
        path, checkpoint = writing.export_run(
            files.utf8_folder(arguments.run),
            out,
            arguments.precision,
            arguments.files,
            arguments.max_pixels,
        )
    except (ValueError, tf.errors.OpError) as error:
        raise CommandError(error) from None
    made = manifest_file.read_manifest(path)
    text = f"{made.codec} {made.fingerprint}, {made.precision}, from {checkpoint}"
    print(f"{files.shown(path)}: {text}")


def _positive(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= container.NO_LIMIT:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer from 1 to 2**62")
    return int(text)


def _colour(text: str) -> tuple[int, int, int]:
    try:
        return background.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(error) from None


if __name__ == "__main__":
    sys.exit(main())
