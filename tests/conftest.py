"""Common fixtures: quiet TensorFlow, fixed seeds, pictures, and separate Python processes.

A folder with real photographs, the 24 Kodak images, is optional; `TFQUANT_KODAK` names it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import numpy as np
import pytest

# Read when TensorFlow and matplotlib are first imported, after this file. Level 3 hides the
# messages about CUDA that TensorFlow prints on machines without a GPU.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "Agg")

# A graph has many small objects, and hardly any of them is garbage. With Python's default
# thresholds, garbage collection would take a tenth of the time.
gc.set_threshold(50_000)

ROOT = Path(__file__).resolve().parent.parent


@pytest.hookimpl(tryfirst=True)
def pytest_configure() -> None:
    """Makes this process and its children obey Ctrl-C, which a shell's background jobs ignore.

    Tests interrupt programs in this way.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        with contextlib.suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list) -> None:
    """Marks the tests that need a slow fixture: `fresh_python`, or one of their file's.

    A file names its slow fixtures in `SLOW_FIXTURES`. CONTRIBUTING.md defines `slow`.
    """
    for item in items:
        slow = {"fresh_python", *getattr(item.module, "SLOW_FIXTURES", ())}
        if slow & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def no_python_unless_slow(request, monkeypatch) -> None:
    """A test that starts a Python without being marked as slow fails."""
    if request.node.get_closest_marker("slow"):
        return

    class Popen(subprocess.Popen):
        def __init__(self, args, *others, **options):
            started = [args] if isinstance(args, (str, os.PathLike)) else [*args]
            assert sys.executable not in map(str, started), "mark this test: @pytest.mark.slow"
            super().__init__(args, *others, **options)

    monkeypatch.setattr(subprocess, "Popen", Popen)


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """Starts every test from the same global seeds of Python and NumPy (and therefore Keras)."""
    random.seed(0)
    np.random.seed(0)


@pytest.fixture(autouse=True, scope="module")
def fixed_tensorflow_seed() -> None:
    """Sets TensorFlow's seed once per file: setting it drops compiled functions, which costs
    seconds.
    """
    if "tensorflow" in sys.modules:
        sys.modules["tensorflow"].random.set_seed(0)


@pytest.fixture(autouse=True, scope="module")
def forgotten_garbage() -> Iterator[None]:
    """Excludes the objects that a file leaves behind from later garbage collections.

    TensorFlow keeps each graph that contains a gradient. After half of the tests, one collection
    takes seconds, and there are many.
    """
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def stir() -> Callable:
    """Returns `stir(rectifier)`, which changes the rectifier to fixed weights that are not the
    identity.
    """

    def stirred(rectifier):
        kernel = rectifier.last.kernel
        kernel.assign(np.random.default_rng(0).normal(0, 0.02, kernel.shape))
        return rectifier

    return stirred


@pytest.fixture(scope="session")
def nodes_of() -> Callable[..., list]:
    """Returns `nodes_of(graph_def)`, which returns its nodes, including those of its functions."""
    return lambda graph: [*graph.node, *(n for f in graph.library.function for n in f.node_def)]


@pytest.fixture(scope="session")
def onednn():
    """The module `onednn_patterns.py`, which finds patterns that oneDNN in TensorFlow
    miscomputes.
    """
    return _beside("onednn_patterns")


def _beside(name: str):
    """Imports a module of this folder."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tests" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def operations_module() -> str:
    """Name of the module with the coder's operations; skips the test if there is none."""
    from tfquant import stack

    if stack.coder().kind != stack.OPERATIONS:
        pytest.skip(f"this process has no operations: {stack.coder().source}")
    return stack.operations_module()


