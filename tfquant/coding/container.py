"""The `.tfq` file. This module needs neither TensorFlow nor NumPy.

`docs/format.md` describes the format. All fields have a fixed width. Numbers are unsigned and
little-endian:

| offset | bytes | field                                                                |
|--------|-------|----------------------------------------------------------------------|
| 0      | 4     | magic, 89 54 46 51 (as in PNG, the first byte is not ASCII)          |
| 4      | 1     | format version, 2                                                    |
| 5      | 1     | number of streams S, from 1                                          |
| 6      | 16    | codec's name, ASCII, padded with zero bytes                          |
| 22     | 8     | fingerprint of everything on which the meaning of the bits depends   |
| 30     | 4     | height                                                               |
| 34     | 4     | width                                                                |
| 38     | 4     | CRC-32 of the decoded symbols                                        |
| 42     | 2     | quality in steps of 1/256, or 0                                      |
| 44     | 4 S   | length of each stream                                                |
|        |       | the streams, one after the other                                     |
| end    | 4     | CRC-32 of everything before                                          |

Version 1 has no quality. No number from the file determines an allocation before the file's own
size and checksum have confirmed it. A checksum can be forged, so a picture's size is also limited.
The decoder checks the checksum of the symbols before it makes a picture, because the range coder
does not detect corrupt data.
"""

from __future__ import annotations

import dataclasses
import operator
import struct
import zlib
from typing import Any, BinaryIO, Union

Buffer = Union[bytes, bytearray, memoryview]
MAGIC = b"\x89TFQ"
VERSION = 2
VERSIONS = (1, VERSION)
MAX_PIXELS = 1 << 27  # default limit of a model, in both directions
NO_LIMIT = 1 << 62  # for reading a file before its model, which has the limit, is known
MAX_STREAMS = 255
FINGERPRINT_DIGITS = 16  # hexadecimal
MAX_SIDE = (1 << 31) - 1  # TensorFlow's int32
# The codecs of this package pad both sides to multiples of this number or of one of its divisors.
# The limit of pixels counts this padding for every codec.
PADDED_TO = 64
QUALITY_STEPS = 256  # steps per unit of quality

# The header's fields at fixed offsets, in the notation of `struct`.
LAYOUT = {
    "magic": "4s",
    "version": "B",
    "streams": "B",
    "codec": "16s",
    "fingerprint": "8s",
    "height": "I",
    "width": "I",
    "symbols_crc": "I",
    "quality": "H",
}
LAYOUTS = {1: {name: code for name, code in LAYOUT.items() if name != "quality"}, 2: LAYOUT}
_FIXED = {
    version: struct.Struct("<" + "".join(codes.values())) for version, codes in LAYOUTS.items()
}
_LEAST = _FIXED[1].size  # size of the fields that both versions share
_CHECKSUM = struct.Struct("<I")
_NAME_BYTES = struct.calcsize(LAYOUT["codec"])

# Errors of a file and their remedies, in the order of the checks. In a graph, `packing.py` checks
# the same and has the same messages.
EMPTY = "empty file, not a .tfq file"
FOREIGN = "not a .tfq file: it does not begin with the .tfq signature"
CUT_HEADER = "file cut off within the header, after {size} bytes; get another copy"
OTHER_VERSION = (
    f"format version {{version}}, this tfquant reads versions {' and '.join(map(str, VERSIONS))}: "
    "update tfquant (or get another copy, if the file is damaged)"
)
CUT = "file cut off: {size} bytes of {file_bytes}; get another copy"
TOO_LONG = (
    "{extra} bytes too many: the file has {size}, its header says {file_bytes}; get another copy"
)
DAMAGED = "damaged file: its checksum does not fit; get another copy"
NO_STREAMS = "header says 0 streams; a file holds at least 1"
NO_NAME = "the codec name in the header is not printable ASCII; the file was not made by tfquant"
NO_SIDE = (
    f"header says {{width}}x{{height}} pixels (width x height); a side has 1 to {MAX_SIDE} pixels"
)
_PIXELS = "{width}x{height} (width x height) = {pixels} pixels, more than the limit of {max_pixels}"
_PADDED = (
    "{width}x{height} pixels (width x height), which are {padded} pixels after padding to multiples"
    f" of {PADDED_TO}, more than {{max_padded}}, which the limit of {{max_pixels}} allows"
)
_RAISE = "raise max_pixels{where} (--max_pixels; for a SavedModel, tfquant export --max_pixels)"
_TRUSTED = f"{_RAISE.format(where='')} if you trust the file"
TOO_LARGE = f"header says {_PIXELS}: {_TRUSTED}"
TOO_MUCH_PADDING = f"header says {_PADDED}: {_TRUSTED}"
# For a picture to write. A file that cannot be read by default is not written either.
_BOTH = _RAISE.format(where=" here and where the file is read")
TOO_LARGE_TO_WRITE = f"{_PIXELS}: {_BOTH}"
TOO_MUCH_PADDING_TO_WRITE = f"{_PADDED}: {_BOTH}"
OTHER_MODEL = (
    "made by model {codec} {fingerprint}, this one is {own_codec} {own_fingerprint}: "
    "decode it with the model that it was made with"
)
OTHER_FORMAT = (
    "header says format version {version}, files of this model have version {own_version}; the file"
    " was not made by tfquant"
)
OTHER_QUALITY = (
    "header says quality {quality:.6g}, files of this model have {least:.6g} to {most:.6g};"
    " name the model that made the file"
)
NO_QUALITY = (
    "header says quality {quality:.6g}, but this model has one rate and its files store no quality;"
    " name the model that made the file"
)
ONE_RATE = (0, 0)  # the stored qualities of a model with one rate
# A file with the stored quality 0 is valid for every model. A model for a range of rates then uses
# its base quality. It reads the files that it made before it had gains.


