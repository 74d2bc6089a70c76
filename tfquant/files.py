"""Files by name, wherever they are: this machine's, or those of `gs://...` and the like.

Names with a scheme are TensorFlow's to open (`tf.io.gfile`). Others are Python's, so that commands
without a model do not import TensorFlow. What goes wrong is an OSError either way.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
from types import SimpleNamespace

from absl import logging

from tfquant import stack


def _left_out(error: OSError) -> None:
    logging.warning("a folder cannot be read and is left out: %s", error)


# What both file systems offer, by TensorFlow's names.
_LOCAL = SimpleNamespace(
    GFile=open,
    exists=os.path.exists,
    glob=lambda pattern: glob.glob(pattern, recursive=True),
    isdir=os.path.isdir,
    walk=lambda folder: os.walk(folder, onerror=_left_out),
    listdir=os.listdir,
)

# What TensorFlow's errors say of the operation that met them, before the reason and after it.
_OPERATION = r"^\{\{.*?\}\}|\[Op:\w+\].*$"


def is_local(path: str) -> bool:
    """Whether the name has no scheme."""
    return "://" not in path


def check_local_folder(flag: str, path: str) -> None:
    """OSError unless `path`, that `flag` gave, names a folder of this machine."""
    if not path or not is_local(path):
        raise OSError(f"{flag} must name a folder of this machine; got {path!r}")


def _system(path: str):
    """The file system of a name."""
    if is_local(path):
        return _LOCAL
    stack.import_tensorflow()
    import tensorflow as tf

    return tf.io.gfile


@contextlib.contextmanager
def as_oserror(path: str, before: str = ""):
    """Turns TensorFlow's errors into an OSError of one line: the path, `before`, and the reason."""
    stack.import_tensorflow()
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        reason = re.sub(_OPERATION, "", " ".join(error.message.split())).strip()
        raise OSError(f"{path}: {before}{reason}") from None


def _errors(path: str):
    return contextlib.nullcontext() if is_local(path) else as_oserror(path)


def exists(path: str) -> bool:
    with _errors(path):
        return _system(path).exists(path)


def isdir(path: str) -> bool:
    with _errors(path):
        return _system(path).isdir(path)


def isfile(path: str) -> bool:
    return exists(path) and not isdir(path)


def matches(pattern: str) -> list[str]:
    """Paths of the files and folders that a glob means, in no order."""
    with _errors(pattern):
        return _system(pattern).glob(pattern)


def below(folder: str) -> list[str]:
    """Paths of all files in a folder and in its folders, in no order.

    Folders of this machine in it that cannot be read are named in the log.

    Raises:
      OSError: the folder itself cannot be read.
    """
    system = _system(folder)
    with _errors(folder):
        system.listdir(folder)
        return [
            os.path.join(parent, name) for parent, _, names in system.walk(folder) for name in names
        ]


@contextlib.contextmanager
def reading(path: str):
    """Gives the file, open to be read as bytes."""
    with _errors(path), _system(path).GFile(path, "rb") as file:
        yield file


def read(path: str) -> bytes:
    """A file's bytes."""
    with reading(path) as file:
        return file.read()


def write(path: str, content: str | bytes) -> None:
    """Writes a file whole or not at all, into a folder that is made if it is not there."""
    import tensorflow as tf

    gfile, partial = tf.io.gfile, path + ".partial"
    with as_oserror(path, "cannot be written: "):
        gfile.makedirs(os.path.dirname(path))
        with gfile.GFile(partial, "wb" if isinstance(content, bytes) else "w") as file:
            file.write(content)
        gfile.rename(partial, path, overwrite=True)


@contextlib.contextmanager
def new_folder(path: str):
    """Gives the name of a folder that takes the place of `path`, whatever is there, on success.

    On failure nothing is left of it, unless it is whole and only cannot take that place.

    Raises:
      OSError: it cannot be made, or cannot take its place; then the message says where it is.
    """
    import tensorflow as tf

    gfile = tf.io.gfile
    partial = path.rstrip("/" + os.sep) + ".partial"
    with as_oserror(path):
        if gfile.exists(partial):
            gfile.rmtree(partial)
        gfile.makedirs(partial)
    try:
        yield partial
    except BaseException:
        if gfile.exists(partial):
            gfile.rmtree(partial)
        raise
    with as_oserror(path, f"what was made stays in {partial}, it cannot take its place: "):
        if gfile.exists(path):
            gfile.rmtree(path)
        gfile.rename(partial, path)


def check_owner(folder: str | os.PathLike, flag: str, what: str, asked: dict, found: dict) -> None:
    """Checks that a folder holds what is asked for. A folder belongs to what it was made for.

    Args:
      folder: the folder.
      flag: that named it.
      what: it holds, in a word.
      asked, found: name -> value.

    Raises:
      ValueError: they differ; the message names in what.
    """
    differing = sorted(name for name in {**asked, **found} if asked.get(name) != found.get(name))
    if differing:
        raise ValueError(
            f"{folder} holds another {what} (differs in {', '.join(differing)}); name a new {flag},"
            " delete this folder, or repeat the flags of the first call to go on"
        )
