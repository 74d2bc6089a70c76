"""Compression to a given size: the quality is found with a few trials.

The logarithm of a file's size grows nearly linearly with the quality. The search first finds the
model of a set, by the sizes at both ends of each model's share of the scale.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from tfquant import files

if TYPE_CHECKING:
    import numpy as np

    from tfquant.export.model_file import ExportedModel
    from tfquant.export.model_set import Member, ModelSet

TOLERANCE = 0.02  # relative to the wanted size
_FINEST = 0.05  # in units of quality; smaller changes of the size are within the tolerance
_MOST_TRIALS = 16
_LEAST_SHARE = 0.15  # of the range, that a trial removes from it
_MOST_BYTES = 2.0**62  # a larger wanted size is the same wish


class OneModel:
    """A loaded model as a set of one, for `compress_to`.

    Attributes:
      name: name of the model in messages.
      low: its lowest quality.
      high: its highest quality; equal to `low` for a model with one rate.
    """

    path = ""

    def __init__(self, name: str, model: ExportedModel, low: float, high: float):
        self.name, self.low, self.high, self._model = name, low, high, model

    @property
    def members(self) -> tuple[OneModel]:
        """The model itself, as the only member."""
        return (self,)

    def widest(self) -> OneModel:
        """Returns the model with all of its qualities."""
        return self

    def load(self, member: OneModel) -> ExportedModel:
        """Returns the model."""
        return member._model


class Fitted(NamedTuple):
    """A file of about a wanted size.

    Attributes:
      data: the bytes of the .tfq file.
      quality: quality of the file, see `ModelSet`.
      deviation: relative difference from the wanted size; negative if the file is smaller.
      trials: number of files that were made.
      member: the model that made the file.
    """

    data: bytes
    quality: float
    deviation: float
    trials: int
    member: Any  # Member, or OneModel

    @property
    def fits(self) -> bool:
        """Returns true if the size is within the tolerance."""
        return abs(self.deviation) <= TOLERANCE

    def difference(self, name: str, size: int) -> str:
        """Returns a line on a file that does not fit.

        Args:
          name: name of the models.
          size: the wanted size in bytes.
        """
        return (
            f"{size} bytes were asked for; the nearest size of {files.shown(name)} differs by"
            f" {100 * self.deviation:+.0f} %"
        )


def is_wanted(quality: float | None, target_size: float | None, target_bpp: float | None) -> bool:
    """Returns true if a size is wanted, and false if a quality is.

    Raises:
      ValueError: both are wanted, or a size is no positive number.
    """
    asked = {"quality": quality, "target_size": target_size, "target_bpp": target_bpp}
    given = [name for name, value in asked.items() if value is not None]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)}: give one of them")
    for name in ("target_size", "target_bpp"):
        value = asked[name]
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name} must be a positive number; got {value}")
    return target_size is not None or target_bpp is not None


def bytes_for(
    target_size: float | None, target_bpp: float | None, height: int, width: int
) -> int | None:
    """Returns the wanted size of a picture's file in bytes, or None if both targets are None.

    Args:
      target_size: bytes, or None.
      target_bpp: bits per pixel, or None.
      height, width: of the picture in pixels.
    """
    size = target_size if target_bpp is None else target_bpp * height * width / 8
    return None if size is None else max(round(min(size, _MOST_BYTES)), 1)


def to_target(
    models: ModelSet | OneModel,
    image: np.ndarray,
    target_size: float | None,
    target_bpp: float | None,
    max_pixels: int | None,
) -> bytes:
    """Compresses a picture as `compress_to`, with a `UserWarning` if no file fits.

    The arguments are those of `bytes_for` and `compress_to`.
    """
    height, width = image.shape[:2]
    size = bytes_for(target_size, target_bpp, height, width)
    assert size is not None  # `is_wanted` is true
    fitted = compress_to(models, image, size, max_pixels)
    if not fitted.fits:
        warnings.warn(fitted.difference(models.name, size), stacklevel=3)
    return fitted.data


def compress_to(
    models: ModelSet | OneModel, image: np.ndarray, size: int, max_pixels: int | None = None
) -> Fitted:
    """Compresses a picture to about `size` bytes.

    A model for a range of rates comes within 2 % unless the size is out of its range. If a size is
    between those of two models of a set, the model of the higher quality goes below its share of
    the scale. A set of models with one rate has only as many sizes as models. The size with the
    ratio nearest to 1 is then returned.

    Args:
      models: the set.
      image: uint8 [H, W, 3].
      size: bytes of the whole file, at least 1.
      max_pixels: limit of the picture's number of pixels; None for the model's limit.

    Raises:
      ValueError: the size is not positive.
      ModelError: as `ModelSet.compress`.
    """
    if size < 1:
        raise ValueError(f"the size must be at least 1 byte; got {size}")
    made: dict[tuple[str, float], Fitted] = {}

    def trial(member: Any, quality: float) -> float:
        """Makes a file, once. Returns log(its size / the wanted size), or 0 if it fits."""
        key = member.path, quality
        if key not in made:
            data = models.load(member).compress(image, quality, max_pixels)
            made[key] = Fitted(data, quality, len(data) / size - 1, 0, member)
        return 0.0 if made[key].fits else math.log(len(made[key].data) / size)

    below, above = _neighbours(models, trial)
    if below is not None and above is not None:
        member, high = above
        same = below.member.path == member.path
        low = below.quality if same else member.widest().low
        _search(functools.partial(trial, member), low, high)
    best = min(made.values(), key=lambda found: abs(math.log(len(found.data) / size)))
    return best._replace(trials=len(made))


class _Knot(NamedTuple):
    """An end of a model's share of the scale of qualities."""

    member: Member | OneModel
    quality: float


def _neighbours(models: ModelSet | OneModel, trial: Callable[[Any, float], float]) -> tuple:
    """Returns the knots whose sizes are next to the wanted size, below and above.

    A knot is None if all sizes are on the other side. Both are None if the file of a knot fits.
    """
    knots = [_Knot(m, q) for m in models.members for q in dict.fromkeys((m.low, m.high))]
    below, above = -1, len(knots)
    while above - below > 1:
        middle = (below + above) // 2
        difference = trial(*knots[middle])
        if difference == 0:
            return None, None
        below, above = (middle, above) if difference < 0 else (below, middle)
    return (
        knots[below] if below >= 0 else None,
        knots[above] if above < len(knots) else None,
    )


def _search(difference: Callable[[float], float], low: float, high: float) -> None:
    """Searches the zero of a function of the quality, which grows nearly linearly.

    The search ends at a zero, or if the range is no longer than `_FINEST`.
    """
    at_low, at_high = difference(low), difference(high)
    trials = 0
    while at_low < 0 < at_high and high - low > _FINEST and trials < _MOST_TRIALS:
        share = min(max(at_low / (at_low - at_high), _LEAST_SHARE), 1 - _LEAST_SHARE)
        middle = low + share * (high - low)
        found = difference(middle)
        if found < 0:
            low, at_low = middle, found
        else:
            high, at_high = middle, found
        trials += 1
