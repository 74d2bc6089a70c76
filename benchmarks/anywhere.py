"""Makes files under many conditions, decodes each under all of them, and prints the table.

    python benchmarks/anywhere.py MODEL... --images=PICTURES
    python benchmarks/anywhere.py MODEL... --images=PICTURES --odd=36 --python=classic=VENV/python

MODEL are exported models. Models of one fingerprint, such as exports of one run in two precisions,
read each other's files. Pictures are the files of a folder, and `--odd` made ones of odd sizes.
Each condition is a process of its own: settings of TensorFlow and oneDNN, numbers of threads,
pictures alone or in batches, the command line, the portable coder, the CPU where there is a GPU,
and other interpreters (`--python=NAME=PATH`, any number of times).

A cell is the number of files that do not decode, or that decode to other values than in the first
column. Values are the bytes of `y_hat`, which contain the predicted means where a codec quantizes
around them. Files that are equal to those of a row above are decoded once. Exit code 1 if a cell is
not 0.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent


def _threads(count: int) -> dict:
    return {name: str(count) for name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS")}


# Name -> (environment, way of calling the model).
CONDITIONS = {
    "default": ({}, "alone"),
    "oneDNN off": ({"TF_ENABLE_ONEDNN_OPTS": "0"}, "alone"),
    "SSE4.1": ({"ONEDNN_MAX_CPU_ISA": "SSE41"}, "alone"),
    "AVX2": ({"ONEDNN_MAX_CPU_ISA": "AVX2"}, "alone"),
    "AVX-512": ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}, "alone"),
    "1 thread": (_threads(1), "alone"),
    "8 threads": (_threads(8), "alone"),
    "batch": ({}, "batch"),
    "Python": ({}, "python"),
    "command": ({}, "command"),
    "portable coder": ({"TFQUANT_CODER": "portable"}, "python"),
    "no GPU": ({"CUDA_VISIBLE_DEVICES": "-1"}, "alone"),
}
_BATCH = 4


def odd_pictures(count: int) -> dict:
    """Name -> picture of odd sides from 1 to 257."""
    rng = np.random.default_rng(0)
    found = {}
    for number in range(count):
        height, width = 2 * rng.integers(0, 129, 2) + 1
        steps = rng.normal(scale=2.0, size=(height, width, 3)).cumsum(0).cumsum(1)
        found[f"odd {number:02}"] = np.uint8(127.5 + 127.5 * np.sin(steps / 40.0))
    return found


def _by_size(pictures: dict) -> list:
    """Batches of the names of pictures of one size."""
    sizes = {}
    for name, picture in pictures.items():
        sizes.setdefault(picture.shape, []).append(name)
    return [names[i : i + _BATCH] for names in sizes.values() for i in range(0, len(names), _BATCH)]


class _Signatures:
    """A model's SavedModel; `encode` and `decode` take and give dictionaries by name."""

    def __init__(self, path: str, batch: bool):
        import tensorflow as tf

        from tfquant import stack

        stack.load_operations()
        self._model = tf.saved_model.load(path)
        self._batch = batch

    def encode(self, pictures: dict) -> dict:
        compress, found = self._model.signatures["compress"], {}
        for names in _by_size(pictures) if self._batch else [[name] for name in pictures]:
            files = compress(images=np.stack([pictures[name] for name in names]))["tfq_bytes"]
            found.update(zip(names, files.numpy()))
        return found

    def decode(self, files: dict) -> dict:
        import tensorflow as tf

        decode = self._model.signatures["decode_latent"]

        def values(names):
            return decode(tfq_bytes=tf.constant([files[name] for name in names]))["y_hat"].numpy()

        found = {}
        for names in self._groups(files):
            try:
                latents = values(names)
            except tf.errors.OpError:
                latents = [_or_none(lambda name=name: values([name])[0]) for name in names]
            found.update(zip(names, map(_digest, latents)))
        return found

    def _groups(self, files: dict) -> list:
        if not self._batch:
            return [[name] for name in files]
        sides = {name: np.zeros(tuple(np.frombuffer(files[name][30:38], "<u4"))) for name in files}
        return _by_size({name: side[..., None] for name, side in sides.items()})


class _Loaded:
    """A model as Python uses it, without its synthesis transform."""

    def __init__(self, path: str):
        from tfquant.export.model_file import ExportedModel

        self._model = ExportedModel.load(path)

    def encode(self, pictures: dict) -> dict:
        return {name: self._model.compress(picture) for name, picture in pictures.items()}

    def decode(self, files: dict) -> dict:
        import tensorflow as tf

        from tfquant.coding.container import Bitstream

        def values(data):
            file = Bitstream.from_bytes(data)
            sides = (tf.constant(side, tf.int32) for side in (file.height, file.width))
            crc = tf.constant(file.symbols_crc, tf.int64)
            return self._model._functions.read(tf.constant(file.streams), *sides, crc).numpy()[0]

        return {
            name: _digest(_or_none(lambda data=data: values(data))) for name, data in files.items()
        }


class _Command:
    """A model on the command line, with folders."""

    def __init__(self, path: str):
        self._path = path

    def _run(self, verb: str, inputs: dict, extension: str, result: str) -> dict:
        with tempfile.TemporaryDirectory() as folder:
            source, out = Path(folder, "in"), Path(folder, "out")
            source.mkdir()
            for name, data in inputs.items():
                Path(source, name + extension).write_bytes(data)
            command = [sys.executable, "-m", "tfquant.cli", verb, self._path, source, out]
            subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
            made = {name: Path(out, name + result) for name in inputs}
            return {n: file.read_bytes() if file.exists() else None for n, file in made.items()}

    def encode(self, pictures: dict) -> dict:
        return self._run("compress", {n: _png(p) for n, p in pictures.items()}, ".png", ".tfq")

    def decode(self, files: dict) -> dict:
        """The command gives pictures, so only failures are told."""
        found = self._run("decompress", files, ".tfq", ".png")
        return {name: None if data is None else "a picture" for name, data in found.items()}


