"""Tests a loaded model under load: memory over a thousand calls, and equal bytes from many threads.

    python benchmarks/reliability.py runs/quickstart/export
    python benchmarks/reliability.py runs/quickstart/export --calls=1000 --sides=16,512 --threads=8

The sizes of pictures repeatedly grow and shrink between the two sides, so that successive sizes
differ and every size recurs in the next cycle. Anything that is cached per size (oneDNN caches what
it compiled for a shape) is cached after the first cycle. The first fifth of the calls is a warm-up.
After it, the memory (resident, with trimmed arenas) may grow by at most --bound. The exit code is 1
if it grows further, or if a thread gets other bytes than a single thread.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import ctypes
import gc
import os
import sys

import numpy as np

_BOUND = 32  # MiB, over 80 % of the calls
_STEPS = 12  # number of sizes from the smallest to the largest


def resident() -> int:
    """Returns the resident memory of the process in bytes, after releasing unused memory."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # no glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Returns smooth noise, uint8 [height, width, 3], a function of the arguments."""
    rng = np.random.default_rng([seed, height, width])
    steps = rng.normal(scale=2.0, size=(height, width, 3)).cumsum(0).cumsum(1)
    return np.uint8(127.5 + 127.5 * np.sin(steps / 40.0))


def turns(smallest: int, largest: int, calls: int):
    """Yields `calls` sizes that grow and shrink; height and width change at different speeds."""
    sides = np.unique(np.geomspace(smallest, largest, _STEPS).round().astype(int)).tolist()
    there_and_back = sides + sides[-2:0:-1]
    for call in range(calls):
        yield tuple(there_and_back[(speed * call) % len(there_and_back)] for speed in (1, 3))


def growth(model, calls: int, smallest: int, largest: int, say=print) -> int:
    """Returns the maximum growth of the memory in bytes, after the first fifth of the calls."""
    start, highest = None, 0
    for call, size in enumerate(turns(smallest, largest, calls)):
        image = picture(*size)
        assert model.decompress(model.compress(image)).shape == image.shape
        if call + 1 in range(calls // 5, calls + 1, max(calls // 10, 1)):
            now = resident()
            start = now if start is None else start
            highest = max(highest, now - start)
            say(f"  after {call + 1:5d} calls {now / 2**20:8.1f} MiB")
    return highest


def differing(model, threads: int, sizes, rounds: int) -> int:
    """Returns the number of pictures whose bytes differ between many threads and one thread.

    There are `rounds` pictures for every size.
    """
    images = [picture(*size, seed) for seed in range(rounds) for size in sizes]
    alone = [model.compress(image) for image in images]
    pictures_alone = [model.decompress(data) for data in alone]
    with concurrent.futures.ThreadPoolExecutor(threads) as executor:
        together = list(executor.map(model.compress, images))
        pictures_together = list(executor.map(model.decompress, alone))
    return sum(
        a != b or not np.array_equal(p, q)
        for a, b, p, q in zip(alone, together, pictures_alone, pictures_together)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", help="folder of an exported model")
    parser.add_argument("--calls", type=int, default=1000, help="calls of each function")
    parser.add_argument("--sides", default="16,512", help="smallest and largest side, pixels")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--bound", type=int, default=_BOUND, help="allowed growth of memory, MiB")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from tfquant.export.model_file import ExportedModel

    model = ExportedModel.load(arguments.model)
    smallest, largest = map(int, arguments.sides.split(","))
    grown = growth(model, arguments.calls, smallest, largest)
    print(
        f"{arguments.calls} calls of compress and decompress with sides of {smallest} to {largest}"
        f" pixels: memory grew by {grown / 2**20:.1f} MiB; the limit is {arguments.bound} MiB"
    )
    sizes = list(turns(smallest, largest, 6))
    wrong = differing(model, arguments.threads, sizes, 4)
    total = 4 * len(sizes)
    print(f"{wrong} of {total} pictures differ between {arguments.threads} threads and one")
    return int(grown > arguments.bound << 20 or wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
