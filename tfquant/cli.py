"""The `tfquant` command: pictures to .tfq files and back, exported models, sets to train on.

    tfquant compress MODEL in.png out.tfq
    tfquant compress MODEL pictures/ files/
    tfquant decompress MODEL out.tfq back.png
    tfquant decompress MODEL files/ back/
    tfquant info out.tfq
    tfquant export RUN --out=MODEL
    tfquant records pictures/ SET --shards=16
    tfquant doctor

Bad input is one line on standard error and exit code 1, a wrong command line exit code 2. An output
file appears under its name when it is complete, or not at all; an existing one is replaced only
with --overwrite. In a folder one bad file does not stop the rest. TensorFlow is imported by the
commands that need a model, and when they have found nothing wrong before.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile

from tfquant import __version__, files, stack
from tfquant.coding import container
from tfquant.export import model_file

_JOBS = 2  # while the coder works on one picture, the networks do on another
_SHARDS = 16
_NAMED_COLOURS = {"black": (0, 0, 0), "white": (255, 255, 255)}


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_UMASK = _umask()  # asked for once: to ask is to change it, for all threads


class _CommandError(Exception):
    """Something that the user can put right; the message is one line."""


class _BadInput(_CommandError):
    """A picture that cannot be read."""


class _OutputError(_CommandError):
    """An output that cannot be written."""


class _Parser(argparse.ArgumentParser):
    """Answers a wrong command line with one line."""

    def error(self, message):
        self.exit(2, f"tfquant: {message} (see: {self.prog} --help)\n")


def main(argv=None) -> int:
    """Runs one command; returns the exit code: 0 done, 1 bad input, 2 wrong command line."""
    stack.silence()
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as stop:  # --help, --version, errors
        return int(stop.code or 0)
    try:
        arguments.command(arguments)
        sys.stdout.flush()
    except (
        container.BitstreamError, model_file.ModelError, stack.StackError, _CommandError
    ) as error:  # fmt: skip
        return _fail(error)
    except BrokenPipeError:  # `tfquant info ... | head`
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        system_said = f"{error.filename or 'input or output'}: {error.strerror}"
        return _fail(system_said if error.strerror else error)
    except MemoryError:
        return _fail("not enough memory for a picture of this size")
    except KeyboardInterrupt:
        return _fail("interrupted", code=130)
    return 0


def _fail(message, code=1) -> int:
    print(f"tfquant: {' '.join(str(message).split())}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="tfquant", description="Learned image compression: .tfq files.")
    parser.add_argument("--version", action="version", version=f"tfquant {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)

    compress = commands.add_parser("compress", help="picture to .tfq file, or a folder of them")
    compress.add_argument("model", metavar="MODEL", help="folder that training exported")
    compress.add_argument(
        "picture", help="8-bit or 16-bit RGB, grayscale or palette picture, or a folder"
    )
    compress.add_argument("file", help="the .tfq file to write, or a folder")
    compress.add_argument(
        "--background",
        type=_colour,
        metavar="COLOUR",
        help="composite transparent pixels over it: #rrggbb, R,G,B, black or white; "
        "without it such pictures are refused",
    )
    compress.set_defaults(command=_compress)

    decompress = commands.add_parser("decompress", help=".tfq file to picture, or a folder of them")
    decompress.add_argument("model", metavar="MODEL", help="the model the file was made with")
    decompress.add_argument("file", help="the .tfq file, or a folder")
    decompress.add_argument(
        "picture",
        help="the picture to write, in a lossless format (.png, ...), or a folder for .png files",
    )
    decompress.set_defaults(command=_decompress)

    for command in (compress, decompress):
        command.add_argument(
            "--max_pixels",
            type=_positive,
            metavar="N",
            help="refuse larger pictures (default: the model's limit, the same in both directions)",
        )

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
    export.add_argument(
        "--max_pixels",
        type=_positive,
        default=container.MAX_PIXELS,
        metavar="N",
        help="the model's limit of a picture, in both directions (default: %(default)s)",
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
        help=f"number of files (default: {_SHARDS}, or as many as there are pictures)",
    )
    records.set_defaults(command=_records)

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

    doctor = commands.add_parser("doctor", help="what works with this machine's packages")
    doctor.set_defaults(command=_doctor)

    info = commands.add_parser("info", help="what a .tfq file's header says")
    info.add_argument("file", help="the .tfq file")
    info.set_defaults(command=_info)
    return parser


def _compress(arguments) -> None:
    if files.isdir(arguments.picture):
        _compress_folder(arguments)
        return
    _check_output(arguments.file, arguments.picture, arguments.overwrite)
    image = _read_picture(arguments.picture, arguments.background)
    data = _load_model(arguments.model).compress(image, arguments.max_pixels)
    _write_file(arguments.file, data)
    height, width, _ = image.shape
    print(f"{arguments.file}: {len(data)} bytes, {8 * len(data) / (height * width):.4f} bpp")


def _compress_folder(arguments) -> None:
    from tfquant.commands import batch

    sources = _find_pictures(arguments.picture)
    _make_folder(arguments.file)
    tasks = batch.tasks(sources, arguments.picture, arguments.file, ".tfq")
    model = _load_model(arguments.model)

    def work(task):
        image = _read_picture(task.source, arguments.background)
        data = model.compress(image, arguments.max_pixels)
        _write_file(task.target, data)
        return len(data), image.shape[0] * image.shape[1]

    def describe(done):
        size, pixels = map(sum, zip(*done))
        return f", {size} bytes, {8 * size / pixels:.4f} bpp"

    _run_folder(work, tasks, arguments, arguments.file, describe)


def _decompress(arguments) -> None:
    if files.isdir(arguments.file):
        _decompress_folder(arguments)
        return
    _check_output(arguments.picture, arguments.file, arguments.overwrite)
    # All that can be found wrong before the model takes its time to load.
    manifest = model_file.read_manifest(arguments.model)
    data, bitstream = _read_file(arguments.file, arguments.max_pixels or manifest.max_pixels)
    bitstream.check_model(manifest.codec, manifest.fingerprint)
    from tfquant.data import images

    extension = os.path.splitext(arguments.picture)[1].lower()
    if extension not in images.LOSSLESS:
        raise _CommandError(
            f"{arguments.picture}: pictures are written as {', '.join(images.LOSSLESS)}, "
            f"not {extension!r}"
        )
    image = _load_model(arguments.model).decompress(data, arguments.max_pixels)
    _write_picture(arguments.picture, image)
    height, width, _ = image.shape
    print(f"{arguments.picture}: {width}x{height} pixels")


def _decompress_folder(arguments) -> None:
    from tfquant.commands import batch

    sources = batch.files_below(arguments.file, ".tfq")
    if not sources:
        raise _CommandError(f"{arguments.file}: no .tfq files in this folder")
    _make_folder(arguments.picture)
    tasks = batch.tasks(sources, arguments.file, arguments.picture, ".png")
    model = _load_model(arguments.model)

    def work(task):
        limit = arguments.max_pixels or model.manifest.max_pixels
        data, _ = _read_file(task.source, limit)
        _write_picture(task.target, model.decompress(data, arguments.max_pixels))
        return True

    _run_folder(work, tasks, arguments, arguments.picture, lambda done: "")


def _run_folder(work, tasks, arguments, out, describe) -> None:
    """Does all tasks whose file is not there yet, and prints what became of them.

    Args:
      work: makes a task's file.
      tasks: `batch.Task`s.
      arguments: the command's.
      out: the folder of the files.
      describe: says more about what `work` gave, a list.

    Raises:
      _CommandError: an output cannot be written, or, at the end, there were bad inputs.
    """
    from tfquant.commands import batch

    new = [task for task in tasks if arguments.overwrite or not os.path.exists(task.target)]
    for folder in sorted({os.path.dirname(task.target) for task in new}):
        _make_folder(folder)
    blamed = (_BadInput, container.BitstreamError, model_file.ModelError, OSError, MemoryError)
    results = batch.run(work, new, arguments.jobs, blamed, _fail)
    done = [result for result in results if result is not None]
    kept, failed = len(tasks) - len(new), len(new) - len(done)
    summary = f"{out}: {len(done)} of {len(tasks)} files made" + (describe(done) if done else "")
    if kept:
        summary += f"; {kept} there already (--overwrite makes them again)"
    print(summary)
    if failed:
        raise _CommandError(f"{failed} of {len(tasks)} files failed")


def _find_pictures(spec) -> list:
    from tfquant.data import images

    try:
        return images.find_images(spec)
    except images.ImageError as error:
        raise _CommandError(error) from None


def _read_picture(path, background):
    from tfquant.data import images

    try:
        return images.read_image(path, background=background)
    except images.ImageError as error:
        raise _BadInput(error) from None


def _read_file(path, max_pixels) -> tuple:
    """A .tfq file's bytes and what is in it."""
    with files.reading(path) as file:
        container.read_header(file)  # what is not ours is not read to its end
        file.seek(0)
        data = file.read()
    return data, container.Bitstream.from_bytes(data, max_pixels)


