"""Conventional compression of a picture to about the size of a learned codec's file.

Few files of a conventional codec have exactly the wanted size, because its quality has steps. A
file counts as one of the same size if it differs by at most `TOLERANCE`. The PSNR at exactly the
same size is interpolated between two files of the codec, see `psnr_at`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from tfquant import metrics
from tfquant.evaluation import conventional, measure

TOLERANCE = 0.02  # largest relative difference of sizes that count as the same
# Steps of the quality, if it need not be a whole number. Between 0 and 1, WebP's size can double.
_STEPS = {"webp": 1 / 32}


class Version(NamedTuple):
    """A picture that a codec has encoded and decoded.

    Attributes:
      label: label of the codec in plots and tables.
      data: the file's bytes.
      image: decoded, uint8 [H, W, 3].
      quality: PSNR and MS-SSIM.
      neighbour: (bytes, PSNR in dB) of the codec's nearest file on the other side of the wanted
        size; None if there is none. PSNR is infinite for a file without loss.
    """

    label: str
    data: bytes
    image: np.ndarray
    quality: measure.Quality
    neighbour: tuple[int, float] | None = None

    def psnr(self) -> float:
        """Returns the PSNR in dB, infinite if there is no loss."""
        return math.inf if self.quality.psnr is None else self.quality.psnr


def version(label: str, data: bytes, image: np.ndarray, original: np.ndarray) -> Version:
    """Returns a version with its quality, measured against the original."""
    return Version(label, data, image, measure.quality(original, image))


def of_size(name: str, image: np.ndarray, size: int) -> Version:
    """Returns a codec's file of about `size` bytes.

    This is the largest file that is not larger. The next larger file takes its place if only that
    one has the same size within `TOLERANCE`, or if all files are larger.

    Args:
      name: a key of `conventional.CODECS` whose setting is a quality from 0 or 1 to 95.
      image: uint8 [H, W, 3].
      size: bytes.
    """
    codec = conventional.CODECS[name]
    below, above = _around(name, image, size)
    files = [file for file in (below, above) if file is not None]
    if below is not None and above is not None and not _is_near(len(below), size):
        files.sort(key=lambda file: not _is_near(len(file), size))
    chosen, *others = files
    made = version(codec.label, chosen, codec.decode(chosen), image)
    if not others:
        return made
    psnr = float(metrics.psnr(image, codec.decode(others[0])))
    return made._replace(neighbour=(len(others[0]), psnr))


def _around(name: str, image: np.ndarray, size: int) -> tuple[bytes | None, bytes | None]:
    """Returns the largest file with at most `size` bytes and the smallest larger one.

    One of them can be None.
    """
    codec, step = conventional.CODECS[name], _STEPS.get(name, 1.0)
    files: dict[int, bytes] = {}

    def length(place: int) -> int:
        if place not in files:
            files[place] = codec.encode(image, place * step)
        return len(files[place])

    lowest, highest = round((name != "webp") / step), round(95 / step)
    low, high = lowest, highest
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if length(middle) <= size else (low, middle - 1)
    for place in range(max(low - 1, lowest), min(low + 2, highest) + 1):
        length(place)  # sizes of small pictures can fall where the quality rises
    # The file of the highest quality is the best one of those with one size.
    below = max((place for place in files if length(place) <= size),
                key=lambda place: (length(place), place), default=None)  # fmt: skip
    above = min((place for place in files if length(place) > size),
                key=lambda place: (length(place), -place), default=None)  # fmt: skip
    return (None if below is None else files[below]), (None if above is None else files[above])


def is_same(version: Version, size: int) -> bool:
    """Returns true if a version's size counts as the same as `size` bytes."""
    return _is_near(len(version.data), size)


def _is_near(length: int, size: int) -> bool:
    return abs(length - size) <= TOLERANCE * size


def size_text(version: Version, size: int, unit: str = "") -> str:
    """Returns a version's bytes as text, such as "950 (-5 %)" if they are not those of `size`.

    Args:
      version: the version.
      size: bytes of the file with which it is compared.
      unit: text after the number of bytes.
    """
    text = f"{len(version.data)}{unit}"
    if is_same(version, size):
        return text
    return f"{text} ({100 * (len(version.data) / size - 1):+.0f} %)"


def psnr_at(version: Version, size: int) -> float | None:
    """Returns the PSNR in dB that a codec reaches with a file of `size` bytes.

    PSNR is interpolated linearly over the logarithm of the size, between the version and its
    neighbour. If the largest file is smaller, its PSNR is returned. It is infinite if that file has
    no loss.

    Returns:
      The PSNR, or None if the smallest file is larger, by more than `TOLERANCE`.
    """
    points = [(len(version.data), version.psnr())]
    if version.neighbour is not None:
        points = sorted([*points, version.neighbour])
    (smaller, psnr), *others = points
    if smaller > size:
        return psnr if _is_near(smaller, size) else None
    if not others or not math.isfinite(others[0][1] - psnr):
        return psnr
    sizes = np.log([smaller, others[0][0]])
    return float(np.interp(math.log(size), sizes, [psnr, others[0][1]]))
