"""The software stack: the installed packages, their compatibility, and the available coder.

| TensorFlow | Keras 2 from   | range coder                          | stack                     |
|------------|----------------|--------------------------------------|---------------------------|
| 2.14       | `tf.keras`     | `tensorflow-compression` 2.14.1      | classic                   |
| 2.17       | `tf_keras`     | `tensorflow-compression-ops` 2.17.0  | default                   |
| others     | the same rule  | portable, in Python: `portable.py`   | 2.20 and 2.21 are tested  |

Versions are read from the metadata of the installed packages, so a wrong combination is reported
before its import fails.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import platform
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Callable, NamedTuple

if TYPE_CHECKING:
    from logging import LogRecord

OLDEST_TENSORFLOW = (2, 14)
KERAS_3 = (2, 16)  # the first TensorFlow whose `tf.keras` is Keras 3
NUMPY_2 = (2, 18)  # the first TensorFlow that supports NumPy 2
PROTOBUF_5 = (2, 18)  # the first TensorFlow that supports protobuf 5
EARLY_MESSAGES = (2, 18)  # the first one that writes messages before it reads TF_CPP_MIN_LOG_LEVEL
# Release of tensorflow-probability -> (oldest TensorFlow, first TensorFlow that is too new).
_PROBABILITY: dict[tuple[int, ...], tuple[tuple[int, ...], tuple[int, ...] | None]] = {
    (0, 22): ((2, 14), KERAS_3),
    (0, 23): ((2, 15), KERAS_3),
    (0, 24): ((2, 16), None),
    (0, 25): ((2, 18), None),
}
# Package with the coder's operations -> (its module, its TensorFlow).
_OPERATIONS = {
    "tensorflow-compression-ops": ("tensorflow_compression_ops", (2, 17)),
    "tensorflow-compression": ("tensorflow_compression", (2, 14)),
}

CODER_VARIABLE = "TFQUANT_CODER"
OPERATIONS, PORTABLE = "operations", "portable"


class StackError(ImportError):
    """The installed packages are not compatible. The message is one line with the remedy."""


class Coder(NamedTuple):
    """The range coder of this process.

    Attributes:
      kind: OPERATIONS or PORTABLE.
      source: the package with the operations, or the reason why there are none.
    """

    kind: str
    source: str


def version(package: str) -> str | None:
    """Returns the version of an installed package, or None if it is not installed."""
    from importlib import metadata  # takes a fifth of the time of tfquant --help

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def tensorflow_version() -> str | None:
    """Returns the version of the installed TensorFlow, or None if there is none."""
    names = ("tensorflow", "tensorflow-cpu", "tensorflow-macos", "tensorflow-intel",
             "tensorflow-rocm", "tf-nightly")  # fmt: skip
    return next(filter(None, map(version, names)), None)


def has_keras_2() -> bool:
    """Returns true if the installed TensorFlow's `tf.keras` is Keras 2."""
    return numbers(tensorflow_version() or "0") < KERAS_3


def numbers(text: str) -> tuple[int, ...]:
    """Returns the first two numbers of a version."""
    return tuple(int(number) for number in re.findall(r"\d+", text)[:2])


def _text(release: tuple[int, ...]) -> str:
    return ".".join(map(str, release))


def problem() -> str | None:
    """Returns the first incompatibility of the installed packages in one line, or None."""
    installed = tensorflow_version()
    if installed is None:
        return "TensorFlow is not installed: pip install 'tensorflow==2.17.1', or reinstall tfquant"
    tensorflow = numbers(installed)
    if tensorflow < OLDEST_TENSORFLOW:
        return f"TensorFlow {installed} is too old: pip install 'tensorflow==2.17.1'"
    for check in (_numpy_problem, _protobuf_problem, _keras_problem, _probability_problem):
        found = check(installed, tensorflow)
        if found:
            return found
    wanted = os.environ.get(CODER_VARIABLE, "")
    if wanted not in ("", OPERATIONS, PORTABLE):
        return f"{CODER_VARIABLE}={wanted!r}; known: {OPERATIONS}, {PORTABLE}, or not set"
    return None


def _numpy_problem(installed: str, tensorflow: tuple[int, ...]) -> str | None:
    numpy = version("numpy")
    if numpy and tensorflow < NUMPY_2 and numbers(numpy) >= (2, 0):
        return f"TensorFlow {installed} does not work with NumPy {numpy}: pip install 'numpy<2'"
    return None


def _keras_problem(installed: str, tensorflow: tuple[int, ...]) -> str | None:
    keras = version("tf-keras")
    if tensorflow < KERAS_3 or (keras and numbers(keras) == tensorflow):
        return None
    found = f"tf-keras {keras}" if keras else "no tf-keras"
    wanted = f"pip install 'tf-keras=={_text(tensorflow)}.*'"
    return f"TensorFlow {installed} needs tf-keras {_text(tensorflow)}, found {found}: {wanted}"


