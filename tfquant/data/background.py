"""The colour behind transparent pixels, as users write it."""

from __future__ import annotations

import contextlib


class ColourError(ValueError):
    """Text that is no colour; the message is one line."""


NAMED = {"black": (0, 0, 0), "white": (255, 255, 255)}
HELP = (
    "composite transparent pixels over it: #rrggbb, R,G,B, black or white; without it such pictures"
    " are refused"
)


def parse(text: str) -> tuple:
    """(red, green, blue), each 0 to 255, from #rrggbb, R,G,B or a name in `NAMED`.

    Raises:
      ColourError: it is none of these; the message lists them.
    """
    named = NAMED.get(text.lower())
    if named:
        return named
    with contextlib.suppress(ValueError):
        if text.startswith("#") and len(text) == 7:
            return tuple(bytes.fromhex(text[1:]))
        parts = tuple(int(part) for part in text.split(","))
        if len(parts) == 3 and all(0 <= part <= 255 for part in parts):
            return parts
    raise ColourError(
        f"{text!r} is not a colour; known: #rrggbb, R,G,B with 0 to 255 each, {', '.join(NAMED)}"
    )
