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

Bad input is one line on standard error and exit code 1, a wrong command line exit code 2. An output
file appears under its name when it is complete, or not at all; an existing one is replaced only
with --overwrite. In a folder one bad file does not stop the rest. `-` is standard input or output.
TensorFlow is imported by the commands that need a model, and when they have found nothing wrong
before.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys

from tfquant import __version__, files, stack
from tfquant.coding import container
from tfquant.commands import choosing, compressing, demo, models, outputs, recording, view
from tfquant.commands.outcome import CommandError, fail
from tfquant.commands.program import PROGRAMS, run_program
from tfquant.data import background
from tfquant.export import model_file

# Arguments that are paths: `~` is the home folder in each.
_PATHS = ("model", "picture", "file", "run", "out", "set")
_JOBS = 2  # while the coder works on one picture, the networks do on another
# Commands with flags of their own, which `main` hands on before it parses.
_PROGRAM_HELP = {
    "train": "train a codec (see: tfquant train --helpfull)",
    "eval": "measure codecs on pictures (see: tfquant eval --help)",
    "sweep": "train and measure a grid of experiments (see: tfquant sweep --help)",
    "analyze": "the paper's analyses of surrogates (see: tfquant analyze --help)",
}


class _Parser(argparse.ArgumentParser):
    """Answers a wrong command line with one line."""

    def error(self, message):
        self.exit(2, f"tfquant: {message} (see: {self.prog} --help)\n")


def main(argv=None) -> int:
    """Runs one command; returns the exit code: 0 done, 1 bad input, 2 wrong command line."""
    stack.silence()
    files.lenient_output()
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
        if isinstance(getattr(arguments, name, None), str):
            setattr(arguments, name, files.expanded(getattr(arguments, name)))
    try:
        arguments.command(arguments)
        sys.stdout.flush()
    except (
        container.BitstreamError, model_file.ModelError, stack.StackError, CommandError
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
        return fail("not enough memory for a picture of this size")
    except KeyboardInterrupt:
        return fail("interrupted", code=130)
    return 0


def _analyze(argv: list) -> int:
    stack.prepare("tfquant analyze")
    from tfquant.analysis import cli

    return cli.main(argv)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="tfquant", description="Learned image compression: .tfq files.")
    parser.add_argument("--version", action="version", version=f"tfquant {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)

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
    decompress.add_argument(
        "--max_pixels",
        type=_positive,
        default=container.MAX_PIXELS,
        metavar="N",
        help="refuse files that say they are larger (default: %(default)s)",
    )
    decompress.set_defaults(command=compressing.decompress)

    export = commands.add_parser(
        "export", help="training run to exported model, from its newest readable checkpoint"
    )
    export.add_argument("run", metavar="RUN", help="folder of a run: finished, stopped or diverged")
    export.add_argument("--out", metavar="DIR", help="folder to write (default: RUN/export)")
    export.add_argument(
        "--precision",
        default="float32",
        metavar="P",
        help="of the transforms, the bulk of the work: float32 (default), bfloat16 for CPUs that"
        " have it in hardware, float16 for GPUs; a model of one reads the files of another",
    )
    export.add_argument(
        "--files",
        type=int,
        choices=container.VERSIONS,
        default=container.VERSION,
        metavar="V",
        help="version of the .tfq files: 2 (default) decodes on every machine; 1 is for reading the"
        " files of a model that an older tfquant exported from the same run",
    )
    export.set_defaults(command=_export)

    records = commands.add_parser(
        "records", help="pictures to TFRecord shards, to train with --train_images=records:SET"
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

    for command in (compress, records):
        command.add_argument("--background", type=_colour, metavar="COLOUR", help=background.HELP)
        command.add_argument(
            "--page",
            type=_positive,
            metavar="N",
            help="page or frame of files that have several, from 1 (default: the first that is no"
            " thumbnail)",
        )
    for command in (compress, decompress, records):
        command.add_argument(
            "--jobs",
            type=_positive,
            default=_JOBS,
            metavar="N",
            help="files of a folder that are worked on at once (default: %(default)s)",
        )
    for command in (compress, decompress, export, records):
        command.add_argument(
            "--overwrite", action="store_true", help="replace the output if there is one"
        )

    for name, help in _PROGRAM_HELP.items():
        commands.add_parser(name, help=help, add_help=False)

    doctor = commands.add_parser("doctor", help="what works with this machine's packages")
    doctor.set_defaults(command=_doctor)

    listing = commands.add_parser("models", help="list, add and remove installed models")
    models.add_arguments(listing)
    listing.set_defaults(command=models.run)

    shown = commands.add_parser("demo", help="pretrained models on samples, and two trainings")
    demo.add_arguments(shown)
    shown.set_defaults(command=demo.run)

    viewer = commands.add_parser("view", help="a page of pictures through a model and other codecs")
    view.add_arguments(viewer)
    viewer.set_defaults(command=view.run)

    info = commands.add_parser("info", help="what a .tfq file's header says")
    info.add_argument("file", help="the .tfq file; - is standard input")
    info.set_defaults(command=compressing.info)
    return parser


def _doctor(arguments) -> None:
    del arguments
    from tfquant.commands import doctor

    report = doctor.examine()
    print(report)
    if not report.healthy:
        raise CommandError(dict(report.lines)["problem"])


def _export(arguments) -> None:
    out = arguments.out or os.path.join(arguments.run, model_file.FOLDER)
    outputs.check_new(out, arguments.overwrite)
    stack.import_tensorflow()
    import tensorflow as tf

    from tfquant.export import writing

    try:
        path, checkpoint = writing.export_run(
            arguments.run, out, arguments.precision, arguments.files
        )
    except (ValueError, tf.errors.OpError) as error:
        raise CommandError(error) from None
    made = model_file.read_manifest(path)
    print(f"{path}: {made.codec} {made.fingerprint}, {made.precision}, from {checkpoint}")


def _positive(text) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def _colour(text) -> tuple:
    try:
        return background.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(error) from None


if __name__ == "__main__":
    sys.exit(main())
