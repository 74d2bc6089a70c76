"""Exported models under evaluation: their paths, their curves and their measurements."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Callable, Protocol

import numpy as np

from tfquant import files, metrics
from tfquant.coding.container import BitstreamError
from tfquant.data import images
from tfquant.evaluation import EvaluationError, identity, measure
from tfquant.evaluation.pictures import Picture
from tfquant.evaluation.results import DescribedModel, DrawnCurve, Measurement
from tfquant.export import quality
from tfquant.export.manifest_file import FOLDER, MANIFEST, Manifest, ModelError, read_manifest
from tfquant.export.model_file import ExportedModel


class Model(Protocol):
    """A model that can be evaluated, such as an `ExportedModel`. Pictures are uint8 [H, W, 3]."""

    def compress(self, image: np.ndarray) -> bytes:
        """Returns the bytes of a file."""

    def decompress(self, data: bytes) -> np.ndarray:
        """Returns the picture in a file."""

    def evaluate(self, image: np.ndarray) -> dict[str, Any]:
        """Returns `image`, the decoded picture, and `bits`, the model's estimate of the bits."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A model to evaluate.

    Attributes:
      name: unique in its evaluation and usable as a file name.
      path: the exported model's folder.
      quality: the quality to code with; None for a model with one rate.
    """

    name: str
    path: str
    quality: float | None = None


def find_models(model_dirs: Iterable[str | os.PathLike]) -> list[Entry]:
    """Returns entries for training runs or exported models, in the given order.

    Raises:
      EvaluationError: a folder is neither.
    """
    entries: list[Entry] = []
    for text in model_dirs:
        text = files.expanded(os.fspath(text)).rstrip("/")
        candidates = [text, os.path.join(text, FOLDER)]
        path = next((c for c in candidates if files.isfile(os.path.join(c, MANIFEST))), None)
        if path is None:
            what = "has no exported model" if files.isdir(text) else "is not a folder"
            raise EvaluationError(
                f"{text!r} {what}; expected a training run with "
                f"{FOLDER}/{MANIFEST} in it or an exported model with {MANIFEST}"
            )
        entries.append(Entry(_name(path, entries), path))
    return entries


def at_qualities(entry: Entry, qualities: tuple[float, ...] = ()) -> list[Entry]:
    """Returns an entry for each quality of a model for a range of rates; else `[entry]`.

    Args:
      entry: a result of `find_models`.
      qualities: from 0 to 100. Qualities that the model does not have are left out. Empty: a few at
        equal distances.

    Raises:
      EvaluationError: the model has none of the qualities.
      ModelError: the folder has no valid manifest.
    """
    known = read_manifest(entry.path).qualities
    if known is None:
        return [entry]
    chosen = [q for q in qualities if known.low <= q <= known.high]
    if qualities and not chosen:
        raise EvaluationError(
            f"--qualities: {entry.name} has qualities from {known.low:.4g} to {known.high:.4g};"
            f" got {', '.join(f'{q:g}' for q in qualities)}"
        )
    chosen = [known.nearest(q) for q in chosen] or known.samples()
    return [Entry(f"{entry.name}_q{q:.4g}", entry.path, q) for q in dict.fromkeys(chosen)]


def describe(
    entries: Sequence[Entry],
) -> tuple[tuple[DescribedModel, ...], tuple[DrawnCurve, ...]]:
    """Returns the models with the content of their manifests, and the curves that they form.

    Raises:
      ModelError: a folder has no valid manifest.
    """
    manifests = [read_manifest(entry.path) for entry in entries]
    lmbdas = [_lmbda(entry, manifest) for entry, manifest in zip(entries, manifests)]
    found = identity.name_curves(
        [
            identity.Trained(m.codec, m.experiment, m.precision, m.init_from, lmbda)
            for m, lmbda in zip(manifests, lmbdas)
        ]
    )
    described = tuple(
        DescribedModel(
            name=entry.name,
            path=entry.path,
            codec=manifest.codec,
            curve=curve.name,
            plan=curve.identity["plan"],
            lmbda=lmbda,
            quality=entry.quality,
            fingerprint=manifest.fingerprint,
            experiment=manifest.experiment,
            init_from=manifest.init_from,
        )
        for entry, manifest, lmbda, curve in zip(entries, manifests, lmbdas, found)
    )
    identities = {curve.name: curve.identity for curve in found}
    curves = tuple(
        DrawnCurve(name, tuple(m.name for m in described if m.curve == name), settings)
        for name, settings in identities.items()
    )
    return described, curves


def _lmbda(entry: Entry, manifest: Manifest) -> float | None:
    """Returns the weight of the distortion at the entry's quality."""
    if entry.quality is None:
        return manifest.experiment.get("lmbda")
    lmbda = quality.to_lmbda(entry.quality, manifest.experiment.get("distortion", "mse"))
    return float(f"{lmbda:.4g}")


