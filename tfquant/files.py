"""Files by name, on this machine or on remote systems such as `gs://...`.

TensorFlow (`tf.io.gfile`) opens names with a scheme. Python opens all others, so that commands
without a model do not import TensorFlow. All errors are OSErrors in both cases.

`expanded` expands a path from the user. `shown` makes any name printable: names may contain line
breaks and bytes that are not UTF-8.
"""

from __future__ import annotations

import atexit
import codecs
import collections
import contextlib
import dataclasses
import glob
import os
import re
import shutil
import stat
import sys
import tempfile
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, BinaryIO, Callable

from tfquant import stack

# Functions of both file systems, with TensorFlow's names.
_LOCAL = SimpleNamespace(
    GFile=open,
    exists=os.path.exists,
    glob=lambda pattern: glob.glob(pattern, recursive=True),
    isdir=os.path.isdir,
    listdir=os.listdir,
    makedirs=lambda path: os.makedirs(path or ".", exist_ok=True),
    rename=lambda source, target, overwrite=False: os.replace(source, target),
    rmtree=shutil.rmtree,
)

# Text about the operation in TensorFlow's errors, before and after the reason.
_OPERATION = r"^\{\{.*?\}\}|\[Op:\w+\].*$"


# Names of folders and files that systems hide or reserve, in addition to names with a leading dot.
_HIDDEN = {
    "$recycle.bin", "#recycle", "@eadir", "__macosx", "lost+found", "system volume information",
    "desktop.ini", "thumbs.db",
}  # fmt: skip

# What TensorFlow takes for a pattern.
_PATTERN = re.compile(r"[*?\[\]\\]")

# Byte-order mark -> encoding. The mark of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def expanded(path: str) -> str:
    """Expands `~` at the start of a path to the home folder.

    A shell expands `~` in `--flag ~/x` but not in `--flag=~/x`.
    """
    return os.path.expanduser(path)


_links: dict[str, str] = {}  # folder -> the link that `_alias` made


def _alias(folder: str) -> str:
    """Returns a link to a folder, in a temporary folder that ends with the process."""
    if folder not in _links:
        home = tempfile.mkdtemp(prefix="tfquant-")
        atexit.register(shutil.rmtree, home, ignore_errors=True)
        link = os.path.join(home, "link")
        os.symlink(folder, link)
        _links[folder] = link
    return _links[folder]


def for_tensorflow(path: str) -> str:
    """Returns a name of a local file, folder or prefix that TensorFlow opens.

    TensorFlow takes `[1]` in the name of a checkpoint for a pattern, and no name that is not UTF-8.
    Such a path is reached through a temporary link to its folder.
    """
    path = os.fspath(path)
    if not is_local(path) or not (_PATTERN.search(path) or not _is_utf8(path)):
        return path
    folder, name = (path, "") if os.path.isdir(path) else os.path.split(path)
    link = _alias(os.path.abspath(folder))
    return os.path.join(link, name) if name else link


def utf8_folder(path: str) -> str:
    """Returns a UTF-8 name of a folder, which is created if it has none of its own."""
    if not is_local(path) or _is_utf8(path):
        return path
    os.makedirs(path, exist_ok=True)
    return _alias(os.path.abspath(path))


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(name: str | os.PathLike) -> str:
    """Returns a name, or a line with names, as printable text.

    Line breaks and other control characters are escaped as in Python, and bytes that are not UTF-8
    as `\\xe9`. Temporary links are replaced by the folders to which they lead.
    """
    text = os.fspath(name)
    for folder, link in list(_links.items()):
        text = text.replace(link, folder)
    with contextlib.suppress(UnicodeEncodeError):  # half of a surrogate pair
        text = os.fsencode(text).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def one_line(message: object) -> str:
    """Returns a message, or that of an error, without line breaks."""
    return " ".join(str(message).split())


def reason(error: Exception) -> str:
    """Returns an error's message without line breaks, or its class if the message is empty."""
    return one_line(error) or type(error).__name__


