"""Makes files under many conditions, decodes each under all of them, and prints the table.

    python benchmarks/anywhere.py MODEL... --images=PICTURES --state=FOLDER
    python benchmarks/anywhere.py --zoo --odd=6 --state=FOLDER --conditions=default,AVX2,Python

MODEL are exported models. Each is exported again in every precision of `--precisions`. Such models
have one fingerprint and read each other's files. `--zoo` takes small codecs with random weights
for every name in `tfquant.models`, with and without rectifier. Pictures are the files of a folder,
and `--odd` made ones of odd sizes.

Each condition is a process of its own: settings of TensorFlow and oneDNN, numbers of threads,
pictures alone or in batches, the command line, the portable coder, the CPU where there is a GPU,
and other interpreters (`--python=NAME=PATH`, any number of times).

A cell is the number of files that do not decode, or that decode to other values than in the first
column. Values are the bytes of `y_hat`, which contain the predicted means where a codec quantizes
around them. Equal files are decoded once for each column. The models of one fingerprint take turns
as readers. Exit code 1 if a cell is not 0.

`--state` keeps the results. Repeat a stopped command to continue it. More conditions can be added.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
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


def _onednn(isa: str | None = None) -> dict:
    return {"TF_ENABLE_ONEDNN_OPTS": "1", **({"ONEDNN_MAX_CPU_ISA": isa} if isa else {})}


# Name -> (environment, way of calling the model). By default, oneDNN is on where the processor has
# AVX-512. An instruction set that the processor lacks is that of "oneDNN on".
CONDITIONS = {
    "default": ({}, "alone"),
    "oneDNN off": ({"TF_ENABLE_ONEDNN_OPTS": "0"}, "alone"),
    "oneDNN on": (_onednn(), "alone"),
    "SSE4.1": (_onednn("SSE41"), "alone"),
    "AVX2": (_onednn("AVX2"), "alone"),
    "AVX-512": (_onednn("AVX512_CORE"), "alone"),
    "1 thread": ({**_onednn(), **_threads(1)}, "alone"),
    "2 threads": (_threads(2), "alone"),
    "8 threads": (_threads(8), "alone"),
    "batch": ({}, "batch"),
    "Python": ({}, "python"),
    "command": ({}, "command"),
    "portable coder": ({"TFQUANT_CODER": "portable"}, "python"),
    "no GPU": ({"CUDA_VISIBLE_DEVICES": "-1"}, "alone"),
}
_BATCH = 4
_ZOO_WIDTHS = {"N": 32, "M": 60}  # `charm` has ten slices
_RECTIFIED = "+rectifier"  # after a codec's name
_A_PICTURE = "a picture"  # value of a file that was decoded to a picture and not to y_hat


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

    def __init__(self, model: Path, batch: bool = False):
        import tensorflow as tf

        from tfquant import stack

        stack.load_operations()
        self._model = tf.saved_model.load(str(model / "full"))
        self._batch = batch
        self._quality = _quality(model / "full")

    def encode(self, pictures: dict) -> dict:
        import tensorflow as tf

        compress, found = self._model.signatures["compress"], {}
        for names in _by_size(pictures) if self._batch else [[name] for name in pictures]:
            inputs = {"images": tf.constant(np.stack([pictures[name] for name in names]))}
            if self._quality is not None:
                inputs["quality"] = tf.fill([len(names)], self._quality)
            found.update(zip(names, compress(**inputs)["tfq_bytes"].numpy()))
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

    def __init__(self, model: Path):
        from tfquant.export.model_file import ExportedModel

        self._model = ExportedModel.load(str(model / "packed"))

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

    def __init__(self, model: Path):
        self._path = model / "packed"

    def _run(self, verb: str, inputs: dict, extension: str, result: str, *options) -> dict:
        with tempfile.TemporaryDirectory() as folder:
            source, out = Path(folder, "in"), Path(folder, "out")
            source.mkdir()
            for name, data in inputs.items():
                Path(source, name + extension).write_bytes(data)
            command = [sys.executable, "-m", "tfquant.cli", verb, *options, self._path, source, out]
            subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
            made = {name: Path(out, name + result) for name in inputs}
            return {n: file.read_bytes() if file.exists() else None for n, file in made.items()}

    def encode(self, pictures: dict) -> dict:
        quality = _quality(self._path)
        options = [] if quality is None else [f"--quality={quality}"]
        pngs = {name: _png(picture) for name, picture in pictures.items()}
        return self._run("compress", pngs, ".png", ".tfq", *options)

    def decode(self, files: dict) -> dict:
        found = self._run("decompress", files, ".tfq", ".png")
        return {name: None if data is None else _A_PICTURE for name, data in found.items()}


WAYS = {
    "alone": _Signatures,
    "batch": lambda model: _Signatures(model, batch=True),
    "python": _Loaded,
    "command": _Command,
}


def _quality(path: Path) -> float | None:
    """Returns the base quality of an exported model; None if it has one rate."""
    from tfquant.export.manifest_file import read_manifest

    qualities = read_manifest(str(path)).qualities
    return None if qualities is None else qualities.nearest(None)


def _png(picture) -> bytes:
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


def _export(source: str, precision: str, target: Path) -> None:
    """Writes a model in a precision: as a SavedModel, and packed.

    Args:
      source: an exported model, or the name of a codec, which gets random weights. The name may
        end in `_RECTIFIED`.
      precision: of its transforms.
      target: folder of both exports.
    """
    from tfquant import exact, models
    from tfquant.export import manifest_file, packed, rebuilding, writing
    from tfquant.training import trained
    from tfquant.training.experiment import Experiment

    name = source.removesuffix(_RECTIFIED)
    if name in models.CODECS:
        stages = {} if name == source else {
            "stages": ("qr_predictive",), "init_from": "another run",
            "rectifier_width": 8, "rectifier_depth": 1,
        }  # fmt: skip
        experiment = Experiment(codec=name, codec_options=_ZOO_WIDTHS, **stages)
        original = _random(experiment)
    else:
        manifest = manifest_file.read_manifest(source)
        experiment = Experiment.from_json(json.dumps(manifest.experiment))
        original = rebuilding.rebuilt(source, manifest).codec
    codec = trained.build_as_decoded(experiment, precision)
    for name, part in codec.parts().items():
        part.set_weights(original.parts()[name].get_weights())
    exact.copy(original, codec)
    writing.export_codec(codec, experiment, str(target / "full"))
    packed.pack_export(str(target / "full"), str(target / "packed"))


def _random(experiment):
    """Returns an exact codec whose latents are spread as those of a trained one."""
    import measuring

    from tfquant import exact
    from tfquant.legacy_keras import keras
    from tfquant.training import trained

    keras.utils.set_random_seed(0)
    codec = trained.build_as_decoded(experiment, "float32")
    measuring.spread_latents(codec, measuring.picture(256, 384))
    if hasattr(codec, "h_a"):  # hyper-latents of an untrained codec all round to 0
        last = codec.h_a.layers[-1]
        last.kernel.assign(8.0 * last.kernel)
    if codec.rectifier is not None:  # an untrained one changes nothing
        kernel = codec.rectifier.last.kernel
        kernel.assign(0.02 * np.random.default_rng(0).standard_normal(kernel.shape))
    exact.become_exact(codec)
    return codec


def _work(verb: str, way: str, task: str) -> None:
    """The work of one process: for every `(model, inputs, result)` of a file, writes the result."""
    for model, inputs, result in pickle.loads(Path(task).read_bytes()):
        if verb == "export":
            _export(*inputs, Path(model))
            continue
        _store(Path(result), getattr(WAYS[way](Path(model)), verb)(inputs))


def _store(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(pickle.dumps(content))
    partial.replace(path)


def _stored(path: Path) -> dict:
    return pickle.loads(path.read_bytes()) if path.exists() else {}


class Matrix:
    """The files and values of all conditions, kept in a folder.

    Args:
      state: the folder.
      models: (name, precision) -> an exported model or the name of a codec.
      pictures: name -> uint8 [H, W, 3].
      conditions: name -> (interpreter, environment, way).
    """

    def __init__(self, state: Path, models: dict, pictures: dict, conditions: dict):
        self._state, self._pictures, self._conditions = state, pictures, conditions
        self._models = {key: state / "models" / "-".join(key) for key in models}
        self._twins = {key: [k for k in models if k[0] == key[0]] for key in models}
        self._check_owner(models)
        for key, path in self._models.items():
            if not (path / "packed").exists():
                task = [(str(path), (models[key], key[1]), None)]
                self._process("export", (sys.executable, {}, ""), task)
        self._made = {name: self._make(name) for name in conditions}
        self._seen = {name: self._read(name) for name in conditions}

    def _check_owner(self, models: dict) -> None:
        file = self._state / "owner"
        digests = {n: hashlib.sha256(p).hexdigest() for n, p in self._pictures.items()}
        owner = {"models": models, "pictures": digests}
        if file.exists() and _stored(file) != owner:
            raise SystemExit(f"{self._state} has results of other models or pictures; name another")
        _store(file, owner)

    def _process(self, verb: str, condition: tuple, task: list) -> None:
        python, environment, way = condition
        environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, **environment}
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "task")
            file.write_bytes(pickle.dumps(task))
            done = subprocess.run(
                [python, __file__, "--work", verb, way, str(file)],
                env=environment, cwd=ROOT, capture_output=True, text=True, check=False,
            )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{verb} {condition}: {done.stderr[-2000:]}")

    def _result(self, verb: str, condition: str, key: tuple) -> Path:
        return self._state / verb / condition / "-".join(key)

    def _make(self, condition: str) -> dict:
        """Returns the condition's files, {(model, picture): data}."""
        results = {key: self._result("made", condition, key) for key in self._models}
        task = [
            (str(self._models[key]), self._pictures, str(result))
            for key, result in results.items() if not result.exists()
        ]  # fmt: skip
        if task:
            self._process("encode", self._conditions[condition], task)
        made = {(k, n): data for k, file in results.items() for n, data in _stored(file).items()}
        for (key, name), data in made.items():
            if data is None:
                raise SystemExit(f"{condition}: no file of {name} by {'-'.join(key)}")
        _tell(f"{condition}: {len(made)} files, {sum(map(len, made.values()))} bytes")
        return made

    def _read(self, condition: str) -> dict:
        """Returns the values that the condition reads, {(model, digest of a file): value}.

        `model` is the name that all models of a fingerprint share.
        """
        files = {
            (key[0], hashlib.sha256(data).hexdigest()): (key, data)
            for made in self._made.values() for (key, _), data in made.items()
        }  # fmt: skip
        results = {key: self._result("read", condition, key) for key in self._models}
        seen = self._seen_before(results)
        todo = {key: {} for key in self._models}
        turn = list(self._conditions).index(condition)
        for number, (place, (key, data)) in enumerate(sorted(files.items())):
            if place not in seen:
                twins = self._twins[key]
                todo[twins[(number + turn) % len(twins)]][place[1]] = data
        task = [
            (str(self._models[key]), inputs, f"{results[key]}.new")
            for key, inputs in todo.items() if inputs
        ]  # fmt: skip
        if task:
            self._process("decode", self._conditions[condition], task)
            seen = self._seen_before(results)
        _tell(f"{condition}: {len(files)} different files read")
        return {place: seen[place] for place in files}

    @staticmethod
    def _seen_before(results: dict) -> dict:
        """Adds new values to the stored ones and returns all, as `_read` does."""
        seen = {}
        for key, file in results.items():
            added = Path(f"{file}.new")
            if added.exists():
                _store(file, {**_stored(file), **_stored(added)})
                added.unlink()
            seen.update({(key[0], digest): value for digest, value in _stored(file).items()})
        return seen

    def table(self) -> tuple:
        """Returns the lines of the table, and the number of failures."""
        first, failures = next(iter(self._conditions)), 0
        lines = [
            f"| made under \\ read under | {' | '.join(self._conditions)} |",
            f"|---|{'---:|' * len(self._conditions)}",
        ]
        for maker, files in self._made.items():
            cells = []
            for reader in self._conditions:
                bad = 0
                for (key, _), data in files.items():
                    place = key[0], hashlib.sha256(data).hexdigest()
                    value = self._seen[reader][place]
                    bad += value is None or value not in (self._seen[first][place], _A_PICTURE)
                cells.append(f"{bad} of {len(files)}")
                failures += bad
            lines.append(f"| {maker} | {' | '.join(cells)} |")
        return lines, failures

    def facts(self) -> str:
        """Returns a line with the numbers of files."""
        made = sum(map(len, self._made.values()))
        different = len(next(iter(self._seen.values())))
        return (
            f"{len(self._models)} models, {len(self._pictures)} pictures, {made} files made,"
            f" {different} of them different, {different * len(self._seen)} times read"
        )


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _has_gpu() -> bool:
    script = "import tensorflow as tf; print(len(tf.config.list_physical_devices('GPU')))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    return done.stdout.split()[-1:] not in ([], ["0"])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", metavar="MODEL", nargs="*")
    parser.add_argument(
        "--zoo", action="store_true", help="small codecs of every name, also with a rectifier"
    )
    parser.add_argument("--precisions", default="float32,bfloat16")
    parser.add_argument("--images", help="a folder of pictures")
    parser.add_argument("--first", type=int, help="only so many of its pictures")
    parser.add_argument("--odd", type=int, default=36, help="made pictures of odd sizes")
    parser.add_argument("--conditions", help="comma-separated, of: " + ", ".join(CONDITIONS))
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--state", metavar="FOLDER", help="keeps results; default: a temporary one")
    arguments = parser.parse_args()
    if not arguments.models and not arguments.zoo:
        parser.error("name models, or --zoo")
    return arguments


