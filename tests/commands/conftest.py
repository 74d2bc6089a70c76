"""A substitute for an exported model: the one stream of a file contains the deflated pixels."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from tfquant import startup
from tfquant.coding import container
from tfquant.export import registry
from tfquant.export.manifest_file import Manifest
from tfquant.export.model_set import Member, ModelSet


class PixelModel:
    """A model that compresses without loss and without TensorFlow."""

    codec = "pixels"

    def __init__(self, fingerprint="00112233445566aa"):
        self.fingerprint = fingerprint

    def compress(self, image, quality=None, max_pixels=None) -> bytes:
        del quality, max_pixels
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


class PixelSet(ModelSet):
    """The set that contains such a model."""

    def __init__(self, model: PixelModel):
        manifest = Manifest(model.codec, model.fingerprint, {}, "0")
        super().__init__("pixels", "", [Member("", 50.0, 50.0, (), manifest)], {})
        self.model = model

    def load(self, member):
        del member
        return self.model


def replace_models(current, put=setattr) -> None:
    """Replaces the default set by the model that the list `current` contains.

    Args:
      current: a list of one model; its content may change later.
      put: `put(module, name, value)` sets an attribute.
    """

    put(registry, "find", lambda name: PixelSet(current[0]))
    put(registry, "of_file", lambda *file: (PixelSet(current[0]), PixelSet(current[0]).members[0]))
    put(startup, "import_tensorflow", lambda *_: None)


@pytest.fixture
def pixel_model(monkeypatch):
    """Replaces every model by the model above; a test may set another one."""
    current = [PixelModel()]
    replace_models(current, monkeypatch.setattr)
    return current


@pytest.fixture
def tfquant(tfq, pixel_model):
    """`tfq` with the model above."""
    return tfq
