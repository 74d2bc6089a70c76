"""Forged files of version 2: fields of the header and streams, with a fitting checksum."""

import dataclasses
import struct
import zlib

import numpy as np
import pytest

from tfquant import exact, models
from tfquant.coding import container
from tfquant.export.codec_module import EagerModule
from tfquant.export.manifest_file import Manifest, ModelError
from tfquant.export.model_file import ExportedModel
from tfquant.legacy_keras import keras

HEIGHT, WIDTH = 70, 90
# Field -> the only errors that other values of it may give.
ERRORS = {
    "magic": (container.ForeignFileError,),
    "version": (container.VersionError, container.TruncatedError, container.TrailingBytesError),
    "streams": (container.TruncatedError, container.TrailingBytesError),
    "codec": (container.FieldError, container.OtherModelError),
    "fingerprint": (container.OtherModelError,),
    "height": (container.FieldError, container.SymbolsError),
    "width": (container.FieldError, container.SymbolsError),
    "symbols_crc": (container.SymbolsError,),
    "quality": (container.FieldError,),
}


@pytest.fixture(scope="module", name="model")
def _model():
    """An untrained model whose hyper-latents are not all 0."""
    keras.utils.set_random_seed(0)
    codec = models.build("ms_hyper_zero", N=8, M=12)
    last = codec.h_a.layers[-1]
    last.kernel.assign(8.0 * last.kernel)
    exact.become_exact(codec)
    module = EagerModule(codec)
    return ExportedModel(Manifest(codec.name, module.fingerprint(), {}, ""), module)


@pytest.fixture(scope="module", name="data")
def _data(model, make_photograph):
    data = model.compress(make_photograph(HEIGHT, WIDTH))
    file = container.Bitstream.from_bytes(data)
    assert file.version == 2 and len(file.streams) >= 2 and all(file.streams)
    return data


def sealed(content) -> bytes:
    """Returns a file with a fitting checksum at its end."""
    return bytes(content) + struct.pack("<I", zlib.crc32(content))


def positions() -> dict:
    """Returns the offset and the size of every field of the header."""
    found, start = {}, 0
    for name, code in container.LAYOUTS[2].items():
        found[name] = start, struct.calcsize("<" + code)
        start += found[name][1]
    return found


def test_every_field_has_an_expected_error():
    assert list(ERRORS) == list(container.LAYOUTS[2])


def padded(height, width):
    return -(-height // 64), -(-width // 64)


@pytest.mark.parametrize("field", ERRORS)
def test_an_altered_byte_of_a_field_is_a_typed_error(model, data, field):
    start, size = positions()[field]
    for place in range(start, start + size):
        for change in (0x01, 0x80, 0xFF):
            content = bytearray(data[:-4])
            content[place] ^= change
            if padded(*struct.unpack_from("<II", content, 30)) == padded(HEIGHT, WIDTH) and (
                field in ("height", "width")
            ):
                continue  # see the next test
            with pytest.raises(ERRORS[field]) as caught:
                model.decompress(sealed(content), max_pixels=100_000)
            assert "\n" not in str(caught.value)


def test_another_size_with_the_same_latents_is_another_crop(model, data):
    """The latents do not tell the difference, and a checksum is no signature."""
    file = container.Bitstream.from_bytes(data)
    picture = model.decompress(data)
    larger = model.decompress(dataclasses.replace(file, height=128, width=128).to_bytes())
    np.testing.assert_array_equal(larger[:HEIGHT, :WIDTH], picture)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sides", [(HEIGHT + 64, WIDTH), (HEIGHT, WIDTH + 64), (64, WIDTH), (1, 1), (2000, 3000)]
)
def test_a_wrong_size_is_a_typed_error(model, data, sides):
    file = container.Bitstream.from_bytes(data)
    forged = dataclasses.replace(file, height=sides[0], width=sides[1])
    with pytest.raises(container.SymbolsError, match="symbols differ from"):
        model.decompress(forged.to_bytes())


def test_version_1_with_the_fingerprint_of_an_exact_model_is_a_typed_error(model, data):
    file = container.Bitstream.from_bytes(data)
    forged = dataclasses.replace(file, version=1)
    with pytest.raises(container.FieldError, match="header says format version 1, files of this"):
        model.decompress(forged.to_bytes())


def test_a_thin_size_is_a_typed_error(model, data):
    file = container.Bitstream.from_bytes(data)
    for height, width in ((1, 4_000_000), (4_000_000, 1)):
        forged = dataclasses.replace(file, height=height, width=width)
        with pytest.raises(container.FieldError, match=f"{width}x{height} pixels .* 256000000 "):
            model.decompress(forged.to_bytes())


def test_a_thin_picture_is_rejected_in_both_directions(model):
    for shape in ((1, 20_000, 3), (20_000, 1, 3)):
        with pytest.raises(ModelError) as caught:
            model.compress(np.zeros(shape, np.uint8), max_pixels=20_000)
        assert str(caught.value) == (
            f"{shape[1]}x{shape[0]} pixels (width x height), which are 1282048 pixels after"
            " padding to multiples of 64, more than 1071076, which the limit of 20000 allows:"
            " raise max_pixels here and where the file is read (--max_pixels; for a SavedModel,"
            " tfquant export --max_pixels)"
        )


def test_every_object_with_bytes_is_decompressed(model, data):
    picture = model.decompress(data)
    for same in (bytearray(data), memoryview(data), np.frombuffer(data, np.uint8)):
        np.testing.assert_array_equal(model.decompress(same), picture)


@pytest.mark.parametrize("wrong", [None, "picture.tfq", 7, ["a"]])
def test_an_object_without_bytes_is_a_type_error(model, wrong):
    with pytest.raises(TypeError, match="the content of a .tfq file must be bytes, got "):
        model.decompress(wrong)


def test_exchanged_streams_are_a_typed_error(model, data):
    file = container.Bitstream.from_bytes(data)
    for streams in (
        file.streams[::-1],
        file.streams[:1],
        file.streams[1:],
        (*file.streams, file.streams[-1]),
        (file.streams[0] + file.streams[1],),
        tuple(b"" for _ in file.streams),
    ):
        forged = dataclasses.replace(file, streams=streams)
        with pytest.raises(container.SymbolsError):
            model.decompress(forged.to_bytes())


@pytest.mark.slow
def test_an_altered_byte_of_a_stream_never_gives_another_picture(model, data):
    """The last bits of a stream may have no meaning."""
    file = container.Bitstream.from_bytes(data)
    picture, rng, errors = model.decompress(data), np.random.default_rng(0), 0
    start = len(data) - 4 - sum(map(len, file.streams))
    for place in rng.integers(start, len(data) - 4, 40):
        content = bytearray(data[:-4])
        content[place] ^= 1 << rng.integers(8)
        try:
            found = model.decompress(sealed(content))
        except container.SymbolsError:
            errors += 1
        else:
            np.testing.assert_array_equal(found, picture)
    assert errors >= 35


def test_an_altered_byte_with_the_old_checksum_is_damage(model, data):
    for place in range(positions()["codec"][0], len(data)):
        content = bytearray(data)
        content[place] ^= 0x10
        with pytest.raises((container.ChecksumError, container.TruncatedError,
                            container.TrailingBytesError)):  # fmt: skip
            model.decompress(bytes(content))
