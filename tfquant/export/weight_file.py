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
_LEAST_STEP = np.float32(2.0**-100)  # products with it are not subnormal
FLOAT32, INTEGERS = "float32", "integers"

# Tensors with fewer than _FEW elements are stored as float32. Those with fewer than _MANY have
# steps that are 16 times finer. They take little of the file, and include the first and the last
# layer of the transforms.
_FEW, _MANY = 4096, 20000
_FINER = 16.0


def dump(weights: list, step: float | None = None, packed: bytes = b"") -> bytes:
    """Returns the content of a file of weights.

    Args:
      weights: (name, array) pairs; the arrays are float32 of any shape.
      step: the integers' step in units of a channel's root mean square, such as 1/128; None stores
        all weights as they are. Weights that are integers themselves are always stored exactly.
      packed: a file of weights; a weight with the values of one of its weights keeps the encoding.

    Raises:
      ValueError: the step is not positive, or so small that the integers exceed 16 bits.
    """
    if step is not None and not 0 < step < 1:
        raise ValueError(f"the step must be above 0 and below 1; got {step}")
    tensors, streams = [], []
    encoded = _parsed(packed) if packed else []
    known = {_content(_decoded(*each)): each for each in encoded}
    for name, array in weights:
        array = np.asarray(array, np.float32)
        found = known.get(_content(array)) if known else None
        if found:
            tensor, made = found
            tensors.append({**tensor, "name": name})
            streams += made
            continue
        tensor = {"name": name, "shape": list(array.shape)}
        if array.size >= _FEW and _is_whole(array):
            tensor.update(encoding=INTEGERS, axis=array.ndim - 1)
            made = _integers(array, np.ones(array.shape[-1], np.float32))
        elif step is None or array.size < _FEW:
            tensor["encoding"] = FLOAT32
            made = [array.astype("<f4").tobytes()]
        else:
            axis = _output_axis(name, array)
            tensor.update(encoding=INTEGERS, axis=axis)
            steps = _steps(array, axis, step if array.size >= _MANY else step / _FINER)
            made = _integers(array, steps)
        made = [_compress(data) for data in made]
        tensors.append({**tensor, "sizes": list(map(len, made))})
        streams += made
    header = json.dumps({"tensors": tensors}, separators=(",", ":")).encode()
    return b"".join([_MAGIC, _LENGTH.pack(len(header)), header, *streams])


def load(data: bytes) -> list:
    """Returns the (name, float32 array) pairs of a file of weights.

    Raises:
      ValueError: the bytes are corrupt, not a file of weights, or of another version.
    """
    if data[: len(_MAGIC)] != _MAGIC:
        newer = data[: len(_MAGIC) - 1] == _MAGIC[:-1]
        raise ValueError(
            f"{NAME} has another format: update tfquant" if newer else f"{NAME} is corrupt"
        )
    try:
        return [(tensor["name"], _decoded(tensor, streams)) for tensor, streams in _parsed(data)]
    except MemoryError:
        raise
    except Exception as error:  # zlib, JSON and NumPy each raise their own
        raise ValueError(f"{NAME} is corrupt: {error}") from None


def _parsed(data: bytes) -> list[tuple[dict, list[bytes]]]:
    """Returns (entry of the header, compressed streams) for each tensor of a file."""
    start = len(_MAGIC) + _LENGTH.size
    (length,) = _LENGTH.unpack_from(data, len(_MAGIC))
    tensors = json.loads(data[start : start + length])["tensors"]
    start += length
    parsed = []
    for tensor in tensors:
        streams = []
        for size in tensor["sizes"]:
            streams.append(data[start : start + size])
            start += size
        parsed.append((tensor, streams))
    return parsed


def _content(array: np.ndarray) -> tuple:
    """Returns a key that arrays share if they have the same shape and the same bits."""
    return array.shape, array.tobytes()


def _output_axis(name: str, array: np.ndarray) -> int:
    """Returns the axis of a layer's outputs: the last one, except in transposed convolutions."""
    transposed = any(word in name for word in ("transpose", "deconv"))
    return array.ndim - 2 if transposed and array.ndim == 4 else array.ndim - 1


def _is_whole(array: np.ndarray) -> bool:
    """Returns True if all elements are integers that the format holds exactly: none is -0."""
    negative_zero = np.signbit(array) & (array == 0)
    whole = np.all(array == np.rint(array)) and np.max(np.abs(array)) < _LARGEST
    return bool(whole and not np.any(negative_zero))


def _steps(array: np.ndarray, axis: int, step: float) -> np.ndarray:
    """Steps for each index of `axis`, float32, of a shape that broadcasts to `array`."""
    others = tuple(i for i in range(array.ndim) if i != axis)
    power = np.mean(np.square(array, dtype=np.float64), others, keepdims=True)
    return np.maximum((step * np.sqrt(power)).astype(np.float32), _LEAST_STEP)


def _integers(array: np.ndarray, steps: np.ndarray) -> list:
    """The streams of the encoding `integers`, not compressed."""
    q = np.rint(array / steps)
    if not np.max(np.abs(q)) < _LARGEST:
        raise ValueError(f"weights of {np.max(np.abs(q)):.0f} steps; the format has {_LARGEST}")
    u = (q.astype(np.int32) + _OFFSET).ravel()
    low = np.append(u & 15, np.zeros(u.size % 2, np.int32)).reshape(-1, 2)
    planes = (low[:, 0] | low[:, 1] << 4, u >> 4 & 255, u >> 12)
    return [steps.astype("<f4").tobytes(), *(plane.astype(np.uint8).tobytes() for plane in planes)]


def _decoded(tensor: dict, streams: list[bytes]) -> np.ndarray:
    """Returns the tensor that is encoded in some compressed streams."""
    shape, streams = tensor["shape"], list(map(zlib.decompress, streams))
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
    """Returns a zlib stream.

    For data without repetition, only a Huffman code is smaller and faster.
    """
    made = zlib.compressobj(9, strategy=zlib.Z_HUFFMAN_ONLY)
    return min(made.compress(data) + made.flush(), zlib.compress(data, 1), key=len)
