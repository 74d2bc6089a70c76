"""Tests the file format: fixed bytes, and a typed error for every kind of corruption."""

from __future__ import annotations

import dataclasses
import io
import struct
import zlib

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
        (30, struct.pack("<I", 0), container.FieldError, "0x500 pixels"),
        (34, struct.pack("<I", 0), container.FieldError, "3x0 pixels"),
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
    data = dataclasses.replace(SMALL, height=20_000, width=20_000).to_bytes()
    with pytest.raises(container.FieldError, match="400000000 pixels, more than the limit"):
        Bitstream.from_bytes(data)
    assert Bitstream.from_bytes(data, max_pixels=20_000**2).width == 20_000


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
