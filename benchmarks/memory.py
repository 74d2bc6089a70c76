"""Measures memory and time of `tfquant compress` and `decompress` for large pictures.

    python benchmarks/memory.py MODEL --sizes=6000x4000,10000x10000
    python benchmarks/memory.py MODEL --sizes=3000x2000 --whole --rounds=3

MODEL is an exported model, such as `tfquant/pretrained/photographs/q38`. Each call is a process of
its own. The pictures repeat a made one. *Memory* is the largest resident set of the process,
*processor* its user and system time. `--whole` also computes the transforms without tiles, in
turns, and the ratio is the time with tiles divided by that without. The table shows medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).resolve().parent.parent
_BLOCK = 1000  # side of the picture that is repeated
_TILES, _WHOLE = "tiles", "whole"


def _call(way: str, verb: str, *arguments) -> dict:
    """Runs a command. Returns its seconds, its processor seconds and its largest memory in GiB."""
    command = [sys.executable, __file__, "--work", way, verb, *map(str, arguments)]
    start = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        if process.returncode:
            raise SystemExit(f"{verb}, {way}: {said.read().decode()[-2000:]}")
    return {
        "seconds": time.perf_counter() - start,
        "processor": usage.ru_utime + usage.ru_stime,
        "memory": usage.ru_maxrss / 2**20,
    }


def _work(way: str, arguments: list) -> int:
    """Runs the command line in this process."""
    from tfquant import cli, startup

    if way == _WHOLE:
        from tfquant.commands import choosing

        startup.import_tensorflow(choosing.MODEL_CODE)  # as in the command
        from tfquant.export import tiles

        tiles._margin = lambda *_: None  # as for a transform whose reach is unknown
    return cli.main([*arguments, "--overwrite", f"--max_pixels={1 << 40}"])


def _write_picture(path: Path, width: int, height: int) -> None:
    import numpy as np
    from PIL import Image

    from tfquant.data.dead_leaves import dead_leaves

    Image.MAX_IMAGE_PIXELS = None
    repeats = (-(-height // _BLOCK), -(-width // _BLOCK), 1)
    picture = np.tile(dead_leaves(0, _BLOCK), repeats)[:height, :width]
    Image.fromarray(picture).save(path, compress_level=1)


def _rows(model: str, size: tuple, ways: list, rounds: int):
    """Yields the rows of one size, as soon as they are measured."""
    width, height = size
    with tempfile.TemporaryDirectory() as folder:
        picture, file, back = (Path(folder, n) for n in ("picture.png", "file.tfq", "back.png"))
        # Another process, because memory that was used once counts for children as well.
        command = [sys.executable, __file__, "--picture", str(picture), str(width), str(height)]
        subprocess.run(command, cwd=ROOT, check=True)
        for verb, source, target in (("compress", picture, file), ("decompress", file, back)):
            found = {way: [] for way in ways}
            for _ in range(rounds):
                for way in ways:
                    found[way].append(_call(way, verb, model, source, target))
            medians = {
                way: {name: statistics.median(c[name] for c in calls) for name in calls[0]}
                for way, calls in found.items()
            }
            for way, median in medians.items():
                cells = [
                    f"{width}x{height}", verb, way, f"{median['memory']:.2f} GiB",
                    f"{median['processor']:.1f} s", f"{median['seconds']:.1f} s",
                ]  # fmt: skip
                whole = medians.get(_WHOLE) if way == _TILES else None
                for name in ("processor", "seconds"):
                    cells.append(f"{median[name] / whole[name]:.2f}" if whole else "")
                yield cells


def _size(text: str) -> tuple:
    width, height = text.split("x")
    return int(width), int(height)


def main() -> int:
    sys.path.insert(0, str(ROOT))
    if sys.argv[1:2] == ["--work"]:
        return _work(sys.argv[2], sys.argv[3:])
    if sys.argv[1:2] == ["--picture"]:
        _write_picture(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
        return 0
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", metavar="MODEL", help="folder of an exported model")
    parser.add_argument("--sizes", default="6000x4000", metavar="WxH,...")
    parser.add_argument("--whole", action="store_true", help="also without tiles")
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    ways = [_TILES, *([_WHOLE] if arguments.whole else [])]
    head = ["picture", "command", "transforms", "memory", "processor", "time"]
    print("| " + " | ".join([*head, "processor ratio", "time ratio"]) + " |")
    print("|---|---|---|---:|---:|---:|---:|---:|", flush=True)
    for size in map(_size, arguments.sizes.split(",")):
        for row in _rows(os.path.abspath(arguments.model), size, ways, arguments.rounds):
            print("| " + " | ".join(row) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
