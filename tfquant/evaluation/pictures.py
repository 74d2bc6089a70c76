"""Pictures of an evaluation: files of the user, or samples that need no download.

`--images=sample` means `SAMPLE`: two photographs that installed packages ship and one picture of
dead leaves. The photographs are halved, so that the artefacts of a stored JPEG do not favour JPEG.
"""

from __future__ import annotations

import bz2
import collections
import dataclasses
import hashlib
import importlib.util
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Callable, NamedTuple

import numpy as np
from PIL import Image

from tfquant import files
from tfquant.data import finding, images
from tfquant.data.dead_leaves import dead_leaves
from tfquant.evaluation import measure
from tfquant.evaluation.results import Failure

SAMPLE = finding.SAMPLE
# Folders of pictures in the folder of a report.
RECONSTRUCTIONS = "reconstructions"
# Plots of reports, sweeps and explorations, and the files by which their folders are recognized.
_REPORT = ("report.json", "report.md")
_PLOTS = {
    re.compile(r"rd\.png|gains\.png"): _REPORT,
    re.compile(r"rd(_.*)?\.png"): ("sweep.json", "table.md"),
    re.compile(r"exploration\.png"): ("exploration.json",),
}
_SAMPLE_FILES = ("hopper.png", "raccoon.png", "leaves.png")
# Training does not use this seed by default, so the picture is new to a model trained on leaves.
_LEAVES_SEED = 2026


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture in a file.

    Attributes:
      name: unique in its evaluation, printable and usable as a file name.
      path: the file.
      background: (red, green, blue) that transparent pixels show, or None to reject such pictures.
    """

    name: str
    path: Path
    background: tuple | None = None

    def read(self) -> np.ndarray:
        """Reads the picture, uint8 [H, W, 3].

        Raises:
          images.ImageError: it cannot be read.
        """
        return images.read_image(self.path, self.background)


class Found(NamedTuple):
    """The pictures of an evaluation.

    Attributes:
      pictures: the `Picture`s, sorted by path.
      notes: lines about skipped files of the folder.
    """

    pictures: list[Picture]
    notes: list[str]


def find_pictures(
    spec: str, folder: Path, background: tuple | None = None, report_dir: Path | None = None
) -> Found:
    """Finds the pictures of `spec`, as `finding.search` does, or makes the samples.

    Pictures that an evaluation, a sweep or an exploration wrote are skipped, unless `spec` names
    their folder or file itself.

    Args:
      spec: a folder, a glob, a file, or `sample`.
      folder: folder in which `sample` writes its PNGs; otherwise unused.
      background: see `Picture`.
      report_dir: the folder of the new report.

    Raises:
      images.ImageError: there are no pictures.
    """
    if spec == SAMPLE:
        write_sample(folder)
        found, report_dir, spec = finding.search(str(folder)), None, str(folder)
    else:
        found = finding.search(spec)
    paths, own = _without_reports(found.paths, spec, report_dir)
    if not paths:
        raise images.ImageError(
            f"{files.shown(spec)}: no pictures except those of an earlier report"
        )
    notes = [f"{len(own)} pictures of reports are skipped in {files.shown(spec)}"] if own else []
    if found.left_out():
        notes.append(f"skipped in {files.shown(spec)}: {found.left_out()}")
    names = _unique_names([Path(path) for path in paths])
    made = [Picture(name, Path(path), background) for name, path in zip(names, paths)]
    return Found(made, notes)


class Readable(NamedTuple):
    """The pictures that can be read.

    Attributes:
      pictures: the `Picture`s.
      failed: the other ones.
      notes: lines about conversions of pictures.
    """

    pictures: list[Picture]
    failed: list[Failure]
    notes: list[str]


def readable(pictures: Iterable[Picture], say: Callable[[str], object]) -> Readable:
    """Decodes every picture once, so that all codecs are measured on the same ones.

    Args:
      pictures: the `Picture`s.
      say: function that is called with a line for each picture that cannot be read.

    Raises:
      images.ImageError: no picture can be read.
    """
    kept, failed = [], []
    notes: dict[str, list[str]] = collections.defaultdict(list)
    for picture in pictures:
        try:
            decoded = images.read(picture.path, picture.background)
        except images.ImageError as error:
            failed.append(failure(picture, "", error))
            say(failed[-1].error)
        else:
            kept.append(picture)
            for note in decoded.notes:
                notes[note].append(picture.name)
    if not kept:
        raise images.ImageError(
            f"none of {len(failed)} pictures can be read; first: {failed[0].error}"
        )
    lines = [f"{note}: {measure.some_names(names)}" for note, names in notes.items()]
    return Readable(kept, failed, lines)


def failure(picture: Picture, codec: str, error: Exception) -> Failure:
    """Returns a picture without measurement; `codec` "" means all."""
    return Failure(picture.name, str(picture.path), codec, files.reason(error))


def _without_reports(
    paths: list[str], spec: str, report_dir: Path | None
) -> tuple[list[str], list[str]]:
    """Splits paths into (those of pictures, those of what this package wrote)."""
    asked = [os.path.realpath(part) for part in finding.parts(spec) if files.is_local(part)]
    new = None if report_dir is None else os.path.realpath(report_dir)
    known: dict[tuple[str, tuple[str, ...]], bool] = {}

    def has(folder: str, marks: tuple[str, ...]) -> bool:
        key = folder, marks
        if key not in known:
            known[key] = all(os.path.isfile(os.path.join(folder, mark)) for mark in marks)
        return known[key] or (folder == new and marks == _REPORT)

    def is_own(path: str) -> bool:
        if not files.is_local(path):
            return False
        real = os.path.realpath(path)
        if real in asked:
            return False
        parent, name = os.path.split(real)
        if any(plot.fullmatch(name) and has(parent, marks) for plot, marks in _PLOTS.items()):
            return True
        in_sample = name in _SAMPLE_FILES and os.path.basename(parent) == SAMPLE
        if in_sample and has(os.path.dirname(parent), _REPORT):
            return parent not in asked
        while os.path.dirname(parent) != parent:
            above, name = os.path.split(parent)
            if name == RECONSTRUCTIONS and has(above, _REPORT):
                return not any(a == parent or a.startswith(parent + os.sep) for a in asked)
            parent = above
        return False

    kept: list[str] = []
    own: list[str] = []
    for path in paths:
        (own if is_own(path) else kept).append(path)
    return kept, own


def write_sample(folder: Path) -> None:
    """Writes the sample pictures as PNG files. Their sides are large enough for MS-SSIM."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = {"hopper": _hopper, "raccoon": _raccoon, "leaves": _leaves}
    for name, source in sources.items():
        picture = source()
        if picture is not None:
            images.write_image(folder / f"{name}.png", picture)


