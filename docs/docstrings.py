"""Turns this project's docstrings into reStructuredText for Sphinx.

The docstrings are plain text: code stands in single backticks, indented blocks are code or
diagrams, and tables are Markdown. The sections (`Args:`, `Returns:`, ...) are left to
`sphinx.ext.napoleon`.
"""

from __future__ import annotations

import re

_CODE = re.compile(r"(`+[^`]+`+)")
_SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields|Note|Example|Examples):$")


def convert(app, what, name, obj, options, lines: list) -> None:
    """Replaces the lines of a docstring; a handler of `autodoc-process-docstring`."""
    del app, name, obj, options
    lines[:] = to_rst("\n".join(lines)).splitlines()
    if what in ("attribute", "property"):
        # Napoleon takes what stands before a colon in the first line for the type.
        lines.insert(0, "\\ ")


def skip_foreign(app, what, name, obj, skip, options):
    """Leaves out members that other packages wrote, and fields that have no text of their own."""
    del app, what, name, options
    module = getattr(obj, "__module__", None) or "tfquant"
    unwritten = (getattr(obj, "__doc__", None) or "").startswith("Alias for field number")
    return True if unwritten or not module.startswith("tfquant") else skip


def to_rst(text: str) -> str:
    """Converts a docstring to reStructuredText."""
    blocks = re.split(r"\n(?:[ \t]*\n)+", text)
    converted, margin = [], 0
    for place, block in enumerate(blocks):
        lines = block.splitlines()
        indents = [_indent(line) for line in lines if line.strip()]
        is_code = place > 0 and indents and min(indents) >= margin + 4
        if is_code:
            converted.append(f"{' ' * margin}::")
            converted.append("\n".join(f"  {line}" for line in lines))
            continue
        if lines and all(line.lstrip().startswith("|") for line in lines):
            converted.append(_table(lines))
        else:
            converted.append(_prose(block))
        if lines:
            section = _SECTION.match(lines[0].strip())
            margin = 2 if section else indents[0]
    return "\n\n".join(converted)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _prose(text: str) -> str:
    parts = _CODE.split(text)
    for place, part in enumerate(parts):
        if place % 2:
            code = f"``{part.strip('`')}``"
            before = "\\ " if re.search(r"[\w]$", parts[place - 1]) else ""
            after = "\\ " if re.match(r"[\w]", parts[place + 1]) else ""
            parts[place] = before + code + after
        else:
            part = re.sub(r"([*|])", r"\\\1", part)
            parts[place] = re.sub(r"(?<=\w)_(?!\w)", r"\\_", part)
    return "".join(parts)


def _table(lines: list) -> str:
    margin = " " * _indent(lines[0])
    rows = [_cells(line) for line in lines if not set(line.strip()) <= set("|-: ")]
    made = [f"{margin}.. list-table::", f"{margin}   :header-rows: 1", ""]
    for row in rows:
        for place, cell in enumerate(row):
            mark = "* -" if place == 0 else "  -"
            made.append(f"{margin}   {mark} {_prose(cell)}")
    return "\n".join(made)


def _cells(line: str) -> list:
    inner = line.strip().strip("|")
    whole = _CODE.sub(lambda found: found[0].replace("|", "\0"), inner)
    return [cell.strip().replace("\0", "|") for cell in whole.split("|")]
