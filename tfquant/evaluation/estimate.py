"""A mean over repeated trainings, with an interval that says how sure it is.

With three values or more it is Student's 95 % interval of the mean, for independent and normal
values. With two it is their range: Student's interval would reach 13 standard errors to each side.
The range of two holds the true mean one time in two.
"""

from __future__ import annotations

import dataclasses
import math
import statistics

import scipy.special

_CONFIDENCE = 0.95
MEANING = (
    "A number is the mean over seeds. In brackets is its interval: Student's 95 % with three seeds"
    " or more, the range with two."
)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean.

    Attributes:
      mean: of the values.
      low, high: the ends of its interval; both the mean where there is one value.
      count: how many values.
    """

    mean: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values) -> Estimate | None:
        """The estimate from the values that are not None; None where there are none."""
        values = [value for value in values if value is not None]
        if not values:
            return None
        mean, count = statistics.fmean(values), len(values)
        low, high = min(values), max(values)
        if count > 2:
            quantile = float(scipy.special.stdtrit(count - 1, 0.5 + _CONFIDENCE / 2))
            half = quantile * statistics.stdev(values) / math.sqrt(count)
            low, high = mean - half, mean + half
        return cls(mean, low, high, count)

    def text(self, decimals: int) -> str:
        """`-9.8 [-10.2, -9.4]`; the mean alone where there is one value."""
        mean, low, high = (f"{value:.{decimals}f}" for value in (self.mean, self.low, self.high))
        return mean if self.count == 1 else f"{mean} [{low}, {high}]"
