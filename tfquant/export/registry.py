"""The sets of models of this machine: those that tfquant brings along, and the user's.

A user's sets are folders in one folder, the first of these:

- the one that the environment variable TFQUANT_MODELS names;
- `$XDG_DATA_HOME/tfquant/models`, by default `~/.local/share/tfquant/models`; on macOS
  `~/Library/Application Support/tfquant/models`; on Windows `%LOCALAPPDATA%\\tfquant\\models`.

The name of a set is that of its folder. `SET/MEMBER` names one model of a set by its folder there.
"""

from __future__ import annotations

import os
import re
import sys
import time
from typing import Callable

from tfquant import files, stack
from tfquant.export import manifest_file, model_set
from tfquant.export.model_set import ModelSet

VARIABLE = "TFQUANT_MODELS"
DEFAULT = "default"  # another name of the set below
PRETRAINED = "photographs"
_PARTIAL = ".partial"  # end of the name of a folder that is being written, see `files.new_folder`
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

    A user's set with the name of an installed one has its path for a name.

    Args:
      broken: a function that takes the `ModelError` of a set that cannot be read; None leaves such
        sets out in silence.
    """
    found: list[ModelSet] = []
    for path in _every_folder():
        name = os.path.basename(path)
        hidden = any(each.name == name for each in found)
        try:
            found.append(model_set.read(path, path if hidden else name))
        except manifest_file.ModelError as error:
            if broken is not None:
                broken(error)
    return found


def names() -> list[str]:
    """The names of all sets that can be read, `default` first."""
    return [DEFAULT, *(each.name for each in sets())]


def find(name: str) -> ModelSet:
    """A set by its name, or by the path of its folder or of an exported model.

    Args:
      name: `default`, a set's name, the name of a set and the folder of one of its models such as
        `default/q38`, or a path. A path contains a separator or is a folder with an exported model
        or a set.

    Raises:
      ModelError: there is no such set or folder, it cannot be read, or a set and a folder have the
        name.
    """
    name = os.fspath(name)
    try:
        return _find(name)
    except OSError as error:  # a remote folder
        raise manifest_file.ModelError(f"{name}: cannot be read: {files.reason(error)}") from None


def _find(name: str) -> ModelSet:
    """Returns the set of `find`. Raises an OSError if a remote folder cannot be read."""
    path = set_folder(name)
    if path is not None:
        found = model_set.read(path, os.path.basename(path))
        # The default models stay available where a folder is named `default`.
        if name != DEFAULT and has_model(name) and not _holds(found, name):
            raise manifest_file.ModelError(
                f"{name!r} is a set of models, {path}, and a folder here with another model: name"
                f" the one by this path or the other by {os.path.join(os.curdir, name)}"
            )
        return found
    if os.sep in name or "/" in name or files.isdir(name):
        member = None if files.isdir(name) else member_folder(name)
        return model_set.read(name) if member is None else model_set.read(member, name)
    if name == DEFAULT:
        raise manifest_file.ModelError(
            f"the pretrained models are missing, {os.path.join(_PACKAGED, PRETRAINED)}: install"
            " tfquant again"
        )
    raise manifest_file.ModelError(
        f"no model {name!r}; known: {', '.join(names())}, and folders of exported models"
    )


def _holds(models: ModelSet, folder: str) -> bool:
    """Returns true if a set has all models of a folder."""
    return all(models.find(m.manifest.fingerprint) for m in model_set.read(folder).members)


def of_file(
    codec: str, fingerprint: str, quality: float | None = None
) -> tuple[ModelSet, model_set.Member]:
    """The set and the member that decode a file.

    Several sets may have models with the file's fingerprint. A model that has the file's quality
    comes first. Among these, the installed sets come first, and then the set that was added first:
    an addition does not change how earlier files are decoded.

    Args:
      codec: name of the file's codec.
      fingerprint: that of the file.
      quality: that of the file, None if it has none.

    Raises:
      ModelError: no set has a model with this fingerprint.
    """
    broken: list[manifest_file.ModelError] = []
    known = []
    for each in sorted(sets(broken.append), key=lambda models: models.added):
        member = each.find(fingerprint, quality)
        if member is not None and member.reads(quality):
            return each, member
        known += [] if member is None else [(each, member)]
    if known:
        return known[0]
    unreadable = "".join(f", or is in a set that cannot be read: {error}" for error in broken)
    raise manifest_file.ModelError(
        f"made by model {codec} {fingerprint}, which is not installed{unreadable}: name its folder"
        " with --model, or add it with tfquant models --add"
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
      ModelError: an export cannot be read or be packed in this way, two are the same model, or the
        name is taken or cannot name a folder.
      OSError: the set cannot be written.
      StackError: the installed packages do not go together.
    """
    name = name or _name_of(exports[0])
    if not re.fullmatch(r"\w[\w.-]*", name) or name == DEFAULT or name.endswith(_PARTIAL):
        raise manifest_file.ModelError(
            f"{name!r} cannot name a model: use letters, digits, '.', '-' and '_', and not"
            f" {_PARTIAL} at the end; choose another with --name"
        )
    path = os.path.join(folder(), name)
    taken = set_folder(name) or (path if os.path.exists(path) else None)
    if taken:
        raise manifest_file.ModelError(
            f"there is a model {name!r} already: {taken}; choose a --name"
        )
    manifests = [model_set.packable(export, continuous) for export in exports]
    _check_distinct(exports, manifests)
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
        model_set.write(partial, name, members, description=description, added=time.time())
    return model_set.read(path, name)


