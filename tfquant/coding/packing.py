"""The `.tfq` file in a `tf.function`: packed, checked and unpacked by standard operations.

Format, checks, their order and their messages are those of `container.py`. Any error of a file is
an InvalidArgumentError. Each check waits for the previous ones, so the first error is reported, as
in `container.py`.
"""

from __future__ import annotations

import itertools
import struct
from typing import NamedTuple

import tensorflow as tf

from tfquant.coding import container
from tfquant.coding.checksum import crc32
from tfquant.coding.requirement import Checks

_SIZES = {name: struct.calcsize(code) for name, code in container.LAYOUT.items()}
_ENDS = dict(zip(_SIZES, itertools.accumulate(_SIZES.values())))
_FIXED = {
    version: sum(_SIZES[name] for name in layout) for version, layout in container.LAYOUTS.items()
}
_LEAST = _FIXED[1]  # size of the fields that both versions share
_WORD = struct.calcsize("I")  # size of a stream's length, and of the checksum


class Unpacked(NamedTuple):
    """The content of a file that a decoder needs.

    Attributes:
      streams: [S] string.
      height: int32 scalar, in pixels.
      width: int32 scalar, in pixels.
      symbols_crc: int64 scalar.
      quality: int32 scalar, a result of `container.stored_quality`; 0 in a file of version 1.
    """

    streams: tf.Tensor
    height: tf.Tensor
    width: tf.Tensor
    symbols_crc: tf.Tensor
    quality: tf.Tensor


def pack(
    streams: tf.Tensor,
    height: tf.Tensor,
    width: tf.Tensor,
    symbols_crc: tf.Tensor,
    codec: str,
    fingerprint: str,
    quality: tf.Tensor | int = 0,
    version: int = container.VERSION,
) -> tf.Tensor:
    """Returns the file, a string scalar, like `container.Bitstream.to_bytes`.

    Args:
      streams: [S] string, with S from 1 to 255.
      height: int32 scalar, in pixels.
      width: int32 scalar, in pixels.
      symbols_crc: int64 scalar.
      codec: the codec's name.
      fingerprint: 16 hexadecimal digits.
      quality: int32 scalar, a result of `container.stored_quality`.
      version: format version.
    """
    count = tf.size(streams)
    fields = {
        "magic": tf.constant(container.MAGIC),
        "version": tf.constant(bytes([version])),
        "streams": _little_endian(count, _SIZES["streams"]),
        "codec": tf.constant(codec.encode("ascii").ljust(_SIZES["codec"], b"\0")),
        "fingerprint": tf.constant(bytes.fromhex(fingerprint)),
        "height": _little_endian(height, _SIZES["height"]),
        "width": _little_endian(width, _SIZES["width"]),
        "symbols_crc": _little_endian(symbols_crc, _SIZES["symbols_crc"]),
        "quality": _little_endian(quality, _SIZES["quality"]),
    }
    lengths = _little_endian(tf.strings.length(streams), _WORD)
    head = [fields[name] for name in container.LAYOUTS[version]]
    content = tf.strings.join([*head, *map(tf.strings.reduce_join, (lengths, streams))])
    return tf.strings.join([content, _little_endian(crc32(content), _WORD)])


def unpack(
    data: tf.Tensor,
    codec: str,
    fingerprint: str,
    max_pixels: int = container.MAX_PIXELS,
    qualities: tuple[int, int] = container.ONE_RATE,
    version: int | None = None,
) -> Unpacked:
    """Returns the content of a file of this model.

    Args:
      data: string scalar; any bytes.
      codec: this model's codec.
      fingerprint: this model's fingerprint.
      max_pixels: limit of the picture's number of pixels.
      qualities, version: as in `container.Bitstream.check_model`.
    """
    checks, fields = Checks(), _fields(data)
    begin, lengths = _check_size(checks, data, fields)
    _check_checksum(checks, data)
    _check_fields(checks, fields, max_pixels)
    _check_model(checks, fields, codec, fingerprint)
    found = _number(fields["version"])
    if version is not None:
        values = {"version": found, "own_version": version}
        checks.require(found == version, container.OTHER_FORMAT, **values)
    quality = tf.cast(_number(fields["quality"]), tf.int32)
    quality = tf.where(found == 1, 0, quality)
    _check_quality(checks, quality, qualities)
    with tf.control_dependencies(checks.done):
        lengths = tf.cast(lengths, tf.int32)
        starts = begin + tf.cumsum(lengths, exclusive=True)
        height, width = (tf.cast(_number(fields[side]), tf.int32) for side in ("height", "width"))
        quality = tf.identity(quality)
    streams = tf.map_fn(
        lambda span: tf.strings.substr(data, span[0], span[1]),
        (starts, lengths),
        fn_output_signature=tf.string,
    )
    return Unpacked(streams, height, width, _number(fields["symbols_crc"]), quality)


