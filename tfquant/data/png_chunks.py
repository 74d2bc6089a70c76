"""PNG files without the chunks that Pillow refuses for their size.

Pillow reads no PNG whose text or ICC profile takes more than a megabyte when it is inflated. Such
files are valid: the chunks are taken out, and the profile is inflated here.
"""

from __future__ import annotations

import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_PROFILE = 64 << 20  # bytes
_TEXT = (b"tEXt", b"zTXt", b"iTXt")

# Text that may say how the picture is turned. It is kept where Pillow reads it.
_TURNING = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")
_MAX_TEXT = 1 << 20  # Pillow's limit of one inflated chunk, bytes


def without_large_chunks(data: bytes) -> tuple:
    """Takes text and ICC profile out of a PNG file.

    Args:
      data: the file. What does not look like a chunk is kept, so that Pillow finds the damage.

    Returns:
      (the file's bytes without these chunks, the ICC profile or None).
    """
    kept, profile, start = [SIGNATURE], None, len(SIGNATURE)
    while start + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, start)
        kind, end = data[start + 4 : start + 8], start + 12 + length
        if end > len(data):
            break
        if kind == b"iCCP":
            profile = _inflated(data[start + 8 : end - 4])
        elif kind not in _TEXT or _says_orientation(data[start + 8 : end - 4]):
            kept.append(data[start:end])
        start = end
    return b"".join([*kept, data[start:]]), profile


def _says_orientation(body: bytes) -> bool:
    if not body.startswith(_TURNING):
        return False
    # The deflated text begins after the keyword, the method, and in iTXt more short fields.
    for place in range(body.index(b"\0") + 1, min(len(body), 64)):
        inflater = zlib.decompressobj()
        try:
            inflater.decompress(body[place:], _MAX_TEXT)
        except zlib.error:
            continue
        if not inflater.eof:
            return False
    return len(body) < _MAX_TEXT


def _inflated(body: bytes) -> bytes | None:
    """Returns the profile in a chunk iCCP: a name, a zero byte, the method 0, deflated data."""
    _, zero, rest = body.partition(b"\0")
    if not zero or rest[:1] != b"\0":
        return None
    inflater = zlib.decompressobj()
    try:
        profile = inflater.decompress(rest[1:], MAX_PROFILE)
    except zlib.error:
        return None
    return profile if inflater.eof else None
