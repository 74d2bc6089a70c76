"""Removal of PNG chunks that are too large for Pillow.

Pillow does not read a PNG file with inflated text or an inflated ICC profile of more than 1 MiB.
Such files are valid. This module removes the chunks and inflates the profile itself.
"""

from __future__ import annotations

import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_PROFILE = 64 << 20  # bytes
_TEXT = (b"tEXt", b"zTXt", b"iTXt")

# Text that may contain the orientation. It is kept if Pillow can read it.
_TURNING = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")
_MAX_TEXT = 1 << 20  # Pillow's limit of one inflated chunk, bytes


def without_large_chunks(data: bytes) -> tuple[bytes, bytes | None]:
    """Removes text and ICC profile from a PNG file.

    Args:
      data: the file. Data that are not chunks are kept, so that Pillow detects the corruption.

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