@pytest.fixture(scope="session")
def eager_functions() -> Callable:
    """`with eager_functions():` every `tf.function` runs eagerly.

    A codec's functions take seconds to trace, and milliseconds to run on a small picture.
    """
    import tensorflow as tf

    @contextlib.contextmanager
    def eager():
        before = tf.config.functions_run_eagerly()
        tf.config.run_functions_eagerly(True)
        try:
            yield
        finally:
            tf.config.run_functions_eagerly(before)

    return eager


@pytest.fixture
def no_saved_models(monkeypatch) -> None:
    """Makes `tf.saved_model.save` write an empty folder, which is fast, for tests of other
    files.
    """
    import tensorflow as tf

    def save(module, path, *_, **__):
        tf.io.gfile.makedirs(path)

    monkeypatch.setattr(tf.saved_model, "save", save)


@pytest.fixture
def exports_are_rebuilt(monkeypatch) -> None:
    """Makes exports without SavedModels: a codec is rebuilt from the manifest, the weights and the
    tables.
    """
    from tfquant.export import writing

    monkeypatch.setattr(writing, "_save", _beside("quick_exports").rebuilt)


@pytest.fixture(scope="session")
def small_exports() -> Callable:
    """`with small_exports():` an export has only the full SavedModel.

    The SavedModel is saved from graphs even if training is eager.
    """
    from tfquant.export import writing

    quick = _beside("quick_exports")

    @contextlib.contextmanager
    def small():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(writing, "_save", quick.without_stock)
            patch.setattr(writing, "export_run", quick.in_graphs)
            yield

    return small


@pytest.fixture
def exports_are_small(small_exports) -> Iterator[None]:
    """Every export of the test is one of `small_exports`."""
    with small_exports():
        yield


@pytest.fixture
def user_folder(tmp_path, monkeypatch) -> Path:
    """The folder of the user's sets of models during a test, which does not exist yet."""
    from tfquant.export import registry

    path = tmp_path / "user models"
    monkeypatch.setenv(registry.VARIABLE, str(path))
    return path


@pytest.fixture
def tfq(capsys) -> Callable[..., tuple]:
    """`tfq(*arguments)`: runs the command; (exit code, standard output, standard error)."""
    from tfquant import cli

    def run(*arguments):
        capsys.readouterr()
        code = cli.main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture(scope="session")
def full_disk() -> Callable:
    """`with full_disk(size):` no file grows beyond this number of bytes."""
    import resource  # Unix only

    @contextlib.contextmanager
    def full(size):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return full


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Callable[[str, Callable[[Path], None]], Path]:
    """`made_once(name, make)`: a folder with what `make(folder)` has written into it.

    It is made once for all processes of pytest-xdist. Tests must not change it.
    """
    import fcntl  # Unix only

    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # shared by the workers of one run

    def folder(name, make):
        path, done = base / name, base / f"{name}.done"
        with open(base / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
            if not done.exists():
                shutil.rmtree(path, ignore_errors=True)  # of another worker that failed
                path.mkdir()
                make(path)
                done.touch()
        return path

    return folder


@pytest.fixture(scope="session")
def rebuilt_export(tmp_path_factory) -> Path:
    """The exported model `run/export` of an untrained codec, without a SavedModel.

    Every stack rebuilds the codec from the manifest, the weights and the tables. This takes less
    time than saving and loading a SavedModel.
    """
    from tfquant import models
    from tfquant.export import writing
    from tfquant.training.experiment import Experiment

    random.seed(0)
    experiment = Experiment(codec="factorized", codec_options={"N": 4, "M": 6}, lmbda=0.01)
    path = tmp_path_factory.mktemp("rebuilt") / "run" / "export"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "_save", _beside("quick_exports").rebuilt)
        codec = models.build("factorized", N=4, M=6)
        writing.export_codec(codec, experiment, str(path))
    return path