def _hopper() -> np.ndarray | None:
    """Returns Rear Admiral Grace Hopper, 256x300, from Matplotlib's sample data (public domain)."""
    path = _package_file("matplotlib", "mpl-data/sample_data/grace_hopper.jpg")
    return None if path is None else _halved(images.read_image(path))


def _raccoon() -> np.ndarray | None:
    """Returns a raccoon's face, 512x384, if the installed SciPy still has it (public domain)."""
    path = _package_file("scipy", "misc/face.dat")
    if path is None:
        return None
    pixels = np.frombuffer(bz2.decompress(path.read_bytes()), np.uint8)
    return _halved(pixels.reshape(768, 1024, 3))


def _leaves() -> np.ndarray:
    """Returns dead leaves, 256x256, as in the embedded training data."""
    return dead_leaves(_LEAVES_SEED, 256)


def _package_file(package: str, name: str) -> Path | None:
    """Returns a file of an installed package without importing it; None if it does not exist."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / name
    return path if path.is_file() else None


def _halved(picture: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).reduce(2))


def _unique_names(paths: Sequence[Path]) -> list[str]:
    """Returns each file's stem; if two are equal, with the folders; then with the extension."""
    above = os.path.commonpath([path.parent for path in paths])
    choices = []
    for path in paths:
        full = "__".join(Path(os.path.relpath(path, above)).parts)
        choices.append([_fit(name) for name in (path.stem, os.path.splitext(full)[0], full)])
    return files.distinct_names(choices, files.folded, _RESERVED)


# Name of the row of means in a report.
_RESERVED = ("mean",)
_LONGEST = 120  # bytes; a file name has 255 bytes, and an extension is added


def _fit(name: str) -> str:
    """Returns the name in a form that is printable and short enough for a file."""
    name = files.shown(name).replace("\\", "_")
    data = name.encode()
    if len(data) <= _LONGEST:
        return name
    return f"{data[:_LONGEST].decode(errors='ignore')}~{hashlib.sha256(data).hexdigest()[:8]}"
