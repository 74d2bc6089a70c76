"""The scale of qualities: the quality of an lmbda, and the lmbda of a quality.

`tfquant/export/quality.py` describes the scale. This module imports nothing that needs TensorFlow.
"""

from __future__ import annotations

import math

from tfquant.coding.container import QUALITY_STEPS

DISTORTIONS = ("mse", "ms_ssim")  # the scale is defined for their lmbdas
ENDS = LOWEST, HIGHEST = 0.0, 100.0
PER_OCTAVE = 15.0
_LMBDA_OF_10 = 0.0018
_MS_SSIM_FACTOR = 1270.0


def unlimited(lmbda: float, distortion: str = "mse") -> float:
    """Returns the quality of a positive lmbda; it may be below 0 or above 100.

    Args:
      lmbda: weight of the distortion, positive.
      distortion: `mse` or `ms_ssim`.
    """
    if distortion == "ms_ssim":
        lmbda /= _MS_SSIM_FACTOR
    return 10.0 + PER_OCTAVE * math.log2(lmbda / _LMBDA_OF_10)


def to_lmbda(quality: float, distortion: str = "mse") -> float:
    """Returns the lmbda that belongs to a quality, the inverse of `unlimited`."""
    factor = _MS_SSIM_FACTOR if distortion == "ms_ssim" else 1.0
    return factor * _LMBDA_OF_10 * 2.0 ** ((quality - 10.0) / PER_OCTAVE)


def on_scale(quality: float) -> float:
    """Returns the nearest quality from 0 to 100."""
    return min(max(quality, LOWEST), HIGHEST)


def steps(quality: float) -> int:
    """Returns a quality in the steps in which a file stores it."""
    return round(QUALITY_STEPS * quality)


def steps_of(lmbda: float, distortion: str = "mse") -> int:
    """Returns the quality from 0 to 100 of an lmbda, in the steps in which a file stores it."""
    return steps(on_scale(unlimited(lmbda, distortion)))
