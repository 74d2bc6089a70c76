"""Search for pictures in a folder, a glob or a list. It also counts the skipped files.

Pictures in a folder are recognized by their extension, in upper or lower case. A file without
extension is recognized by its content. Hidden files and folders are skipped. Links to folders are
followed.
"""

from __future__ import annotations

import collections
import dataclasses
import glob
import os
import re

from tfquant import files
from tfquant.data import decoding
from tfquant.data.decoding import ImageError

SAMPLE = "sample"  # means the pictures of `evaluation/pictures.py`, in some commands
_HEAD = 32  # bytes by which pictures are recognized
_EXTENSION = re.compile(r"\.[a-z][a-z0-9+_-]{0,11}~?$|\.7z$", re.IGNORECASE)
_KINDS = 8  # kinds that a summary lists


@dataclasses.dataclass
class Found:
    """The result of a search.

    Attributes:
      paths: paths of the pictures, sorted, without duplicates.
      others: paths of files that are not pictures according to their names.
      hidden: paths of hidden files and folders.
      special: paths of FIFOs, sockets and devices.
      unreadable: paths of folders that cannot be read.
    """

    paths: list[str]
    others: list[str] = dataclasses.field(default_factory=list)
    hidden: list[str] = dataclasses.field(default_factory=list)
    special: list[str] = dataclasses.field(default_factory=list)
    unreadable: list[str] = dataclasses.field(default_factory=list)

    def left_out(self) -> str:
        """Returns one line that counts the skipped files, or "" if there are none."""
        parts = []
        if self.others:
            parts.append(_counted(self.others))
        if self.special:
            parts.append(f"{len(self.special)} FIFOs, sockets or devices")
        if self.hidden:
            parts.append(f"{len(self.hidden)} hidden files or folders")
        if self.unreadable:
            names = ", ".join(map(files.shown, sorted(self.unreadable)))
            parts.append(f"{len(self.unreadable)} unreadable folder(s) ({names})")
        return "; ".join(parts)


def search(spec: str) -> Found:
    """Searches for the pictures of `spec`.

    Args:
      spec: a file, a folder (searched recursively), a glob, or several of these separated by
        commas. In a glob, `**` crosses folders. Its folders are searched, and its files need a
        known extension. A name that exists is not a glob. `~` is the home folder.

    Raises:
      ImageError: a part of `spec` leads to no picture.
      OSError: the search fails, for example because the file system does not allow such a name.
    """
    asked = parts(os.fspath(spec))
    if not asked:
        raise ImageError("no pictures asked for: expected a file, a folder or a glob, got ''")
    taken: dict[str, str] = {}
    result = Found([])
    for part in asked:
        found = _expand(part)
        if not found.paths:
            raise ImageError(f"{files.shown(part)}: {_why_none(part, found)}")
        for path in found.paths:
            if files.is_local(path):
                taken.setdefault(os.path.abspath(path), os.path.normpath(path))
            else:
                taken[path] = path
        for name in ("others", "hidden", "special", "unreadable"):
            getattr(result, name).extend(getattr(found, name))
    result.paths = sorted(taken.values())
    return result


def with_extension(folder: str, extension: str) -> Found:
    """Finds the files below a folder that have an extension, in upper or lower case.

    Raises:
      OSError: the folder cannot be read.
    """
    tree = files.walk(folder)
    result = Found([], [], tree.hidden, tree.special, tree.unreadable)
    for path in sorted(tree.paths):
        (result.paths if path.lower().endswith(extension) else result.others).append(path)
    return result


def parts(spec: str) -> list[str]:
    """Splits a comma-separated list. Blanks around a name are kept if that name exists."""
    for whole in (files.expanded(spec), files.expanded(spec.strip())):
        if whole and files.exists(whole):
            return [whole]
    found = []
    for part in spec.split(","):
        exact, stripped = files.expanded(part), files.expanded(part.strip())
        found.append(exact if exact.strip() and files.exists(exact) else stripped)
    return [part for part in found if part]


def _why_none(part: str, found: Found) -> str:
    if files.isdir(part):
        what = "folder"
    elif glob.has_magic(part):
        what = "glob"
    else:
        return "no such file or folder"
    left_out = found.left_out()
    reason = f"no pictures in this {what} ({', '.join(decoding.extensions())})"
    return f"{reason}; skipped: {left_out}" if left_out else reason


def _expand(part: str) -> Found:
    if files.isfile(part):
        return Found([part])
    result = Found([])
    folders = [part] if files.isdir(part) else []
    if not folders:
        for match in files.matches(part):
            if files.isdir(match):
                folders.append(match)
            else:
                (result.paths if is_picture(match) else result.others).append(match)
    for folder in folders:
        tree = files.walk(folder)
        for path in tree.paths:
            (result.paths if is_picture(path) else result.others).append(path)
        result.hidden.extend(tree.hidden)
        result.special.extend(tree.special)
        result.unreadable.extend(tree.unreadable)
    return result


def is_picture(path: str) -> bool:
    """Returns true if a file is a picture by its extension, or by its content without extension."""
    name = os.path.basename(path)
    if files.is_hidden(name):
        return False
    if name.lower().endswith(decoding.extensions()):
        return True
    if _EXTENSION.search(name):
        return False
    try:
        with files.reading(path) as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    heif = any(extension in decoding.extensions() for extension in decoding.HEIF["HEIF"])
    return decoding.is_picture_data(head) and (heif or not decoding.is_heif_data(head))


def _counted(paths: list[str]) -> str:
    """Returns text such as "12 files of other kinds: 9 .HEIC, 3 .txt"."""
    spellings: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for path in paths:
        match = _EXTENSION.search(os.path.basename(path))
        extension = match[0] if match else ""
        spellings[extension.lower()][extension] += 1
    kinds = sorted(spellings.items(), key=lambda item: (-sum(item[1].values()), item[0]))
    texts = []
    for _, spelled in kinds[:_KINDS]:
        name = files.shown(spelled.most_common(1)[0][0]) or "without extension"
        texts.append(f"{sum(spelled.values())} {name}")
    more = sum(sum(spelled.values()) for _, spelled in kinds[_KINDS:])
    texts += [f"{more} others"] if more else []
    advice = ""
    if not spellings.keys().isdisjoint(decoding.HEIF["HEIF"]):
        advice = " (the package pillow-heif reads HEIC)"
    noun = "1 file of another kind" if len(paths) == 1 else f"{len(paths)} files of other kinds"
    return f"{noun}: {', '.join(texts)}{advice}"
