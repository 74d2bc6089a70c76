"""A folder belongs to what it was made for: nothing else goes on in it."""

from __future__ import annotations

import os


def check(folder: str | os.PathLike, flag: str, what: str, asked: dict, found: dict) -> None:
    """Compares what is asked for with what the folder holds, name by name.

    Args:
      folder: the folder.
      flag: that named it.
      what: it holds, in a word.
      asked, found: name -> value.

    Raises:
      ValueError: they differ; the message names in what.
    """
    differing = sorted(name for name in {**asked, **found} if asked.get(name) != found.get(name))
    if differing:
        raise ValueError(
            f"{folder} holds another {what} (differs in {', '.join(differing)}); name a new {flag},"
            " delete this folder, or repeat the flags of the first call to go on"
        )
