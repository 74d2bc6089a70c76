"""Functions that make a codec exact, so that its files decode on every machine, and load it again.

The networks between latents (hyper-decoder and context) compute the entropy model's parameters, on
which the meaning of a file's bits depends. `become_exact` converts their weights to integers, see
`tfquant/layers/exact.py`. The transforms stay as they are.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from tfquant.codec import Codec
from tfquant.data.dead_leaves import dead_leaves
from tfquant.data.pixels import to_float
from tfquant.exchange import Rounding
from tfquant.layers.exact import ExactLayer, Integers, Seen, layers_of

NAME = "integers.npz"  # in the folder of an exported model
_FIELDS = ("inputs", "low", "high", "outputs", "groups")
# Calibration input of the networks: generated pictures, the same for every model.
_SEEDS, _SIDE = (1, 2), 512
_QUALITIES = ([0.0], [0.5], [1.0])  # of a codec with gains


def is_exact(codec: Codec) -> bool:
    """Returns True if the codec's files decode on every machine."""
    return all(model.exact for model in codec.entropy_models)


def become_exact(codec: Codec, pictures: Iterable[np.ndarray] | None = None) -> None:
    """Converts the weights of a codec's hyper-decoder and context to integers.

    Args:
      codec: a codec with trained weights.
      pictures: [H, W, 3] uint8 each, with which the ranges of the layers' inputs are measured. None
        uses generated pictures. A codec with gains codes each at its lowest, middle and highest
        quality.
    """
    layers = _layers(codec)
    seen = {name: _Watch(layer) for name, layer in layers.items()}
    try:
        if layers:
            for picture in _made_pictures() if pictures is None else pictures:
                for quality in [None] if codec.gain is None else _QUALITIES:
                    y = codec.analyze(to_float(tf.constant(picture)[None]), quality)
                    codec.transmit(y, Rounding())
    finally:
        for layer in layers.values():
            layer.seen = None
    for name, layer in layers.items():
        layer.become_exact(seen[name].parts)
    _set_models(codec)


def real_weights(codec: Codec) -> list[str]:
    """Returns the names of the weights between latents that cannot become integers.

    A codec has such weights if its hyper-decoder or its context has layers that are not in
    `tfquant/layers/exact.py`. Its files then decode only where the arithmetic is that of the
    encoder.
    """
    networks = [p for p in codec.group("entropy").values() if p not in codec.entropy_models]
    exact = {id(v) for part in networks for layer in layers_of(part) for v in layer.variables}
    weights = [v for part in networks for v in part.trainable_variables]
    return [weight.name for weight in weights if id(weight) not in exact]


def copy(source: Codec, codec: Codec) -> None:
    """Makes a codec exact with the integers of an exact one of the same architecture.

    Exponents depend on latents, and latents depend on the precision of the transforms. A copy gives
    models with transforms in different precisions the same fingerprint.
    """
    of_source = source.group("entropy")
    for name, part in codec.group("entropy").items():
        part.set_weights(of_source[name].get_weights())
    load(codec, dump(source))


def dump(codec: Codec) -> bytes:
    """Returns the file that `load` reads: the exponents and limits of an exact codec's layers."""
    file = io.BytesIO()
    np.savez_compressed(file, **_arrays(codec))
    return file.getvalue()


def load(codec: Codec, data: bytes) -> None:
    """Makes a codec exact whose weights are integers already.

    Raises:
      ValueError: the data are corrupt or belong to another codec.
    """
    layers = _layers(codec)
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except MemoryError:
        raise
    except Exception as error:  # zip and NumPy each raise their own
        raise ValueError(f"{NAME} is corrupt: {error}") from None
    expected = {f"{name}/{field}" for name in layers for field in _FIELDS}
    if set(arrays) != expected or any(a.dtype != np.int32 or a.ndim != 1 for a in arrays.values()):
        raise ValueError(f"{NAME} does not fit the codec")
    for name, layer in layers.items():
        found = Integers(*(arrays[f"{name}/{field}"] for field in _FIELDS))
        channels = (layer.factors.shape[axis] for axis in (layer.in_axis, layer.out_axis))
        sizes = (len(found.inputs), len(found.outputs), len(found.low), len(found.high))
        C_in, C_out = channels
        if sizes != (C_in, C_out, C_in, C_in) or found.groups.tolist() not in ([1], [2], [4], [8]):
            raise ValueError(f"{NAME} does not fit the codec")
        layer.integers = found
    _set_models(codec)


def digest_of(codec: Codec) -> bytes:
    """Returns an exact codec's integers as bytes, for its fingerprint; empty if it is not exact."""
    if not is_exact(codec):
        return b""
    arrays = _arrays(codec)
    return b"exact" + b"".join(name.encode() + arrays[name].tobytes() for name in sorted(arrays))


def _arrays(codec: Codec) -> dict[str, np.ndarray]:
    return {
        f"{name}/{field}": getattr(layer.integers, field)
        for name, layer in _layers(codec).items()
        for field in _FIELDS
    }


def _layers(codec: Codec) -> dict[str, ExactLayer]:
    """Returns a map from name to layer."""
    return {
        f"{name}/{number}": layer
        for name, part in sorted(codec.group("entropy").items())
        for number, layer in enumerate(layers_of(part))
    }


def _set_models(codec: Codec) -> None:
    for model in codec.entropy_models:
        model.exact = True


@functools.lru_cache(maxsize=1)
def _made_pictures() -> tuple[np.ndarray, ...]:
    pictures = tuple(dead_leaves(seed, _SIDE) for seed in _SEEDS)
    for picture in pictures:
        picture.setflags(write=False)  # all calls return the same ones
    return pictures


class _Watch:
    """Records the range of a layer's inputs."""

    def __init__(self, layer: ExactLayer):
        self.parts: list[Seen] = []
        self._layer = layer
        layer.seen = self

    def __call__(self, x: tf.Tensor) -> None:
        widths = self._layer.parts
        edges = np.cumsum([0, *([x.shape[-1]] if widths is None else widths)])
        if not self.parts:
            self.parts = [Seen() for _ in edges[1:]]
        for seen, start, stop in zip(self.parts, edges, edges[1:]):
            seen.add(x[..., start:stop].numpy())
