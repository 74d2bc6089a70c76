"""Output files of the commands: written atomically, through links, and into pipes.

`-` is standard input or output. A link is followed, so it stays a link. A FIFO or a device gets the
bytes directly. Any other file appears under its name only when it is complete.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import tempfile

from tfquant import files
from tfquant.commands.outcome import BadInput, CommandError, OutputError

STANDARD = "-"
# Other names of standard input and output.
_STREAMS = ("/dev/stdin", "/dev/stdout", "/dev/fd/0", "/dev/fd/1", "/proc/self/fd/0",
            "/proc/self/fd/1")  # fmt: skip

# Errors that concern a single name. Other errors, such as a full disk, affect the next file as
# well.
_OF_THE_NAME = (
    errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.EISDIR, errno.ENOTDIR, errno.ENOENT,
    errno.ELOOP,
)  # fmt: skip

_PARTIAL = ".partial"  # end of the names of incomplete files


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_UMASK = _umask()  # read only once, because reading it changes it for all threads


def standard_name(path: str) -> str:
    """Returns `-` for a name of standard input or output, and any other path unchanged."""
    return STANDARD if path in _STREAMS else path


def standard_input() -> bytes:
    """Reads standard input to its end.

    Raises:
      BadInput: it is closed.
    """
    if sys.stdin is None:
        raise BadInput("-: standard input is closed")
    return sys.stdin.buffer.read()


def check(output: str, source: str, overwrite: bool) -> None:
    """Checks the name of an output before any work is done.

    Raises:
      CommandError: the output cannot be written, is the input, or exists already.
    """
    name = files.shown(output)
    if output == STANDARD:
        if sys.stdout is None:
            raise CommandError("-: standard output is closed")
        if sys.stdout.isatty():
            raise CommandError("-: standard output is a terminal; redirect it or name a file")
        return
    check_local(output)
    folder = os.path.dirname(output) or "."
    if not os.path.isdir(folder):
        raise CommandError(f"{name}: folder {files.shown(folder)} does not exist")
    if os.path.isdir(output):
        raise CommandError(f"{name}: a folder, not a file to write")
    if is_special(output):
        return
    if os.path.exists(output) and os.path.exists(source) and os.path.samefile(output, source):
        raise CommandError(f"{name}: output and input are the same file")
    check_new(output, overwrite)


def check_new(output: str, overwrite: bool) -> None:
    """Raises a CommandError if something exists at `output` that may not be replaced."""
    if files.exists(output) and not overwrite:
        raise CommandError(f"{files.shown(output)}: exists already; use --overwrite to replace it")


def check_local(output: str) -> None:
    """Raises a CommandError if `output` is on another machine."""
    if not files.is_local(output):
        raise CommandError(f"{files.shown(output)}: output must be on this machine")


def make_folder(path: str) -> None:
    """Creates a folder and its parents.

    Raises:
      OutputError: the folder cannot be created.
    """
    check_local(path)
    try:
        os.makedirs(path or ".", exist_ok=True)
    except FileExistsError:
        raise OutputError(f"{files.shown(path)}: a file, not a folder for the outputs") from None
    except OSError as error:
        raise OutputError(f"{files.shown(path)}: cannot be created: {error.strerror}") from None


def is_special(path: str) -> bool:
    """Returns true if a path is a FIFO, a socket or a device."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def write(path: str, data: bytes) -> None:
    """Writes a file atomically.

    Raises:
      BadInput: no file can have this name.
      OutputError: the file cannot be written.
    """
    try:
        if path == STANDARD:
            sys.stdout.flush()
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        elif is_special(path):
            with open(path, "wb") as file:
                file.write(data)
        else:
            _replace(_place(path), data)
    except BrokenPipeError:
        raise
    except OSError as error:
        kind = BadInput if error.errno in _OF_THE_NAME else OutputError
        reason = error.strerror or error
        raise kind(f"{files.shown(path)}: cannot be written: {reason}") from None


def _place(path: str) -> str:
    """Returns the path, or the file to which a link leads."""
    place = os.path.realpath(path) if os.path.islink(path) else path
    if os.path.islink(place):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return place


def remove_partial(path: str, process: int) -> None:
    """Removes the incomplete files that an ended process has left in the folder of `path`."""
    with contextlib.suppress(OSError):  # there is no such folder
        folder = os.path.dirname(_place(path)) or "."
        for name in os.listdir(folder):
            if name.startswith(_prefix(process)) and name.endswith(_PARTIAL):
                os.unlink(os.path.join(folder, name))


def _prefix(process: int) -> str:
    """Returns the start of the names of a process's incomplete files; they are hidden."""
    return f".{process}-"


def _replace(path: str, data: bytes) -> None:
    folder = os.path.dirname(path) or "."
    descriptor, temporary = tempfile.mkstemp(_PARTIAL, _prefix(os.getpid()), folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o666 & ~_UMASK)  # mkstemp gives access only to the owner
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
