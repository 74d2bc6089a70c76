"""Decodes picture files to 8-bit sRGB. `docs/pictures.md` lists the conversions.

The steps, in order: page, depth and polarity of the samples, transparency, colour, orientation. A
file whose tags leave black or white undefined is rejected with one line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import struct
import threading
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, Callable

import numpy as np
from PIL import Image, TiffImagePlugin

from tfquant import files
from tfquant.data import colour, messages, png_chunks

# Pillow's name of each supported format -> its extensions in a folder. Other formats are rejected:
# for a PostScript file, Pillow would start Ghostscript.
FORMATS = {
    "AVIF": (".avif", ".avifs"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif"),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "MPO": (".mpo",),
    "PNG": (".png", ".apng"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
# Supported if the package pillow-heif is installed.
HEIF = {"HEIF": (".heic", ".heif", ".hif")}

_ORIENTATION = 0x0112
# TIFF tags.
_SUBFILE, _OLD_SUBFILE, _BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 254, 255, 258, 262, 339
_COMPRESSION, _PLANES, _COLOUR_MAP, _SUB_IFDS, _DNG_VERSION = 259, 284, 320, 330, 50706
_WHITE_IS_ZERO, _RAW_SENSOR = 0, (32803, 34892)
_SAMPLE_FORMATS = {2: "signed integers", 3: "floating point", 5: "complex", 6: "complex"}

# Kinds of TIFF that Pillow can unpack but does not know: (byte order, photometric, sample formats,
# fill order, bits, extra samples) -> (mode, raw mode). The byte order does not affect samples of 12
# bits.
_MORE_TIFFS = {
    (b"MM", 0, (1,), 1, (16,), ()): ("I;16B", "I;16B"),
    (b"MM", 1, (1,), 1, (12,), ()): ("I;16", "I;12"),
    (b"MM", 0, (1,), 1, (12,), ()): ("I;16", "I;12"),
    (b"II", 0, (1,), 1, (12,), ()): ("I;16", "I;12"),
}

# Number of pages that are compared to distinguish a thumbnail from the picture.
_PAGES_SEEN = 16

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(ValueError):
    """Error: a picture cannot be found, read or written.

    The message is one line with file and reason.
    """


class ImageMemoryError(ImageError, MemoryError):
    """Error: there is not enough memory to read a picture."""


@dataclasses.dataclass(frozen=True)
class Decoded:
    """A decoded picture.

    Attributes:
      pixels: uint8 [H, W, 3], sRGB.
      notes: lines about conversions and defects. Most pictures have none.
    """

    pixels: np.ndarray
    notes: tuple[str, ...]


# Takes the width and the height of a picture, and raises an ImageError if they are too large.
Check = Callable[[int, int], None]


def decode(
    file: str | io.BytesIO,
    background: np.ndarray | None = None,
    page: int | None = None,
    check: Check | None = None,
) -> Decoded:
    """Reads a picture.

    Args:
      file: its path, or its bytes in a `BytesIO`.
      background: (red, green, blue) as float32 [3], 0 to 255, or None.
      page: page of a file with several, from 1. None is the first page that is not a thumbnail.
      check: called before pixels are decoded. It replaces Pillow's own limit of pixels.

    Raises:
      ImageError: the picture is too large or transparent, its black and white are undefined, or it
        has no such page. The message does not name the file.
      Exception: any error of Pillow's decoders for a corrupt file.
    """
    with contextlib.ExitStack() as stack:
        said = stack.enter_context(messages.collected())
        if check is None:
            check = _accept
        else:
            stack.enter_context(without_pillows_limit())
        try:
            with _opened(file, check) as (picture, profile):
                if picture.format != "TIFF":  # of which each page has its own size
                    check(*picture.size)
                note = choose_page(picture, page)
                check(*picture.size)
                pixels, colours = _pixels(picture, profile, background)
        except (ImageError, Image.UnidentifiedImageError):
            raise
        except Exception as error:
            if said:
                lines = "; ".join(messages.shortened(said))
                raise ImageError(f"unreadable: {files.reason(error)} ({lines})") from None
            raise
    return Decoded(pixels, tuple(filter(None, (note, colours, *messages.shortened(said)))))


def _accept(width: int, height: int) -> None:
    """Accepts a picture that Pillow has accepted."""


_limit_lock = threading.Lock()
_unlimited = 0  # number of threads within `without_pillows_limit`
_pillows_limit: int | None = None


@contextlib.contextmanager
def without_pillows_limit() -> Iterator[None]:
    """Switches Pillow's own limit of pixels off, for all threads, until the last one leaves."""
    global _unlimited, _pillows_limit
    with _limit_lock:
        if not _unlimited:
            _pillows_limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        _unlimited += 1
    try:
        yield
    finally:
        with _limit_lock:
            _unlimited -= 1
            if not _unlimited:
                Image.MAX_IMAGE_PIXELS = _pillows_limit


