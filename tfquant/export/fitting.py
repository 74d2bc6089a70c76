"""Compression to a given size: the quality is found with a few trials."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from tfquant.export import quality as scale
from tfquant.export.model_set import ModelSet

if TYPE_CHECKING:
    import numpy as np

TOLERANCE = 0.02  # relative to the wanted size
_FINEST = 0.05  # in units of quality; smaller changes of the size are within the tolerance
_MOST_TRIALS = 16


class Fitted(NamedTuple):
    """A file of about a wanted size.

    Attributes:
      data: the bytes of the .tfq file.
      quality: quality of the file, see `ModelSet`.
      deviation: relative difference from the wanted size; negative if the file is smaller.
      trials: number of files that were made.
    """

    data: bytes
    quality: float
    deviation: float
    trials: int

    @property
    def fits(self) -> bool:
        """Returns true if the size is within the tolerance."""
        return abs(self.deviation) <= TOLERANCE


def compress_to(models: ModelSet, image: np.ndarray, size: int) -> Fitted:
    """Compresses a picture to about `size` bytes; a bisection finds the quality.

    A model of any rate comes within 2 % unless the size is out of its range. A set of models of one
    rate has only as many sizes as models. The size with the ratio nearest to 1 is then returned.

    Args:
      models: the set.
      image: uint8 [H, W, 3].
      size: bytes of the whole file, at least 1.

    Raises:
      ValueError: the size is not positive.
      ModelError: as `ModelSet.compress`.
    """
    if size < 1:
        raise ValueError(f"the size must be at least 1 byte; got {size}")
    made: dict[tuple[str, float], Fitted] = {}

    def trial(quality: float) -> Fitted:
        member = models.choose(quality)
        quality = member.nearest(quality)
        key = member.path, quality
        if key not in made:
            data = models.compress(image, quality)
            made[key] = Fitted(data, quality, len(data) / size - 1, 0)
        return made[key]

    low, high = scale.LOWEST, scale.HIGHEST
    while high - low > _FINEST and len(made) < _MOST_TRIALS:
        middle = (low + high) / 2
        found = trial(middle)
        if found.fits:
            break
        low, high = (middle, high) if found.deviation < 0 else (low, middle)
    if len(made) < _MOST_TRIALS and not any(found.fits for found in made.values()):
        trial(low), trial(high)  # the sizes on both sides of the wanted one
    best = min(made.values(), key=lambda found: abs(math.log1p(found.deviation)))
    return best._replace(trials=len(made))
