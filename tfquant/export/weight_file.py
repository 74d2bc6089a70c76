"""The weights of a packed model in the file `weights.tfqw`.

| offset | bytes | field                                                             |
|--------|-------|-------------------------------------------------------------------|
| 0      | 8     | magic, 89 54 46 51 57 0d 0a 01; the last byte is the format       |
| 8      | 4     | length H of the header, unsigned, little-endian                   |
| 12     | H     | header, JSON: {"tensors": [{"name", "shape", "sizes", ...}, ...]} |
| 12 + H |       | zlib streams, one after the other; `sizes` are their lengths      |

A tensor has one of two encodings:

- `float32`: one stream, the elements in row-major order, little-endian.
- `integers`: an element is `step * q`, one float32 product. `step` is a float32 for each index of
  the tensor's `axis`; `q` is an integer of 16 bits. The streams hold the steps, the 4 low bits of
  `q + 0x8800` (two elements in a byte, the first one in the low half), its next 8 bits, and its 4
  high bits (one element in a byte). The low bits are noise, which no compression makes smaller. The
  next 8 bits get a Huffman code. The high bits are nearly always 8.

An integer of up to 24 bits is exact in float32, and a product of two float32 numbers is correctly
rounded. Every machine therefore reads the same weights.
"""

from __future__ import annotations

import json
import struct
import zlib

import numpy as np

NAME = "weights.tfqw"
_MAGIC = b"\x89TFQW\r\n\x01"
_LENGTH = struct.Struct("<I")
_OFFSET = 0x8800  # the high bits of small integers of either sign are then 8
_LARGEST = 0x7000
_LEAST_STEP = np.float32(2.0**-100)  # products with it are no subnormal numbers
FLOAT32, INTEGERS = "float32", "integers"

# Fewer elements are stored as they are, and fewer than _MANY with steps 16 times as fine: they take
# little of the file, and the first and the last layer of the transforms are among them.
_FEW, _MANY = 4096, 20000
_FINER = 16.0


def dump(weights: list, step: float | None = None) -> bytes:
    """The file of weights.

    Args:
      weights: (name, array) pairs; the arrays are float32 of any shape.
      step: the integers' step in units of a channel's root mean square, such as 1/128; None stores
        all weights as they are.

    Raises:
      ValueError: the step is not positive, or so small that the integers exceed 16 bits.
    """
    if step is not None and not 0 < step < 1:
        raise ValueError(f"the step must be above 0 and below 1; got {step}")
    tensors, streams = [], []
    for name, array in weights:
        array = np.asarray(array, np.float32)
        tensor = {"name": name, "shape": list(array.shape)}
        if step is None or array.size < _FEW:
            tensor["encoding"] = FLOAT32
            made = [array.astype("<f4").tobytes()]
        else:
            axis = _output_axis(name, array)
            tensor.update(encoding=INTEGERS, axis=axis)
            made = _integers(array, axis, step if array.size >= _MANY else step / _FINER)
        made = [_compress(data) for data in made]
        tensors.append({**tensor, "sizes": list(map(len, made))})
        streams += made
    header = json.dumps({"tensors": tensors}, separators=(",", ":")).encode()
    return b"".join([_MAGIC, _LENGTH.pack(len(header)), header, *streams])


def load(data: bytes) -> list:
    """The (name, float32 array) pairs of a file of weights.

    Raises:
      ValueError: the bytes are not those of such a file, or of another version's.
    """
    if data[: len(_MAGIC)] != _MAGIC:
        newer = data[: len(_MAGIC) - 1] == _MAGIC[:-1]
        raise ValueError(
            f"{NAME} has another format: update tfquant" if newer else f"{NAME} is damaged"
        )
    try:
        start = len(_MAGIC) + _LENGTH.size
        (length,) = _LENGTH.unpack_from(data, len(_MAGIC))
        tensors = json.loads(data[start : start + length])["tensors"]
        start += length
        weights = []
        for tensor in tensors:
            streams = []
            for size in tensor["sizes"]:
                streams.append(zlib.decompress(data[start : start + size]))
                start += size
            weights.append((tensor["name"], _array(tensor, streams)))
    except Exception as error:  # zlib, JSON and NumPy each raise their own
        raise ValueError(f"{NAME} is damaged: {error}") from None
    return weights


def _output_axis(name: str, array: np.ndarray) -> int:
    """The axis of a layer's outputs: the last one but in kernels of transposed convolutions."""
    transposed = any(word in name for word in ("transpose", "deconv"))
    return array.ndim - 2 if transposed and array.ndim == 4 else array.ndim - 1


def _integers(array: np.ndarray, axis: int, step: float) -> list:
    """The streams of the encoding `integers`, not compressed."""
    others = tuple(i for i in range(array.ndim) if i != axis)
    power = np.mean(np.square(array, dtype=np.float64), others, keepdims=True)
    steps = np.maximum((step * np.sqrt(power)).astype(np.float32), _LEAST_STEP)
    q = np.rint(array / steps)
    if not np.max(np.abs(q)) < _LARGEST:
        raise ValueError(f"weights of {np.max(np.abs(q)):.0f} steps; the format has {_LARGEST}")
    u = (q.astype(np.int32) + _OFFSET).ravel()
    low = np.append(u & 15, np.zeros(u.size % 2, np.int32)).reshape(-1, 2)
    planes = (low[:, 0] | low[:, 1] << 4, u >> 4 & 255, u >> 12)
    return [steps.astype("<f4").tobytes(), *(plane.astype(np.uint8).tobytes() for plane in planes)]


def _array(tensor: dict, streams: list) -> np.ndarray:
    """The tensor that the streams of one encoding stand for."""
    shape = tensor["shape"]
    if tensor["encoding"] == FLOAT32:
        return np.frombuffer(streams[0], "<f4").astype(np.float32).reshape(shape)
    if tensor["encoding"] != INTEGERS:
        raise ValueError(f"unknown encoding {tensor['encoding']!r}")
    steps = np.frombuffer(streams[0], "<f4").astype(np.float32)
    low, middle, high = (np.frombuffer(stream, np.uint8) for stream in streams[1:])
    low = np.stack([low & 15, low >> 4], axis=-1).reshape(-1)[: middle.size]
    q = high.astype(np.int32) << 12
    q |= middle.astype(np.int32) << 4
    q |= low
    q -= _OFFSET
    sides = [size if i == tensor["axis"] else 1 for i, size in enumerate(shape)]
    return q.reshape(shape).astype(np.float32) * steps.reshape(sides)


def _compress(data: bytes) -> bytes:
    """A zlib stream; of what does not repeat, a Huffman code alone is smaller and made at once."""
    made = zlib.compressobj(9, strategy=zlib.Z_HUFFMAN_ONLY)
    return min(made.compress(data) + made.flush(), zlib.compress(data, 1), key=len)
