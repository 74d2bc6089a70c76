"""Two ends of a pipe: a process that prepares one task and runs it on request.

Compared operations run in separate processes, possibly of different Pythons, and take turns.
`Worker` starts such a process and communicates with it. `serve` runs in the process:

    {"codec": ...}  --------------->  its only argument, the settings, as JSON
    run             --------------->  runs the task once
                    <---------------  seconds that it took, a JSON number
    (end of input)  --------------->  ends

Before the first request, the process sends facts about itself, a JSON object. This module uses only
the standard library, because the environments have little in common.
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
    """Error: a worker has ended. The message is the last line that it wrote."""


class Worker:
    """A process that waits for its turns; use it in a `with` statement.

    Args:
      python: the interpreter.
      script: a file that calls `serve`.
      settings: settings of the script.
      environment: environment variables to set in addition to those of this process.

    Attributes:
      facts: facts that the script sent about itself.

    Raises:
      WorkerFailed: the worker could not be started.
    """

    def __init__(self, python: str, script: str, settings: dict, environment: dict):
        # A file instead of a pipe, because a full pipe that nothing reads would block the process.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed in __exit__
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
        """Runs `what` once and returns its seconds."""
        return self._ask(what)

    def memory(self) -> float:
        """Returns the maximum memory of the process in bytes."""
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
            raise WorkerFailed(words[-1] if words else "a worker ended without a message")
        return json.loads(line)


def serve(prepare: Callable[[dict], tuple]) -> None:
    """Runs the worker's end of the pipe.

    Args:
      prepare: settings -> (functions without arguments by name, including `run`; facts about the
        worker). If it raises an exception, the process ends with its message.
    """
    # Keeps other output out of the answers.
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
