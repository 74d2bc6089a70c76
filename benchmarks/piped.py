"""Two ends of a pipe: a process that was set up to do one thing, and does it when it is told to.

What is compared runs in processes of its own, perhaps of another Python, and takes turns. The
`Worker` here starts one and speaks with it, `serve` is what the process does:

    {"codec": ...}  --------------->  its one argument, the settings, as JSON
    run             --------------->  does it once
                    <---------------  seconds that it took, a JSON number
    (end of input)  --------------->  ends

Before the first line comes what is to be known of it, a JSON object. Standard library alone, for
environments that have little in common.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Callable


class WorkerFailed(RuntimeError):
    """A worker ended; the message is the last line that it wrote."""


class Worker:
    """A process that waits for its turns; used in a `with` statement.

    Args:
      python: the interpreter.
      script: what it runs, a file that calls `serve`.
      settings: for the script.
      environment: variables to set besides one's own.

    Attributes:
      facts: what the script told of itself.

    Raises:
      WorkerFailed: it could not be set up.
    """

    def __init__(self, python: str, script: str, settings: dict, environment: dict):
        # A file: a pipe that nobody reads would stop the process when it is full.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  open as long as the process
        self._process = subprocess.Popen(
            [python, script, json.dumps(settings)],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
        )  # fmt: skip
        self.facts = self._answer()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
        self._errors.close()

    def seconds(self, what: str = "run") -> float:
        """Lets it do `what` once."""
        return self._ask(what)

    def memory(self) -> float:
        """Bytes that it held at its highest."""
        return self._ask("memory")

    def _ask(self, what: str) -> float:
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            words = self._errors.read().strip().splitlines()
            raise WorkerFailed(words[-1] if words else "a worker ended without a word")
        return json.loads(line)


def serve(prepare: Callable[[dict], tuple]) -> None:
    """What a worker does.

    Args:
      prepare: settings -> what it can do, a function without arguments by name (`run` among them),
        and what is to be known of it. An exception of it ends the process with its message.
    """
    # Whatever else is printed must not get between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def answer(value):
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    abilities, facts = prepare(json.loads(sys.argv[1]))
    answer(facts)
    for line in sys.stdin:
        what = line.strip()
        answer(_peak_memory() if what == "memory" else _seconds(abilities[what]))


def _seconds(function: Callable) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _peak_memory() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
