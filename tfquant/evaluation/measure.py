"""Measurement of a picture through a codec, and means over pictures.

A measurement is a plain dict with the keys of `report.json`: `name`, `bpp`, `psnr`, `ms_ssim`,
`ms_ssim_db`, `encode_s` and `decode_s`. Measurements of models also have `estimated_bpp`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, Callable, TypeVar

import numpy as np

from tfquant import metrics

_Result = TypeVar("_Result")


def quality(picture: np.ndarray, decoded: np.ndarray) -> dict[str, float | None]:
    """Returns PSNR in dB, MS-SSIM, and MS-SSIM in dB of two pictures, uint8 [H, W, 3] each.

    MS-SSIM is the published one with five scales, or None. Means over pictures with different
    numbers of scales would not be comparable with anything.
    """
    psnr = float(metrics.psnr(picture, decoded))
    ms_ssim = None
    if min(picture.shape[:2]) >= metrics.FULL_PYRAMID_SIDE:
        ms_ssim = float(metrics.ms_ssim(picture, decoded))
    return {
        "psnr": psnr if math.isfinite(psnr) else None,
        "ms_ssim": ms_ssim,
        "ms_ssim_db": decibels(ms_ssim),
    }


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


def mean(measurements: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the mean of each key over the pictures that have a value; None if no picture has one.

    PSNR is the mean of the pictures' decibels. `ms_ssim_db` is the mean MS-SSIM in decibels.
    Published curves are averaged in this way.
    """
    keys = [key for key in measurements[0] if key not in ("name", "ms_ssim_db")]
    result = {}
    for key in keys:
        values = [m[key] for m in measurements if m[key] is not None]
        result[key] = sum(values) / len(values) if values else None
        if key == "ms_ssim":
            result["ms_ssim_db"] = decibels(result[key])
    return result


def missing_values(measurements: Sequence[dict[str, Any]]) -> list[str]:
    """Returns a line for each mean that excludes pictures, with their names and the reason."""
    lines = []
    small = [m["name"] for m in measurements if m["ms_ssim"] is None]
    if small:
        lines.append(
            f"MS-SSIM needs both sides >= {metrics.FULL_PYRAMID_SIDE} pixels for its five scales: "
            f"{len(small)} of {len(measurements)} pictures are smaller and have none "
            f"({some_names(small)})"
        )
    identical = [m["name"] for m in measurements if m["psnr"] is None]
    if identical:
        lines.append(
            f"PSNR is infinite where picture and reconstruction are identical: {len(identical)} of "
            f"{len(measurements)} pictures are excluded from its mean ({some_names(identical)})"
        )
    return lines


def some_names(names: Sequence[str], most: int = 5) -> str:
    """Returns the first few names and the number of the other ones."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
