"""Capture of the messages that Pillow and libtiff print while they read a picture.

Pillow warns through `warnings` and `logging`, which are shared by the whole process. This module
separates the messages by thread. libtiff prints to file descriptor 2. That descriptor is redirected
while a TIFF file is decoded, by one thread at a time, which holds the lock `STDERR`. Code of this
package that prints to standard error takes the lock, so that its lines are never captured.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from typing import TextIO

# Held while descriptor 2 is redirected.
STDERR = threading.RLock()

# Lines that absl and TensorFlow write on descriptor 2.
_OF_A_LOG = re.compile(r"[IWEF]\d{4} |\d{4}-\d\d-\d\d |WARNING: ")
# Warnings that are no defect of a picture. Large pictures are accepted up to twice this limit.
# Python may collect a file of another picture.
_NOT_OF_A_PICTURE = ("DecompressionBombWarning", "ResourceWarning")
_MOST = 3  # messages of one picture that are reported in full
_PILLOWS_NAME = "tempfile.tif: "  # what Pillow tells libtiff as the name of every file
_local = threading.local()
_install_lock = threading.Lock()
_before = warnings.showwarning


@contextlib.contextmanager
def collected() -> Iterator[list[str]]:
    """Yields a list that receives Pillow's messages in this thread, one line each."""
    _install()
    outer = getattr(_local, "lines", None)
    lines: list[str] = []
    _local.lines = lines
    try:
        yield lines
    finally:
        _local.lines = outer


@contextlib.contextmanager
def native() -> Iterator[None]:
    """Adds the output of C libraries on descriptor 2 to the list of `collected`."""
    with STDERR, contextlib.ExitStack() as stack:
        try:
            sys.stderr.flush()
            kept = os.dup(2)
        except (OSError, ValueError, AttributeError):  # no standard error at all
            yield
            return
        stack.callback(os.close, kept)
        try:
            file = stack.enter_context(tempfile.TemporaryFile())
        except OSError:  # no room for a temporary file
            yield
            return
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            file.seek(0)
            for line in file.read().decode(errors="backslashreplace").splitlines():
                if _OF_A_LOG.match(line):  # from another thread
                    os.write(2, line.encode(errors="backslashreplace") + b"\n")
                else:
                    _add("libtiff: " + line.removeprefix(_PILLOWS_NAME))


def shortened(lines: list[str]) -> list[str]:
    """Returns the distinct messages in order.

    All except the first few are replaced by their count.
    """
    different = list(dict.fromkeys(line for line in lines if line))
    more = len(different) - _MOST
    return different[:_MOST] + ([f"and {more} more messages"] if more > 0 else [])


def _install() -> None:
    """Installs the two hooks unless they are installed; a test, for example, may have removed
    them.
    """
    global _before
    with _install_lock:
        if warnings.showwarning is not _show_warning:
            _before = warnings.showwarning
            warnings.showwarning = _show_warning
            # Warnings of every picture, not only the first one of a process.
            warnings.filterwarnings("always", module=r"PIL\.")
        logger = logging.getLogger("PIL")
        if not any(isinstance(handler, _Handler) for handler in logger.handlers):
            logger.addHandler(_Handler())
            logger.propagate = False


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if getattr(_local, "lines", None) is None:
        _before(message, category, filename, lineno, file, line)
    elif category.__name__ not in _NOT_OF_A_PICTURE:
        _add(str(message))


def _add(text: str) -> None:
    lines = getattr(_local, "lines", None)
    if lines is not None:
        lines.append(" ".join(text.split()))


class _Handler(logging.Handler):
    """Handler that collects Pillow's records, or passes them to the root logger."""

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(_local, "lines", None) is None:
            logging.getLogger().handle(record)
        elif record.levelno >= logging.WARNING:
            _add(record.getMessage())