@contextlib.contextmanager
def _opened(file: str | io.BytesIO, check: Check) -> Iterator[tuple[Image.Image, bytes | None]]:
    """Yields (Pillow's picture, an ICC profile that Pillow does not read or None).

    `check` is that of `decode`. It is called here if the pixels are decoded here.
    """
    profile = None
    try:
        picture = _open(file, check)
    except ValueError as error:
        if "MAX_TEXT" not in str(error):
            raise
        data, profile = png_chunks.without_large_chunks(_bytes(file))
        picture = _open(io.BytesIO(data), check)
    if picture.format == "TIFF" and not isinstance(file, io.BytesIO) and _may_be_turned(picture):
        # Pillow maps uncompressed pixels of a file into memory, and swaps their sides if it rotates
        # them.
        picture.close()
        picture = _open(io.BytesIO(_bytes(file)), check)
    with picture:
        yield picture, profile


def _open(file: str | io.BytesIO, check: Check) -> Image.Image:
    picture = Image.open(file, formats=readable_formats())
    try:
        if picture.format == "PNG":
            check(*picture.size)
            _scale_gray_key(picture)
            picture.load()  # also reads the text after the pixels
    except BaseException:
        picture.close()
        raise
    return picture


def _scale_gray_key(picture: Image.Image) -> None:
    """Scales a PNG's transparent gray of 1, 2 or 4 bits to 8, as Pillow scales the pixels."""
    key, tiles = picture.info.get("transparency"), _tiles(picture)
    bits = {"1": 1, "L;2": 2, "L;4": 4}.get(tiles[0].args) if tiles else None
    if bits and isinstance(key, int) and key < 2**bits:  # Pillow 13 scales the gray of 1 bit
        picture.info["transparency"] = key * 255 // (2**bits - 1)


def _bytes(file: str | io.BytesIO) -> bytes:
    if isinstance(file, io.BytesIO):
        return file.getvalue()
    with open(file, "rb") as stream:
        return stream.read()


def _tags(picture: Image.Image) -> TiffImagePlugin.ImageFileDirectory_v2:
    """Returns the tags of a TIFF file."""
    return picture.tag_v2  # type: ignore[attr-defined]  # only Pillow's class for TIFF has it


def _tiles(picture: Image.Image) -> list:
    """Returns Pillow's descriptions of the coded parts of a file that is not decoded yet."""
    return picture.tile  # type: ignore[attr-defined]  # only Pillow's class for files has it


def _may_be_turned(picture: Image.Image) -> bool:
    return _tags(picture).get(_ORIENTATION, 1) != 1 or getattr(picture, "n_frames", 1) > 1


def readable_formats() -> list[str]:
    """Returns Pillow's names of the formats that this installation reads."""
    Image.init()
    for key, modes in _MORE_TIFFS.items():
        TiffImagePlugin.OPEN_INFO.setdefault(key, modes)
    # AVIF and JPEG 2000 depend on Pillow's build.
    return [name for name in (*FORMATS, *_heif()) if name in Image.OPEN]


def extensions() -> tuple[str, ...]:
    """Returns the extensions, in lower case, of pictures in a folder."""
    known = {**FORMATS, **(HEIF if importlib.util.find_spec("pillow_heif") else {})}
    return tuple(extension for group in known.values() for extension in group)


def is_picture_data(head: bytes) -> bool:
    """Returns true if a file with these first 32 bytes has a format in `FORMATS` or `HEIF`."""
    if head[4:8] == b"ftyp":
        return head[8:12] in (b"avif", b"avis", *_HEIF_BRANDS)
    if head[:4] == b"RIFF":
        return head[8:12] == b"WEBP"
    if head[:1] == b"P":
        return head[1:2] in b"123456" and head[2:3].isspace()
    return head.startswith(_SIGNATURES)


