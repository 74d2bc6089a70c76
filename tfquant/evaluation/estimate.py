"""Mean over repeated trainings with an interval.

With three or more values, the interval is Student's 95 % interval of the mean, for independent and
normal values. With two values, it is their range, because Student's interval would extend 13
standard errors to each side. The range of two values contains the true mean with a probability of
50 %.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable

import scipy.special

_CONFIDENCE = 0.95
MEANING = (
    "A number is the mean over seeds. In brackets is its interval: Student's 95 % with three seeds"
    " or more, the range with two."
)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean with its interval.

    Attributes:
      mean: mean of the values.
      low, high: ends of the interval; both are the mean if there is only one value.
      count: number of values.
    """

    mean: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Estimate | None:
        """Returns the estimate from the values that are not None; None if there are none."""
        known = [value for value in values if value is not None]
        if not known:
            return None
        mean, count = statistics.fmean(known), len(known)
        low, high = min(known), max(known)
        if count > 2:
            quantile = float(scipy.special.stdtrit(count - 1, 0.5 + _CONFIDENCE / 2))
            half = quantile * statistics.stdev(known) / math.sqrt(count)
            low, high = mean - half, mean + half
        return cls(mean, low, high, count)

    def text(self, decimals: int) -> str:
        """Returns text such as `-9.8 [-10.2, -9.4]`, or the mean alone if there is only one
        value.
        """
        mean, low, high = (f"{value:.{decimals}f}" for value in (self.mean, self.low, self.high))
        return mean if self.count == 1 else f"{mean} [{low}, {high}]"
