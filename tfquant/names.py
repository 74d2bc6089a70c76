"""Checks of names against known names."""

from __future__ import annotations

from collections.abc import Iterable


def check_known(
    what: str, name: str, known: Iterable[str], error: type[Exception] = ValueError
) -> None:
    """Raises `error`, with the known names in its message, if `name` is not one of them.

    Args:
      what: the kind of thing, such as "codec" or "--conventional: codec".
      name: the name to check.
      known: the allowed names.
      error: the exception to raise.
    """
    if name not in known:
        before, colon, kind = what.rpartition(": ")
        raise error(f"{before}{colon}unknown {kind} {name!r}; known: {', '.join(known)}")