class BitstreamError(ValueError):
    """Error: a file cannot be decoded. The message is one line with the problem and the remedy."""


class ForeignFileError(BitstreamError):
    """Error: the file is not a .tfq file."""


class VersionError(BitstreamError):
    """Error: this reader does not know the format version."""


class TruncatedError(BitstreamError):
    """Error: the file is truncated."""


class TrailingBytesError(BitstreamError):
    """Error: the file has trailing bytes."""


class ChecksumError(BitstreamError):
    """Error: the file's checksum does not match its content."""


class FieldError(BitstreamError):
    """Error: a header field has a value that no encoder writes, or that is too large to decode."""


class OtherModelError(BitstreamError):
    """Error: another model made the file."""


class SymbolsError(BitstreamError):
    """Error: the decoded symbols differ from the encoded ones."""


@dataclasses.dataclass(frozen=True)
class Header:
    """The header of a .tfq file.

    Attributes:
      codec: name of the codec, at most 16 ASCII characters.
      fingerprint: 16 hexadecimal digits.
      height: height in pixels.
      width: width in pixels.
      symbols_crc: CRC-32 of the decoded symbols.
      lengths: length of each stream in bytes.
      quality: quality of a file of a model for a range of rates, above 0; None for a model with
        one rate.
      version: format version.
    """

    codec: str
    fingerprint: str
    height: int
    width: int
    symbols_crc: int
    lengths: tuple[int, ...]
    quality: float | None = None
    version: int = VERSION

    @property
    def header_bytes(self) -> int:
        """Offset of the first stream in bytes."""
        return _FIXED[self.version].size + 4 * len(self.lengths)

    @property
    def file_bytes(self) -> int:
        """Size of the whole file in bytes."""
        return self.header_bytes + sum(self.lengths) + _CHECKSUM.size


