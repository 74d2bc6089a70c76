"""Measurement of a picture through a codec, and means over pictures."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, Callable, NamedTuple, TypeVar

import numpy as np

from tfquant import metrics
from tfquant.evaluation.results import MEAN, Measurement
from tfquant.names import first_few

_Result = TypeVar("_Result")


class Quality(NamedTuple):
    """Quality of a decoded picture.

    Attributes:
      psnr: in dB; None if the pictures are identical.
      ms_ssim: None if the picture is smaller than the pyramid.
      ms_ssim_db: in dB; None if `ms_ssim` is None or 1.
    """

    psnr: float | None
    ms_ssim: float | None
    ms_ssim_db: float | None


def quality(picture: np.ndarray, decoded: np.ndarray) -> Quality:
    """Returns the quality of a decoded picture; both are uint8 [H, W, 3].

    MS-SSIM is the published one with five scales, or None. Means over pictures with different
    numbers of scales would not be comparable with anything.
    """
    psnr = float(metrics.psnr(picture, decoded))
    ms_ssim = None
    if min(picture.shape[:2]) >= metrics.FULL_PYRAMID_SIDE:
        ms_ssim = float(metrics.ms_ssim(picture, decoded))
    return Quality(psnr if math.isfinite(psnr) else None, ms_ssim, decibels(ms_ssim))


def decibels(ms_ssim: float | None) -> float | None:
    """Returns -10 log10(1 - MS-SSIM) in dB; None for None and for 1."""
    return None if ms_ssim is None or ms_ssim >= 1 else float(metrics.ms_ssim_db(ms_ssim))


def bits_per_pixel(num_bytes: int, picture: np.ndarray) -> float:
    """Returns the bits of a whole file per pixel of its picture."""
    return 8 * num_bytes / (picture.shape[0] * picture.shape[1])


def timed(function: Callable[..., _Result], *arguments: Any) -> tuple[_Result, float]:
    """Returns (the function's result, its duration in seconds)."""
    start = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - start


def mean(measurements: Sequence[Measurement]) -> Measurement:
    """Returns the mean of each value over the pictures that have it; None if no picture has it.

    PSNR is the mean of the pictures' decibels. `ms_ssim_db` is the mean MS-SSIM in decibels.
    Published curves are averaged in this way.
    """
    means: dict[str, Any] = {}
    for field in dataclasses.fields(Measurement):
        if field.name not in ("name", "ms_ssim_db"):
            found = [getattr(each, field.name) for each in measurements]
            values = [value for value in found if value is not None]
            means[field.name] = sum(values) / len(values) if values else None
    return Measurement(MEAN, ms_ssim_db=decibels(means["ms_ssim"]), **means)


def missing_values(rows: Mapping[str, Sequence[Sequence[Measurement]]]) -> list[str]:
    """Returns a line for each mean that excludes pictures, with their names and the reason.

    Args:
      rows: map from codec to its measurements at each setting.
    """
    everything = {m.name: m for settings in rows.values() for row in settings for m in row}
    lines = []
    small = [m.name for m in everything.values() if m.ms_ssim is None]
    if small:
        lines.append(
            f"MS-SSIM needs both sides >= {metrics.FULL_PYRAMID_SIDE} pixels for its five scales: "
            f"{len(small)} of {len(everything)} pictures are smaller and have none "
            f"({some_names(small)})"
        )
    exact = identical(rows)
    if exact:
        lines.append(
            f"PSNR is infinite where picture and reconstruction are identical: {len(exact)} of "
            f"{len(everything)} pictures are in no curve and no BD-rate, and not in the mean PSNR "
            f"of that codec ({some_names([f'{n}: {by}' for n, by in exact.items()])})"
        )
    return lines


def identical(rows: Mapping[str, Sequence[Sequence[Measurement]]]) -> dict[str, str]:
    """Returns a map from picture to the first codec that decodes it without any error at a setting.

    The argument is that of `missing_values`.
    """
    found: dict[str, str] = {}
    for codec, settings in rows.items():
        for row in settings:
            for m in row:
                if m.psnr is None:
                    found.setdefault(m.name, codec)
    return found


def some_names(names: Sequence[str], most: int = 5) -> str:
    """Returns the first few names and the number of the other ones."""
    return first_few(names, most)