def _fields(data: tf.Tensor) -> dict[str, tf.Tensor]:
    """Returns the bytes of the header's fields, as int32; zeros where the file has none."""
    size = _FIXED[container.VERSION]
    head = _bytes(tf.strings.substr(data, 0, size), size)
    return {name: head[_ENDS[name] - _SIZES[name] : _ENDS[name]] for name in container.LAYOUT}


def _check_size(
    checks: Checks, data: tf.Tensor, fields: dict[str, tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Checks the signature, the version, and that the file has the size that its header implies.

    Returns:
      The position of the first stream, int32 scalar, and the lengths of the streams, [S] int64.
    """
    size = tf.strings.length(data)
    checks.require(size > 0, container.EMPTY)
    there = tf.range(_SIZES["magic"]) < size
    is_magic = (fields["magic"] == list(container.MAGIC)) | ~there
    checks.require(tf.reduce_all(is_magic), container.FOREIGN)
    checks.require(size >= _LEAST, container.CUT_HEADER, size=size)
    version = _number(fields["version"])
    known = tf.reduce_any(version == list(container.VERSIONS))
    checks.require(known, container.OTHER_VERSION, version=version)
    fixed = tf.where(version == 1, _FIXED[1], _FIXED[2])
    checks.require(size >= fixed, container.CUT_HEADER, size=size)
    begin = fixed + _WORD * tf.cast(_number(fields["streams"]), tf.int32)
    checks.require(size >= begin, container.CUT_HEADER, size=size)
    with tf.control_dependencies(checks.done):
        lengths = tf.io.decode_raw(tf.strings.substr(data, fixed, begin - fixed), tf.uint8)
    lengths = _number(tf.reshape(lengths, [-1, _WORD]))
    long_size = tf.cast(size, tf.int64)
    expected = tf.cast(begin, tf.int64) + tf.reduce_sum(lengths) + _WORD
    words = {"size": size, "file_bytes": expected, "extra": long_size - expected}
    checks.require(long_size >= expected, container.CUT, **words)
    checks.require(long_size <= expected, container.TOO_LONG, **words)
    return begin, lengths


def _check_checksum(checks: Checks, data: tf.Tensor) -> None:
    with tf.control_dependencies(checks.done):
        end = tf.strings.length(data) - _WORD
        content = tf.strings.substr(data, 0, end)
        checksum = _number(_bytes(tf.strings.substr(data, end, _WORD), _WORD))
    checks.require(crc32(content) == checksum, container.DAMAGED)


def _check_fields(checks: Checks, fields: dict[str, tf.Tensor], max_pixels: int) -> None:
    """Checks the fields that do not determine the size of the file."""
    checks.require(_number(fields["streams"]) > 0, container.NO_STREAMS)
    name = fields["codec"]
    letters = _letters(name)
    printable = (name >= ord("!")) & (name <= ord("~"))
    is_name = tf.reduce_all(printable == (tf.range(_SIZES["codec"]) < letters)) & (letters > 0)
    checks.require(is_name, container.NO_NAME)
    sides = {side: _number(fields[side]) for side in ("height", "width")}
    for side in sides.values():
        fits = (side >= 1) & (side <= container.MAX_SIDE)
        checks.require(fits, container.NO_SIDE, **sides)
    check_limit(checks, sides["height"], sides["width"], max_pixels)


def check_limit(
    checks: Checks,
    height: tf.Tensor,
    width: tf.Tensor,
    max_pixels: int,
    texts: tuple[str, str] = (container.TOO_LARGE, container.TOO_MUCH_PADDING),
) -> None:
    """Requires that a picture is within a limit of pixels, with the messages of `container.excess`.

    Args:
      checks: gets two further checks.
      height, width: int64 scalars.
      max_pixels: the limit.
      texts: as in `container.excess`.
    """
    values = container.limited(height, width, max_pixels)
    checks.require(values["pixels"] <= values["max_pixels"], texts[0], **values)
    checks.require(values["padded"] <= values["max_padded"], texts[1], **values)


def _check_model(
    checks: Checks, fields: dict[str, tf.Tensor], codec: str, fingerprint: str
) -> None:
    name = fields["codec"]
    theirs = {
        "codec": tf.strings.reduce_join(tf.gather(_characters(), name[: _letters(name)])),
        "fingerprint": tf.strings.reduce_join(tf.gather(_hex_digits(), fields["fingerprint"])),
    }
    ours = {"own_codec": codec, "own_fingerprint": fingerprint}
    same = (theirs["codec"] == codec) & (theirs["fingerprint"] == fingerprint)
    checks.require(same, container.OTHER_MODEL, **theirs, **ours)


def _check_quality(checks: Checks, quality: tf.Tensor, qualities: tuple[int, int]) -> None:
    least, most = qualities
    known = (quality == 0) | ((quality >= least) & (quality <= most))
    text = container.NO_QUALITY if qualities == container.ONE_RATE else container.OTHER_QUALITY
    values = {"quality": quality, "least": least, "most": most}
    checks.require(known, text, **{name: _as_text(steps) for name, steps in values.items()})


def _as_text(steps: tf.Tensor | int) -> tf.Tensor:
    """Returns a stored quality as a number of the scale, as text with six digits like Python's."""
    number = tf.cast(steps, tf.float64) / container.QUALITY_STEPS
    return tf.strings.as_string(number, precision=6, shortest=True)


def _letters(name: tf.Tensor) -> tf.Tensor:
    """Returns the length of a name that is padded with zeros, int32 scalar."""
    return tf.reduce_max(tf.where(name > 0, tf.range(1, _SIZES["codec"] + 1), 0))


def sizes(data: tf.Tensor) -> tf.Tensor:
    """Maps [B] string to [B, 2] int64, the headers' height and width, without checks."""
    begin, end = _ENDS["height"] - _SIZES["height"], _ENDS["width"]
    padded = tf.strings.join([data, tf.constant(bytes(end))])
    sides = tf.io.decode_raw(tf.strings.substr(padded, begin, end - begin), tf.uint8)
    return _number(tf.reshape(sides, [-1, 2, _SIZES["height"]]))


def _bytes(text: tf.Tensor, count: int) -> tf.Tensor:
    """Maps a string scalar of at most `count` bytes to [count] int32, padded with zeros."""
    found = tf.cast(tf.io.decode_raw(text, tf.uint8), tf.int32)
    return tf.ensure_shape(tf.pad(found, [[0, count - tf.size(found)]]), [count])


def _number(digits: tf.Tensor) -> tf.Tensor:
    """Maps bytes [..., n], least significant first, to int64 [...]."""
    powers = tf.constant([256**i for i in range(digits.shape[-1])], tf.int64)
    return tf.reduce_sum(tf.cast(digits, tf.int64) * powers, axis=-1)


def _little_endian(number: tf.Tensor | int, count: int) -> tf.Tensor:
    """Maps integers [...] to string [...] of `count` bytes each."""
    shifts = tf.range(0, 8 * count, 8, tf.int64)
    digits = tf.bitwise.right_shift(tf.cast(number, tf.int64)[..., None], shifts) & 255
    return tf.strings.reduce_join(tf.gather(_characters(), digits), axis=-1)


def _characters() -> tf.Tensor:
    """Returns every byte as a string, [256]. TensorFlow has no inverse of `decode_raw`."""
    return tf.constant([bytes([i]) for i in range(256)])


def _hex_digits() -> tf.Tensor:
    """Returns the two hexadecimal digits of every byte, [256] string."""
    return tf.constant([f"{i:02x}" for i in range(256)])
