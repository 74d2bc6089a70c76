"""Files by name, wherever they are: this machine's, or those of `gs://...` and the like.

Names with a scheme are TensorFlow's to open (`tf.io.gfile`). Others are Python's, so that commands
without a model do not import TensorFlow. What goes wrong is an OSError either way.

`expanded` gives every path that a user writes its meaning. `shown` makes any name printable: names
may hold line breaks and bytes that are no UTF-8.
"""

from __future__ import annotations

import codecs
import collections
import contextlib
import dataclasses
import glob
import os
import re
import stat
import sys
import unicodedata
from types import SimpleNamespace
from typing import Callable

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
    listdir=os.listdir,
)

# What TensorFlow's errors say of the operation that met them, before the reason and after it.
_OPERATION = r"^\{\{.*?\}\}|\[Op:\w+\].*$"


# Names of folders and files that systems hide or keep for themselves, apart from those with a dot.
_HIDDEN = {
    "$recycle.bin", "#recycle", "@eadir", "__macosx", "lost+found", "system volume information",
    "desktop.ini", "thumbs.db",
}  # fmt: skip

# Byte-order mark -> encoding. The mark of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def expanded(path: str) -> str:
    """The path that a user means: `~` at its beginning is the home folder.

    A shell expands `~` in `--flag ~/x` but not in `--flag=~/x`.
    """
    return os.path.expanduser(path)


def shown(name) -> str:
    """A name as a line of text can show it.

    Line breaks and other control characters are escaped as in Python, and bytes that are no UTF-8
    as `\\xe9`.
    """
    try:
        text = os.fsencode(name).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a surrogate pair
        text = os.fspath(name)
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def folded(name: str) -> str:
    """A name as file systems that ignore case and Unicode's forms compare it."""
    return unicodedata.normalize("NFC", name).casefold()


def distinct_names(choices: list, key: Callable, taken=()) -> list:
    """Names that tell things apart, as short as they can be.

    Args:
      choices: for each thing its possible names, from the shortest to the fullest.
      key: name -> what is compared.
      taken: keys that no name may have.

    Returns:
      For each thing the first of its names that is no other's; the fullest with a number if even
      that is another's.
    """
    levels = [0] * len(choices)
    while True:
        names = [names[level] for names, level in zip(choices, levels)]
        counts = collections.Counter(map(key, names))
        clashing = [
            i for i, name in enumerate(names)
            if levels[i] + 1 < len(choices[i]) and (counts[key(name)] > 1 or key(name) in taken)
        ]  # fmt: skip
        if not clashing:
            break
        for i in clashing:
            levels[i] += 1
    used = set(taken)
    for i, name in enumerate(names):
        number = 2
        while key(names[i]) in used:
            names[i] = f"{name}~{number}"
            number += 1
        used.add(key(names[i]))
    return names


def lenient_output() -> None:
    """Lets standard output and error escape what their encoding lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # replaced by a test, or closed
            stream.reconfigure(errors="backslashreplace")


def decoded(data: bytes) -> str:
    """Text of a file that any editor wrote, with `\\n` at the end of lines.

    UTF-8, UTF-16 and UTF-32 are recognised by their mark, UTF-16 without one by its zero bytes.
    What is none of them is read as Windows-1252.
    """
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), None)
    if encoding is None and len(data) > 1 and 0 in data[:2]:
        encoding = "utf-16-be" if data[0] == 0 else "utf-16-le"
    try:
        text = data.decode(encoding or "utf-8")
    except UnicodeDecodeError:
        text = data.decode("cp1252", "replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


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


@dataclasses.dataclass(frozen=True)
class Tree:
    """The files below a folder.

    Attributes:
      paths: of the files, in no order; broken links among them.
      hidden: paths of the files and folders that were left out because they are hidden.
      special: paths of FIFOs, sockets and devices, which were left out too.
    """

    paths: list[str]
    hidden: list[str]
    special: list[str]


def is_hidden(name: str) -> bool:
    """Says if a file's or folder's name is one that systems hide or keep for themselves."""
    return name.startswith(".") or name.lower() in _HIDDEN


def walk(folder: str) -> Tree:
    """Looks for all files in a folder and in its folders.

    Links to folders are followed, each folder once. Hidden folders in it are left out; the folder
    itself may be hidden. Folders of this machine that cannot be read are named in the log.

    Raises:
      OSError: the folder itself cannot be read.
    """
    with _errors(folder):
        _system(folder).listdir(folder)
        return _walk_local(folder) if is_local(folder) else _walk_remote(folder)


def _walk_local(folder: str) -> Tree:
    tree, seen = Tree([], [], []), set()
    # Links come last, so that a folder is found in its own place first.
    waiting = [folder]
    while waiting:
        links = []
        for top in sorted(waiting):
            for parent, subfolders, names in os.walk(top, onerror=_left_out):
                real = os.path.realpath(parent)
                if real in seen:
                    subfolders.clear()
                    continue
                seen.add(real)
                shown_folders = [name for name in subfolders if not is_hidden(name)]
                entries = {*subfolders, *names}
                tree.hidden.extend(os.path.join(parent, n) for n in entries if is_hidden(n))
                paths = [os.path.join(parent, name) for name in shown_folders]
                links.extend(path for path in paths if os.path.islink(path))
                subfolders[:] = shown_folders
                for name in names:
                    if not is_hidden(name):
                        path = os.path.join(parent, name)
                        (tree.special if _is_special(path) else tree.paths).append(path)
        waiting = links
    return tree


def _is_special(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode
    except OSError:  # a broken link, say: whoever opens it says why
        return False
    return not stat.S_ISREG(mode)


def _walk_remote(folder: str) -> Tree:
    tree, hidden = Tree([], [], []), []
    for parent, subfolders, names in _system(folder).walk(folder):
        hidden += [os.path.join(parent, name) for name in subfolders if is_hidden(name.rstrip("/"))]
        if any(parent == h or parent.startswith(h.rstrip("/") + "/") for h in hidden):
            continue
        for name in names:
            (tree.hidden if is_hidden(name) else tree.paths).append(os.path.join(parent, name))
    tree.hidden.extend(hidden)
    return tree


def below(folder: str) -> list[str]:
    """Paths of all files that `walk` finds, in no order."""
    return walk(folder).paths


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
