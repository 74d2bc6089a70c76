"""Picture files: search, reading as 8-bit RGB, lossless writing. It needs only Pillow and NumPy.

Pictures are found and read wherever `tfquant.files` reads. They are written on this machine.

Every file is converted to `uint8 [H, W, 3]` in sRGB, the only form in the rest of the package.
`decoding.py` converts. `docs/pictures.md` has a table of supported, converted and rejected
pictures. A file that cannot be read raises an `ImageError` of one line with the file and the
reason.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Callable

import numpy as np
from PIL import Image, PngImagePlugin

from tfquant import files
from tfquant.data import decoding, messages
from tfquant.data.decoding import FORMATS, Decoded, ImageError, ImageMemoryError

__all__ = [
    "FORMATS", "LOSSLESS", "Decoded", "ImageError", "encoded_image", "made_from",
    "probe_image", "read", "read_image", "sides", "write_image",
]  # fmt: skip

# First bytes of PNG and of JPEG.
_KEPT = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")

# Reconstructions are written losslessly. Another lossy codec would change the measured quality.
LOSSLESS = (".png", ".tif", ".tiff", ".bmp", ".ppm")

# Keyword of the PNG text that names the source of a decompressed picture.
_MADE_FROM = "tfquant"


def read(
    path: str | os.PathLike,
    background: Sequence[float] | None = None,
    data: bytes | None = None,
    *,
    page: int | None = None,
    check: decoding.Check | None = None,
) -> Decoded:
    """Reads a picture as 8-bit sRGB.

    Args:
      path: the file.
      background: (red, green, blue), each 0 to 255, which transparent pixels show. Without it, a
        picture with transparent pixels is rejected. Alpha that is opaque everywhere is always
        dropped.
      data: the file's bytes if they are already read. Errors then use `path` as their name.
      page: page or frame of a file with several, from 1. None is the first that is not a thumbnail.
      check: takes the width and the height before pixels are decoded. It raises an ImageError,
        without the file's name, for a picture that is too large. It replaces Pillow's own limit,
        twice `PIL.Image.MAX_IMAGE_PIXELS`.

    Returns:
      The picture, uint8 [H, W, 3], and notes about conversions and defects.

    Raises:
      ImageError: the file is missing, not a picture, truncated, too large or transparent, has no
        such page, or its black and white are undefined.
    """
    path = os.fspath(path)
    checked = _checked_background(background)
    with _errors_of(path, data):
        if data is None:
            data = _bytes_of(path)
        file = path if data is None else io.BytesIO(data)
        return decoding.decode(file, checked, page, check)


def read_image(
    path: str | os.PathLike,
    background: Sequence[float] | None = None,
    data: bytes | None = None,
    *,
    page: int | None = None,
    note: Callable[[str], None] | None = None,
) -> np.ndarray:
    """Reads a picture as `read` does and returns its pixels, uint8 [H, W, 3].

    Args:
      path, background, data, page: see `read`.
      note: function that is called with each note, a line without the file's name.

    Raises:
      ImageError: as for `read`.
    """
    decoded = read(path, background, data, page=page)
    if note:
        for line in decoded.notes:
            note(line)
    return decoded.pixels


def sides(path: str | os.PathLike, page: int | None = None) -> tuple[int, ...]:
    """Returns the sides of a picture in pixels, the shorter first. Reads only the header.

    Raises:
      ImageError: the header is not that of a picture.
    """
    path = os.fspath(path)
    with _errors_of(path), messages.collected(), decoding.without_pillows_limit():
        data = _bytes_of(path)
        file = path if data is None else io.BytesIO(data)
        with Image.open(file, formats=decoding.readable_formats()) as picture:
            if picture.format == "TIFF":  # the pages of other formats have one size
                decoding.choose_page(picture, page)
            return tuple(sorted(picture.size))


def _bytes_of(path: str) -> bytes | None:
    """Returns a file's bytes if Pillow cannot open the file by its name; else None."""
    if not files.is_local(path):
        return files.read(path)
    with contextlib.suppress(OSError):
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # a FIFO cannot seek
            return files.read(path)
    return None


@contextlib.contextmanager
def _errors_of(path: str, data: bytes | None = None) -> Iterator[None]:
    """Converts errors from reading a picture to an ImageError that names the file.

    Args:
      path: the file.
      data: its bytes, if they are not read from the path.
    """
    name = files.shown(path)
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None
    except FileNotFoundError:
        gone = "a link to a missing file" if os.path.islink(path) else "no such file"
        raise ImageError(f"{name}: {gone}") from None
    except IsADirectoryError:
        raise ImageError(f"{name}: a folder, not a picture") from None
    except Image.UnidentifiedImageError:
        raise ImageError(f"{name}: {_why_unidentified(path, data)}") from None
    except Image.DecompressionBombError:
        assert Image.MAX_IMAGE_PIXELS is not None  # else Pillow has no limit
        limit = 2 * Image.MAX_IMAGE_PIXELS
        raise ImageError(
            f"{name}: more than {limit} pixels, where Pillow suspects an attack"
        ) from None
    except MemoryError:
        raise ImageMemoryError(f"{name}: not enough memory to read the picture") from None
    # Pillow's decoders raise various errors for corrupt files.
    except Exception as error:
        said = getattr(error, "strerror", None) or files.reason(error)
        reason = said.removeprefix(f"{path}: ")
        raise ImageError(f"{name}: unreadable: {reason}") from None


