"""Markdown tables, as reports and analyses write them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence, rows: Iterable[Sequence]) -> str:
    """Makes a Markdown table with aligned columns: the first to the left, all others to the right.

    Args:
      head: the columns' titles.
      rows: one sequence of cells for each row, as long as `head`. A cell is shown by `str`, and a
        vertical bar in it is escaped.
    """
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = [
        "| " + " | ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) + " |"
        for row in cells
    ]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([lines[0], "| " + " | ".join(rule) + " |", *lines[1:]])