def _pictures(arguments) -> dict:
    pictures = {}
    if arguments.images:
        from tfquant.data import finding, images

        paths = sorted(finding.search(arguments.images).paths)[: arguments.first]
        pictures = {Path(path).stem: images.read_image(path) for path in paths}
    return {**pictures, **odd_pictures(arguments.odd)}


def _sources(arguments) -> dict:
    """Returns (name, precision) -> an exported model or the name of a codec."""
    found = {Path(path).name: os.path.abspath(path) for path in arguments.models}
    if len(found) < len(arguments.models):
        raise SystemExit("two models have one name: rename a folder")
    if arguments.zoo:
        from tfquant import models

        names = [name + end for name in models.CODECS for end in ("", _RECTIFIED)]
        found.update({name: name for name in names})
    return {(n, p): source for n, source in found.items() for p in arguments.precisions.split(",")}


def main() -> int:
    sys.path.insert(0, str(ROOT))
    if sys.argv[1:2] == ["--work"]:
        _work(*sys.argv[2:])
        return 0
    arguments = _arguments()
    chosen = arguments.conditions.split(",") if arguments.conditions else list(CONDITIONS)
    if not _has_gpu():
        chosen = [name for name in chosen if name != "no GPU"]
    conditions = {name: (sys.executable, *CONDITIONS[name]) for name in chosen}
    for name, path in (spec.split("=", 1) for spec in arguments.python):
        conditions[name] = (path, {}, "python")
    with contextlib.ExitStack() as stack:
        state = arguments.state or stack.enter_context(tempfile.TemporaryDirectory())
        matrix = Matrix(Path(state), _sources(arguments), _pictures(arguments), conditions)
        lines, failures = matrix.table()
        print("\n".join(lines))
        print(f"\n{matrix.facts()}, {failures} failures")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
