"""The scale of qualities, from 0 to 100, with the same meaning for all models.

Quality 10 is an lmbda of 0.0018, and each additional 15 double the lmbda:
`quality = 10 + 15 log2(lmbda / 0.0018)`. An lmbda for MS-SSIM counts as 1/1270 of its value,
because the papers' lists of lmbda correspond in this way.

A model that was trained for one lmbda has one quality. A model for a range of rates codes with
every quality of its range, in steps of 1/256, because a `.tfq` file stores the quality in these
steps. This module does not import TensorFlow.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from tfquant.coding.container import ONE_RATE, QUALITY_STEPS

LOWEST, HIGHEST = 0.0, 100.0
OUT_OF_SCALE = f"quality must be from {LOWEST:.0f} to {HIGHEST:.0f}; got {{quality}}"
_LMBDA_OF_10 = 0.0018
PER_OCTAVE = 15.0
_MS_SSIM_FACTOR = 1270.0
_SAMPLES = 5  # points of a curve


def of_lmbda(lmbda: float, distortion: str = "mse") -> float:
    """Returns the quality of a model that was trained with an lmbda, from 0 to 100.

    Args:
      lmbda: weight of the distortion, positive.
      distortion: `mse` or `ms_ssim`.
    """
    return _on_scale(_unlimited(lmbda, distortion))


def base_of(lmbda: float, distortion: str = "mse") -> float:
    """Returns the quality of an lmbda, see `of_lmbda`, in steps that a file can store."""
    return _steps(of_lmbda(lmbda, distortion)) / QUALITY_STEPS


def to_lmbda(quality: float, distortion: str = "mse") -> float:
    """Returns the lmbda that belongs to a quality, the inverse of `of_lmbda`."""
    factor = _MS_SSIM_FACTOR if distortion == "ms_ssim" else 1.0
    return factor * _LMBDA_OF_10 * 2.0 ** ((quality - 10.0) / PER_OCTAVE)


def check(quality: float) -> None:
    """Raises a ValueError unless the quality is from 0 to 100."""
    if not LOWEST <= quality <= HIGHEST:
        raise ValueError(OUT_OF_SCALE.format(quality=quality))


@dataclasses.dataclass(frozen=True)
class QualityRange:
    """The qualities of a model for a range of rates.

    Attributes:
      start: quality of the codec's level 0. It may be below 0, where no quality can select it.
      end: quality of the codec's level 1. It may be above 100.
      base: quality of a file that stores none. It is the quality of the experiment's `lmbda`, at
        which training starts with gains of 1.
    """

    start: float
    end: float
    base: float

    @property
    def low(self) -> float:
        """The lowest quality of a file."""
        return self.steps[0] / QUALITY_STEPS

    @property
    def high(self) -> float:
        """The highest quality of a file."""
        return self.steps[1] / QUALITY_STEPS

    @property
    def steps(self) -> tuple[int, int]:
        """The lowest and the highest quality in steps of 1/256, from 1.

        Step 0 in a file means `base`.
        """
        least, most = (_steps(_on_scale(end)) for end in (self.start, self.end))
        return max(least, 1), max(most, 1)

    def nearest(self, quality: float | None) -> float:
        """Returns the quality of a file that is nearest to the requested one.

        Args:
          quality: from 0 to 100; None for the base quality.
        """
        least, most = self.steps
        quality = self.base if quality is None else quality
        return min(max(_steps(quality), least), most) / QUALITY_STEPS

    def samples(self) -> list[float]:
        """Returns a few qualities at equal distances, from the lowest to the highest one."""
        width = (self.high - self.low) / (_SAMPLES - 1)
        return [self.nearest(self.low + number * width) for number in range(_SAMPLES)]

    def level(self, quality: Any) -> Any:
        """Maps a quality, a number or a float64 tensor, to the codec's level from 0 to 1."""
        return (quality - self.start) / (self.end - self.start)


def range_of(experiment: Mapping[str, Any]) -> QualityRange | None:
    """Returns the qualities of an experiment's model, or None if it has one rate.

    Args:
      experiment: the fields of an `Experiment`, as in a manifest.

    Raises:
      TypeError, ValueError: the experiment has an invalid range.
    """
    lmbdas = experiment.get("lmbda_range")
    if not lmbdas:
        return None
    distortion = experiment.get("distortion", "mse")
    start, end = (_unlimited(float(lmbda), distortion) for lmbda in lmbdas)
    if not start < end:
        raise ValueError(f"the range of lmbda must grow; got {lmbdas}")
    return QualityRange(start, end, base_of(float(experiment.get("lmbda", lmbdas[0])), distortion))


def stored_range(qualities: QualityRange | None) -> tuple[int, int]:
    """Returns the lowest and the highest quality that the files of a model store, in steps."""
    return ONE_RATE if qualities is None else qualities.steps


def _unlimited(lmbda: float, distortion: str) -> float:
    if distortion == "ms_ssim":
        lmbda /= _MS_SSIM_FACTOR
    return 10.0 + PER_OCTAVE * math.log2(lmbda / _LMBDA_OF_10)


def _steps(quality: float) -> int:
    return round(QUALITY_STEPS * quality)


def _on_scale(quality: float) -> float:
    return min(max(quality, LOWEST), HIGHEST)