def _why_unidentified(path: str, data: bytes | None) -> str:
    if data is not None:
        return _why_unknown(io.BytesIO(data))
    if files.is_local(path) and os.path.isfile(path):
        with open(path, "rb") as file:
            return _why_unknown(file)
    return _of_no_known_format()


def _why_unknown(file: BinaryIO) -> str:
    """Returns the reason why Pillow does not know the format of an open file."""
    head = file.read(32)
    if not head:
        return "an empty file"
    if decoding.is_heif_data(head) and "HEIF" not in decoding.readable_formats():
        return "HEIC, which needs the package pillow-heif: pip install 'tfquant[heif]'"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return f"a TIFF file of a kind that Pillow does not read ({decoding.tiff_kind(file)})"
    if decoding.is_picture_data(head):
        return "unreadable: the header is damaged or of an unsupported kind"
    return _of_no_known_format()


def _of_no_known_format() -> str:
    return f"not a picture of a known format ({', '.join(decoding.readable_formats())})"


def probe_image(path: str | os.PathLike) -> None:
    """Raises an ImageError if the file's header is not that of a picture. Reads no pixels."""
    path = os.fspath(path)
    try:
        with messages.collected(), decoding.without_pillows_limit(), files.reading(path) as file:
            Image.open(file, formats=decoding.readable_formats()).close()
    except Exception:
        read_image(path)  # raises an error with the reason


def encoded_image(
    path: str | os.PathLike,
    background: Sequence[float] | None = None,
    *,
    page: int | None = None,
    note: Callable[[str], None] | None = None,
) -> bytes:
    """Returns the bytes of a PNG or JPEG file; converts other pictures to an sRGB PNG.

    Args:
      path, background, page, note: see `read_image`.

    Raises:
      ImageError: as for `read`.
    """
    path = os.fspath(path)
    try:
        data = files.read(path)
    except Exception:
        read_image(path)  # raises an error with the reason
        raise
    decoded = read(path, background, data, page=page)
    if note:
        for line in decoded.notes:
            note(line)
    plain = background is None and page is None
    if data.startswith(_KEPT) and (plain or _reads_the_same(data, decoded)):
        return data
    return encoded(decoded.pixels)


def _reads_the_same(data: bytes, decoded: Decoded) -> bool:
    """Returns true if the file without background and page gives the same picture."""
    try:
        return np.array_equal(decoding.decode(io.BytesIO(data)).pixels, decoded.pixels)
    except Exception:
        return False


def write_image(path: str | os.PathLike, image: np.ndarray, source: str = "") -> None:
    """Writes `image: uint8 [H, W, 3]` in the lossless format of the extension of `path`.

    Args:
      path: the file.
      image: the picture.
      source: text for `made_from`. Only PNG files keep it.

    Raises:
      ImageError: the array has another shape or type, the format is lossy, or the file cannot be
        written.
    """
    path = os.fspath(path)
    name = files.shown(path)
    extension = os.path.splitext(path)[1].lower()
    if extension not in LOSSLESS:
        raise ImageError(
            f"{name}: pictures are written as {', '.join(LOSSLESS)}, not '{extension}'"
        )
    data = encoded(image, extension, source, name)
    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError as error:
        reason = error.strerror or files.reason(error)
        raise ImageError(f"{name}: cannot be written: {reason}") from None


def is_picture(array: np.ndarray) -> bool:
    """Returns true if an array is uint8 [H, W, 3] with at least one pixel."""
    return array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3 and array.size > 0


def encoded(
    image: np.ndarray, extension: str = ".png", source: str = "", name: str = "picture"
) -> bytes:
    """Returns the bytes of a lossless file of `image: uint8 [H, W, 3]`; see `write_image`."""
    image = np.asarray(image)
    if not is_picture(image):
        raise ImageError(f"{name}: expected uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
    options: dict[str, Any] = {}
    stream = io.BytesIO()
    if extension == ".png" and source:
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_text(_MADE_FROM, source)
    formats = Image.registered_extensions()
    Image.fromarray(image).save(stream, formats[extension], **options)
    return stream.getvalue()


def made_from(path: str | os.PathLike) -> str | None:
    """Returns the `source` with which `write_image` wrote a PNG file, or None."""
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(messages.collected())
            stack.enter_context(decoding.without_pillows_limit())
            picture = stack.enter_context(Image.open(path, formats=["PNG"]))
            return picture.info.get(_MADE_FROM)
    except Exception:
        return None


def _checked_background(background: Sequence[float] | None) -> np.ndarray | None:
    if background is None:
        return None
    values = np.asarray(background)
    if values.shape != (3,) or values.min() < 0 or values.max() > 255:
        raise ImageError(f"background {background!r}: expected three numbers from 0 to 255")
    return values.astype(np.float32)
