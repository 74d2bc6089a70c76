"""Files by name, wherever they are: this machine's, or those of `gs://...` and the like.

Names with a scheme are TensorFlow's to open (`tf.io.gfile`). Others are Python's, so that commands
without a model do not import TensorFlow.
"""

from __future__ import annotations

import contextlib
import glob
import os
from types import SimpleNamespace

# What both file systems offer, by TensorFlow's names.
_LOCAL = SimpleNamespace(
    GFile=open,
    exists=os.path.exists,
    glob=lambda pattern: glob.glob(pattern, recursive=True),
    isdir=os.path.isdir,
    walk=os.walk,
)


def is_local(path: str) -> bool:
    """Whether the name has no scheme."""
    return "://" not in path


def system(path: str):
    """The file system of a name: `GFile`, `exists`, `glob`, `isdir` and `walk`, as in gfile."""
    if is_local(path):
        return _LOCAL
    import tensorflow as tf

    return tf.io.gfile


def exists(path: str) -> bool:
    return system(path).exists(path)


def isdir(path: str) -> bool:
    return system(path).isdir(path)


def isfile(path: str) -> bool:
    return exists(path) and not isdir(path)


def read(path: str) -> bytes:
    """A file's bytes; an OSError, or TensorFlow's error, where there are none to be had."""
    with system(path).GFile(path, "rb") as file:
        return file.read()


@contextlib.contextmanager
def new_folder(path: str):
    """Gives the name of a folder that takes the place of `path`, whatever is there, on success.

    On failure nothing is left of it.
    """
    import tensorflow as tf

    gfile = tf.io.gfile
    partial = path.rstrip("/") + ".partial"
    if gfile.exists(partial):
        gfile.rmtree(partial)
    gfile.makedirs(partial)
    try:
        yield partial
        if gfile.exists(path):
            gfile.rmtree(path)
        gfile.rename(partial, path)
    finally:
        if gfile.exists(partial):
            gfile.rmtree(partial)