def _png(picture) -> bytes:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "png")
    return file.getvalue()


def _or_none(work):
    import tensorflow as tf

    from tfquant.coding.container import BitstreamError

    try:
        return work()
    except (tf.errors.OpError, BitstreamError):
        return None


def _digest(latent) -> str | None:
    return None if latent is None else hashlib.sha256(np.ascontiguousarray(latent)).hexdigest()


def _work(way: str, task_file: str) -> None:
    """The work of one process: {model: inputs} -> {model: results}, from and to a file."""
    opened = {
        "alone": lambda path: _Signatures(path, batch=False),
        "batch": lambda path: _Signatures(path, batch=True),
        "python": _Loaded,
        "command": _Command,
    }[way]
    verb, tasks = pickle.loads(Path(task_file).read_bytes())
    done = {path: getattr(opened(path), verb)(inputs) for path, inputs in tasks.items()}
    Path(task_file).write_bytes(pickle.dumps(done))


def _in_process(condition: tuple, verb: str, tasks: dict) -> dict:
    python, environment, way = condition
    with tempfile.TemporaryDirectory() as folder:
        task_file = Path(folder, "task")
        task_file.write_bytes(pickle.dumps((verb, tasks)))
        command = [python, __file__, "--work", way, str(task_file)]
        environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, **environment}
        done = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"{verb} {way} {environment}: {done.stderr[-2000:]}")
        return pickle.loads(task_file.read_bytes())


def _identity(path: str) -> str:
    manifest = json.loads(Path(path, "tfquant.json").read_text())
    return f"{manifest['codec']} {manifest['fingerprint']}"


def table(models: list, pictures: dict, conditions: dict, say=print) -> int:
    """Prints the table; returns the number of failures.

    Args:
      models: folders of exported models.
      pictures: name -> uint8 [H, W, 3].
      conditions: name -> (interpreter, environment, way).
      say: takes a line.
    """
    twins = {path: [p for p in models if _identity(p) == _identity(path)] for path in models}
    made = {}  # condition -> {(model, picture): data}
    for name, condition in conditions.items():
        files = _in_process(condition, "encode", dict.fromkeys(models, pictures))
        made[name] = {(m, p): data for m, found in files.items() for p, data in found.items()}
        size = sum(map(len, made[name].values()))
        print(f"{name}: {len(made[name])} files, {size} bytes", file=sys.stderr, flush=True)
    every = {
        hashlib.sha256(d).hexdigest(): (m, d) for f in made.values() for (m, _), d in f.items()
    }
    seen = {}  # condition -> {(decoding model, digest of a file): value}
    for name, condition in conditions.items():
        tasks = {
            path: {digest: data for digest, (m, data) in every.items() if path in twins[m]}
            for path in models
        }
        values = _in_process(condition, "decode", tasks)
        seen[name] = {(m, digest): v for m, found in values.items() for digest, v in found.items()}
        print(f"{name}: {len(seen[name])} different files read", file=sys.stderr, flush=True)
    first, failures = next(iter(conditions)), 0
    say(f"| made under \\ read under | {' | '.join(conditions)} |")
    say(f"|---|{'---:|' * len(conditions)}")
    for maker, files in made.items():
        cells = []
        for reader in conditions:
            bad = total = 0
            for (model, _), data in files.items():
                digest = hashlib.sha256(data).hexdigest()
                for path in twins[model]:
                    value, expected = seen[reader][path, digest], seen[first][model, digest]
                    bad += value is None or value not in (expected, "a picture")
                    total += 1
            cells.append(f"{bad} of {total}")
            failures += bad
        say(f"| {maker} | {' | '.join(cells)} |")
    return failures


def _has_gpu() -> bool:
    script = "import tensorflow as tf; print(len(tf.config.list_physical_devices('GPU')))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    return done.stdout.split()[-1:] not in ([], ["0"])


def main() -> int:
    if sys.argv[1:2] == ["--work"]:
        sys.path.insert(0, str(ROOT))
        _work(*sys.argv[2:])
        return 0
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", metavar="MODEL", nargs="+")
    parser.add_argument("--images", help="a folder of pictures")
    parser.add_argument("--first", type=int, help="only so many of its pictures")
    parser.add_argument("--odd", type=int, default=36, help="made pictures of odd sizes")
    parser.add_argument("--conditions", help="comma-separated, of: " + ", ".join(CONDITIONS))
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PATH")
    arguments = parser.parse_args()
    chosen = arguments.conditions.split(",") if arguments.conditions else list(CONDITIONS)
    if not _has_gpu():
        chosen = [name for name in chosen if name != "no GPU"]
    conditions = {name: (sys.executable, *CONDITIONS[name]) for name in chosen}
    for name, path in (spec.split("=", 1) for spec in arguments.python):
        conditions[name] = (path, {}, "python")
    pictures = {}
    if arguments.images:
        from tfquant.data import images

        paths = sorted(images.find_images(arguments.images))[: arguments.first]
        pictures = {Path(path).stem: images.read_image(path) for path in paths}
    pictures.update(odd_pictures(arguments.odd))
    models = [os.path.abspath(path) for path in arguments.models]
    return int(table(models, pictures, conditions) > 0)


if __name__ == "__main__":
    sys.exit(main())
