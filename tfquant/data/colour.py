"""Conversion of a file's colours to sRGB, according to its profile or tags.

The colour space is determined from the first of these that the file has:

    ICC profile             converted by LittleCMS (Pillow's `ImageCms`), perceptual intent
    EXIF, interoperability  "R03": Adobe RGB (1998), as marked by cameras without a profile
    PNG chunks gAMA, cHRM   gamma and primaries, unless the chunk sRGB exists
    nothing                 sRGB

Values of sRGB pictures do not change. A profile counts as sRGB if it changes no colour by more than
two levels of 255.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Callable

import numpy as np
from PIL import Image

from tfquant import files

if TYPE_CHECKING:
    from PIL import ImageCms

# Levels of 255 by which profiles with the name sRGB differ from each other.
_SAME = 2

# CIE x and y of white, red, green and blue.
_SRGB = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_ADOBE_RGB = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
_ADOBE_GAMMA = 563 / 256
# gAMA of sRGB, an approximation of its curve. PNGs with only this chunk are sRGB.
_SRGB_GAMA = 0.45455

# From CIE XYZ to the cone responses that Bradford's adaptation scales.
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)

# Pillow's mode -> colour space in the header of a profile for it.
_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}


_NOT_USED = "ICC profile not used, colours taken as sRGB"


def to_srgb(
    picture: Image.Image, info: Mapping[str | tuple[int, int], Any], interoperability: str = ""
) -> tuple[Image.Image, str]:
    """Converts a picture to sRGB.

    Args:
      picture: a picture in mode L, RGB or CMYK.
      info: Pillow's `info` of the file.
      interoperability: EXIF's index of that name.

    Returns:
      (the picture in mode RGB, a note of one line, or "" if the colours kept their values).
    """
    profile = info.get("icc_profile")
    if profile:
        return _by_profile(picture, profile)
    if "icc_profile" in info:  # Pillow found parts of it
        return picture.convert("RGB"), f"{_NOT_USED}: it is incomplete"
    rgb = picture.convert("RGB")
    if picture.mode == "CMYK":
        return rgb, ""
    if interoperability == "R03":
        table = _by_primaries(np.asarray(rgb), _ADOBE_GAMMA, _ADOBE_RGB)
        assert table is not None  # Adobe RGB spans a colour space
        return Image.fromarray(table), "colours converted from Adobe RGB (EXIF) to sRGB"
    return _by_png_chunks(rgb, info)


def _by_profile(picture: Image.Image, profile: bytes) -> tuple[Image.Image, str]:
    mode = picture.mode
    try:
        space, name, change = _profile(profile)
        if mode == "L" and space == "RGB":
            picture, mode = picture.convert("RGB"), "RGB"
        if _SPACES[mode] != space:
            reason = f"it is for {space}, the picture is {mode}"
            return picture.convert("RGB"), f"ICC profile '{name}' not used: {reason}"
        transform = change(mode)
    except _UnusableProfile as error:
        return picture.convert("RGB"), f"{_NOT_USED}: {error}"
    if transform is None:
        return picture.convert("RGB"), ""
    from PIL import ImageCms

    converted = ImageCms.applyTransform(picture, transform)
    assert converted is not None  # only a conversion in place returns none
    return converted, f"colours converted from '{name}' to sRGB"


class _UnusableProfile(ValueError):
    """Error: LittleCMS cannot use a profile. The message is one line."""


@functools.lru_cache(maxsize=32)
def _profile(data: bytes) -> tuple[str, str, Callable[[str], ImageCms.ImageCmsTransform | None]]:
    """Returns (colour space, name, function from a mode to its transform, None if it is sRGB)."""
    try:
        from PIL import ImageCms

        source = ImageCms.ImageCmsProfile(io.BytesIO(data))
        space = source.profile.xcolor_space.strip().upper()
        name = ImageCms.getProfileDescription(source).strip()
    except Exception as error:  # from LittleCMS, for a corrupt profile, without LittleCMS
        raise _UnusableProfile(files.reason(error)) from None

    @functools.lru_cache(maxsize=4)
    def change(mode: str) -> ImageCms.ImageCmsTransform | None:
        try:
            transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        except Exception as error:
            raise _UnusableProfile(files.one_line(error)) from None
        return None if _is_identity(transform, mode) else transform

    return space, files.shown(files.one_line(name)) or "unnamed", change


def _is_identity(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Returns true if a transform changes all colours by at most `_SAME` levels."""
    from PIL import ImageCms

    if mode == "CMYK":
        return False
    levels = np.linspace(0, 255, 9 if mode == "RGB" else 256).round().astype(np.uint8)
    if mode == "RGB":
        grid = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(9, -1, 3)
    else:
        grid = levels[None]
    picture = Image.fromarray(grid)
    before = np.asarray(picture.convert("RGB"), np.int16)
    after = np.asarray(ImageCms.applyTransform(picture, transform), np.int16)
    return int(np.abs(after - before).max()) <= _SAME