def _protobuf_problem(installed: str, tensorflow: tuple[int, ...]) -> str | None:
    protobuf = version("protobuf")
    if protobuf and tensorflow < PROTOBUF_5 and numbers(protobuf) >= (5, 0):
        return f"TensorFlow {installed} does not work with protobuf {protobuf}: " + (
            "pip install 'protobuf<5'"
        )
    return None


def _probability_problem(installed: str, tensorflow: tuple[int, ...]) -> str | None:
    fitting = max(
        release
        for release, (first, end) in _PROBABILITY.items()
        if first <= tensorflow and (end is None or tensorflow < end)
    )
    found = version("tensorflow-probability")
    # Releases that are newer than the known ones are treated like the newest known one.
    release = min(numbers(found), max(_PROBABILITY)) if found else None
    if release in _PROBABILITY:
        first, end = _PROBABILITY[release]
        if first <= tensorflow and (end is None or tensorflow < end):
            return None
    return (
        f"TensorFlow {installed} needs tensorflow-probability {_text(fitting)}, found "
        f"{found or 'none'}: pip install 'tensorflow-probability=={_text(fitting)}.*'"
    )


def require() -> None:
    """Checks the installed packages.

    Raises:
      StackError: the packages are not compatible.
    """
    found = problem()
    if found:
        raise StackError(f"{found} (see: tfquant doctor)")


def silence() -> None:
    """Hides the messages that TensorFlow prints when it loads, if it is not loaded yet."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def import_tensorflow() -> None:
    """Imports TensorFlow and Keras 2, without TensorFlow's messages.

    Raises:
      StackError: the installed packages are not compatible, or the import fails.
    """
    silence()
    require()
    name = f"TensorFlow {tensorflow_version()}"
    try:
        with importing():
            importlib.import_module("tensorflow")
            if not has_keras_2():
                importlib.import_module("tf_keras")
    except StackError:
        raise
    except Exception as error:  # a library of another build may raise any type
        raise StackError(
            f"{name} cannot be imported: {_cause(error)} (see: tfquant doctor)"
        ) from None
    if os.environ.get(CODER_VARIABLE) == OPERATIONS:
        coder()  # raises an error early if there are no operations
    from absl import logging

    logging.get_absl_logger().addFilter(_is_for_users)


# Messages of libraries that get no memory while they are loaded.
_NO_MEMORY = re.compile(
    "allocate memory|failed to map segment|without setting an exception|pthread_create"
    "|can't start new thread"
)
# A message of TensorFlow's C++ code below the level "fatal", and the line before the first one.
_MESSAGE = re.compile(
    r"[IWE]\d{4} \d\d:\d\d:|WARNING: All log messages before absl::InitializeLog\(\)"
)


_importing = threading.RLock()  # the lines of one import at a time are held


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Imports TensorFlow, or modules that need it, within this context.

    Without enough memory, an import fails with any type of exception, and C libraries print lines
    of their own. OpenBLAS interrupts the process.

    Raises:
      StackError: there is not enough memory. If this process has a limit of memory (`ulimit -v`),
        any error but a missing module may be a lack of memory.
      Exception: any other error of an import.
    """
    limit = _address_space()
    with _importing, _held_messages(limit > 0) as said:
        try:
            yield
        except (StackError, ModuleNotFoundError):
            raise
        except (Exception, KeyboardInterrupt) as error:
            text = f"{error} {' '.join(said())}"
            if isinstance(error, MemoryError) or _NO_MEMORY.search(text):
                raise StackError("not enough memory to import TensorFlow") from None
            if not limit or not isinstance(error, Exception):
                raise
            raise StackError(
                f"TensorFlow cannot be imported: {_cause(error)}. Perhaps there is not enough"
                f" memory: this process may use {limit >> 20} MiB (ulimit -v)"
            ) from None


