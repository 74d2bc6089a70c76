"""The `.tfq` file in a `tf.function`: packed, checked and unpacked by standard operations.

Format, checks, their order and their messages are those of `container.py`. Any error of a file is
an InvalidArgumentError. Each check waits for the previous ones, so the first error is reported, as
in `container.py`.
"""

from __future__ import annotations

import itertools
import string
import struct
from typing import NamedTuple

import tensorflow as tf

from tfquant.coding import container
from tfquant.coding.checksum import crc32

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
    streams,
    height,
    width,
    symbols_crc,
    codec: str,
    fingerprint: str,
    quality=0,
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
    data,
    codec: str,
    fingerprint: str,
    max_pixels: int = container.MAX_PIXELS,
    qualities: tuple[int, int] = container.ONE_RATE,
) -> Unpacked:
    """Returns the content of a file of this model.

    Args:
      data: string scalar; any bytes.
      codec: this model's codec.
      fingerprint: this model's fingerprint.
      max_pixels: limit of the picture's number of pixels.
      qualities: as in `container.Bitstream.check_model`.
    """
    size = tf.strings.length(data)
    head = _bytes(tf.strings.substr(data, 0, _FIXED[container.VERSION]), _FIXED[container.VERSION])
    field = {name: head[_ENDS[name] - _SIZES[name] : _ENDS[name]] for name in container.LAYOUT}
    number = {name: _number(field[name]) for name in ("version", "streams", "height", "width")}
    magic = tf.constant(list(container.MAGIC))
    there = tf.range(_SIZES["magic"]) < size

    checks = _Checks()
    checks.require(size > 0, container.EMPTY)
    checks.require(tf.reduce_all((field["magic"] == magic) | ~there), container.FOREIGN)
    checks.require(size >= _LEAST, container.CUT_HEADER, size=size)
    known = tf.reduce_any(number["version"] == list(container.VERSIONS))
    checks.require(known, container.OTHER_VERSION, version=number["version"])
    is_first = number["version"] == 1
    fixed = tf.where(is_first, _FIXED[1], _FIXED[2])
    checks.require(size >= fixed, container.CUT_HEADER, size=size)
    count = number["streams"]
    begin = fixed + _WORD * tf.cast(count, tf.int32)
    checks.require(size >= begin, container.CUT_HEADER, size=size)
    with tf.control_dependencies(checks.done):
        lengths = tf.io.decode_raw(tf.strings.substr(data, fixed, begin - fixed), tf.uint8)
    lengths = _number(tf.reshape(lengths, [-1, _WORD]))  # [S]
    long_size = tf.cast(size, tf.int64)
    expected = tf.cast(begin, tf.int64) + tf.reduce_sum(lengths) + _WORD
    words = {"size": size, "file_bytes": expected, "extra": long_size - expected}
    checks.require(long_size >= expected, container.CUT, **words)
    checks.require(long_size <= expected, container.TOO_LONG, **words)
    with tf.control_dependencies(checks.done):
        content = tf.strings.substr(data, 0, size - _WORD)
        checksum = _number(_bytes(tf.strings.substr(data, size - _WORD, _WORD), _WORD))
    checks.require(crc32(content) == checksum, container.DAMAGED)

    checks.require(count > 0, container.NO_STREAMS)
    name = field["codec"]
    letters = tf.reduce_max(tf.where(name > 0, tf.range(1, _SIZES["codec"] + 1), 0))
    printable = (name >= ord("!")) & (name <= ord("~"))
    is_name = tf.reduce_all(printable == (tf.range(_SIZES["codec"]) < letters)) & (letters > 0)
    checks.require(is_name, container.NO_NAME)
    sides = {"height": number["height"], "width": number["width"]}
    for side in sides.values():
        fits = (side >= 1) & (side <= container.MAX_SIDE)
        checks.require(fits, container.NO_SIDE, **sides)
    pixels = sides["height"] * sides["width"]
    small = pixels <= max_pixels
    checks.require(small, container.TOO_LARGE, **sides, pixels=pixels, max_pixels=max_pixels)
    theirs = {
        "codec": tf.strings.reduce_join(tf.gather(_characters(), name[:letters])),
        "fingerprint": tf.strings.reduce_join(tf.gather(_hex_digits(), field["fingerprint"])),
    }
    ours = {"own_codec": codec, "own_fingerprint": fingerprint}
    same = (theirs["codec"] == codec) & (theirs["fingerprint"] == fingerprint)
    checks.require(same, container.OTHER_MODEL, **theirs, **ours)
    quality = tf.where(is_first, 0, tf.cast(_number(field["quality"]), tf.int32))
    least, most = qualities
    known = (quality >= least) & (quality <= most)
    checks.require(known, container.OTHER_QUALITY, quality=quality, least=least, most=most)

    with tf.control_dependencies(checks.done):
        starts = begin + tf.cumsum(tf.cast(lengths, tf.int32), exclusive=True)
    streams = tf.map_fn(
        lambda span: tf.strings.substr(data, span[0], span[1]),
        (starts, tf.cast(lengths, tf.int32)),
        fn_output_signature=tf.string,
    )
    with tf.control_dependencies(checks.done):
        height, width = (tf.cast(side, tf.int32) for side in sides.values())
        return Unpacked(
            streams, height, width, _number(field["symbols_crc"]), tf.identity(quality)
        )  # fmt: skip


def sizes(data) -> tf.Tensor:
    """Maps [B] string to [B, 2] int64, the headers' height and width, without checks."""
    begin, end = _ENDS["height"] - _SIZES["height"], _ENDS["width"]
    padded = tf.strings.join([data, tf.constant(bytes(end))])
    sides = tf.io.decode_raw(tf.strings.substr(padded, begin, end - begin), tf.uint8)
    return _number(tf.reshape(sides, [-1, 2, _SIZES["height"]]))


def require(condition, text: str, **values) -> tf.Operation:
    """Raises InvalidArgumentError with `text`, with its fields filled in, unless `condition`
    holds.
    """
    return tf.debugging.Assert(condition, [_filled(text, values)])


class _Checks:
    """A sequence of checks; `done` contains the operations to wait for."""

    def __init__(self):
        self.done = []

    def require(self, condition, text: str, **values) -> None:
        with tf.control_dependencies(self.done):
            self.done = [require(condition, text, **values)]


def _filled(text: str, values: dict) -> tf.Tensor:
    """Returns `text.format(**values)` for tensors as values."""
    parts = []
    for literal, name, _, _ in string.Formatter().parse(text):
        parts.append(tf.constant(literal))
        if name is not None:
            value = tf.convert_to_tensor(values[name])
            parts.append(value if value.dtype == tf.string else tf.strings.as_string(value))
    return tf.strings.join(parts)


def _bytes(text, count: int) -> tf.Tensor:
    """Maps a string scalar of at most `count` bytes to [count] int32, padded with zeros."""
    found = tf.cast(tf.io.decode_raw(text, tf.uint8), tf.int32)
    return tf.ensure_shape(tf.pad(found, [[0, count - tf.size(found)]]), [count])


def _number(digits) -> tf.Tensor:
    """Maps bytes [..., n], least significant first, to int64 [...]."""
    powers = tf.constant([256**i for i in range(digits.shape[-1])], tf.int64)
    return tf.reduce_sum(tf.cast(digits, tf.int64) * powers, axis=-1)


def _little_endian(number, count: int) -> tf.Tensor:
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
