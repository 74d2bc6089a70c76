"""The software stack: wrong combinations are reported, and every command ends with that line."""

from __future__ import annotations

import concurrent.futures
import importlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from tfquant import stack
from tfquant.commands import doctor
from tfquant.legacy_keras import keras

ROOT = Path(__file__).parent.parent
# Combinations of installed packages, and the messages about them.
WRONG = [
    ({}, "TensorFlow is not installed"),
    ({"tensorflow": "2.13.1"}, "too old"),
    ({"tensorflow": "2.14.1", "numpy": "2.0.0"}, "does not work with NumPy 2.0.0"),
    ({"tensorflow": "2.17.1", "protobuf": "6.31.1"}, "does not work with protobuf 6.31.1"),
    ({"tensorflow": "2.17.1"}, "needs tf-keras 2.17, found no tf-keras"),
    ({"tensorflow": "2.17.1", "tf-keras": "2.18.0"}, "found tf-keras 2.18.0"),
    (
        {"tensorflow": "2.17.1", "tf-keras": "2.17.0", "tensorflow-probability": "0.22.1"},
        "needs tensorflow-probability 0.24, found 0.22.1",
    ),
    (
        {"tensorflow": "2.14.1", "tensorflow-probability": "0.25.0"},
        "needs tensorflow-probability 0.22, found 0.25.0",
    ),
    ({"tensorflow": "2.14.1"}, "needs tensorflow-probability 0.22, found none"),
    (
        {"tensorflow": "2.21.0", "tf-keras": "2.21.0", "tensorflow-probability": "0.20.1"},
        "needs tensorflow-probability 0.25, found 0.20.1",
    ),
]
RIGHT = [
    {"tensorflow": "2.14.1", "tensorflow-probability": "0.22.1", "numpy": "1.26.4"},
    {"tensorflow": "2.17.1", "tf-keras": "2.17.0", "tensorflow-probability": "0.24.0"},
    {"tensorflow": "2.21.0", "tf-keras": "2.21.0", "tensorflow-probability": "0.25.0"},
    {"tensorflow-cpu": "2.20.0", "tf-keras": "2.20.1", "tensorflow-probability": "0.25.0"},
]


@pytest.fixture
def install(monkeypatch):
    """`install(packages)`: name -> version of everything that appears to be installed."""

    def pretend(packages):
        monkeypatch.setattr(stack, "version", packages.get)

    return pretend


@pytest.mark.parametrize("packages, said", WRONG)
def test_a_wrong_combination_is_named_in_one_line_that_says_what_to_install(
    install, packages, said
):
    install(packages)
    problem = stack.problem()
    assert said in problem and "pip install" in problem and "\n" not in problem
    with pytest.raises(stack.StackError, match="tfquant doctor"):
        stack.require()
    report = doctor.examine()
    assert not report.healthy and ("problem", problem) in report.lines


@pytest.mark.parametrize("packages", RIGHT)
def test_the_stacks_combinations_are_right(install, packages):
    install(packages)
    assert stack.problem() is None


@pytest.mark.parametrize(
    "packages, package",
    [
        ({"tensorflow": "2.17.1", "tensorflow-compression-ops": "2.17.0"}, "-ops"),
        ({"tensorflow": "2.14.1", "tensorflow-compression": "2.14.1"}, "compression"),
        # If both are installed, the one for this TensorFlow is used.
        (
            {
                "tensorflow": "2.14.1",
                "tensorflow-compression": "2.14.1",
                "tensorflow-compression-ops": "2.17.0",
            },
            "compression",
        ),
        ({"tensorflow": "2.18.0", "tensorflow-compression-ops": "2.17.0"}, None),
        ({"tensorflow": "2.17.1", "tensorflow-compression-ops": "2.16.0"}, None),
        ({"tensorflow": "2.21.0"}, None),
    ],
)
def test_operations_are_taken_from_the_package_for_this_tensorflow(install, packages, package):
    install(packages)
    found, reason = stack.operations_package()
    assert (found is None) == (package is None)
    assert found.endswith(package) if package else "TensorFlow 2" in reason


