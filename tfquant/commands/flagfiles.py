"""Flagfiles from any editor: with a byte-order mark, in UTF-16, or with Windows' line ends."""

from __future__ import annotations

from tfquant import files

_FLAG = "flagfile"


class FlagfileError(ValueError):
    """Error: a flagfile is invalid. The message is one line."""


def expanded(arguments: list[str]) -> list[str]:
    """Replaces every --flagfile by its flags, as absl does.

    Lines that are empty or begin with `#` or `//` are skipped. A file may include others.

    Args:
      arguments: flags, without the program's name.

    Raises:
      FlagfileError: a file cannot be read, is not text, or includes itself.
    """
    return _expanded(list(arguments), [])


def flags_in(text: str, path: str) -> list[str]:
    """Returns the flags in the text of a flagfile, as `expanded` does.

    Args:
      text: the text.
      path: path of the file, for messages.
    """
    return _expanded(_flags_in(text, files.shown(path)), [path])


def _expanded(arguments: list[str], within: list[str]) -> list[str]:
    result: list[str] = []
    while arguments:
        argument = arguments.pop(0)
        if argument == "--":
            return [*result, argument, *arguments]
        name, equals, path = argument.partition("=")
        if name not in (f"--{_FLAG}", f"-{_FLAG}"):
            result.append(argument)
            continue
        if not equals:
            if not arguments:
                raise FlagfileError(f"--{_FLAG} must name a file")
            path = arguments.pop(0)
        result += _expanded(_lines(path, within), [*within, path])
    return result


def _lines(path: str, within: list) -> list:
    name = files.shown(path)
    if path in within:
        raise FlagfileError(f"--{_FLAG}: {name} names itself")
    try:
        text = files.decoded(files.read(files.expanded(path)))
    except OSError as error:
        raise FlagfileError(f"--{_FLAG}: {name}: {error.strerror or error}") from None
    return _flags_in(text, name)


def _flags_in(text: str, name: str) -> list:
    """Returns the flags of a file, which may include other ones."""
    if "\0" in text:
        raise FlagfileError(f"--{_FLAG}: {name} is not a text file")
    lines = [line.strip() for line in text.split("\n")]
    lines = [line for line in lines if line and not line.startswith(("#", "//"))]
    for line in lines:
        if not line.startswith("-"):
            raise FlagfileError(f"--{_FLAG}: {name}: expected a line --flag=value, got {line!r}")
    return lines
