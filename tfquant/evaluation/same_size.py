"""Conventional compression of a picture to the size of a learned codec's file."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tfquant.evaluation import conventional, measure


class Version(NamedTuple):
    """A picture that a codec has encoded and decoded.

    Attributes:
      label: label of the codec in plots and tables.
      data: the file's bytes.
      image: decoded, uint8 [H, W, 3].
      quality: PSNR and MS-SSIM.
    """

    label: str
    data: bytes
    image: np.ndarray
    quality: measure.Quality


def version(label: str, data: bytes, image: np.ndarray, original: np.ndarray) -> Version:
    """Returns a version with its quality, measured against the original."""
    return Version(label, data, image, measure.quality(original, image))


def of_size(name: str, image: np.ndarray, size: int) -> Version:
    """Returns the smallest file with at least `size` bytes, so the codec has no disadvantage.

    Args:
      name: a key of `conventional.CODECS` whose setting is a quality from 0 or 1 to 95.
      image: uint8 [H, W, 3].
      size: bytes. If even the lowest quality takes more, the file has the lowest quality. If the
        highest takes less, the file has the highest quality.
    """
    codec = conventional.CODECS[name]
    files = {}

    def file(quality: int) -> bytes:
        if quality not in files:
            files[quality] = codec.encode(image, quality)
        return files[quality]

    low, high = (0, 95) if name == "webp" else (1, 95)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if len(file(middle)) >= size else (middle + 1, high)
    data = file(low)
    return version(codec.label, data, codec.decode(data), image)