def _write_file(path, data: bytes) -> None:
    with _complete_or_absent(path) as temporary, open(temporary, "wb") as file:
        file.write(data)


def _write_picture(path, image) -> None:
    from tfquant.data import images

    with _complete_or_absent(path) as temporary:
        try:
            images.write_image(temporary, image)
        except images.ImageError as error:
            raise _OutputError(str(error).replace(temporary, path)) from None


def _info(arguments) -> None:
    with files.reading(arguments.file) as file:
        header = container.read_header(file)
    bpp = 8 * header.file_bytes / (header.height * header.width)
    print(
        f"file         {arguments.file}\n"
        f"format       {header.version}\n"
        f"codec        {header.codec}\n"
        f"fingerprint  {header.fingerprint}\n"
        f"picture      {header.width}x{header.height} (width x height)\n"
        f"size         {header.file_bytes} bytes, {bpp:.4f} bpp\n"
        f"streams      {len(header.lengths)}: {' '.join(map(str, header.lengths))} bytes\n"
        f"symbols      CRC-32 {header.symbols_crc:08x}"
    )
    if header.quality is not None:
        print(f"quality      {header.quality:g}")


def _doctor(arguments) -> None:
    del arguments
    from tfquant.commands import doctor

    report = doctor.examine()
    print(report)
    if not report.healthy:
        raise _CommandError(dict(report.lines)["problem"])


