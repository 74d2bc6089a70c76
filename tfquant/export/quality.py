"""The scale of qualities, from 0 to 100, with the same meaning for all models.

Quality 10 is an lmbda of 0.0018, and each additional 15 double the lmbda:
`quality = 10 + 15 log2(lmbda / 0.0018)`. An lmbda for MS-SSIM counts as 1/1270 of its value,
because the papers' lists of lmbda correspond in this way. An lmbda for a distortion that is
registered elsewhere counts as one for MSE. If all of a range's lmbdas are then beyond the same end
of the scale, the ends of the range are 0 and 100.

A model that was trained for one lmbda has one quality. A model for a range of rates codes with
every quality of its range, in steps of 1/256, because a `.tfq` file stores the quality in these
steps. This module does not import TensorFlow.
"""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Mapping
from typing import Any

from tfquant.coding.container import ONE_RATE, QUALITY_STEPS
from tfquant.coding.quality_scale import (
    DISTORTIONS,
    HIGHEST,
    LOWEST,
    on_scale,
    steps,
    steps_of,
    unlimited,
)
from tfquant.coding.quality_scale import PER_OCTAVE as PER_OCTAVE
from tfquant.coding.quality_scale import to_lmbda as to_lmbda

OUT_OF_SCALE = f"quality must be from {LOWEST:.0f} to {HIGHEST:.0f}; got {{quality}}"
SAMPLES = 5  # points of a curve


def of_lmbda(lmbda: float, distortion: str = "mse") -> float:
    """Returns the quality of a model that was trained with an lmbda, from 0 to 100.

    Args:
      lmbda: weight of the distortion, positive.
      distortion: `mse` or `ms_ssim`.
    """
    return on_scale(unlimited(lmbda, distortion))


def base_of(lmbda: float, distortion: str = "mse") -> float:
    """Returns the quality of an lmbda, see `of_lmbda`, in steps that a file can store."""
    return steps_of(lmbda, distortion) / QUALITY_STEPS


def check(quality: float) -> None:
    """Raises a ValueError unless the quality is a number from 0 to 100."""
    if not isinstance(quality, numbers.Real):
        raise ValueError(OUT_OF_SCALE.format(quality=repr(quality)))
    if not LOWEST <= quality <= HIGHEST:
        raise ValueError(OUT_OF_SCALE.format(quality=quality))


def spread(low: float, high: float) -> list[float]:
    """Returns `SAMPLES` qualities at equal distances, both ends included."""
    width = (high - low) / (SAMPLES - 1)
    return [low + number * width for number in range(SAMPLES)]


def shown(quality: float) -> str:
    """Returns a quality as a text from which the same file can be made again.

    Three decimals distinguish the steps in which files store the quality.
    """
    return f"{round(quality, 3):g}"


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
        least, most = (steps(on_scale(end)) for end in (self.start, self.end))
        return max(least, 1), max(most, 1)

    def nearest(self, quality: float | None) -> float:
        """Returns the quality of a file that is nearest to the requested one.

        Args:
          quality: from 0 to 100; None for the base quality.
        """
        least, most = self.steps
        quality = self.base if quality is None else quality
        return min(max(steps(quality), least), most) / QUALITY_STEPS

    def samples(self) -> list[float]:
        """Returns a few qualities at equal distances, from the lowest to the highest one."""
        return [self.nearest(quality) for quality in spread(self.low, self.high)]

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
    lmbda = float(experiment.get("lmbda", lmbdas[0]))
    start, end = (unlimited(float(each), distortion) for each in lmbdas)
    if not start < end:
        raise ValueError(f"the range of lmbda must grow; got {lmbdas}")
    off_the_scale = start >= HIGHEST or end <= LOWEST
    if off_the_scale and distortion not in DISTORTIONS:
        level = (unlimited(lmbda, distortion) - start) / (end - start)
        base = on_scale(LOWEST + level * (HIGHEST - LOWEST))
        return QualityRange(LOWEST, HIGHEST, steps(base) / QUALITY_STEPS)
    return QualityRange(start, end, base_of(lmbda, distortion))


def stored_range(qualities: QualityRange | None) -> tuple[int, int]:
    """Returns the lowest and the highest quality that the files of a model store, in steps."""
    return ONE_RATE if qualities is None else qualities.steps