_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_SIGNATURES = (
    png_chunks.SIGNATURE,
    b"\xff\xd8\xff",
    b"GIF87a",
    b"GIF89a",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
    b"\0\0\0\x0cjP  \r\n\x87\n",
    b"\xff\x4f\xff\x51",
)


def tiff_kind(file: BinaryIO) -> str:
    """Describes the first page of a TIFF file that is open for reading, for a message."""
    with contextlib.suppress(Exception), messages.collected():
        file.seek(0)
        head = file.read(8)
        if head.startswith(b"MM\0+"):
            return "BigTIFF, big endian"
        if head.startswith(b"II+\0"):
            head += file.read(8)
        tags = TiffImagePlugin.ImageFileDirectory_v2(head)
        file.seek(tags.next)
        tags.load(file)
        bits = ",".join(map(str, _tuple(tags.get(_BITS, 1))))
        kinds = "".join(f" {kind}" for kind in _undefined_kinds(tags)[:1])
        kind, compression = tags.get(_PHOTOMETRIC), tags.get(_COMPRESSION, 1)
        return f"{bits} bits{kinds}, photometric {kind}, compression {compression}"
    return "damaged tags"


def is_heif_data(head: bytes) -> bool:
    """Returns true if a file with these first 32 bytes is a HEIC or HEIF file."""
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS


def _heif() -> tuple[str, ...]:
    if "HEIF" not in Image.OPEN:
        try:
            import pillow_heif
        except ImportError:
            return ()
        pillow_heif.register_heif_opener()
    return tuple(HEIF)


def choose_page(picture: Image.Image, page: int | None) -> str:
    """Goes to the page that is the picture; returns a note, "" for a file with one page.

    Raises:
      ImageError: there is no such page, or none that is a picture.
    """
    try:
        count = getattr(picture, "n_frames", 1)
    except Exception:  # the file is corrupt after its first page
        count = 1
    if page is not None:
        if not 1 <= page <= count:
            raise ImageError(f"has {count} page(s): there is no page {page}")
        if count > 1:
            picture.seek(page - 1)
            return f"page {page} of {count} is used"
        return ""
    if picture.format != "TIFF":
        return "" if count == 1 else f"page {picture.tell() + 1} of {count} is used"
    found = _first_page(picture, count)
    if count == 1:
        return ""
    picture.seek(found)
    before = {0: "", 1: ", as page 1 is a thumbnail or a mask"}.get(
        found, f", as pages 1 to {found} are thumbnails or masks"
    )
    return f"page {found + 1} of {count} is used{before}"


def _first_page(picture: Image.Image, count: int) -> int:
    """Returns the index of the first page of a TIFF that is neither thumbnail nor mask."""
    sizes, marks, has_more = [], [], False
    file = picture.fp
    assert file is not None  # the file is open
    file.seek(0)
    raw = file.read(10)[8:] == b"CR"  # Canon raw file; its first page is a preview
    for index in range(min(count, _PAGES_SEEN)):
        if count > 1:
            picture.seek(index)
        tags = _tags(picture)
        if raw or tags.get(_DNG_VERSION) is not None:
            raise ImageError("is a camera's raw file: develop it to TIFF or JPEG first")
        subfile = tags.get(_SUBFILE, 0)
        marked = isinstance(subfile, int) and bool(subfile & 0b101)
        marks.append(marked or tags.get(_OLD_SUBFILE) == 2)
        sizes.append(picture.size)
        has_more |= tags.get(_SUB_IFDS) is not None
    whole = [i for i, mark in enumerate(marks) if not mark]
    if not whole and has_more:
        raise ImageError(
            "holds a thumbnail outside its SubIFDs, as raw files of cameras do: convert the picture"
            " to another format, or take the thumbnail with --page=1"
        )
    if not whole:
        return max(range(len(sizes)), key=lambda i: sizes[i][0] * sizes[i][1])
    # Unmarked thumbnails have the same shape as a later page and at most half its width.
    return next(i for i in whole
                if not any(j > i and _is_thumbnail(sizes[i], sizes[j]) for j in whole))  # fmt: skip


