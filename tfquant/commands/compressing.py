"""The commands `compress`, `decompress` and `info`: one file, or a folder of them."""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import hashlib
import io
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, Callable

from tfquant import files
from tfquant.coding import container
from tfquant.commands import choosing, outputs
from tfquant.commands.outcome import BadInput, CommandError, OutputError, fail
from tfquant.commands.outputs import STANDARD
from tfquant.export import manifest_file
from tfquant.export import quality as scale
from tfquant.names import first_few

if TYPE_CHECKING:
    import numpy as np

    from tfquant.commands import batch
    from tfquant.data import finding, images

_STANDARD_INPUT = "standard input"
_NAMED = 3  # number of files that a note lists by name


def compress(arguments: argparse.Namespace) -> None:
    """Runs `tfquant compress`."""
    choosing.split_paths(arguments, "picture", "file", ".tfq")
    if files.isdir(arguments.picture):
        _compress_folder(arguments)
        return
    _check_no_other_file(arguments.file, arguments.picture)
    _check_output(arguments.file, arguments.picture, arguments)
    arguments.journal.run(arguments.picture, lambda: _compress_one(arguments))


def _check_no_other_file(output: str, source: str) -> None:
    """Raises a CommandError if the .tfq file would replace a file of another kind.

    The output is then most likely a picture that was meant as the input. A file with the name of a
    .tfq file can be a damaged one.
    """
    if output == STANDARD or output.lower().endswith(".tfq") or not os.path.isfile(output):
        return
    if os.path.exists(source) and os.path.samefile(output, source):
        return  # `outputs.check` says so
    with open(output, "rb") as file:
        start = file.read(len(container.MAGIC))
    if start and start != container.MAGIC:
        raise CommandError(
            f"{files.shown(output)}: exists already and is no .tfq file; name another output"
        )


def _check_output(output: str, source: str, arguments: argparse.Namespace) -> None:
    """Checks a single output, which an earlier process of this command may have begun to write."""
    process = arguments.journal.interrupted.get(source)
    if process is None:
        outputs.check(output, source, arguments.overwrite)
    else:
        outputs.remove_partial(output, process)


def _compress_one(arguments: argparse.Namespace) -> None:
    compressor = choosing.Compressor(arguments.model, choosing.Aim.of(arguments))
    picture = _read_picture(arguments.picture, arguments, compressor)
    compressor.load()
    with _naming(arguments.picture):
        made = compressor.compress(picture.pixels, arguments.max_pixels)
    outputs.write(arguments.file, made.data)
    height, width, _ = picture.pixels.shape
    bpp = 8 * len(made.data) / (height * width)
    line = f"{arguments.file}: {len(made.data)} bytes, {bpp:.4f} bpp ({made.model})"
    _say(arguments.file, files.shown(line))
    for note in filter(None, (*picture.notes, made.note)):
        _say(arguments.file, f"{_name(arguments.picture)}: {note}")


def decompress(arguments: argparse.Namespace) -> None:
    """Runs `tfquant decompress`."""
    choosing.split_paths(arguments, "file", "picture", ".png")
    if files.isdir(arguments.file):
        _decompress_folder(arguments)
        return
    outputs.check_local(arguments.picture)
    extension = _extension(arguments.picture)
    _check_output(arguments.picture, arguments.file, arguments)
    arguments.journal.run(arguments.file, lambda: _decompress_one(arguments, extension))


def _decompress_one(arguments: argparse.Namespace, extension: str) -> None:
    # Checks everything possible before the model loads, which takes time.
    with _naming(arguments.file):
        data, bitstream = _read_file(arguments.file, arguments.max_pixels)
    decompressor = choosing.Decompressor(arguments.model)
    with _naming(arguments.file):
        decompressor.check(bitstream, arguments.max_pixels)
    decompressor.load()
    with _naming(arguments.file):
        image = decompressor.decompress(data, arguments.max_pixels)
    outputs.write(arguments.picture, _encoded(image, extension, _mark(data, bitstream)))
    height, width, _ = image.shape
    _say(arguments.picture, f"{files.shown(arguments.picture)}: {width}x{height} pixels")


