"""Background colour for transparent pixels, as written on the command line."""

from __future__ import annotations

import contextlib


class ColourError(ValueError):
    """Error: a text is not a colour. The message is one line."""


NAMED = {"black": (0, 0, 0), "white": (255, 255, 255)}
HELP = (
    "background colour for transparent pixels: #rrggbb, R,G,B, black or white; without it,"
    " transparent pictures are rejected"
)


def parse(text: str) -> tuple[int, int, int]:
    """Parses #rrggbb, R,G,B or a name in `NAMED` as (red, green, blue), each 0 to 255.

    Raises:
      ColourError: the text is none of these; the message lists them.
    """
    named = NAMED.get(text.lower())
    if named:
        return named
    with contextlib.suppress(ValueError):
        if text.startswith("#") and len(text) == 7:
            red, green, blue = bytes.fromhex(text[1:])
            return red, green, blue
        parts = tuple(int(part) for part in text.split(","))
        if len(parts) == 3 and all(0 <= part <= 255 for part in parts):
            return parts
    raise ColourError(
        f"{text!r} is not a colour; known: #rrggbb, R,G,B with 0 to 255 each, {', '.join(NAMED)}"
    )
