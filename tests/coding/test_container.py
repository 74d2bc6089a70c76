"""Tests the file format: fixed bytes, and a typed error for every kind of corruption."""

from __future__ import annotations

import dataclasses
import io
import itertools
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from tfquant.coding import container
from tfquant.coding.container import Bitstream, BitstreamError, read_header

SMALL = Bitstream(
    codec="ms_hyper_zero",
    fingerprint="0123456789abcdef",
    height=3,
    width=500,
    symbols_crc=0xDEADBEEF,
    streams=(b"hello", b"", b"\x00\xff"),
)
_FIXED = b"ms_hyper_zero".hex() + "0000000123456789abcdef03000000f4010000efbeadde"
_REST = "05000000000000000200000068656c6c6f00ff"
PINNED = {
    1: "895446510103" + _FIXED + _REST,
    2: "895446510203" + _FIXED + "0000" + _REST,
}
OLD = dataclasses.replace(SMALL, version=1)


def _sealed(content: bytes) -> bytes:
    """Returns a forged file: any content with the correct checksum."""
    return content + struct.pack("<I", zlib.crc32(content))


def _forged(offset: int, field: bytes, bitstream: Bitstream = SMALL) -> bytes:
    content = bytearray(bitstream.to_bytes()[:-4])
    content[offset : offset + len(field)] = field
    return _sealed(bytes(content))


@pytest.mark.parametrize("version", container.VERSIONS)
def test_bytes_are_pinned(version):
    file = dataclasses.replace(SMALL, version=version)
    assert file.to_bytes() == _sealed(bytes.fromhex(PINNED[version]))


def test_a_quality_is_pinned():
    for quality, stored in ((1 / 256, "0100"), (2.5, "8002"), (65535 / 256, "ffff")):
        file = dataclasses.replace(SMALL, quality=quality)
        content = bytes.fromhex(PINNED[2])
        assert file.to_bytes() == _sealed(content[:42] + bytes.fromhex(stored) + content[44:])
        assert Bitstream.from_bytes(file.to_bytes()).quality == quality
        assert read_header(io.BytesIO(file.to_bytes())).quality == quality


@pytest.mark.parametrize("file", [SMALL, OLD])
def test_a_written_file_is_read_back(file):
    assert Bitstream.from_bytes(file.to_bytes()) == file
    many = dataclasses.replace(file, streams=tuple(bytes([i]) * i for i in range(255)))
    assert Bitstream.from_bytes(many.to_bytes()) == many


@pytest.mark.parametrize("file, size", [(SMALL, 52), (OLD, 50)])
def test_the_header_takes_few_bytes_beside_one_stream(file, size):
    assert len(dataclasses.replace(file, streams=(b"",)).to_bytes()) == size


