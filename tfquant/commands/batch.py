"""Folders on the command line: files that go through one by one or several at once.

One that cannot be read is named and the rest goes on. What cannot be written ends the work, since a
full disk or a folder that is not ours to write into awaits the rest as well. An output appears when
it is complete, and is not made again, so a command that was stopped goes on where it stood when it
is repeated.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import os
import sys
import time
from typing import Callable, TextIO

from tfquant import files


@dataclasses.dataclass(frozen=True)
class Task:
    """A file to make: `target` from `source`."""

    source: str
    target: str


def tasks(sources, folder: str, out: str, extension: str) -> list:
    """Every file below `folder` gets one of `extension` below `out`, in the same place.

    Files that differ by their extension alone keep it: `a.png.tfq` beside `a.jpg.tfq`.
    """
    places = [os.path.relpath(source, folder) for source in sources]
    stems = collections.Counter(os.path.splitext(place)[0] for place in places)
    found = []
    for source, place in zip(sources, places):
        stem = os.path.splitext(place)[0]
        name = (stem if stems[stem] == 1 else place) + extension
        found.append(Task(source, os.path.join(out, name)))
    return found


def files_below(folder: str, extension: str) -> list:
    """Paths of the files with that extension, sorted, without hidden ones."""
    return sorted(
        path
        for path in files.below(folder)
        if path.lower().endswith(extension) and not os.path.basename(path).startswith(".")
    )


def run(
    work: Callable[[Task], object],
    tasks: list,
    at_once: int,
    unreadable: tuple,
    say: Callable[[str], None],
) -> list:
    """What `work` gave for each task, None for those that failed.

    Args:
      work: makes a task's file.
      tasks: what is to be done.
      at_once: threads.
      unreadable: exceptions that a single file is to blame for; any other ends the work.
      say: takes a line for each of them.
    """
    bar = ProgressBar(len(tasks), sys.stderr)
    results = [None] * len(tasks)
    executor = concurrent.futures.ThreadPoolExecutor(at_once)
    try:
        for place, done in _finished(executor, work, tasks):
            try:
                results[place] = done.result()
            except unreadable as error:
                bar.clear()
                reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
                source = tasks[place].source
                say(reason if reason.startswith(source) else f"{source}: {reason}")
            bar.add()
    finally:
        bar.clear()
        executor.shutdown(cancel_futures=True)
    return results


def _finished(executor, work, tasks):
    """Each task's place and its future, when it is done.

    Up to the first success they go one after the other: a model's first call takes long, as its
    graph is optimized, and calls at the same time would each optimize it for themselves.
    """
    rest = iter(enumerate(tasks))
    for place, task in rest:
        done = executor.submit(work, task)
        concurrent.futures.wait([done])
        yield place, done
        if done.exception() is None:
            break
    places = {executor.submit(work, task): place for place, task in rest}
    for done in concurrent.futures.as_completed(places):
        yield places[done], done


class ProgressBar:
    """A line that is drawn again and again, on a terminal; elsewhere nothing.

    Args:
      total: of what there is to do.
      stream: where to draw.
    """

    _WIDTH = 30

    def __init__(self, total: int, stream: TextIO):
        self._total = total
        self._stream = stream
        self._done = 0
        self._since = time.monotonic()
        self._draw()

    def add(self) -> None:
        """One more is done."""
        self._done += 1
        self._draw()

    def clear(self) -> None:
        """Takes the bar away, until it is drawn again."""
        self._show("")

    def _draw(self) -> None:
        filled = self._WIDTH * self._done // max(self._total, 1)
        rate = self._done / max(time.monotonic() - self._since, 1e-9)
        bar = "=" * filled + "." * (self._WIDTH - filled)
        self._show(f"[{bar}] {self._done}/{self._total}, {rate:.1f} a second")

    def _show(self, text: str) -> None:
        if self._stream.isatty():
            self._stream.write(f"\r\x1b[K{text}")
            self._stream.flush()