def _is_thumbnail(size: tuple[int, int], other: tuple[int, int]) -> bool:
    (width, height), (wide, high) = size, other
    return (
        2 * width <= wide
        and 2 * height <= high
        and abs(width * high - wide * height) <= (max(wide, high) + 0.02 * wide * height)
    )


def _pixels(
    picture: Image.Image, profile: bytes | None, background: np.ndarray | None
) -> tuple[np.ndarray, str]:
    """Returns (uint8 [H, W, 3], a note on colours)."""
    white, inverted = 65535, False
    if picture.format == "TIFF":
        white, inverted = _depth(picture)
        _name_planes(picture)
        with messages.native():
            picture.load()
        _scale_palette(picture)
    else:
        if picture.format == "JPEG2000":
            _check_jpeg2000(picture)
        picture.load()
    orientation, interoperability = _exif(picture)
    base, alpha = _base(picture, white, inverted)
    info = dict(picture.info)
    if profile:
        info["icc_profile"] = profile
    rgb, note = colour.to_srgb(base, info, interoperability)
    pixels = np.asarray(rgb)
    if alpha is not None and not (alpha == 255).all():
        if background is None:
            raise ImageError(
                "has transparent pixels: name a background colour (--background) or flatten the"
                " picture first"
            )
        weight = alpha[..., None].astype(np.float32) / 255
        pixels = np.rint(weight * pixels + (1 - weight) * background).astype(np.uint8)
    return _turned(pixels, orientation), note


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    turn = _TURNS.get(orientation)
    if turn is not None:
        pixels = np.asarray(Image.fromarray(pixels).transpose(turn))
    return np.array(pixels)  # a contiguous, writable copy


def _depth(picture: Image.Image) -> tuple[int, bool]:
    """Returns (largest value of a sample, true if it is black) of a TIFF file.

    Raises:
      ImageError: the tags leave black and white undefined.
    """
    tags = _tags(picture)
    if tags.get(_PHOTOMETRIC) in _RAW_SENSOR:
        raise ImageError("holds raw data of a sensor: develop it to TIFF or JPEG first")
    if picture.mode == "LAB":
        raise ImageError("is in CIELAB: convert it to RGB first")
    bits = max(_tuple(tags.get(_BITS, 1)))
    kinds = _undefined_kinds(tags)
    if kinds or bits > 16:
        what = kinds[0] if kinds else "integers"
        raise ImageError(
            f"samples are {bits}-bit {what}, not 8 or 16 bit unsigned, so black and white are not"
            " defined: convert the picture to 8 or 16 bits first"
        )
    return 2**bits - 1, tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO


def _undefined_kinds(tags: Mapping[int, Any]) -> list[str]:
    """Returns the types of a TIFF's samples whose black and white are undefined."""
    formats = _tuple(tags.get(_SAMPLE_FORMAT, 1))
    return [_SAMPLE_FORMATS[each] for each in formats if each in _SAMPLE_FORMATS]


def _name_planes(picture: Image.Image) -> None:
    """Corrects the raw modes of planes of 16 bits, which Pillow reads as 8 bits."""
    tags, tiles = _tags(picture), _tiles(picture)
    if tags.get(_PLANES) != 2 or max(_tuple(tags.get(_BITS, 1))) != 16:
        return
    order = "L" if tags.prefix == b"II" else "B"
    for i, tile in enumerate(tiles):
        if tile.codec_name == "raw" and len(tile.args[0]) == 1:
            tiles[i] = tile._replace(args=(f"{tile.args[0]};16{order}", *tile.args[1:]))


def _scale_palette(picture: Image.Image) -> None:
    """Corrects a colour map with values of 8 bits in place of 16, as libtiff does."""
    values = _tags(picture).get(_COLOUR_MAP)
    if picture.mode == "P" and values and max(values) < 256:
        colours = np.array(values, np.uint8).reshape(3, -1).T
        picture.putpalette(colours.tobytes())


