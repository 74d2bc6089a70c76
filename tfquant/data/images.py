"""Pictures in files: found, read as 8-bit RGB, written without loss. Pillow and NumPy alone.

Pictures are found and read wherever `tfquant.files` reads, and written on this machine.

Whatever a file holds becomes `uint8 [H, W, 3]`, the only form the rest of the package knows:

| in the file               | becomes                                                      |
|---------------------------|--------------------------------------------------------------|
| 8-bit RGB                 | itself                                                       |
| grayscale, 1-bit, palette | the same picture in three channels                           |
| CMYK, YCbCr               | RGB by Pillow's formulas; colour profiles are not applied    |
| 16-bit grayscale          | round(v * 255 / 65535): neither clipped nor stretched        |
| 16-bit RGB                | the high byte, to which Pillow reduces it when it reads      |
| transparent pixels        | composited over `background`; refused without one            |
| an EXIF orientation       | upright                                                      |
| several frames            | the first                                                    |

Whatever cannot be read is an `ImageError` of one line: the file and the reason.
"""

from __future__ import annotations

import contextlib
import glob
import io
import os

import numpy as np
from PIL import Image, ImageOps

from tfquant import files

# Pillow's name of each format that is read, and the extensions that find it in a folder. Others
# stay closed: for a PostScript file Pillow would start Ghostscript.
FORMATS = {
    "AVIF": (".avif",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "JPEG": (".jpg", ".jpeg"),
    "JPEG2000": (".jp2", ".j2k"),
    "PNG": (".png",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
EXTENSIONS = tuple(extension for group in FORMATS.values() for extension in group)

# First bytes of PNG and of JPEG.
_KEPT = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")

# A reconstruction is written as it is: a second, lossy codec behind ours would be measured as ours.
LOSSLESS = (".png", ".tif", ".tiff", ".bmp", ".ppm")


class ImageError(ValueError):
    """A picture that cannot be found, read or written: one line that says which and why."""


def read_image(path, background=None, data: bytes | None = None) -> np.ndarray:
    """Reads a picture as 8-bit RGB.

    Args:
      path: the file.
      background: (red, green, blue), each 0 to 255, seen through transparent pixels. Without it a
        picture with such pixels is refused; alpha that is opaque everywhere is dropped either way.
      data: the file's bytes, where they are at hand; `path` is what errors call them.

    Returns:
      uint8 [H, W, 3].

    Raises:
      ImageError: the file is missing, no picture, truncated, too large, transparent, or its black
        and white are unknown.
    """
    path = os.fspath(path)
    background = _checked_background(background)
    try:
        if data is None and not files.is_local(path):
            data = files.read(path)
        file = path if data is None else io.BytesIO(data)
        with Image.open(file, formats=_readable_formats()) as picture:
            picture.load()
            return _as_rgb(_upright(picture), background)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ImageError(f"{path}: a folder, not a picture") from None
    except Image.UnidentifiedImageError:
        raise ImageError(f"{path}: not a picture of a known format ({_names(FORMATS)})") from None
    except Image.DecompressionBombError:
        limit = 2 * Image.MAX_IMAGE_PIXELS
        raise ImageError(
            f"{path}: more than {limit} pixels, where Pillow suspects an attack"
        ) from None
    # On broken files Pillow's decoders raise whatever they stumble over.
    except Exception as error:
        reason = _one_line(error).removeprefix(f"{path}: ")
        raise ImageError(f"{path}: unreadable: {reason}") from None


def probe_image(path) -> None:
    """Raises an ImageError if the file's header is not a picture's; looks at no pixels."""
    path = os.fspath(path)
    try:
        with files.reading(path) as file:
            Image.open(file, formats=_readable_formats()).close()
    except Exception:
        read_image(path)  # Says why.


def encoded_image(path) -> bytes:
    """The file as it is, if it is PNG or JPEG; else its picture as PNG.

    Raises:
      ImageError: `read_image` would, without background.
    """
    path = os.fspath(path)
    try:
        data = files.read(path)
    except Exception:
        read_image(path)  # Says why.
        raise
    image = read_image(path, data=data)
    if data.startswith(_KEPT):
        return data
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, "PNG")
    return encoded.getvalue()


def write_image(path, image) -> None:
    """Writes `image: uint8 [H, W, 3]` in the lossless format that the extension of `path` names."""
    path = os.fspath(path)
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 or not image.size:
        raise ImageError(f"{path}: expected uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
    extension = os.path.splitext(path)[1].lower()
    if extension not in LOSSLESS:
        raise ImageError(f"{path}: pictures are written as {_names(LOSSLESS)}, not '{extension}'")
    try:
        Image.fromarray(image).save(path)
    except OSError as error:
        raise ImageError(
            f"{path}: cannot be written: {error.strerror or _one_line(error)}"
        ) from None


def find_images(spec: str) -> list[str]:
    """Lists the pictures that `spec` means, sorted, each once.

    Args:
      spec: a file, a folder (searched to the bottom for known extensions, in upper or lower case,
        without hidden files), a glob (`**` crosses folders; its folders are searched, its files
        need a known extension), or several of these with commas between. A name that exists is no
        glob.

    Raises:
      ImageError: a part of `spec` leads to no picture.
      OSError: nobody can look there, since no file system has such names, say.
    """
    spec = os.fspath(spec).strip()
    parts = [spec] if files.exists(spec) else [part.strip() for part in spec.split(",")]
    parts = [os.path.expanduser(part) for part in parts if part]
    if not parts:
        raise ImageError("no pictures asked for: expected a file, a folder or a glob, got ''")
    found = {}
    for part in parts:
        matches = _expand(part)
        if not matches:
            what = (
                "folder"
                if files.isdir(part)
                else "glob"
                if glob.has_magic(part)
                else "file or folder"
            )
            reason = f"no pictures in this {what} ({_names(EXTENSIONS)})"
            if what == "file or folder":
                reason = "no such file or folder"
            raise ImageError(f"{part}: {reason}")
        for match in matches:
            if files.is_local(match):
                found.setdefault(os.path.abspath(match), os.path.normpath(match))
            else:
                found[match] = match
    return sorted(found.values())


def _expand(part: str) -> list[str]:
    if files.isfile(part):
        return [part]
    matches = [part] if files.isdir(part) else files.matches(part)
    found = [match for match in matches if _has_known_extension(match) and files.isfile(match)]
    for folder in filter(files.isdir, matches):
        found += filter(_has_known_extension, files.below(folder))
    return found


def _has_known_extension(path: str) -> bool:
    name = os.path.basename(path).lower()
    return name.endswith(EXTENSIONS) and not name.startswith(".")


def _readable_formats() -> list[str]:
    Image.init()
    # AVIF and JPEG 2000 depend on Pillow's build.
    return [name for name in FORMATS if name in Image.OPEN]


def _upright(picture: Image.Image) -> Image.Image:
    # EXIF data too broken to read turns nothing; the pixels are whole.
    with contextlib.suppress(Exception):
        return ImageOps.exif_transpose(picture)
    return picture


def _as_rgb(picture: Image.Image, background) -> np.ndarray:
    """Any mode of Pillow's -> uint8 [H, W, 3]."""
    if picture.mode == "F" or picture.mode.startswith("I"):
        rgb, alpha = _from_wide_gray(picture)
    elif "transparency" in picture.info or picture.mode in ("RGBA", "RGBa", "LA", "La", "PA"):
        rgba = np.asarray(_with_byte_key(picture).convert("RGBA"))
        rgb, alpha = rgba[..., :3], rgba[..., 3:]
    else:
        return np.array(picture.convert("RGB"))
    if (alpha == 255).all():
        return np.ascontiguousarray(rgb)
    if background is None:
        raise ImageError(
            "has transparent pixels: name a background colour or flatten the picture first"
        )
    weight = alpha.astype(np.float32) / 255
    return np.rint(weight * rgb + (1 - weight) * background).astype(np.uint8)


def _from_wide_gray(picture: Image.Image):
    """One channel of more than 8 bits -> (uint8 [H, W, 3], alpha: uint8 [H, W, 1])."""
    # [H, W, 1]; older Pillows give 16-bit files as int32, mode "I".
    gray = np.asarray(picture)[..., None]
    if picture.mode == "F" or gray.min() < 0 or gray.max() > 65535:
        raise ImageError("samples are not 8 or 16 bit unsigned, so black and white are not defined")
    key = picture.info.get("transparency")
    alpha = np.where(gray == key, 0, 255).astype(np.uint8) if key is not None else np.uint8(255)
    scaled = np.rint(gray.astype(np.float32) * np.float32(255 / 65535)).astype(np.uint8)
    return np.repeat(scaled, 3, axis=-1), alpha


def _with_byte_key(picture: Image.Image) -> Image.Image:
    """Reduces the transparent colour of 16-bit RGB to 8 bits, as Pillow did with the pixels."""
    key = picture.info.get("transparency")
    if picture.mode == "RGB" and isinstance(key, tuple) and max(key) > 255:
        picture = picture.copy()
        picture.info["transparency"] = tuple(value >> 8 for value in key)
    return picture


def _checked_background(background):
    if background is None:
        return None
    values = np.asarray(background)
    if values.shape != (3,) or values.min() < 0 or values.max() > 255:
        raise ImageError(f"background {background!r}: expected three numbers from 0 to 255")
    return values.astype(np.float32)


def _names(values) -> str:
    return ", ".join(values)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