def _export(arguments) -> None:
    out = arguments.out or os.path.join(arguments.run, model_file.FOLDER)
    _check_new(out, arguments.overwrite)
    stack.import_tensorflow()
    import tensorflow as tf

    from tfquant.export import writing

    try:
        path, checkpoint = writing.export_run(
            arguments.run, out, arguments.precision, arguments.files, arguments.max_pixels
        )
    except (ValueError, tf.errors.OpError) as error:
        raise _CommandError(error) from None
    made = model_file.read_manifest(path)
    print(f"{path}: {made.codec} {made.fingerprint}, {made.precision}, from {checkpoint}")


def _records(arguments) -> None:
    _check_new(arguments.set, arguments.overwrite)
    paths = _find_pictures(arguments.pictures)
    stack.import_tensorflow()
    import tensorflow as tf

    from tfquant.commands import batch
    from tfquant.data import images, records

    bar = batch.ProgressBar(len(paths), sys.stderr)

    def skip(error):
        bar.clear()
        _fail(error)

    shards = arguments.shards or min(_SHARDS, len(paths))
    try:
        kept = records.write(
            paths, arguments.set, shards, jobs=arguments.jobs, skip=skip, done=bar.add
        )
    except (images.ImageError, tf.errors.OpError) as error:
        raise _CommandError(error) from None
    finally:
        bar.clear()
    print(f"{arguments.set}: {kept} of {len(paths)} pictures in {shards} shards")


def _load_model(path):
    stack.import_tensorflow()
    return model_file.ExportedModel.load(path)


def _check_output(output, source, overwrite) -> None:
    """Everything that can be wrong with the output's name, found before the work is done."""
    _check_local(output)
    folder = os.path.dirname(output) or "."
    if not os.path.isdir(folder):
        raise _CommandError(f"{output}: folder {folder} does not exist")
    if os.path.isdir(output):
        raise _CommandError(f"{output}: a folder, not a file to write")
    if os.path.exists(output) and os.path.exists(source) and os.path.samefile(output, source):
        raise _CommandError(f"{output}: output and input are the same file")
    _check_new(output, overwrite)


def _check_new(output, overwrite) -> None:
    if files.exists(output) and not overwrite:
        raise _CommandError(f"{output}: exists already; give --overwrite to replace it")


def _check_local(output) -> None:
    if not files.is_local(output):
        raise _CommandError(f"{output}: files are written on this machine alone")


def _make_folder(path) -> None:
    _check_local(path)
    try:
        os.makedirs(path or ".", exist_ok=True)
    except OSError as error:
        raise _OutputError(f"{path}: cannot be made: {error.strerror}") from None


@contextlib.contextmanager
def _complete_or_absent(path):
    """Gives the name of a temporary file beside `path`, which takes its place on success."""
    folder, name = os.path.split(path)
    try:
        # The extension stays last: it names the picture's format.
        descriptor, temporary = tempfile.mkstemp(
            ".partial" + os.path.splitext(name)[1], ".", folder or "."
        )
    except OSError as error:
        raise _OutputError(f"{path}: cannot be written: {error.strerror}") from None
    os.close(descriptor)
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_UMASK)  # mkstemp's files are for their owner alone
        os.replace(temporary, path)
    except OSError as error:
        raise _OutputError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _positive(text) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def _colour(text) -> tuple:
    named = _NAMED_COLOURS.get(text.lower())
    if named:
        return named
    with contextlib.suppress(ValueError):
        if text.startswith("#") and len(text) == 7:
            return tuple(bytes.fromhex(text[1:]))
        parts = tuple(int(part) for part in text.split(","))
        if len(parts) == 3 and all(0 <= part <= 255 for part in parts):
            return parts
    raise argparse.ArgumentTypeError(
        f"{text!r} is not a colour; known: #rrggbb, R,G,B with 0 to 255 each, "
        f"{', '.join(_NAMED_COLOURS)}"
    )


if __name__ == "__main__":
    sys.exit(main())
