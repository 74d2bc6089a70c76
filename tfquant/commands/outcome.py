"""How a command of `tfquant` ends: its errors, and the lines that it prints."""

from __future__ import annotations

import sys

from tfquant.data import messages


class CommandError(Exception):
    """Something that the user can put right; the message is one line."""


class BadInput(CommandError):
    """One item that cannot be worked on; the rest of a folder goes on."""


class OutputError(CommandError):
    """An output that cannot be written; the rest of a folder would fail as well."""


def fail(message, code: int = 1) -> int:
    """Prints one line on standard error; returns the exit code."""
    with messages.STDERR:
        print(f"tfquant: {' '.join(str(message).split())}", file=sys.stderr)
    return code
