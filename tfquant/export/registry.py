"""The sets of models of this machine: those that tfquant brings along, and the user's.

A user's sets are folders in one folder, the first of these:

- the one that the environment variable TFQUANT_MODELS names;
- `$XDG_DATA_HOME/tfquant/models`, by default `~/.local/share/tfquant/models`; on macOS
  `~/Library/Application Support/tfquant/models`; on Windows `%LOCALAPPDATA%\\tfquant\\models`.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Callable

from tfquant import files, stack
from tfquant.export import manifest_file, model_set
from tfquant.export.model_set import ModelSet

VARIABLE = "TFQUANT_MODELS"
DEFAULT = "default"  # another name of the set below
PRETRAINED = "photographs"
_PACKAGED = os.path.join(os.path.dirname(os.path.dirname(__file__)), "pretrained")


def folder() -> str:
    """The folder of the user's sets; it may not exist."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return os.path.expanduser(chosen)
    home = os.path.expanduser("~")
    if sys.platform == "win32":
        data = os.environ.get("LOCALAPPDATA") or os.path.join(home, "AppData", "Local")
    elif sys.platform == "darwin":
        data = os.path.join(home, "Library", "Application Support")
    else:
        data = os.environ.get("XDG_DATA_HOME") or os.path.join(home, ".local", "share")
    return os.path.join(data, "tfquant", "models")


def sets(broken: Callable[[manifest_file.ModelError], None] | None = None) -> list[ModelSet]:
    """The installed sets and the user's, by name within each.

    Args:
      broken: a function that takes the `ModelError` of a set that cannot be read; None leaves such
        sets out in silence.
    """
    found = []
    for path in [*_folders(_PACKAGED), *_folders(folder())]:
        try:
            found.append(model_set.read(path))
        except manifest_file.ModelError as error:
            if broken is not None:
                broken(error)
    return found


def find(name: str) -> ModelSet:
    """A set by its name, or by the path of its folder or of an exported model.

    Args:
      name: `default`, a set's name, or a path. A path contains a separator or is a folder with an
        exported model or a set.

    Raises:
      ModelError: there is no such set or folder, or it cannot be read.
    """
    name = os.fspath(name)
    path = _set_folder(name)
    if path is not None:
        return model_set.read(path)
    if os.sep in name or "/" in name or files.isdir(name):
        return model_set.read(name)
    names = ", ".join(each.name for each in sets())
    raise manifest_file.ModelError(
        f"no model {name!r}; known: {DEFAULT}, {names}, and folders of exported models"
    )


def of_file(codec: str, fingerprint: str) -> tuple[ModelSet, model_set.Member]:
    """The set and the member that made the files with this fingerprint.

    Raises:
      ModelError: no set has such a member.
    """
    for each in sets():
        member = each.find(fingerprint)
        if member is not None:
            return each, member
    raise manifest_file.ModelError(
        f"made by model {codec} {fingerprint}, which is not installed: name its folder with"
        " --model, or add it with tfquant models --add"
    )


def add(
    exports: list[str],
    name: str | None = None,
    description: str = "",
    continuous: bool = False,
) -> ModelSet:
    """Registers exported models as a set of the user's.

    The set holds packed copies of the models: the exports may be removed after that.

    Args:
      exports: folders of exported models.
      name: of the set; None takes it from the first export's folder, which is `mine` for
        `runs/mine/export`.
      description: a sentence for users.
      continuous: if true, models with one rate get gains without training, so that the set has
        every quality around theirs; see `packed.widen`.

    Returns:
      The set.

    Raises:
      ModelError: an export cannot be read, or the name is taken or cannot name a folder.
      OSError: the set cannot be written.
      StackError: the installed packages do not go together.
    """
    name = name or _name_of(exports[0])
    if not re.fullmatch(r"\w[\w.-]*", name) or name == DEFAULT:
        raise manifest_file.ModelError(
            f"{name!r} cannot name a model: use letters, digits, '.', '-' and '_'; choose another"
            " with --name"
        )
    path = os.path.join(folder(), name)
    taken = _set_folder(name) or (path if os.path.exists(path) else None)
    if taken:
        raise manifest_file.ModelError(
            f"there is a model {name!r} already: {taken}; choose a --name"
        )
    manifests = [manifest_file.read_manifest(export) for export in exports]
    stack.import_tensorflow()
    from tfquant.export import packed

    pack = packed.widen if continuous else packed.pack_export
    with files.new_folder(path) as partial:
        made = [
            pack(export, os.path.join(partial, manifest.fingerprint))
            for export, manifest in zip(exports, manifests)
        ]
        ends = model_set.divided(made) if continuous else {}
        members = [
            model_set.entry(each.fingerprint, each, ends=ends.get(each.fingerprint))
            for each in made
        ]
        model_set.write(partial, name, members, description=description)
    return model_set.read(path)


def remove(name: str) -> str:
    """Removes a set of the user's; returns the folder that is gone.

    Raises:
      ModelError: there is no such set, or tfquant brought it along.
      OSError: it cannot be removed.
    """
    import shutil

    path = os.path.join(folder(), name)
    if not name or os.path.basename(name) != name or path not in _folders(folder()):
        own = ", ".join(map(os.path.basename, _folders(folder()))) or "none"
        raise manifest_file.ModelError(f"no model {name!r} was added here; added: {own}")
    shutil.rmtree(path)
    return path


def _set_folder(name: str) -> str | None:
    """The folder of the set with this name, None if there is none."""
    name = PRETRAINED if name == DEFAULT else name
    for path in [*_folders(_PACKAGED), *_folders(folder())]:
        if os.path.basename(path) == name:
            return path
    return None


def _folders(parent: str) -> list:
    """The folders of sets in a folder, sorted; none where it cannot be read."""
    try:
        names = sorted(os.listdir(parent))
    except OSError:
        return []
    paths = [os.path.join(parent, name) for name in names if not name.endswith(".partial")]
    return [path for path in paths if os.path.isfile(os.path.join(path, model_set.MANIFEST))]


def _name_of(export: str) -> str:
    """A name from an export's path: its folder's, or the run's where the folder is `export`."""
    parts = os.path.abspath(export).rstrip(os.sep).split(os.sep)
    return parts[-2] if parts[-1] == manifest_file.FOLDER and len(parts) > 1 else parts[-1]
