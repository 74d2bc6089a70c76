"""Imports TensorFlow in a process that runs one command, in less time than `import tensorflow`."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
from collections.abc import Iterator

from tfquant import stack


def import_tensorflow(*others: str) -> None:
    """Imports TensorFlow, and then the modules with the given names.

    TensorFlow 2.16 and later import Keras 3, which imports Matplotlib, unless TF_USE_LEGACY_KERAS
    is set. This package uses Keras 2, so the variable is set here. Garbage collection is off during
    the import, because there is nothing to collect. `python benchmarks/parts.py --only=start`
    measures both together.

    The imported objects are then frozen. If the process has imported TensorFlow before, its garbage
    collection is not changed, because `gc.freeze` would keep its garbage for ever.

    Raises:
      StackError: the installed packages are not compatible, or the import fails.
    """
    is_first = "tensorflow" not in sys.modules
    if not is_first and others and all(name in sys.modules for name in others):
        return  # threads call this for every picture
    if is_first and stack.tensorflow_version() and not stack.has_keras_2():
        os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    with _without_collection() if is_first else contextlib.nullcontext():
        stack.import_tensorflow()
        with stack.importing():
            for name in others:
                importlib.import_module(name)


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Turns garbage collection off, and then freezes the objects that were made."""
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def prepare(program: str, *others: str) -> None:
    """Calls `import_tensorflow` for a program. If it fails, ends the program with one line."""
    try:
        import_tensorflow(*others)
    except stack.StackError as error:
        raise SystemExit(f"{program}: {error}") from None
