"""One picture through one codec, and means over pictures.

A measurement is a plain dict with the keys of `report.json`: `name`, `bpp`, `psnr`, `ms_ssim`,
`ms_ssim_db`, `encode_s`, `decode_s`, of models also `estimated_bpp`.
"""

from __future__ import annotations

import math
import time

import numpy as np

from tfquant import metrics


def quality(picture: np.ndarray, decoded: np.ndarray) -> dict:
    """PSNR in dB, MS-SSIM, and MS-SSIM in dB of two pictures, uint8 [H, W, 3] each.

    MS-SSIM is the published one of five scales or None: means over pictures with different numbers
    of scales would compare with nothing.
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


def decibels(ms_ssim) -> float | None:
    """-10 log10(1 - MS-SSIM) in dB; None of None and of 1."""
    return None if ms_ssim is None or ms_ssim >= 1 else float(metrics.ms_ssim_db(ms_ssim))


def bits_per_pixel(num_bytes: int, picture: np.ndarray) -> float:
    """Bits of a whole file per pixel of its picture."""
    return 8 * num_bytes / (picture.shape[0] * picture.shape[1])


def timed(function, *arguments):
    """(what the function returns, seconds it took)."""
    start = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - start


def mean(measurements) -> dict:
    """The mean of each key over the pictures that have a value; None where none has.

    PSNR is the mean of the pictures' decibels, and `ms_ssim_db` the decibels of the mean MS-SSIM:
    published curves are averaged in this way.
    """
    keys = [key for key in measurements[0] if key not in ("name", "ms_ssim_db")]
    result = {}
    for key in keys:
        values = [m[key] for m in measurements if m[key] is not None]
        result[key] = sum(values) / len(values) if values else None
        if key == "ms_ssim":
            result["ms_ssim_db"] = decibels(result[key])
    return result


def missing_values(measurements) -> list:
    """Lines that say which pictures a mean leaves out, and why."""
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
            f"{len(measurements)} pictures are left out of its mean ({some_names(identical)})"
        )
    return lines


def some_names(names, most: int = 5) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
