"""Folders on the command line: files that are processed one by one or several at once.

A file that cannot be read is reported, and the others are processed. A file that cannot be written
ends the command, because a full disk or a read-only folder affects the others as well. An output is
written atomically and not made again, so the same command resumes after an interruption.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Callable

from tfquant import files
from tfquant.progress import ProgressBar


@dataclasses.dataclass(frozen=True)
class Task:
    """A file to make: `target` from `source`."""

    source: str
    target: str


def tasks(sources: Sequence[str], folder: str, out: str, extension: str) -> list[Task]:
    """Returns a task for each file below `folder`, with its target at the same place below `out`.

    No two targets are the same file, also on file systems that ignore case. Files that differ only
    by their extension keep it: `a.png.tfq` and `a.jpg.tfq`. If this is not enough, a number is
    added.
    """
    places = [os.path.relpath(source, folder) for source in sources]
    stems = [os.path.splitext(place)[0] for place in places]
    folders = {}

    def target(name: str) -> str:
        return os.path.join(out, name + extension)

    def key(name: str) -> str:
        parent, base = os.path.split(target(name))
        if parent not in folders:  # a link may lead to a folder of other targets
            folders[parent] = os.path.realpath(parent)
        return files.folded(os.path.join(folders[parent], base))

    parents = set()
    for place in places:
        parent = os.path.dirname(os.path.join(out, place))
        while len(parent) > len(out):
            parents.add(files.folded(os.path.realpath(parent)))
            parent = os.path.dirname(parent)
    names = files.distinct_names(list(zip(stems, places)), key, parents)
    return [Task(source, target(name)) for source, name in zip(sources, names)]


def run(
    work: Callable[[Task, bool], object],
    tasks: Sequence[Task],
    at_once: int,
    unreadable: tuple[type[BaseException], ...],
    say: Callable[[str], object],
) -> list[Any]:
    """Runs `work` for all tasks. Returns the results, None for tasks that failed.

    A task that lacks memory while others run is repeated alone at the end.

    Args:
      work: makes a task's file. Its second argument is true if no other task runs meanwhile.
      tasks: the tasks.
      at_once: number of threads.
      unreadable: exceptions that concern a single file; any other ends the work.
      say: called with a line for each of them.
    """
    bar = ProgressBar(len(tasks), sys.stderr)
    results = [None] * len(tasks)
    executor = concurrent.futures.ThreadPoolExecutor(at_once)
    try:
        for place, done in _finished(executor, work, tasks, at_once):
            try:
                results[place] = done.result()
            except unreadable as error:
                bar.clear()
                reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
                source = files.shown(tasks[place].source)
                say(reason if reason.startswith(source) else f"{source}: {reason}")
            bar.add()
    finally:
        bar.clear()
        executor.shutdown(cancel_futures=True)
    return results


def _finished(
    executor: concurrent.futures.Executor,
    work: Callable[[Task, bool], object],
    tasks: Sequence[Task],
    at_once: int,
) -> Iterator[tuple[int, concurrent.futures.Future]]:
    """Yields each task's index and its future, when it is done. The arguments are those of `run`.

    Up to the first success, tasks run one after the other: a model's first call takes long, because
    its graph is optimized, and parallel calls would each optimize it.
    """

    def run_alone(task: Task) -> concurrent.futures.Future:
        done = executor.submit(work, task, True)
        concurrent.futures.wait([done])
        return done

    rest = iter(enumerate(tasks))
    for place, task in rest:
        done = run_alone(task)
        yield place, done
        if done.exception() is None:
            break
    alone = at_once == 1
    places = {executor.submit(work, task, alone): place for place, task in rest}
    again = []
    for done in concurrent.futures.as_completed(places):
        if not alone and isinstance(done.exception(), MemoryError):
            again.append(places[done])
        else:
            yield places[done], done
    for place in again:
        yield place, run_alone(tasks[place])
