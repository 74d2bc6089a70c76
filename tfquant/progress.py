"""A bar for work on many items, on a terminal."""

from __future__ import annotations

import time
from typing import TextIO

from tfquant.data import messages


class ProgressBar:
    """A progress line that is redrawn on a terminal. Without a terminal, prints nothing.

    Args:
      total: total number of items.
      stream: stream to draw on.
    """

    _WIDTH = 30

    def __init__(self, total: int, stream: TextIO):
        self._total = total
        self._stream = stream
        self._done = 0
        self._since = time.monotonic()
        self._draw()

    def add(self) -> None:
        """Counts one more finished item."""
        self._done += 1
        self._draw()

    def clear(self) -> None:
        """Removes the bar until it is drawn again."""
        self._show("")

    def _draw(self) -> None:
        filled = self._WIDTH * self._done // max(self._total, 1)
        rate = self._done / max(time.monotonic() - self._since, 1e-9)
        bar = "=" * filled + "." * (self._WIDTH - filled)
        self._show(f"[{bar}] {self._done}/{self._total}, {rate:.1f} per second")

    def _show(self, text: str) -> None:
        if self._stream.isatty():
            with messages.STDERR:
                self._stream.write(f"\r\x1b[K{text}")
                self._stream.flush()