@pytest.mark.parametrize(
    "packages, said",
    [
        ({"tensorflow": "2.17.1"}, "tensorflow-compression-ops is not installed"),
        ({"tensorflow": "2.14.1"}, "tensorflow-compression is not installed"),
        # Advice to install something would not help.
        ({"tensorflow": "2.21.0"}, "no package has the operations for TensorFlow 2.21.0"),
        (
            {"tensorflow": "2.18.0", "tensorflow-compression-ops": "2.17.0"},
            "tensorflow-compression-ops 2.17.0 is not for TensorFlow 2.18.0",
        ),
    ],
)
def test_the_reason_for_no_operations_names_what_could_be_installed(install, packages, said):
    install(packages)
    assert stack.operations_package() == (None, said)


# A package of another TensorFlow, earlier on the path, which appears to be installed.
STRANGER = "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
COMMANDS = [
    [sys.executable, "train.py", "--model_dir=runs/none"],
    [sys.executable, "eval.py", "--images=sample", "--report_dir=none"],
    [sys.executable, "sweep.py", "--base=none", "--out=none"],
    [sys.executable, "-m", "tfquant.analysis", "all"],
    [sys.executable, "-m", "tfquant.cli", "export", "."],
    [sys.executable, "-m", "tfquant.cli", "info", "gs://bucket/picture.tfq"],
    [sys.executable, "-m", "tfquant.cli", "doctor"],
]


@pytest.fixture(scope="module")
def strangers(tmp_path_factory) -> dict:
    """Returns the environment of a process with the NumPy and TensorFlow versions of a wrong
    stack.
    """
    folder = tmp_path_factory.mktemp("strangers")
    for name, version in (("numpy", "2.9.0"), ("tensorflow", "2.16.9")):
        info = folder / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(STRANGER.format(name=name, version=version))
    return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[1:])[:24])
def test_every_command_ends_with_the_line_of_a_wrong_combination(command, strangers):
    done = subprocess.run(command, cwd=ROOT, env=strangers, capture_output=True, text=True)
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert "TensorFlow 2.16.9 does not work with NumPy 2.9.0: pip install 'numpy<2'" in line


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", COMMANDS[:2] + COMMANDS[-2:], ids=lambda command: " ".join(command[1:])[:24]
)
def test_every_command_ends_with_one_line_where_tensorflow_cannot_be_imported(command, tmp_path):
    said = "Traceback (most recent call last):\\n  File x\\nImportError: no such symbol: _ZN3abi\\n"
    (tmp_path / "tensorflow.py").write_text(f"raise ImportError('{said}Failed to load')")
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert "cannot be imported: ImportError: no such symbol: _ZN3abi" in line