@dataclasses.dataclass(frozen=True)
class Bitstream:
    """A compressed picture, the content of a .tfq file: the `Header`'s fields and the streams."""

    codec: str
    fingerprint: str
    height: int
    width: int
    symbols_crc: int
    streams: tuple[bytes, ...]
    quality: float | None = None
    version: int = VERSION

    def __post_init__(self) -> None:
        check_identity(self.codec, self.fingerprint)
        if self.version not in VERSIONS:
            raise ValueError(f"version {self.version}; known: {', '.join(map(str, VERSIONS))}")
        stored_quality(self.quality, self.version)
        for field in ("height", "width"):
            value = getattr(self, field)
            if not 1 <= value <= MAX_SIDE:
                raise ValueError(f"{field} {value}; a side has 1 to {MAX_SIDE} pixels")
        if not 0 <= self.symbols_crc < 1 << 32:
            raise ValueError(f"symbols_crc {self.symbols_crc}; it takes 32 bits")
        if not 1 <= len(self.streams) <= MAX_STREAMS:
            raise ValueError(f"{len(self.streams)} streams; a file holds 1 to {MAX_STREAMS}")

    def to_bytes(self) -> bytes:
        """Returns the content of the file."""
        fields = {
            "magic": MAGIC,
            "version": self.version,
            "streams": len(self.streams),
            "codec": self.codec.encode("ascii"),
            "fingerprint": bytes.fromhex(self.fingerprint),
            "height": self.height,
            "width": self.width,
            "symbols_crc": self.symbols_crc,
            "quality": stored_quality(self.quality, self.version),
        }
        head = _FIXED[self.version].pack(*(fields[name] for name in LAYOUTS[self.version]))
        lengths = struct.pack(f"<{len(self.streams)}I", *map(len, self.streams))
        content = b"".join([head, lengths, *self.streams])
        return content + _CHECKSUM.pack(zlib.crc32(content))

    @classmethod
    def from_bytes(cls, data: Buffer, max_pixels: int = MAX_PIXELS) -> Bitstream:
        """Reads a file and checks all of it.

        Args:
          data: the content of the file; any bytes, or an object with the buffer protocol.
          max_pixels: limit of the picture's number of pixels, see `excess`.

        Raises:
          BitstreamError: one of its subclasses.
          TypeError: the data are no bytes, or the limit is no integer.
          ValueError: the limit is below 1.
        """
        data, max_pixels = _content(data), checked_limit(max_pixels)
        header = _parse(data)
        _check_size(header, len(data))
        content = memoryview(data)[: -_CHECKSUM.size]
        (checksum,) = _CHECKSUM.unpack(data[-_CHECKSUM.size :])
        if zlib.crc32(content) != checksum:
            raise ChecksumError(DAMAGED)
        _check_fields(header, max_pixels)
        streams, start = [], header.header_bytes
        for length in header.lengths:
            streams.append(bytes(content[start : start + length]))
            start += length
        fields = {f.name: getattr(header, f.name) for f in dataclasses.fields(header)}
        del fields["lengths"]
        return cls(**fields, streams=tuple(streams))

    def check_limit(self, max_pixels: int) -> None:
        """Raises a FieldError if the picture is larger than a limit of pixels, see `excess`."""
        _check_limit(self.height, self.width, max_pixels)

    def check_model(
        self,
        codec: str,
        fingerprint: str,
        qualities: tuple[int, int] = ONE_RATE,
        version: int | None = None,
    ) -> None:
        """Checks that a model made the file.

        Args:
          codec: name of the model's codec.
          fingerprint: the model's fingerprint.
          qualities: the model's lowest and highest quality, results of `stored_quality`.
          version: format version of the model's files; None for a model with files of every
            version.

        Raises:
          OtherModelError: another model made the file.
          FieldError: the header has a version or a quality that no file of this model has.
        """
        if (self.codec, self.fingerprint) != (codec, fingerprint):
            raise OtherModelError(
                OTHER_MODEL.format(
                    codec=self.codec,
                    fingerprint=self.fingerprint,
                    own_codec=codec,
                    own_fingerprint=fingerprint,
                )
            )
        if version not in (None, self.version):
            raise FieldError(OTHER_FORMAT.format(version=self.version, own_version=version))
        stored, (least, most) = stored_quality(self.quality, self.version), qualities
        if stored and not least <= stored <= most:
            text = NO_QUALITY if qualities == ONE_RATE else OTHER_QUALITY
            steps = {"quality": stored, "least": least, "most": most}
            raise FieldError(text.format(**{n: s / QUALITY_STEPS for n, s in steps.items()}))


def check_identity(codec: str, fingerprint: str) -> None:
    """Raises a ValueError unless a file's header can contain this model's name and fingerprint."""
    if not isinstance(codec, str) or len(codec) > _NAME_BYTES or not _is_name(codec):
        raise ValueError(
            f"codec name {codec!r}; it takes 1 to {_NAME_BYTES} printable ASCII characters"
        )
    digits = len(fingerprint) if isinstance(fingerprint, str) else 0
    if digits != FINGERPRINT_DIGITS or not _is_hex(fingerprint):
        raise ValueError(
            f"fingerprint {fingerprint!r}; it takes {FINGERPRINT_DIGITS} hexadecimal digits in"
            " lower case"
        )


def checked_limit(max_pixels: int) -> int:
    """Returns a limit of pixels as an int, at most `NO_LIMIT`.

    Raises:
      TypeError: it is no integer.
      ValueError: it is below 1.
    """
    try:
        limit = operator.index(max_pixels)
    except TypeError:
        raise TypeError(f"max_pixels must be an integer; got {max_pixels!r}") from None
    if limit < 1:
        raise ValueError(f"max_pixels must be at least 1; got {limit}")
    return min(limit, NO_LIMIT)


