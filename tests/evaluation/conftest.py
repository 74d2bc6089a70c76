"""Substitute for an exported model that stores every `step`-th pixel, deflated."""

from __future__ import annotations

import json
import struct
import zlib

import numpy as np
import pytest

from tfquant.export.manifest_file import FORMAT, MANIFEST


class SubsamplingModel:
    """Model that keeps every `step`-th pixel of every `step`-th row."""

    codec = "fake"
    fingerprint = "0123456789abcdef"

    def __init__(self, step: int, plan: str = "mix"):
        self.step = step
        self.experiment = {"codec": self.codec, "plan": plan, "lmbda": 0.1 / step}
        self.calls = 0

    def compress(self, image: np.ndarray) -> bytes:
        self.calls += 1
        kept = np.ascontiguousarray(image[:: self.step, :: self.step])
        return struct.pack("<II", *image.shape[:2]) + zlib.compress(kept.tobytes())

    def decompress(self, data: bytes) -> np.ndarray:
        height, width = struct.unpack("<II", data[:8])
        rows, columns = -(-height // self.step), -(-width // self.step)
        kept = np.frombuffer(zlib.decompress(data[8:]), np.uint8).reshape(rows, columns, 3)
        return kept.repeat(self.step, 0).repeat(self.step, 1)[:height, :width]

    def evaluate(self, image: np.ndarray) -> dict:
        data = self.compress(image)
        return {"image": self.decompress(data), "bits": 8.0 * len(data) - 32}


@pytest.fixture(scope="session")
def subsampling_model():
    """Returns the class above; its argument is the step."""
    return SubsamplingModel


@pytest.fixture(scope="session")
def write_manifest():
    """Returns `write_manifest(folder, model)`, which makes the folder of an export with its
    manifest.
    """

    def write(folder, model):
        folder.mkdir(parents=True)
        fields = {"format": FORMAT, "codec": model.codec, "fingerprint": model.fingerprint,
                  "experiment": model.experiment, "version": "0"}  # fmt: skip
        (folder / MANIFEST).write_text(json.dumps(fields))

    return write