def _by_png_chunks(
    rgb: Image.Image, info: Mapping[str | tuple[int, int], Any]
) -> tuple[Image.Image, str]:
    gamma, primaries = info.get("gamma"), info.get("chromaticity")
    if info.get("srgb") is not None or not (gamma or primaries):
        return rgb, ""
    without_gamma, gamma = not gamma, gamma or _SRGB_GAMA
    near = abs(gamma / _SRGB_GAMA - 1) < 0.02
    if primaries is None or np.allclose(primaries, _SRGB, atol=2e-3):
        primaries = _SRGB
    if near and primaries is _SRGB or not 0.1 <= gamma <= 2:
        return rgb, ""
    converted = _by_primaries(np.asarray(rgb), None if without_gamma else 1 / gamma, primaries)
    if converted is None:
        return rgb, "chunk cHRM not used, colours taken as sRGB: no colour space has these values"
    return Image.fromarray(converted), "colours converted by the chunks gAMA and cHRM to sRGB"


def _by_primaries(
    pixels: np.ndarray, gamma: float | None, primaries: Sequence[float]
) -> np.ndarray | None:
    """Converts `pixels: uint8 [H, W, 3]` to sRGB. White stays white (Bradford's adaptation).

    Args:
      pixels: the picture.
      gamma: exponent from values to light. None uses the curve of sRGB.
      primaries: CIE x and y of white, red, green and blue.

    Returns:
      uint8 [H, W, 3]; None if the primaries do not span a colour space.
    """
    levels = np.arange(256) / 255
    curved = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    light = curved if gamma is None else levels**gamma
    try:
        ours, theirs = _to_xyz(_SRGB), _to_xyz(primaries)
        whites = (_BRADFORD @ ours.sum(1)) / (_BRADFORD @ theirs.sum(1))
        adapted = np.linalg.solve(_BRADFORD, whites[:, None] * (_BRADFORD @ theirs))
        matrix = np.linalg.solve(ours, adapted)
    except (np.linalg.LinAlgError, ZeroDivisionError):
        return None
    if not np.isfinite(matrix).all():
        return None
    # Row by row, because a float copy of a large picture would need much memory.
    result = np.empty_like(pixels)
    for row, out in zip(pixels, result):
        linear = np.clip(light[row] @ matrix.T, 0, 1)
        coded = np.where(
            linear <= 0.0031308,
            12.92 * linear,
            1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055,
        )
        out[...] = np.rint(255 * coded)
    return result


def _to_xyz(chromaticities: Sequence[float]) -> np.ndarray:
    """Returns the matrix [3, 3] from linear RGB to CIE XYZ. White has Y = 1."""
    x_y = np.asarray(chromaticities, np.float64).reshape(4, 2)
    if (x_y[:, 1] == 0).any():
        raise ZeroDivisionError
    xyz = np.stack([x_y[:, 0] / x_y[:, 1], np.ones(4), (1 - x_y.sum(1)) / x_y[:, 1]])
    white, primaries = xyz[:, 0], xyz[:, 1:]
    return primaries * np.linalg.solve(primaries, white)