# Messages of TensorFlow 2.21 while it loads, including those of a Python library.
_EARLY = """\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795816769.463131   13278 port.cc:153] oneDNN custom operations are on.
somewhere.py:1: UserWarning: look here
E0000 00:00:1795816769.463131   13278 cuda_dnn.cc:8579] Unable to register cuDNN factory
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment, kept", [({}, slice(2, 3)), ({"TF_CPP_MIN_LOG_LEVEL": "0"}, slice(4))]
)
@pytest.mark.parametrize("fails", [False, True])
def test_messages_while_tensorflow_loads_are_shown_only_on_request(
    tmp_path, environment, kept, fails
):
    """Uses a substitute for TensorFlow that writes to the file descriptor, like its libraries."""
    versions = {"tensorflow": "2.21.0", "tf-keras": "2.21.0", "tensorflow-probability": "0.25.0"}
    last = "raise ImportError('no such symbol')" if fails else "sys.exit()"
    (tmp_path / "tensorflow.py").write_text(
        f"import os, sys\nos.write(2, {_EARLY.encode()})\n{last}"
    )
    program = (
        f"from tfquant import stack, startup; stack.version = {versions}.get;"
        " startup.prepare('program')"
    )
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
    } | environment
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    ended = ["program: TensorFlow 2.21.0 cannot be imported: no such symbol (see: tfquant doctor)"]
    assert done.returncode == fails
    assert done.stderr.splitlines() == _EARLY.splitlines()[kept] + ended * fails


# Ways in which libraries fail without enough memory: a line, or an exception of any type.
_LACKS = {
    "library": "raise ImportError('x.so: failed to map segment from shared object')",
    "system": "raise OSError(12, 'Cannot allocate memory', 'x')",
    "python": "raise MemoryError",
    "no exception": "raise SystemError('error return without exception set')",
    "OpenBLAS": "os.write(2, b'pthread_create failed\\n'); raise KeyboardInterrupt",
    "any error": "raise AttributeError('no such name')",
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit is for Linux")
@pytest.mark.parametrize("lack", _LACKS)
@pytest.mark.parametrize("imported", ["tensorflow", "another"])
def test_a_lack_of_memory_during_an_import_gives_one_line(tmp_path, lack, imported):
    for name in ("tensorflow", "tf_keras", "another"):
        failure = _LACKS[lack] if name == imported else ""
        (tmp_path / f"{name}.py").write_text(f"import os\n{failure}")
    program = (
        "import resource; from tfquant import startup;"
        " resource.setrlimit(resource.RLIMIT_AS, (1 << 32, 1 << 32));"
        " startup.prepare('program', 'another')"
    )
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 1
    unclear = {"any error": "no such name", "no exception": "error return without exception set"}
    said = "not enough memory to import TensorFlow"
    if lack in unclear:
        said = (
            f"TensorFlow cannot be imported: {unclear[lack]}. Perhaps there is not enough memory:"
            " this process may use 4096 MiB (ulimit -v)"
        )
    assert done.stderr == f"program: {said}\n"


def test_a_missing_module_is_not_called_a_lack_of_memory(monkeypatch):
    monkeypatch.setattr(stack, "_address_space", lambda: 1 << 36)
    with pytest.raises(ModuleNotFoundError, match="no_such_module"), stack.importing():
        importlib.import_module("no_such_module")


def test_threads_that_import_at_once_lose_no_line(capfd, monkeypatch):
    monkeypatch.setattr(stack, "_address_space", lambda: 1 << 36)
    begin = threading.Barrier(4)

    def work(number):
        begin.wait()
        with stack.importing():
            os.write(2, b"line %d\n" % number)

    with concurrent.futures.ThreadPoolExecutor(4) as executor:
        list(executor.map(work, range(4)))
    os.write(2, b"after\n")
    *lines, last = capfd.readouterr().err.splitlines()
    assert sorted(lines) == [f"line {number}" for number in range(4)] and last == "after"


def test_an_error_of_an_import_stays_without_a_limit_of_memory(monkeypatch):
    monkeypatch.setattr(stack, "_address_space", lambda: 0)
    for error in (AttributeError("no such name"), KeyboardInterrupt()):
        with pytest.raises(type(error)), stack.importing():
            raise error


def test_an_unknown_coder_is_refused(monkeypatch):
    monkeypatch.setenv(stack.CODER_VARIABLE, "fast")
    assert "known: operations, portable" in stack.problem()


def test_the_doctor_has_a_line_for_each_subject():
    report = doctor.examine()
    assert report.healthy
    subjects = [subject for subject, _ in report.lines]
    assert subjects == ["python", "tensorflow", "coder", "gpu", "onednn", "works", "broken"]
    text = dict(report.lines)
    assert ("full SavedModel" in text["works"]) == (stack.coder().kind == stack.OPERATIONS)
    assert "training" in text["works"] and "\n" not in "".join(text.values())


def test_tensorboard_without_an_old_setuptools_is_named(install):
    install({"tensorboard": "2.17.1", "setuptools": "82.0.0"})
    assert "pip install 'setuptools<81'" in doctor._tensorboard_problem()
    install({"tensorboard": "2.21.0", "setuptools": "82.0.0"})
    assert doctor._tensorboard_problem() is None


def test_initial_weights_are_those_of_every_python():
    """Tests `tf_keras` up to 2.18, which draws seeds with a float as bound; Python 3.12 rejects
    it.
    """
    keras.utils.set_random_seed(5)
    layer = keras.layers.Dense(3)
    layer.build([None, 2])
    expected = [[0.52829254, 0.46155143, -0.29581273], [0.65442598, 0.99876571, 0.49839270]]
    np.testing.assert_allclose(layer.kernel, expected, rtol=1e-7)
