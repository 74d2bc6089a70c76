"""Conventional compression of a picture to about the size of a learned codec's file.

The settings of conventional codecs are whole numbers, so few files have exactly the same size. A
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


class Version(NamedTuple):
    """A picture that a codec has encoded and decoded.

    Attributes:
      label: label of the codec in plots and tables.
      data: the file's bytes.
      image: decoded, uint8 [H, W, 3].
      quality: PSNR and MS-SSIM.
      larger: (bytes, PSNR in dB) of the codec's next larger file; None if there is none, or if the
        file is itself larger than was asked for. PSNR is infinite for a file without loss.
    """

    label: str
    data: bytes
    image: np.ndarray
    quality: measure.Quality
    larger: tuple[int, float] | None = None

    def psnr(self) -> float:
        """Returns the PSNR in dB, infinite if there is no loss."""
        return math.inf if self.quality.psnr is None else self.quality.psnr


def version(label: str, data: bytes, image: np.ndarray, original: np.ndarray) -> Version:
    """Returns a version with its quality, measured against the original."""
    return Version(label, data, image, measure.quality(original, image))


def of_size(name: str, image: np.ndarray, size: int) -> Version:
    """Returns the largest file of a codec with at most `size` bytes.

    If even the smallest file is larger, it is returned.

    Args:
      name: a key of `conventional.CODECS` whose setting is a quality from 0 or 1 to 95.
      image: uint8 [H, W, 3].
      size: bytes.
    """
    codec = conventional.CODECS[name]
    files: dict[int, bytes] = {}

    def length(quality: int) -> int:
        if quality not in files:
            files[quality] = codec.encode(image, quality)
        return len(files[quality])

    lowest, highest = (0, 95) if name == "webp" else (1, 95)
    low, high = lowest, highest
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if length(middle) <= size else (low, middle - 1)
    for quality in range(max(low - 1, lowest), min(low + 2, highest) + 1):
        length(quality)  # sizes of small pictures can fall where the quality rises
    fitting = [quality for quality in files if length(quality) <= size]
    larger = [quality for quality in files if length(quality) > size]
    # Of files with one size, that of the highest quality is the best one.
    above = min(larger, key=lambda quality: (length(quality), -quality), default=None)
    if not fitting:
        assert above is not None  # there is at least one file
        data = files[above]
        return version(codec.label, data, codec.decode(data), image)
    data = files[max(fitting, key=lambda quality: (length(quality), quality))]
    made = version(codec.label, data, codec.decode(data), image)
    if above is None:
        return made
    psnr = float(metrics.psnr(image, codec.decode(files[above])))
    return made._replace(larger=(length(above), psnr))


def deviation(version: Version, size: int) -> float:
    """Returns the relative difference of a version's size from `size` bytes, such as -0.05."""
    return len(version.data) / size - 1


def is_same(version: Version, size: int) -> bool:
    """Returns true if a version's size counts as the same as `size` bytes."""
    return abs(deviation(version, size)) <= TOLERANCE


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
    return f"{text} ({100 * deviation(version, size):+.0f} %)"


def psnr_at(version: Version, size: int) -> float | None:
    """Returns the PSNR in dB that a codec reaches with a file of `size` bytes.

    PSNR is interpolated linearly over the logarithm of the size, between the version and the next
    larger file. If the codec has no larger file, or if that has no loss, the version's PSNR is
    returned. It is infinite if the version has no loss.

    Returns:
      The PSNR, or None if the codec's smallest file is larger, by more than `TOLERANCE`.
    """
    own = version.psnr()
    if len(version.data) > size:
        return own if is_same(version, size) else None
    if version.larger is None or not math.isfinite(version.larger[1] - own):
        return own
    larger_size, larger_psnr = version.larger
    sizes = np.log([len(version.data), larger_size])
    return float(np.interp(math.log(size), sizes, [own, larger_psnr]))