def limited(height: Any, width: Any, max_pixels: int) -> dict[str, Any]:
    """Returns the numbers that a limit of pixels compares.

    A codec computes with a padded picture, so a thin picture takes the memory of a large one. The
    padded picture may have an eighth and 2**20 pixels more than `max_pixels`. A picture of ordinary
    shape is then limited by its own pixels only.

    Args:
      height, width: sides in pixels, ints or int64 tensors.
      max_pixels: the limit.

    Returns:
      A dictionary: height, width, max_pixels, and
        pixels: of the picture, at most max_pixels;
        padded: pixels of the padded picture, at most max_padded;
        max_padded: the limit of padded.
    """
    rows, columns = (-(-side // PADDED_TO) * PADDED_TO for side in (height, width))
    return {
        "height": height,
        "width": width,
        "max_pixels": max_pixels,
        "pixels": height * width,
        "padded": rows * columns,
        "max_padded": max_pixels + max_pixels // 8 + (1 << 20),
    }


def excess(
    height: int,
    width: int,
    max_pixels: int,
    texts: tuple[str, str] = (TOO_LARGE_TO_WRITE, TOO_MUCH_PADDING_TO_WRITE),
) -> str:
    """Returns a message if a picture is larger than a limit of pixels, otherwise "".

    Args:
      height, width: sides in pixels.
      max_pixels: the limit, see `limited`.
      texts: messages for too many pixels, and for too many pixels after padding.
    """
    found = limited(height, width, max_pixels)
    if found["pixels"] > found["max_pixels"]:
        return texts[0].format(**found)
    return texts[1].format(**found) if found["padded"] > found["max_padded"] else ""


def stored_quality(quality: float | None, version: int = VERSION) -> int:
    """Returns the number that represents a quality in the header.

    Raises:
      ValueError: the quality is out of range, or the version has no quality.
    """
    if quality is None:
        return 0
    stored = round(quality * QUALITY_STEPS)
    if not 1 <= stored < 1 << 16 or "quality" not in LAYOUTS[version]:
        raise ValueError(
            f"quality {quality} in a file of version {version}; version 2 has 1/256 to 65535/256"
        )
    return stored


def read_header(file: BinaryIO) -> Header:
    """Reads only the header of a seekable binary file.

    Checks the fields, and that the file has the size that they imply, but not the checksum.

    Raises:
      BitstreamError: one of its subclasses.
    """
    header = _parse(file.read(_FIXED[VERSION].size + 4 * MAX_STREAMS))
    file.seek(0, 2)
    _check_size(header, file.tell())
    _check_fields(header, max_pixels=None)
    return header


def _content(data: Any) -> bytes:
    """Returns the bytes of a file. Raises a TypeError for another object, such as its name."""
    if isinstance(data, bytes):
        return data
    try:
        return memoryview(data).tobytes()
    except (TypeError, ValueError):
        raise TypeError(
            f"the content of a .tfq file must be bytes, got {type(data).__name__}; read a file with"
            " open(path, 'rb').read()"
        ) from None


def _parse(data: bytes) -> Header:
    """Parses the header. Raises the errors that come before the check of the checksum."""
    if not data:
        raise ForeignFileError(EMPTY)
    if bytes(data[: len(MAGIC)]) != MAGIC[: len(data)]:
        raise ForeignFileError(FOREIGN)
    if len(data) < _LEAST:
        raise TruncatedError(CUT_HEADER.format(size=len(data)))
    version = data[len(MAGIC)]
    if version not in VERSIONS:
        raise VersionError(OTHER_VERSION.format(version=version))
    fixed = _FIXED[version]
    if len(data) < fixed.size:
        raise TruncatedError(CUT_HEADER.format(size=len(data)))
    fields = dict(zip(LAYOUTS[version], fixed.unpack_from(data)))
    count = fields["streams"]
    if len(data) < fixed.size + 4 * count:
        raise TruncatedError(CUT_HEADER.format(size=len(data)))
    quality = fields.get("quality", 0)
    return Header(
        codec=fields["codec"].rstrip(b"\0").decode("latin-1"),
        fingerprint=fields["fingerprint"].hex(),
        height=fields["height"],
        width=fields["width"],
        symbols_crc=fields["symbols_crc"],
        lengths=struct.unpack_from(f"<{count}I", data, fixed.size),
        quality=quality / QUALITY_STEPS if quality else None,
        version=version,
    )


def _check_size(header: Header, size: int) -> None:
    expected = header.file_bytes
    if size < expected:
        raise TruncatedError(CUT.format(size=size, file_bytes=expected))
    if size > expected:
        raise TrailingBytesError(
            TOO_LONG.format(extra=size - expected, size=size, file_bytes=expected)
        )


def _check_fields(header: Header, max_pixels: int | None) -> None:
    height, width = header.height, header.width
    if not header.lengths:
        raise FieldError(NO_STREAMS)
    if not _is_name(header.codec):
        raise FieldError(NO_NAME)
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise FieldError(NO_SIDE.format(height=height, width=width))
    if max_pixels is not None:
        _check_limit(height, width, max_pixels)


def _check_limit(height: int, width: int, max_pixels: int) -> None:
    found = excess(height, width, max_pixels, (TOO_LARGE, TOO_MUCH_PADDING))
    if found:
        raise FieldError(found)


def _is_name(name: str) -> bool:
    return bool(name) and all("!" <= character <= "~" for character in name)


def _is_hex(digits: str) -> bool:
    return all(digit in "0123456789abcdef" for digit in digits)