def _check_jpeg2000(picture: Image.Image) -> None:
    """Raises an ImageError for a depth that Pillow's decoder does not read correctly."""
    file = picture.fp
    assert file is not None  # the file is open
    file.seek(0)
    _, start, header = file.read().partition(b"\xff\x4f\xff\x51")
    if not start or picture.mode.startswith("I"):
        return
    (count,) = struct.unpack_from(">H", header, 36)
    bits = 1 + max(value & 0x7F for value in header[38 : 38 + 3 * count : 3])
    if bits > 8:  # rounded to 8 bits without a limit, so that 255.5 becomes 0
        raise ImageError(
            f"is JPEG 2000 with {bits} bits per sample, of which Pillow reads white as black:"
            " convert the picture to PNG or TIFF first"
        )


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _exif(picture: Image.Image) -> tuple[int, str]:
    """Returns (orientation, interoperability index); 1 and "" if EXIF has none."""
    # Other tags may be corrupt in any way. The orientation must still be read.
    orientation: Any = None  # whatever the file says
    interoperability = ""
    with contextlib.suppress(Exception):
        exif = picture.getexif()
        orientation = exif.get(_ORIENTATION)
        with contextlib.suppress(Exception):
            interoperability = str(exif.get_ifd(0xA005).get(1, "")).strip("\0 ")
    if orientation is None:
        orientation = _orientation_of(picture.info.get("exif") or b"")
    if isinstance(orientation, (tuple, list, bytes)) and orientation:
        orientation = orientation[0]
    with contextlib.suppress(TypeError, ValueError):
        return int(orientation), interoperability
    return 1, interoperability


def _orientation_of(exif: bytes) -> int | None:
    """Returns the orientation in EXIF data that Pillow cannot read, or None."""
    data = exif[6:] if exif.startswith(b"Exif\0\0") else exif
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return None
    with contextlib.suppress(struct.error):
        (start,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, start)
        for place in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(order + "HH", data, place)
            if tag == _ORIENTATION:
                code = {1: "B", 4: "I"}.get(kind, "H")
                return struct.unpack_from(order + code, data, place + 8)[0]
    return None


def _base(
    picture: Image.Image, white: int, inverted: bool
) -> tuple[Image.Image, np.ndarray | None]:
    """Converts any mode to (picture in mode L, RGB or CMYK, alpha: uint8 [H, W] or None)."""
    if picture.mode == "F" or picture.mode.startswith("I"):
        return _from_wide_gray(picture, white, inverted)
    gray_key = picture.mode == "L" and "transparency" in picture.info
    if picture.mode in ("LA", "La") or gray_key:
        gray = picture.convert("LA")
        return gray.getchannel("L"), np.asarray(gray.getchannel("A"))
    if "transparency" in picture.info or picture.mode in ("RGBA", "RGBa", "PA"):
        rgba = _with_byte_key(picture).convert("RGBA")
        return rgba.convert("RGB"), np.asarray(rgba.getchannel("A"))
    if picture.mode in ("L", "RGB", "CMYK"):
        return picture, None
    if picture.mode == "1":
        return picture.convert("L"), None
    return picture.convert("RGB"), None


def _from_wide_gray(
    picture: Image.Image, white: int, inverted: bool
) -> tuple[Image.Image, np.ndarray | None]:
    """Scales one channel of more than 8 bits to (picture in mode L, alpha uint8 [H, W] or None)."""
    gray = np.asarray(picture)  # older Pillows give 16-bit files as int32, mode "I"
    if picture.mode == "F" or gray.min() < 0 or gray.max() > white:
        raise ImageError(
            "samples are not 8 or 16 bit unsigned, so black and white are not defined: convert the"
            " picture to 8 or 16 bits first"
        )
    key = picture.info.get("transparency")
    alpha = np.where(gray == key, 0, 255).astype(np.uint8) if key is not None else None
    scaled = np.rint(gray.astype(np.float32) * np.float32(255 / white)).astype(np.uint8)
    return Image.fromarray(255 - scaled if inverted else scaled), alpha


def _with_byte_key(picture: Image.Image) -> Image.Image:
    """Reduces the transparent colour of 16-bit RGB to 8 bits, as Pillow did with the pixels."""
    key = picture.info.get("transparency")
    if picture.mode == "RGB" and isinstance(key, tuple) and max(key) > 255:
        picture = picture.copy()
        picture.info["transparency"] = tuple(value >> 8 for value in key)
    return picture