def info(arguments: argparse.Namespace) -> None:
    """Runs `tfquant info`."""
    with _naming(arguments.file):
        if arguments.file == STANDARD:
            header = container.read_header(io.BytesIO(outputs.standard_input()))
        else:
            with files.reading(arguments.file) as file:
                header = container.read_header(_seekable(file))
    bpp = 8 * header.file_bytes / (header.height * header.width)
    quality = "" if header.quality is None else f"quality      {scale.shown(header.quality)}\n"
    print(
        f"file         {_name(arguments.file)}\n"
        f"format       {header.version}\n"
        f"codec        {header.codec}\n"
        f"fingerprint  {header.fingerprint}\n"
        f"{quality}"
        f"picture      {header.width}x{header.height} (width x height)\n"
        f"size         {header.file_bytes} bytes, {bpp:.4f} bpp\n"
        f"streams      {len(header.lengths)}: {' '.join(map(str, header.lengths))} bytes\n"
        f"symbols      CRC-32 {header.symbols_crc:08x}"
    )


def _name(source: str) -> str:
    """Returns the name of an input in messages."""
    return _STANDARD_INPUT if source == STANDARD else files.shown(source)


@contextlib.contextmanager
def _naming(source: str) -> Iterator[None]:
    """Adds the name of an input to errors about its content, its model and its memory."""
    try:
        yield
    except (container.BitstreamError, manifest_file.ModelError) as error:
        raise BadInput(f"{_name(source)}: {error}") from None
    except MemoryError:
        raise BadInput(f"{_name(source)}: not enough memory") from None


def _say(output: str, line: str) -> None:
    """Prints a line of the result. Uses standard error if the file goes to standard output."""
    print(line, file=sys.stderr if output == STANDARD else sys.stdout)


@dataclasses.dataclass(frozen=True)
class _Existing:
    """An existing file where an output belongs.

    Attributes:
      reason: why it is not the output that would be made; "" if it is.
      replaceable: if true, tfquant made it, so --overwrite may replace it.
    """

    reason: str
    replaceable: bool = True


def _compress_folder(arguments: argparse.Namespace) -> None:
    from tfquant.commands import batch
    from tfquant.data import finding, images

    try:
        found = finding.search(arguments.picture)
    except images.ImageError as error:
        raise CommandError(error) from None
    compressor = choosing.Compressor(arguments.model, choosing.Aim.of(arguments))
    outputs.make_folder(arguments.file)
    tasks = batch.tasks(found.paths, arguments.picture, arguments.file, ".tfq")
    compressor.load()

    def work(task: batch.Task) -> dict:
        picture = _read_picture(task.source, arguments, compressor)
        made = compressor.compress(picture.pixels, arguments.max_pixels)
        outputs.write(task.target, made.data)
        height, width, _ = picture.pixels.shape
        own = [made.note] if made.note and made.deviation is None else []
        return {"source": task.source, "bytes": len(made.data), "pixels": height * width,
                "notes": [*picture.notes, *own], "deviation": made.deviation}  # fmt: skip

    def describe(done: list[dict]) -> str:
        size, pixels = (sum(made[name] for made in done) for name in ("bytes", "pixels"))
        return f", {size} bytes, {8 * size / pixels:.4f} bpp"

    def existing(task: batch.Task) -> _Existing:
        return _existing_file(task, compressor, arguments)

    def end(done: list[dict]) -> None:
        notes = collections.defaultdict(list)
        for made in done:
            for note in made["notes"]:
                notes[note].append(made["source"])
        for note, paths in notes.items():
            print(f"{some_names(paths)}: {note}")
        missed = [made for made in done if made["deviation"] is not None]
        if missed:
            missed.sort(key=lambda made: (-abs(made["deviation"]), made["source"]))
            worst_first = first_few([files.shown(made["source"]) for made in missed], _NAMED)
            print(f"{worst_first}: {compressor.note_of([made['deviation'] for made in missed])}")
        say_left_out(arguments.picture, found)

    _run_folder(work, tasks, arguments, arguments.file, existing, describe, end)
    check_complete(found)


def say_left_out(folder: str, found: finding.Found) -> None:
    """Prints a line that counts the skipped files of a `finding.Found`, if there are any."""
    if found.left_out():
        print(f"{files.shown(folder)}: skipped: {found.left_out()}")


def check_complete(found: finding.Found) -> None:
    """Raises a CommandError if a folder of a `finding.Found` could not be read."""
    if found.unreadable:
        raise CommandError(f"{len(found.unreadable)} folder(s) cannot be read")