def others_with(models: ModelSet) -> list[str]:
    """Names of the other sets that have a model with the fingerprint of one of this set's."""
    own = {member.manifest.fingerprint for member in models.members}
    return [
        each.name
        for each in sets()
        if each.path != models.path and any(m.manifest.fingerprint in own for m in each.members)
    ]


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


def set_folder(name: str) -> str | None:
    """The folder of the set with this name, None if there is none."""
    name = PRETRAINED if name == DEFAULT else name
    for path in _every_folder():
        if os.path.basename(path) == name:
            return path
    return None


def has_model(path: str) -> bool:
    """True for the folder of an exported model or of a set."""
    names = (manifest_file.MANIFEST, model_set.MANIFEST)
    return any(files.exists(os.path.join(path, name)) for name in names)


def member_folder(name: str) -> str | None:
    """The folder of the model with a name such as `default/q38`, None if there is none."""
    own, _, member = name.replace(os.sep, "/").rstrip("/").partition("/")
    path = set_folder(own)
    found = member and path and os.path.join(path, member)
    return found if found and os.path.basename(member) == member and has_model(found) else None


def _check_distinct(exports: list[str], manifests: list[manifest_file.Manifest]) -> None:
    """Raises a ModelError if two exports of a set have one fingerprint.

    The files of the two could not be told apart.
    """
    of_fingerprint: dict[str, str] = {}
    for export, manifest in zip(exports, manifests):
        other = of_fingerprint.get(manifest.fingerprint)
        of_fingerprint[manifest.fingerprint] = export
        if other is not None:
            raise manifest_file.ModelError(
                f"{other} and {export} have one fingerprint, {manifest.fingerprint}, so a set"
                " cannot tell their files apart: leave one out, or add each as a set of its own"
            )


def _every_folder() -> list:
    """The folders of the installed sets and then of the user's."""
    return [*_folders(_PACKAGED), *_folders(folder())]


def _folders(parent: str) -> list:
    """The folders of sets in a folder, sorted; none where it cannot be read."""
    try:
        names = sorted(os.listdir(parent))
    except OSError:
        return []
    paths = [os.path.join(parent, name) for name in names if not name.endswith(_PARTIAL)]
    return [path for path in paths if os.path.isfile(os.path.join(path, model_set.MANIFEST))]


def _name_of(export: str) -> str:
    """A name from an export's path: its folder's, or the run's where the folder is `export`."""
    parts = os.path.abspath(export).rstrip(os.sep).split(os.sep)
    return parts[-2] if parts[-1] == manifest_file.FOLDER and len(parts) > 1 else parts[-1]
