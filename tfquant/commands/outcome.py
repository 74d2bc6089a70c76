"""Errors of the commands of `tfquant`, and the lines that they print."""

from __future__ import annotations

import sys

from tfquant import files
from tfquant.data import messages


class CommandError(Exception):
    """An error that the user can correct; the message is one line."""


class BadInput(CommandError):
    """An input that cannot be processed. The other files of a folder are not affected."""


class OutputError(CommandError):
    """An output that cannot be written. The other files of a folder would fail as well."""


def one_line(message: object) -> str:
    """Returns a message as one line of printable text."""
    return files.shown(files.one_line(message))


def fail(message: object, code: int = 1) -> int:
    """Prints one line on standard error. Returns the exit code."""
    with messages.STDERR:
        print(f"tfquant: {one_line(message)}", file=sys.stderr)
    return code