def _decompress_folder(arguments: argparse.Namespace) -> None:
    from tfquant.commands import batch
    from tfquant.data import finding

    found = finding.with_extension(arguments.file, ".tfq")
    if not found.paths:
        raise CommandError(f"{files.shown(arguments.file)}: no .tfq files in this folder")
    model = choosing.Decompressor(arguments.model)
    outputs.make_folder(arguments.picture)
    tasks = batch.tasks(found.paths, arguments.file, arguments.picture, ".png")
    model.load()

    def work(task: batch.Task) -> bool:
        data, bitstream = _read_file(task.source, arguments.max_pixels)
        image = model.decompress(data, arguments.max_pixels)
        outputs.write(task.target, _encoded(image, ".png", _mark(data, bitstream)))
        return True

    def existing(task: batch.Task) -> _Existing:
        return _existing_picture(task, arguments.max_pixels)

    def end(done: list[bool]) -> None:
        del done
        say_left_out(arguments.file, found)

    _run_folder(work, tasks, arguments, arguments.picture, existing, end=end)
    check_complete(found)


def _run_folder(
    work: Callable[[batch.Task], Any],
    tasks: list[batch.Task],
    arguments: argparse.Namespace,
    out: str,
    existing: Callable[[batch.Task], _Existing],
    describe: Callable[[list], str] = lambda done: "",
    end: Callable[[list], None] = lambda done: None,
) -> None:
    """Runs all tasks whose output does not exist yet, and prints a summary.

    Args:
      work: makes the file of a task.
      tasks: `batch.Task`s.
      arguments: the command's arguments.
      out: the folder of the files.
      existing: task -> the `_Existing` at its target; called only if something exists there.
      describe: the results of `work` -> further text for the summary.
      end: takes the results, prints further lines after the summary.

    Raises:
      CommandError: an output cannot be written, or, raised at the end, some inputs failed.
    """
    from tfquant.commands import batch

    new, kept, refused = _new_tasks(tasks, arguments, existing)
    for folder in sorted({os.path.dirname(task.target) for task in new}):
        outputs.make_folder(folder)
    blamed = (
        BadInput, container.BitstreamError, manifest_file.ModelError, OSError, MemoryError,
        ValueError,
    )  # fmt: skip
    journal = arguments.journal
    jobs = 1 if journal.resumed else arguments.jobs
    before = list(journal.ended.values())
    results = before + batch.run(
        lambda task, alone: journal.run(task.source, lambda: work(task), alone),
        new,
        jobs,
        blamed,
        fail,
    )
    done = [result for result in results if result is not None]
    failed = len(results) - len(done) + refused
    summary = f"{len(done)} of {len(tasks)} files made" + (describe(done) if done else "")
    if kept:
        summary += f"; {kept} existed already (--overwrite makes them again)"
    print(f"{files.shown(out)}: {summary}")
    end(done)
    if failed:
        raise CommandError(f"{failed} of {len(tasks)} files failed")


def _new_tasks(
    tasks: list[batch.Task],
    arguments: argparse.Namespace,
    existing: Callable[[batch.Task], _Existing],
) -> tuple[list[batch.Task], int, int]:
    """Returns the tasks to run, and how many files are kept and how many are not replaced.

    Prints a line for each file that is not replaced.
    """
    journal = arguments.journal
    new, kept, refused = [], 0, 0
    for task in tasks:
        if task.source in journal.ended:
            continue
        if task.source in journal.interrupted:  # it was new, and its file may be complete
            outputs.remove_partial(task.target, journal.interrupted[task.source])
            new.append(task)
            continue
        found = _existing_special(task.target) or (
            existing(task) if os.path.exists(task.target) else None
        )
        if found is None or (arguments.overwrite and found.replaceable):
            new.append(task)
        elif not found.reason:
            kept += 1
        else:
            refused += 1
            advice = "use --overwrite to replace it" if found.replaceable else "move it elsewhere"
            if not journal.resumed:
                fail(f"{files.shown(task.target)}: not replaced: {found.reason}; {advice}")
    return new, kept, refused


def _existing_special(path: str) -> _Existing | None:
    if outputs.is_special(path):
        return _Existing("it is a FIFO, a socket or a device", False)
    return None


