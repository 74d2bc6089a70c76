"""Runs a command in a child process, and continues in another one if the child is ended.

TensorFlow reports a tensor for which there is no memory as an error. If its kernels or threads
cannot get memory, the process ends. Linux also ends the process if the whole machine runs out of
memory. `guarded` lets a child process do the work of a command. If the child is ended, another
child goes on. If one picture was in progress, the next child counts it as failed. If several were
in progress, the next child repeats them one at a time, to find the one that needs too much memory.

    parent: guarded() --fork--> child: the command, Journal.run(picture, work) for each picture
            waits                 | writes down which pictures begin and end
            forks again <---------+ ended by SIGSEGV, SIGABRT, SIGBUS, SIGKILL or the C library
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from types import FrameType
from typing import Any, BinaryIO

from tfquant import files
from tfquant.commands.outcome import BadInput, fail

# Signals that end a process which lacks memory.
_CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGKILL}
# The C library ends the process with this code, and a line of its own, if a new thread gets no
# memory. No command returns it.
_NO_THREAD = 127
_PR_SET_PDEATHSIG = 1
_LOST = "the process ended with {name}; most likely there is not enough memory for this picture"


class Journal:
    """The inputs (pictures or .tfq files) that the processes of a command have worked on.

    Attributes:
      ended: source -> result of the work, None if it failed.
      lost: source -> name of the signal (or the exit code) that ended the process while this input
        alone was in progress.
      interrupted: source -> id of the process that was ended during the work, also if several
        inputs were in progress.
      resumed: true in a child that goes on after another one. The caller must then work on one
        input at a time, so that the next end of a process has one possible cause.
    """

    def __init__(self, file: BinaryIO | None = None):
        self.ended: dict[str, Any] = {}
        self.lost: dict[str, str] = {}
        self.interrupted: dict[str, int] = {}
        self.resumed = False
        self._file = file

    def run(self, source: str, work: Callable[[], Any], alone: bool = True) -> Any:
        """Runs `work` and returns its result. Records its start and its end for later processes.

        Args:
          source: name of the input.
          work: returns a value that JSON can represent. In `ended`, None counts as a failure.
          alone: if false, work that lacks memory does not end. The caller repeats it.

        Raises:
          BadInput: an earlier process was ended while this input alone was in progress.
        """
        self._write(begin=source)
        result, ended = None, True
        try:
            if source in self.lost:
                raise BadInput(f"{files.shown(source)}: {_LOST.format(name=self.lost[source])}")
            result = work()
        except MemoryError:
            ended = alone
            raise
        finally:
            if ended:
                self._write(end=source, result=result)
        return result

    def _write(self, **line: Any) -> None:
        if self._file is not None:
            os.write(self._file.fileno(), json.dumps(line).encode() + b"\n")

    def goes_on(self, child: int, name: str) -> bool:
        """Reads what a child wrote before it was ended, and updates the attributes.

        Args:
          child: id of the process.
          name: name of the signal, or the exit code, that ended it.

        Returns:
          True if it was working on an input, so that another child can go on.
        """
        assert self._file is not None
        self._file.seek(0)
        begun = set()
        for line in map(json.loads, self._file):
            if "begin" in line:
                begun.add(line["begin"])
            else:
                begun.remove(line["end"])
                self.ended[line["end"]] = line["result"]
        self._file.truncate(0)
        self._file.seek(0)
        self.interrupted.update(dict.fromkeys(begun, child))
        if len(begun) == 1:
            self.lost[next(iter(begun))] = name
        self.resumed = True
        return bool(begun)


def guarded() -> Journal | int:
    """Continues in a child process.

    Returns:
      In the child, its journal. In the parent, the exit code of the command. Without Linux, without
      room for a temporary file, or if this process has loaded TensorFlow, there is no child, and
      the result is a journal that records nothing.
    """
    if sys.platform != "linux" or "tensorflow" in sys.modules:
        return Journal()
    try:
        file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  exists as long as the process
    except OSError:  # no space
        return Journal()
    journal = Journal(file)
    while True:
        for stream in filter(None, (sys.stdout, sys.stderr)):  # None if it was closed
            stream.flush()
        parent = os.getpid()
        child = os.fork()
        if not child:
            _end_with(parent)
            return journal
        code = _wait(child)
        if code >= 0 and code != _NO_THREAD:
            return code
        if code < 0 and -code not in _CRASHES:
            return 128 - code
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        if not journal.goes_on(child, name):
            return fail(f"the process ended with {name}; most likely there is not enough memory")


def _end_with(parent: int) -> None:
    """Ends this process when its parent ends."""
    import ctypes  # not at the start of every command

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _wait(child: int) -> int:
    """Returns the exit code of a child, or minus the number of the signal that ended it.

    Ctrl-C reaches the child as well, which reports it. Other requests to end are passed on.
    """

    def pass_on(number: int, frame: FrameType | None) -> None:
        del frame
        os.kill(child, number)

    before = {signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN)}
    for number in (signal.SIGTERM, signal.SIGHUP):
        before[number] = signal.signal(number, pass_on)
    try:
        _, status = os.waitpid(child, 0)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return os.waitstatus_to_exitcode(status)
