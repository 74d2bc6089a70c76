"""Checks of names against known names, and lists of names in messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


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


def first_few(names: Sequence[str], most: int, between: str = ", ", last: str = " ") -> str:
    """Joins the first `most` names, and counts the other ones.

    Args:
      names: the names, or other short texts.
      most: number of names in the result.
      between: separates the names.
      last: separates the names from the count.
    """
    more = len(names) - most
    return between.join(names[:most]) + (f"{last}and {more} more" if more > 0 else "")
