"""Measures speed and memory of training, coding and data, and prints one table.

    python benchmarks/bench.py
    python benchmarks/bench.py --codecs=ms_hyper,elic_zero --widths=48/80 --rows=step,start
    python benchmarks/bench.py --compressai_python=PYTHON --images=FOLDER

| row          | measured operation                                                         |
|--------------|----------------------------------------------------------------------------|
| `step`       | a training step, for every codec, width and precision                      |
| `compress`   | a 768x512 picture to streams; only the transforms have the row's precision |
| `decompress` | streams to the picture                                                     |
| `folder`     | 768x512 pictures to files by `tfquant compress`, with --jobs=2 and 1       |
| `encode`     | range coding of a million symbols                                          |
| `decode`     | range decoding of a million symbols                                        |
| `crops`      | a training batch, of embedded dead leaves and, if given, of `--images`     |
| `start`      | `train.py` from its start to the end of its first step, as for `step`      |
| `call`       | `tfquant --help` from its start to its end                                 |

*Of peak* compares two rates of operations. The first is that of the measured operation: its
convolutions and matrix products, where the backward pass counts twice the forward pass. The second
is that of a product of two 2048x2048 matrices in the same process and precision. *Memory* is the
maximum memory of the process. *CompressAI* is the time of the equivalent operation in CompressAI,
and *ratio* is our time divided by it. CompressAI needs an environment of its own;
`--compressai_python` gives its interpreter.

Every row has a separate process for each side. The processes take turns, with one run each per
round, so that other load on the machine slows both. The table shows medians.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from typing import NamedTuple

import piped

HERE = os.path.dirname(os.path.abspath(__file__))
HEAD = ("what", "of", "precision", "N/M", "time", "of peak", "memory", "CompressAI", "ratio")
ROWS = ("step", "compress", "decompress", "folder", "encode", "decode", "crops", "start", "call")

# Makes the C library's allocator keep the memory that PyTorch frees after every tensor.
KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_TOP_PAD_": str(2**26),
}


class Subject(NamedTuple):
    """A codec at a width, and the precision of its networks."""

    codec: str
    widths: dict
    precision: str


class Measured(NamedTuple):
    """Medians over the rounds.

    Attributes:
      seconds: seconds of one run.
      share: share of the machine's peak.
      memory: bytes.
      facts: facts that the worker reported.
      beside: seconds of the compared operation, or None if there is none.
    """

    seconds: float
    share: float
    memory: float
    facts: dict
    beside: float | None


class Bench:
    """Measures rows, which are lists of strings under `HEAD`.

    Args:
      arguments: arguments of the command line.
    """

    def __init__(self, arguments):
        self._arguments = arguments
        self._subjects = [
            Subject(codec, widths, precision)
            for codec in arguments.codecs
            for widths in arguments.widths
            for precision in arguments.precisions
        ]
        self._fastest_step = None
        self.versions = {}

    def rows(self):
        """Yields the rows in order, as soon as they are measured."""
        for what in self._arguments.rows:
            if what in ("step", "start"):
                measure = self._step if what == "step" else self._start
                yield from map(measure, self._subjects)
            elif what in ("compress", "decompress", "folder"):
                measure = self._folder if what == "folder" else self._coding
                for subject in self._subjects:
                    yield measure(what, subject)
            elif what in ("encode", "decode"):
                yield self._coder(what)
            elif what == "crops":
                given = [self._arguments.images] if self._arguments.images else []
                yield from map(self._crops, ["", *given])
            else:
                yield self._call()

    def _step(self, subject: Subject) -> list:
        found = self._measure("step", subject)
        self._fastest_step = min(found.seconds, self._fastest_step or found.seconds)
        return _row("step", subject, found)

    def _coding(self, what: str, subject: Subject) -> list:
        return _row(what, subject, self._measure(what, subject))

    def _folder(self, what: str, subject: Subject) -> list:
        alone = self._worker(what, subject, jobs=1)
        with alone, self._worker(what, subject, jobs=2) as worker:
            found = self._rounds(worker, alone)
        count = found.facts["count"]
        rates = [f"{count / seconds:.2f}" for seconds in (found.seconds, found.beside)]
        note = f"{rates[0]} pictures per second, with one job {rates[1]}"
        return _row(what, subject, found._replace(beside=None), note)

    def _coder(self, what: str) -> list:
        found = self._measure(what)
        rate = f"{found.facts['count'] / found.seconds / 1e6:.0f} million per second"
        return _row(what, "symbols", found, rate)

    def _crops(self, images: str) -> list:
        found = self._measure("crops", images=images)
        found = found._replace(seconds=found.seconds / found.facts["count"])
        faster = self._fastest_step and self._fastest_step / found.seconds
        note = f"{faster:.0f} times as fast as the fastest step" if faster else ""
        return _row("crops", "files" if images else "dead leaves", found, note)

    def _start(self, subject: Subject) -> list:
        start = time.perf_counter()
        with self._worker("start", subject, images=self._arguments.images) as worker:
            seconds = time.perf_counter() - start
            found = Measured(seconds, 0.0, worker.memory(), worker.facts, None)
        return _row("start", subject, found)

    def _call(self) -> list:
        seconds = []
        for _ in range(self._arguments.rounds):
            start = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "tfquant.cli", "--help"],
                cwd=os.path.dirname(HERE), stdout=subprocess.DEVNULL, check=True,
            )  # fmt: skip
            seconds.append(time.perf_counter() - start)
        return [
            "call",
            "`tfquant --help`",
            "",
            "",
            _duration(statistics.median(seconds)),
            *[""] * 4,
        ]

    def _settings(self, what: str, subject: Subject | None, more: dict) -> dict:
        a = self._arguments
        return {
            "what": what,
            **(subject._asdict() if subject else {}),
            **{"plan": a.plan, "batch_size": a.batch_size, "crop": a.crop},
            **more,
        }

    def _worker(self, what: str, subject: Subject | None = None, **more) -> piped.Worker:
        settings = self._settings(what, subject, more)
        worker = piped.Worker(sys.executable, os.path.join(HERE, "worker.py"), settings, {})
        self.versions["ours"] = worker.facts["version"]
        return worker

    def _measure(self, what: str, subject: Subject | None = None, **more) -> Measured:
        python = self._arguments.compressai_python
        with self._worker(what, subject, **more) as worker:
            if not (python and subject):
                return self._rounds(worker, None)
            script = os.path.join(HERE, "compressai_worker.py")
            settings = self._settings(what, subject, more)
            with piped.Worker(python, script, settings, KEEP_MEMORY) as other:
                self.versions["CompressAI"] = other.facts["version"]
                return self._rounds(worker, other if other.facts["able"] else None)

    def _rounds(self, worker: piped.Worker, other: piped.Worker | None) -> Measured:
        turns = []
        for _ in range(self._arguments.rounds):
            turn = [worker.seconds("peak"), worker.seconds()]
            turns.append(turn + ([other.seconds()] if other else []))
        peak, seconds, *theirs = map(statistics.median, zip(*turns))
        rate = worker.facts.get("operations", 0.0) / seconds
        share = rate / (worker.facts["peak_operations"] / peak)
        return Measured(seconds, share, worker.memory(), worker.facts, *(theirs or [None]))


def _row(what: str, subject: Subject | str, found: Measured, note: str = "") -> list:
    if isinstance(subject, Subject):
        widths = "/".join(map(str, subject.widths.values()))
        cells = [what, f"`{subject.codec}`", subject.precision, widths]
    else:
        cells = [what, subject, "", ""]
    time_and_note = _duration(found.seconds) + (f", {note}" if note else "")
    beside = ["", ""]
    if found.beside:
        beside = [_duration(found.beside), f"{found.seconds / found.beside:.2f}"]
    share = f"{100 * found.share:.0f} %" if found.share else ""
    return [*cells, time_and_note, share, f"{found.memory / 2**30:.2f} GiB", *beside]


def _duration(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{1e3 * seconds:.0f} ms" if seconds >= 0.01 else f"{1e3 * seconds:.1f} ms"


def _list(text: str) -> list:
    return text.split(",")


def _widths(text: str) -> list:
    pairs = [pair.split("/") for pair in text.split(",")]
    return [{"N": int(N), "M": int(M)} for N, M in pairs]


def _rows(text: str) -> list:
    for name in _list(text):
        if name not in ROWS:
            raise argparse.ArgumentTypeError(f"unknown row {name!r}; known: {', '.join(ROWS)}")
    return _list(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=_rows, default=list(ROWS), help="default: all")
    parser.add_argument("--codecs", type=_list, default=["ms_hyper"])
    parser.add_argument("--widths", type=_widths, default=_widths("128/192"), metavar="N/M,...")
    parser.add_argument("--precisions", type=_list, default=["float32", "bfloat16"])
    parser.add_argument("--plan", default="sua_ste", help="quantization plan of the steps")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--crop", type=int, default=256, help="side of the training crops")
    parser.add_argument("--images", default="", help="folder of pictures for `crops` and `start`")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--compressai_python", default="", metavar="PYTHON",
        help="interpreter of an environment with CompressAI, to measure it in turns",
    )  # fmt: skip
    return parser


def main() -> None:
    bench = Bench(_parser().parse_args())
    print("| " + " | ".join(HEAD) + " |")
    print("|---|---|---|---|---:|---:|---:|---:|---:|", flush=True)
    try:
        for row in bench.rows():
            print("| " + " | ".join(row) + " |", flush=True)
    except piped.WorkerFailed as error:
        sys.exit(f"bench.py: {error}")
    cores = len(os.sched_getaffinity(0))
    versions = ", ".join(bench.versions.values())
    print(f"\n{cores} cores, {platform.machine()}; {versions}.")


if __name__ == "__main__":
    main()