def _existing_file(
    task: batch.Task, compressor: choosing.Compressor, arguments: argparse.Namespace
) -> _Existing:
    """Compares an existing .tfq file with the one that would be made."""
    from tfquant.data import images

    try:
        data = files.read(task.target)
    except OSError as error:
        return _Existing(f"it cannot be read: {error.strerror or error}", False)
    ours = not data or data.startswith(container.MAGIC)
    try:
        found = container.Bitstream.from_bytes(data, container.NO_LIMIT)
    except container.BitstreamError as error:
        return _Existing(str(error), ours)
    try:
        sides = images.sides(task.source, arguments.page)
    except images.ImageError:
        return _Existing("")  # the picture is corrupt now; keep the only file made from it
    if sides != tuple(sorted((found.height, found.width))):
        return _Existing(f"it contains another picture, {found.width}x{found.height} pixels")
    try:
        difference = compressor.difference(
            found,
            len(data),
            lambda: _read_picture(task.source, arguments, compressor).pixels,
            arguments.max_pixels,
        )
    except (BadInput, manifest_file.ModelError) as error:
        return _Existing(f"it cannot be compared: {error}")
    if difference:
        return _Existing(difference)
    if files.is_local(task.source) and _changed_ns(task.source) > _changed_ns(task.target):
        return _Existing("it is older than the picture")
    return _Existing("")


def _changed_ns(path: str) -> int:
    return os.stat(path).st_mtime_ns


def _existing_picture(task: batch.Task, max_pixels: int | None) -> _Existing:
    """Compares an existing picture with the one that would be made."""
    from tfquant.data import images

    if os.path.isfile(task.target) and not os.path.getsize(task.target):
        return _Existing("it is an empty file")
    made_from = images.made_from(task.target)
    if made_from is None:
        return _Existing("it was not made by tfquant decompress", False)
    try:
        data, bitstream = _read_file(task.source, max_pixels)
    except (OSError, container.BitstreamError) as error:
        return _Existing(f"{files.shown(task.source)} cannot be read: {error}")
    if made_from != _mark(data, bitstream):
        return _Existing("it was made from another .tfq file")
    return _Existing("")


def _mark(data: bytes, bitstream: container.Bitstream) -> str:
    """Returns the text in a decompressed PNG that identifies its .tfq file."""
    digest = hashlib.sha256(data).hexdigest()[:16]
    return f"{bitstream.codec} {bitstream.fingerprint} {digest}"


def some_names(paths: list[str]) -> str:
    """Returns the first few paths in sorted order, and the number of the others."""
    return first_few([files.shown(path) for path in sorted(paths)], _NAMED)


def _read_picture(
    path: str, arguments: argparse.Namespace, compressor: choosing.Compressor
) -> images.Decoded:
    from tfquant.data import images

    def check(width: int, height: int) -> None:
        too_large = container.excess(height, width, compressor.limit(arguments.max_pixels))
        if too_large:
            raise images.ImageError(too_large)

    data = outputs.standard_input() if path == STANDARD else None
    name = _STANDARD_INPUT if path == STANDARD else path
    try:
        return images.read(name, arguments.background, data, page=arguments.page, check=check)
    except images.ImageMemoryError as error:
        raise _TooLittleMemory(error) from None
    except images.ImageError as error:
        raise BadInput(error) from None


class _TooLittleMemory(BadInput, MemoryError):
    """There is not enough memory to read a picture. A folder repeats it alone."""


def _read_file(path: str, max_pixels: int | None) -> tuple[bytes, container.Bitstream]:
    """Reads a .tfq file and returns its bytes and its content.

    Without a limit of pixels, the limit of the file's model applies when the file is decoded.
    """
    if path == STANDARD:
        data = outputs.standard_input()
    else:
        with files.reading(path) as file:
            file = _seekable(file)
            container.read_header(file)  # avoids reading all of a file of another kind
            file.seek(0)
            data = file.read()
    return data, container.Bitstream.from_bytes(data, max_pixels or container.NO_LIMIT)


def _seekable(file: BinaryIO) -> BinaryIO:
    """Returns the file, or a copy of its content if it is a pipe."""
    return file if file.seekable() else io.BytesIO(file.read())


def _extension(path: str) -> str:
    """Returns the extension of the lossless format to write. Pipes without one get PNG.

    Raises:
      CommandError: the format is not supported.
    """
    from tfquant.data import images

    extension = os.path.splitext(path)[1].lower()
    if extension in images.LOSSLESS:
        return extension
    if path == STANDARD or outputs.is_special(path):
        return ".png"
    known = ", ".join(images.LOSSLESS)
    raise CommandError(f"{files.shown(path)}: a picture must be {known}; got {extension!r}")


def _encoded(image: np.ndarray, extension: str, mark: str) -> bytes:
    from tfquant.data import images

    try:
        return images.encoded(image, extension, mark)
    except images.ImageError as error:
        raise OutputError(error) from None