@pytest.fixture(scope="session")
def make_photograph() -> Callable[..., np.ndarray]:
    """`make_photograph(height, width, seed=0)`: a picture with a photograph's statistics.

    Noise with an amplitude of frequency^-1.3, strongly correlated across channels, with a few
    ellipses in front of it for sharp edges. Returns `image: [H, W, 3] uint8`, a function of the
    arguments.
    """

    def make(height: int, width: int, seed: int = 0) -> np.ndarray:
        rng = np.random.default_rng([seed, height, width])
        frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
        falloff = np.maximum(frequency, 1.0 / max(height, width)) ** -1.3

        def noise() -> np.ndarray:
            """Returns `[H, W]` with mean 0 and standard deviation 1 (0 for a single pixel)."""
            spectrum = np.fft.rfft2(rng.standard_normal((height, width))) * falloff
            field = np.fft.irfft2(spectrum, (height, width))
            return (field - field.mean()) / max(field.std(), 1e-9)

        luma = noise()
        image = np.stack([0.45 + 0.15 * luma + 0.04 * noise() for _ in range(3)], axis=-1)
        rows, columns = np.mgrid[0:height, 0:width]
        for _ in range(6):
            row, column = rng.uniform(0, height), rng.uniform(0, width)
            tall, wide = rng.uniform(0.05, 0.3, size=2) * min(height, width) + 1.0
            inside = np.hypot((rows - row) / tall, (columns - column) / wide) < 1.0
            color = rng.uniform(0.1, 0.9, size=3)
            image = np.where(inside[..., None], color + 0.2 * (image - 0.45), image)
        return np.rint(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8)

    return make


@pytest.fixture(scope="session")
def photograph(make_photograph) -> np.ndarray:
    """One such picture, `[96, 128, 3] uint8`, write-protected because all tests share it."""
    image = make_photograph(96, 128)
    image.setflags(write=False)
    return image


@pytest.fixture(scope="session")
def kodak_dir() -> Path:
    """The folder of the Kodak images; skips the test if `TFQUANT_KODAK` does not name one."""
    value = os.environ.get("TFQUANT_KODAK")
    if not value:
        pytest.skip("TFQUANT_KODAK is not set")
    if not Path(value).is_dir():
        raise NotADirectoryError(f"TFQUANT_KODAK must name a folder, got {value!r}")
    return Path(value)


@pytest.fixture(scope="session")
def fresh_python() -> Callable[..., str]:
    """Returns `fresh_python(source, *arguments, **environment)`, which runs source in a new Python.

    It is for settings that TensorFlow reads when it starts, such as the number of logical devices,
    and for effects of imports. It returns the standard output. A failure shows standard output and
    error.
    """

    def run(source: str, *arguments: str, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(source), *arguments],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=3600,
        )
        assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


@pytest.fixture(scope="session")
def training_flags():
    """absl's global flags, including the flags of `train.py`."""
    from absl import flags

    from tfquant.commands import train

    if "model_dir" not in flags.FLAGS:
        train.define_flags(flags.FLAGS)
    return flags.FLAGS


@pytest.fixture
def program(capsys) -> Callable[..., tuple[int, str, str]]:
    """`program(name, *arguments)` runs `python NAME.py ...` in this process, with flags of its own.

    It returns (exit code, standard output, standard error), as a shell sees them. Errors in the
    flags themselves are raised: `run_program` handles them.
    """
    from absl import flags

    from tfquant.commands import flagfiles
    from tfquant.commands.program import PROGRAMS

    def run(name, *arguments):
        module, values = importlib.import_module(PROGRAMS[name]), flags.FlagValues()
        module.define_flags(values)
        line, code, said = [f"{name}.py", *map(str, arguments)], 0, ""
        capsys.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(flags, "FLAGS", values)
            patch.setattr(sys, "argv", line)
            try:
                module.main(values([line[0], *flagfiles.expanded(line[1:])]))
            except SystemExit as end:
                code = end.code or 0
        if isinstance(code, str):
            code, said = 1, f"{code}\n"
        printed = capsys.readouterr()
        return code, printed.out, printed.err + said

    return run
