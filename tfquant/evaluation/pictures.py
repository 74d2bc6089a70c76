"""The pictures of an evaluation: files of the user's, or a few that need no download.

`--images=sample` means `SAMPLE`: two photographs that installed packages ship, halved so that the
artefacts of the JPEG one was stored as do not help JPEG, and one of dead leaves.
"""

from __future__ import annotations

import bz2
import dataclasses
import importlib.util
import os
from pathlib import Path

import numpy as np
from PIL import Image

from tfquant.data import images
from tfquant.data.dead_leaves import dead_leaves

SAMPLE = "sample"
# Not a seed that training uses by default, so that the leaves are new to a model trained on leaves.
_LEAVES_SEED = 2026


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture in a file.

    Attributes:
      name: unique in its evaluation, fit for a file name.
      path: the file.
    """

    name: str
    path: Path

    def read(self) -> np.ndarray:
        """The picture, uint8 [H, W, 3]."""
        return images.read_image(self.path)


def find_pictures(spec: str, folder: Path) -> list:
    """The pictures that `spec` means, as `images.find_images` does, or `sample`, sorted by path.

    Args:
      spec: a folder, a glob, a file, or `sample`.
      folder: where `sample` writes its PNGs; otherwise untouched.

    Raises:
      images.ImageError: nothing found.
    """
    if spec == SAMPLE:
        write_sample(folder)
        spec = str(folder)
    paths = [Path(path) for path in images.find_images(spec)]
    return [Picture(name, path) for name, path in zip(_unique_names(paths), paths)]


def write_sample(folder: Path) -> None:
    """Writes the sample pictures as PNG files, every one with sides that MS-SSIM accepts."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = {"hopper": _hopper, "raccoon": _raccoon, "leaves": _leaves}
    for name, source in sources.items():
        picture = source()
        if picture is not None:
            images.write_image(folder / f"{name}.png", picture)


def _hopper():
    """Rear Admiral Grace Hopper, 256x300, from Matplotlib's sample data (public domain)."""
    path = _package_file("matplotlib", "mpl-data/sample_data/grace_hopper.jpg")
    return None if path is None else _halved(images.read_image(path))


def _raccoon():
    """A raccoon's face, 512x384, where the installed SciPy still ships it (public domain)."""
    path = _package_file("scipy", "misc/face.dat")
    if path is None:
        return None
    pixels = np.frombuffer(bz2.decompress(path.read_bytes()), np.uint8)
    return _halved(pixels.reshape(768, 1024, 3))


def _leaves() -> np.ndarray:
    """Dead leaves, 256x256, of the kind that the embedded training data has."""
    return dead_leaves(_LEAVES_SEED, 256)


def _package_file(package: str, name: str):
    """A file of an installed package, found without importing it; None where it is not there."""
    spec = importlib.util.find_spec(package)
    path = None if spec is None else Path(spec.submodule_search_locations[0]) / name
    return path if path is not None and path.is_file() else None


def _halved(picture: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).reduce(2))


def _unique_names(paths) -> list:
    """Each file's stem; where two are the same, all get their folders, then their extensions."""
    stems = [path.stem for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    above = os.path.commonpath([path.parent for path in paths])
    full = ["__".join(Path(os.path.relpath(path, above)).parts) for path in paths]
    short = [os.path.splitext(name)[0] for name in full]
    return short if len(set(short)) == len(short) else full
