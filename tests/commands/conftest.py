"""A substitute for an exported model: the one stream of a file contains the deflated pixels."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from tfquant import cli
from tfquant.coding import container
from tfquant.commands import choosing


class PixelModel:
    """A model that compresses without loss and without TensorFlow."""

    codec = "pixels"
    qualities = None

    def __init__(self, fingerprint="00112233445566aa"):
        self.fingerprint = fingerprint

    def compress(self, image, max_pixels=None) -> bytes:
        del max_pixels
        stream = zlib.compress(np.ascontiguousarray(image).tobytes())
        height, width, _ = image.shape
        return container.Bitstream(
            self.codec, self.fingerprint, height, width, zlib.crc32(stream), (stream,)
        ).to_bytes()

    def decompress(self, data, max_pixels=None):
        bitstream = container.Bitstream.from_bytes(data, max_pixels or container.MAX_PIXELS)
        bitstream.check_model(self.codec, self.fingerprint)
        pixels = np.frombuffer(zlib.decompress(bitstream.streams[0]), np.uint8)
        return pixels.reshape(bitstream.height, bitstream.width, 3)


@pytest.fixture
def pixel_model(monkeypatch):
    """Replaces every model by the model above; a test may set another one."""
    current = [PixelModel()]

    class Chosen:
        def __init__(self, name, quality=None):
            del name
            self.quality = quality

        def compress(self, image, max_pixels):
            return current[0].compress(image, max_pixels)

        def load(self):
            return current[0]

        def check(self, file):
            file.check_model(current[0].codec, current[0].fingerprint)

    monkeypatch.setattr(choosing, "Compressor", Chosen)
    monkeypatch.setattr(choosing, "Decompressor", Chosen)
    return current


@pytest.fixture
def tfquant(capsys, pixel_model):
    """`tfquant(*arguments)`: runs the command; (exit code, standard output, standard error)."""

    def run(*arguments):
        capsys.readouterr()
        code = cli.main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run
