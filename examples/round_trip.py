"""Compresses a picture to bytes and back without writing a file.

    python examples/round_trip.py runs/mine/export photo.png

A service or a data pipeline can use an exported model in this way. The bytes are those of a `.tfq`
file, so `tfquant decompress` reads them too.
"""

import sys

import numpy as np
import PIL.Image

import tfquant as tq
from tfquant.coding.container import BitstreamError


def round_trip(model: tq.ExportedModel, picture: np.ndarray) -> np.ndarray:
    """Compresses and decompresses a picture, and prints what it costs.

    Args:
      model: an exported model.
      picture: [H, W, 3] uint8.

    Returns:
      The decoded picture, [H, W, 3] uint8.
    """
    data = model.compress(picture)
    back = model.decompress(data)
    # Evaluation gives exactly the picture that a decoder gives, without coding.
    assert (back == model.evaluate(picture)["image"]).all()
    error = np.mean((back.astype(float) - picture) ** 2)
    pixels = picture.shape[0] * picture.shape[1]
    print(f"{len(data)} bytes, {8 * len(data) / pixels:.3f} bits per pixel, MSE {error:.1f}")
    return back


def is_refused(model: tq.ExportedModel, data: bytes) -> bool:
    """Returns True if the model refuses these bytes, because they are damaged or foreign."""
    try:
        model.decompress(data)
    except BitstreamError:
        return True
    return False


def main(export: str, path: str) -> None:
    """Loads a model, and compresses and decompresses one picture."""
    model = tq.load(export)
    picture = np.asarray(PIL.Image.open(path).convert("RGB"))
    round_trip(model, picture)
    damaged = bytearray(model.compress(picture))
    damaged[-1] ^= 1
    print("a damaged file is refused:", is_refused(model, bytes(damaged)))


if __name__ == "__main__":
    main(*sys.argv[1:])