def folded(name: str) -> str:
    """Returns a name as file systems compare it that ignore case and Unicode forms."""
    return unicodedata.normalize("NFC", name).casefold()


def distinct_names(
    choices: Sequence[Sequence[str]], key: Callable[[str], str], taken: Collection[str] = ()
) -> list[str]:
    """Returns distinct names that are as short as possible.

    Args:
      choices: for each item its possible names, from the shortest to the longest.
      key: maps a name to the value that is compared.
      taken: keys that no name may have.

    Returns:
      For each item the first of its names that no other item has, else the longest name with a
      number.
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
    """Makes standard output and error escape characters that their encoding lacks, instead of
    failing.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # replaced by a test, or closed
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def decoded(data: bytes) -> str:
    """Decodes the text of a file from any editor; lines end with `\\n`.

    UTF-8, UTF-16 and UTF-32 are detected by their byte-order mark, UTF-16 without one by its zero
    bytes. Any other text is read as Windows-1252.
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
    """Returns true if the name has no scheme."""
    return "://" not in path


def check_local_folder(flag: str, path: str) -> None:
    """Raises OSError unless `path`, given by `flag`, is a folder of this machine."""
    if not path or not is_local(path):
        raise OSError(f"{flag} must name a folder of this machine; got {path!r}")


def _system(path: str) -> Any:
    """Returns the file system of a name."""
    if is_local(path):
        return _LOCAL
    _import_tensorflow()
    import tensorflow as tf

    return tf.io.gfile


def _import_tensorflow() -> None:
    """Imports TensorFlow once: reading packages' versions takes longer than writing a file."""
    if "tensorflow" not in sys.modules:
        stack.import_tensorflow()


@contextlib.contextmanager
def as_oserror(path: str, before: str = "") -> Iterator[None]:
    """Converts TensorFlow's errors to an OSError of one line: the path, `before`, and the
    reason.
    """
    _import_tensorflow()
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        raise OSError(f"{path}: {before}{reason_of(error)}") from None


def reason_of(error: Any) -> str:
    """Returns the reason in an error of an eager TensorFlow operation, in one line."""
    return re.sub(_OPERATION, "", " ".join(error.message.split())).strip()


def _errors(path: str) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext() if is_local(path) else as_oserror(path)


def exists(path: str) -> bool:
    """Returns true if the file or folder exists. Raises OSError if this is unknown."""
    with _errors(path):
        return _system(path).exists(path)


def isdir(path: str) -> bool:
    """Returns true if the name is an existing folder."""
    with _errors(path):
        return _system(path).isdir(path)


def isfile(path: str) -> bool:
    """Returns true if the name is an existing file."""
    return exists(path) and not isdir(path)


def matches(pattern: str) -> list[str]:
    """Returns the paths of the files and folders that match a glob, in any order."""
    with _errors(pattern):
        return _system(pattern).glob(pattern)


@dataclasses.dataclass(frozen=True)
class Tree:
    """The files below a folder.

    Attributes:
      paths: paths of the files, in any order, including broken links.
      hidden: paths of the files and folders that are skipped because they are hidden.
      special: paths of FIFOs, sockets and devices, which are also skipped.
      unreadable: paths of the subfolders that cannot be read.
    """

    paths: list[str] = dataclasses.field(default_factory=list)
    hidden: list[str] = dataclasses.field(default_factory=list)
    special: list[str] = dataclasses.field(default_factory=list)
    unreadable: list[str] = dataclasses.field(default_factory=list)


def is_hidden(name: str) -> bool:
    """Returns true if a file's or folder's name is one that systems hide or reserve."""
    return name.startswith(".") or name.lower() in _HIDDEN


def walk(folder: str) -> Tree:
    """Finds all files in a folder and in its subfolders.

    Follows links to folders and visits each folder once. Skips hidden subfolders; the folder itself
    may be hidden.

    Raises:
      OSError: the folder itself cannot be read.
    """
    with _errors(folder):
        _system(folder).listdir(folder)
        return _walk_local(folder) if is_local(folder) else _walk_remote(folder)