def test_every_flipped_bit_is_detected():
    data = SMALL.to_bytes()
    for position in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[position // 8] ^= 1 << position % 8
        with pytest.raises(BitstreamError) as caught:
            Bitstream.from_bytes(bytes(damaged))
        assert "\n" not in str(caught.value) and str(caught.value)


@pytest.mark.parametrize("file", [SMALL, OLD])
def test_every_truncation_is_detected(file):
    data = file.to_bytes()
    for length in range(1, len(data)):
        with pytest.raises(container.TruncatedError, match="cut off"):
            Bitstream.from_bytes(data[:length])


def test_trailing_bytes_are_detected():
    for rest in (b"\0", SMALL.to_bytes()):
        with pytest.raises(container.TrailingBytesError, match=f"{len(rest)} bytes too many"):
            Bitstream.from_bytes(SMALL.to_bytes() + rest)


@pytest.mark.parametrize(
    "data", [b"", b"a", b"\x89PNG\r\n\x1a\n" + bytes(100), b"\xff\xd8" * 99, bytes(64)]
)
def test_foreign_files_are_detected(data):
    with pytest.raises(container.ForeignFileError, match="not a .tfq file"):
        Bitstream.from_bytes(data)


def test_newer_version_asks_for_an_update():
    with pytest.raises(container.VersionError, match="version 3, .* 1 and 2: update tfquant"):
        Bitstream.from_bytes(_forged(4, b"\x03"))


@pytest.mark.parametrize(
    ("offset", "field", "error", "message"),
    [
        (30, struct.pack("<I", 0), container.FieldError, "500x0 pixels"),
        (34, struct.pack("<I", 0), container.FieldError, "0x3 pixels"),
        (34, struct.pack("<I", 2**31), container.FieldError, "pixels"),
        (30, struct.pack("<II", 2**31 - 1, 2**31 - 1), container.FieldError, "raise max_pixels"),
        (6, b"\xc3\xa4", container.FieldError, "ASCII"),
        (6, bytes(16), container.FieldError, "ASCII"),
        (8, b"\0", container.FieldError, "ASCII"),
        (44, struct.pack("<I", 2**32 - 1), container.TruncatedError, "cut off"),
        (44, struct.pack("<I", 4), container.TrailingBytesError, "1 bytes too many"),
        (5, b"\xff", container.TruncatedError, "cut off"),
        (5, b"\x02", container.TrailingBytesError, "too many"),
    ],
)
def test_forged_fields_are_rejected_despite_a_correct_checksum(offset, field, error, message):
    with pytest.raises(error, match=message):
        Bitstream.from_bytes(_forged(offset, field))


def test_file_without_streams_is_refused():
    content = bytearray(SMALL.to_bytes()[:44])
    content[5] = 0
    with pytest.raises(container.FieldError, match="0 streams"):
        Bitstream.from_bytes(_sealed(bytes(content)))


def test_pixel_limit_can_be_raised():
    data = dataclasses.replace(SMALL, height=20_000, width=30_000).to_bytes()
    with pytest.raises(container.FieldError) as caught:
        Bitstream.from_bytes(data)
    assert str(caught.value) == (
        "header says 30000x20000 (width x height) = 600000000 pixels, more than the limit of"
        " 134217728: raise max_pixels (--max_pixels; for a SavedModel, tfquant export"
        " --max_pixels) if you trust the file"
    )
    assert Bitstream.from_bytes(data, max_pixels=20_000 * 30_000).width == 30_000


@pytest.mark.parametrize("sides", [(1, 4_000_000), (4_000_000, 1), (65, 1_900_000)])
def test_a_thin_picture_is_limited_by_its_padded_pixels(sides):
    height, width = sides
    data = dataclasses.replace(SMALL, height=height, width=width).to_bytes()
    padded = (height + 63) // 64 * 64 * ((width + 63) // 64 * 64)
    with pytest.raises(container.FieldError) as caught:
        Bitstream.from_bytes(data)
    assert str(caught.value) == (
        f"header says {width}x{height} pixels (width x height), which are {padded} pixels after"
        " padding to multiples of 64, more than 152043520, which the limit of 134217728 allows:"
        " raise max_pixels (--max_pixels; for a SavedModel, tfquant export --max_pixels) if you"
        " trust the file"
    )
    assert Bitstream.from_bytes(data, max_pixels=padded).width == width


@pytest.mark.parametrize(
    "sides",
    [(17, 23), (1, 1), (1, 16_000), (1080, 1920), (4000, 6000), (500, 60_000), (11_585, 11_585)],
)
def test_a_limit_of_as_many_pixels_as_a_picture_has_accepts_it(sides):
    height, width = sides
    data = dataclasses.replace(SMALL, height=height, width=width).to_bytes()
    assert Bitstream.from_bytes(data, height * width).height == height
    assert container.excess(height, width, height * width) == ""
    if height * width > 1:
        assert "more than the limit" in container.excess(height, width, height * width - 1)


@pytest.mark.parametrize("limit", [1000, 1 << 20, container.MAX_PIXELS])
def test_what_may_be_written_may_be_read(limit):
    sides = [1, 2, 63, 64, 65, 500, 1000, 1 << 14, 1 << 20, 2_400_000, container.MAX_SIDE]
    verdicts = set()
    for height, width in itertools.product(sides, sides):
        data = dataclasses.replace(SMALL, height=height, width=width).to_bytes()
        writable = not container.excess(height, width, limit)
        verdicts.add(writable)
        try:
            Bitstream.from_bytes(data, limit)
        except container.FieldError:
            assert not writable
        else:
            assert writable
    assert verdicts == {True, False}


@pytest.mark.parametrize(
    "limit, error", [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("9", TypeError)]
)
def test_an_invalid_limit_is_rejected(limit, error):
    with pytest.raises(error, match="max_pixels must be"):
        Bitstream.from_bytes(SMALL.to_bytes(), limit)


def test_a_limit_may_have_any_integer_type():
    for limit in (np.int64(1500), 1 << 80):
        assert Bitstream.from_bytes(SMALL.to_bytes(), limit) == SMALL
    with pytest.raises(container.FieldError, match="limit of 1499"):
        Bitstream.from_bytes(SMALL.to_bytes(), np.int32(1499))


def test_every_object_with_bytes_is_read():
    data = SMALL.to_bytes()
    padded = memoryview(b"x".join(data[i : i + 1] for i in range(len(data))))
    for same in (bytearray(data), memoryview(data), np.frombuffer(data, np.uint8), padded[::2]):
        assert Bitstream.from_bytes(same) == SMALL


@pytest.mark.parametrize("wrong", [None, "picture.tfq", 5, [1, 2], Path("picture.tfq")])
def test_an_object_without_bytes_is_a_type_error(wrong):
    with pytest.raises(TypeError) as caught:
        Bitstream.from_bytes(wrong)
    assert str(caught.value) == (
        f"the content of a .tfq file must be bytes, got {type(wrong).__name__}; read a file with"
        " open(path, 'rb').read()"
    )


def test_the_header_alone_is_read_and_checked_against_the_size():
    data = SMALL.to_bytes()
    header = read_header(io.BytesIO(data))
    assert (header.codec, header.height, header.width) == ("ms_hyper_zero", 3, 500)
    assert header.lengths == (5, 0, 2) and header.file_bytes == len(data)
    assert header.quality is None and header.version == 2
    assert read_header(io.BytesIO(OLD.to_bytes())).version == 1
    for length in range(1, len(data)):
        with pytest.raises(container.TruncatedError):
            read_header(io.BytesIO(data[:length]))
    with pytest.raises(container.TrailingBytesError):
        read_header(io.BytesIO(data + b"x"))
    with pytest.raises(container.ForeignFileError):
        read_header(io.BytesIO(b""))


def test_the_header_of_a_large_file_is_read_without_the_rest():
    class Guarded(io.BytesIO):
        def read(self, size=-1):
            assert 0 <= size < 2000
            return super().read(size)

    data = dataclasses.replace(SMALL, streams=(bytes(100_000),)).to_bytes()
    assert read_header(Guarded(data)).lengths == (100_000,)


def test_other_models_are_detected_by_codec_and_fingerprint():
    SMALL.check_model("ms_hyper_zero", "0123456789abcdef")
    for model in (("ms_hyper", "0123456789abcdef"), ("ms_hyper_zero", "0123456789abcdee")):
        with pytest.raises(container.OtherModelError, match="ms_hyper_zero 0123456789abcdef"):
            SMALL.check_model(*model)


@pytest.mark.parametrize("file, other", [(SMALL, 1), (OLD, 2)])
def test_a_file_of_another_version_than_the_models_is_a_field_error(file, other):
    file.check_model("ms_hyper_zero", "0123456789abcdef", version=file.version)
    with pytest.raises(container.FieldError) as caught:
        file.check_model("ms_hyper_zero", "0123456789abcdef", version=other)
    assert str(caught.value) == (
        f"header says format version {file.version}, files of this model have version {other}; the"
        " file was not made by tfquant"
    )


@pytest.mark.parametrize(
    "steps, said",
    [
        ((0, 0), "but this model has one rate and its files store no quality"),
        ((2560, 20_480), "files of this model have 10 to 80"),
    ],
)
def test_a_quality_that_the_model_lacks_is_a_field_error(steps, said):
    file = dataclasses.replace(SMALL, quality=80 + 1 / 256)
    with pytest.raises(container.FieldError) as caught:
        file.check_model("ms_hyper_zero", "0123456789abcdef", steps)
    assert str(caught.value).startswith("header says quality 80.0039, ")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"codec": ""},
        {"codec": "a_name_of_more_than_16"},
        {"codec": "ä"},
        {"codec": "two words"},
        {"fingerprint": "0123"},
        {"fingerprint": "0123456789ABCDEF"},
        {"height": 0},
        {"width": 2**31},
        {"symbols_crc": -1},
        {"quality": 0.0},
        {"quality": 256.0},
        {"quality": -1.0},
        {"quality": 1.0, "version": 1},
        {"version": 3},
        {"streams": ()},
        {"streams": (b"",) * 256},
    ],
)
def test_the_constructor_rejects_values_outside_the_format(fields):
    with pytest.raises(ValueError, match=next(iter(fields)).split("_")[0]):
        dataclasses.replace(SMALL, **fields)


def test_needs_neither_tensorflow_nor_numpy(fresh_python):
    fresh_python(
        """
        import sys
        from tfquant.coding import container
        assert not {"tensorflow", "numpy"} & set(sys.modules)
        """
    )