class AtQuality:
    """A model for a range of rates that codes with one quality, for `evaluate`."""

    def __init__(self, model: ExportedModel, quality: float):
        self._model, self._quality = model, quality

    def compress(self, image: np.ndarray) -> bytes:
        """Returns the bytes of a .tfq file, see `ExportedModel.compress`."""
        return self._model.compress(image, self._quality)

    def decompress(self, data: bytes) -> np.ndarray:
        """Returns the picture of a file, see `ExportedModel.decompress`."""
        return self._model.decompress(data)

    def evaluate(self, image: np.ndarray) -> dict[str, Any]:
        """Returns the decoder's result, see `ExportedModel.evaluate`."""
        return self._model.evaluate(image, self._quality)


def _name(path: str, entries: Iterable[Entry]) -> str:
    """Returns the run's name, or its whole path if another model has the same name."""
    path = os.path.realpath(path) if files.is_local(path) else path
    run = os.path.dirname(path) if os.path.basename(path) == FOLDER else path
    name = os.path.basename(run)
    if any(entry.name == name for entry in entries):
        name = "_".join(part for part in run.split("://")[-1].split("/") if part)
    return name


# Errors that a single picture can cause. Errors of the file system are not among them.
_OF_ONE_PICTURE = (EvaluationError, images.ImageError, ModelError, BitstreamError, MemoryError)


def evaluate(
    model: Model,
    pictures: Iterable[Picture],
    folder: Path | None,
    progress: Callable[[Measurement], object],
    fail: Callable[[Picture, Exception], object] | None = None,
) -> list[Measurement]:
    """Compresses and decompresses every picture.

    Each size is run once without timing before its first picture is measured.

    Args:
      model: the model.
      pictures: the `Picture`s.
      folder: folder for `NAME.tfq` and the reconstruction `NAME.png`; None writes neither.
      progress: function that is called with each measurement.
      fail: function that is called with (picture, error) for a picture that cannot be measured and
        then has no measurement. None raises the error.

    Returns:
      A measurement for each picture.

    Raises:
      EvaluationError: a file decodes to another picture than the one from `evaluate`, or the
        model's bits are not finite. Without `fail`, errors of the model are raised too.
    """
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    warm_sizes: set[tuple[int, ...]] = set()
    measurements = []
    for picture in pictures:
        try:
            measured = _measure(model, picture, folder, warm_sizes)
        except _OF_ONE_PICTURE as error:
            if fail is None:
                raise
            fail(picture, error)
        else:
            measurements.append(measured)
            progress(measured)
    return measurements


def _measure(
    model: Model, picture: Picture, folder: Path | None, warm_sizes: set[tuple[int, ...]]
) -> Measurement:
    """Returns the measurement of a picture, see `evaluate`."""
    image = picture.read()
    if image.shape not in warm_sizes:
        model.decompress(model.compress(image))
        warm_sizes.add(image.shape)
    data, encode_s = measure.timed(model.compress, image)
    decoded, decode_s = measure.timed(model.decompress, data)
    decoded = np.asarray(decoded)
    evaluated = model.evaluate(image)
    bits = float(evaluated["bits"])
    if not math.isfinite(bits):
        raise EvaluationError(f"{picture.name}: the model assigns {bits} bits to its latents")
    _check_same(picture.name, decoded, np.asarray(evaluated["image"]))
    if folder is not None:
        (folder / f"{picture.name}.tfq").write_bytes(data)
        images.write_image(folder / f"{picture.name}.png", decoded)
    return Measurement(
        picture.name,
        bpp=measure.bits_per_pixel(len(data), image),
        estimated_bpp=bits / (image.shape[0] * image.shape[1]),
        **measure.quality(image, decoded)._asdict(),
        error_reduction=_error_reduction(evaluated),
        encode_s=encode_s,
        decode_s=decode_s,
    )


def _error_reduction(evaluated: dict[str, Any]) -> float | None:
    """Returns the error reduction by a rectifier in percent; None for models without rectifier."""
    if "y_bar" not in evaluated:
        return None
    before, after = (
        float(np.sum(np.square(evaluated["y"] - evaluated[name], dtype=np.float64)))
        for name in ("y_hat", "y_bar")
    )
    return metrics.error_reduction(before, after)


def _check_same(name: str, decoded: np.ndarray, evaluated: np.ndarray) -> None:
    if decoded.shape != evaluated.shape:
        raise EvaluationError(
            f"{name}: the file decodes to {list(decoded.shape)}, evaluation gives "
            f"{list(evaluated.shape)}"
        )
    wrong = np.any(decoded != evaluated, axis=-1)
    if wrong.any():
        raise EvaluationError(
            f"{name}: the decoded picture differs from the evaluated one in {int(wrong.sum())} of "
            f"{wrong.size} pixels; the model's encoder and decoder disagree"
        )