def _walk_local(folder: str) -> Tree:
    tree, seen = Tree(), set()

    def skip(error: OSError) -> None:
        tree.unreadable.append(error.filename)

    # Links come last, so that a folder is first found at its own location.
    waiting = [folder]
    while waiting:
        links: list[str] = []
        for top in sorted(waiting):
            for parent, subfolders, names in os.walk(top, onerror=skip):
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
    except OSError:  # such as a broken link; opening it will report the reason
        return False
    return not stat.S_ISREG(mode)


def _walk_remote(folder: str) -> Tree:
    tree, hidden = Tree(), []
    for parent, subfolders, names in _system(folder).walk(folder):
        hidden += [os.path.join(parent, name) for name in subfolders if is_hidden(name.rstrip("/"))]
        if any(parent == h or parent.startswith(h.rstrip("/") + "/") for h in hidden):
            continue
        for name in names:
            (tree.hidden if is_hidden(name) else tree.paths).append(os.path.join(parent, name))
    tree.hidden.extend(hidden)
    return tree


def below(folder: str) -> list[str]:
    """Returns the paths of all files that `walk` finds, in any order."""
    return walk(folder).paths


@contextlib.contextmanager
def reading(path: str) -> Iterator[BinaryIO]:
    """Opens a file for reading bytes, as a context."""
    with _errors(path), _system(path).GFile(path, "rb") as file:
        yield file


def read(path: str) -> bytes:
    """Returns a file's bytes."""
    with reading(path) as file:
        return file.read()


def write(path: str, content: str | bytes) -> None:
    """Writes a file atomically. Creates its folder if it does not exist."""
    data = content.encode() if isinstance(content, str) else content
    partial = path + ".partial"
    with _as_one_line(path, "cannot be written: "):
        _system(path).makedirs(os.path.dirname(path))
        with _system(path).GFile(partial, "wb") as file:
            file.write(data)
        _system(path).rename(partial, path, overwrite=True)


@contextlib.contextmanager
def new_folder(path: str) -> Iterator[str]:
    """Yields a name of a new folder, which replaces `path` and anything there on success.

    A link is followed, so it stays a link. TensorFlow can open the name. On failure, the new folder
    is removed, unless it is complete and only the replacement failed.

    Raises:
      OSError: the folder cannot be created, or cannot replace `path`; in this case the message
        contains its location.
    """
    if is_local(path) and os.path.islink(path):
        path = os.path.realpath(path)
    partial = path.rstrip("/" + os.sep) + ".partial"
    with _as_one_line(path):
        _remove_folder(partial)
        _system(path).makedirs(partial)
    try:
        yield for_tensorflow(partial)
    except BaseException:
        _remove_folder(partial)
        raise
    stays = f"the result stays in {shown(partial)}, because it cannot be moved here: "
    with _as_one_line(path, stays):
        _remove_folder(path)
        _system(path).rename(partial, path)


def _remove_folder(path: str) -> None:
    if _system(path).exists(path):
        _system(path).rmtree(path)


@contextlib.contextmanager
def _as_one_line(path: str, before: str = "") -> Iterator[None]:
    """Converts errors to an OSError as `as_oserror` does, also those of this machine's files."""
    if not is_local(path):
        with as_oserror(path, before):
            yield
        return
    try:
        yield
    except OSError as error:
        raise OSError(f"{shown(path)}: {before}{error.strerror or error}") from None


def check_owner(folder: str | os.PathLike, flag: str, what: str, asked: dict, found: dict) -> None:
    """Checks that a folder belongs to the current request.

    Args:
      folder: the folder.
      flag: the flag that names the folder.
      what: kind of its content, such as "experiment".
      asked: name -> value of the request.
      found: name -> value recorded in the folder.

    Raises:
      ValueError: values differ; the message lists their names.
    """
    differing = sorted(name for name in {**asked, **found} if asked.get(name) != found.get(name))
    if differing:
        raise ValueError(
            f"{folder} contains another {what} (differs in {', '.join(differing)}); use a new"
            f" {flag}, delete this folder, or repeat the flags of the first call to resume"
        )