def _address_space() -> int:
    """Returns the limit of this process's memory in bytes; 0 if it has none."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return 0 if limit == resource.RLIM_INFINITY else limit


@contextlib.contextmanager
def _held_messages(is_limited: bool) -> Iterator[Callable[[], list[str]]]:
    """Holds the lines that libraries write while they load. Yields a function that returns them.

    They go to file descriptor 2 without passing `sys.stderr`. Messages of TensorFlow, which ignore
    the log level, are removed. All other lines are written afterwards, if there is no error. Lines
    are held if TensorFlow has such messages and the user has chosen no other level than `silence`,
    or if memory is limited.
    """
    early = numbers(tensorflow_version() or "0") >= EARLY_MESSAGES
    silenced = os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "3" and "tensorflow" not in sys.modules
    if not (early and silenced or is_limited):
        yield list
        return
    with contextlib.ExitStack() as stack:
        try:
            held = stack.enter_context(tempfile.TemporaryFile())
            terminal = os.dup(2)
        except OSError:  # no space for a file, or no standard error
            yield list
            return
        stack.callback(os.close, terminal)
        os.dup2(held.fileno(), 2)

        def lines() -> list[str]:
            held.seek(0)
            return held.read().decode(errors="backslashreplace").splitlines()

        try:
            yield lines
        except StackError:
            held.truncate(0)
            raise
        finally:
            os.dup2(terminal, 2)
            for line in lines():
                if not _MESSAGE.match(line):
                    os.write(2, line.encode() + b"\n")


def _is_for_users(record: LogRecord) -> bool:
    """Filters out the messages of TensorFlow 2.17 about the time for saving a checkpoint."""
    return record.module != "functional_saver"


def _cause(error: Exception) -> str:
    """Returns the line of an error's message that contains the cause.

    TensorFlow puts a traceback into the message of its own import errors. The cause is the last
    line of the traceback, which starts with an exception's name.
    """
    lines = [line for line in str(error).splitlines() if line.strip()]
    raised = [line for line in lines if re.match(r"\w*(Error|Exception)\b.*: .", line)]
    if lines and lines[0].startswith("Traceback") and raised:
        return raised[-1].strip()
    return lines[0].strip() if lines else type(error).__name__


@functools.lru_cache(maxsize=1)
def coder() -> Coder:
    """Returns the range coder that this process uses.

    The operations are used if a package has them for the installed TensorFlow and they load. The
    environment variable TFQUANT_CODER can select one: `operations` or `portable`.

    Raises:
      StackError: the packages are not compatible, the variable has another value, or it selects
        operations that are not available.
    """
    require()
    wanted = os.environ.get(CODER_VARIABLE)
    if wanted == PORTABLE:
        return Coder(PORTABLE, f"selected by {CODER_VARIABLE}")
    package, reason = operations_package()
    if package:
        try:
            importlib.import_module(_OPERATIONS[package][0])
            return Coder(OPERATIONS, f"{package} {version(package)}")
        except Exception as error:  # a library of another build may raise any type
            reason = f"{package} {version(package)} does not load: {_cause(error)}"
    if wanted == OPERATIONS:
        raise StackError(f"{CODER_VARIABLE}={OPERATIONS}, but {reason}")
    return Coder(PORTABLE, reason)


def operations_package() -> tuple[str | None, str]:
    """Returns (package with operations for the installed TensorFlow, ""), or (None, reason)."""
    tensorflow = tensorflow_version() or "0"
    releases = {package: version(package) for package in _OPERATIONS}
    installed = {package: release for package, release in releases.items() if release}
    for package, release in installed.items():
        # A release works only with the TensorFlow of the same number. Another one could crash the
        # process.
        if _OPERATIONS[package][1] == numbers(tensorflow) == numbers(release):
            return package, ""
    if not installed:
        fitting = [p for p, (_, fits) in _OPERATIONS.items() if fits == numbers(tensorflow)]
        if fitting:
            return None, f"{fitting[0]} is not installed"
        return None, f"no package has the operations for TensorFlow {tensorflow}"
    package, release = next(iter(installed.items()))
    return None, f"{package} {release} is not for TensorFlow {tensorflow}"


def operations_module() -> str | None:
    """Returns the name of the installed module with the coder's operations, or None."""
    package, _ = operations_package()
    return package and _OPERATIONS[package][0]


def load_operations() -> ModuleType:
    """Returns the module with the coder's operations.

    Raises:
      StackError: this process uses the portable coder.
    """
    if coder().kind != OPERATIONS:
        raise StackError(f"this needs the coder's operations: {coder().source}")
    module = operations_module()
    assert module is not None  # it has the coder that was found
    return importlib.import_module(module)


def platform_name() -> str:
    """Returns system and processor, such as `Linux x86_64`."""
    return f"{platform.system()} {platform.machine()}"


# Flag of the system -> vector extension that TensorFlow and oneDNN use.
_EXTENSIONS = {
    "avx2": "AVX2",
    "avx512f": "AVX512",
    "avx512_bf16": "AVX512 bfloat16",
    "amx_tile": "AMX",
}


def processor_extensions() -> list[str]:
    """Returns the processor's vector extensions; an empty list if the system does not say."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="ignore") as file:
            flags = next((line for line in file if line.startswith("flags")), "").split()
    except OSError:
        return []
    return [name for flag, name in _EXTENSIONS.items() if flag in flags]


def has_fast_bfloat16() -> bool:
    """Returns false if the processor is known to have no instructions for bfloat16."""
    extensions = processor_extensions()
    return not extensions or bool({"AVX512 bfloat16", "AMX"} & set(extensions))
