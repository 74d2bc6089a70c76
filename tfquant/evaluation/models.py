"""Exported models under evaluation: their paths, their curves and their measurements."""

from __future__ import annotations

import collections
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
from tfquant.export import quality, registry
from tfquant.export.manifest_file import FOLDER, MANIFEST, Manifest, ModelError, read_manifest
from tfquant.export.model_file import ExportedModel
from tfquant.export.model_set import MANIFEST as SET_MANIFEST
from tfquant.export.model_set import ModelSet

_STEP = 0.05  # sets round the ends of their qualities to 0.1


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
      path: the exported model's folder, or the set's.
      quality: the quality to code with; None for a model with one rate.
      curve: name of the set's curve to which the model belongs, or "".
      set: the set of models, of which `at_qualities` makes models; None for a model.
    """

    name: str
    path: str
    quality: float | None = None
    curve: str = ""
    set: ModelSet | None = None


def find_models(model_dirs: Iterable[str | os.PathLike]) -> list[Entry]:
    """Returns entries for training runs, exported models or sets of models, in the given order.

    Args:
      model_dirs: folders, and names as in `registry.find`.

    Raises:
      EvaluationError: a text is neither.
      ModelError: the set cannot be read, or a set and a folder have the name.
    """
    entries: list[Entry] = []
    for text in model_dirs:
        text = files.expanded(os.fspath(text)).rstrip("/")
        candidates = [text, os.path.join(text, FOLDER)]
        path = next((c for c in candidates if files.isfile(os.path.join(c, MANIFEST))), None)
        named = registry.set_folder(text)
        if path is not None and named is not None:
            raise EvaluationError(
                f"{text!r} is a set of models, {named}, and the folder of a model: name the one by"
                f" this path or the other by {os.path.join(os.curdir, text)}"
            )
        if path is None:
            entries.append(_set_entry(text, entries))
        else:
            entries.append(Entry(_name(path, entries), path))
    return entries


def _set_entry(text: str, entries: Iterable[Entry]) -> Entry:
    """Returns the entry of a set of models, or of one of its models."""
    is_set = registry.set_folder(text) or files.isfile(os.path.join(text, SET_MANIFEST))
    if not is_set and (files.isdir(text) or not registry.member_folder(text)):
        what = "has no exported model" if files.isdir(text) else "is not a folder"
        raise EvaluationError(
            f"{text!r} {what}; expected a training run with {FOLDER}/{MANIFEST} in it, an exported"
            f" model with {MANIFEST} or a set of models: {', '.join(registry.names())}"
        )
    found = registry.find(text)
    name = _name(found.path, entries)
    return Entry(name, found.path, set=found if is_set else None)


def at_qualities(entry: Entry, qualities: tuple[float, ...] = ()) -> list[Entry]:
    """Returns an entry for each quality of a model for a range of rates; else `[entry]`.

    The entries of a set are its models at these qualities.

    Args:
      entry: a result of `find_models`.
      qualities: from 0 to 100. Qualities that the model does not have are left out. Empty: a few at
        equal distances, or those of `ModelSet.curve`.

    Raises:
      EvaluationError: the model has none of the qualities.
      ModelError: the folder has no valid manifest.
    """
    ends = _ends(entry)
    chosen = () if ends is None else _within(entry.name, qualities, *ends)
    if entry.set is not None:
        return _of_set(entry, entry.set, chosen or entry.set.curve())
    known = read_manifest(entry.path).qualities
    if known is None:
        return [entry]
    stored = dict.fromkeys(map(known.nearest, chosen or known.samples()))
    return [Entry(f"{entry.name}_q{quality.shown(q)}", entry.path, q) for q in stored]


def _of_set(entry: Entry, models: ModelSet, qualities: Iterable[float]) -> list[Entry]:
    """Returns the models of a set at qualities, see `at_qualities`."""
    found = {}
    for asked in qualities:
        member, nearest = models.member_for(asked)
        stored = member.stored(nearest)
        one_rate = member.manifest.qualities is None
        found[member.path, stored] = Entry(
            f"{entry.name}_q{quality.shown(stored)}", member.path, None if one_rate else stored,
            f"{entry.name} (set)",
        )  # fmt: skip
    return list(found.values())


def _within(name: str, qualities: tuple[float, ...], low: float, high: float) -> tuple[float, ...]:
    """Returns the qualities that a model has. An EvaluationError says if it has none of them."""
    found = tuple(q for q in qualities if low - _STEP <= q <= high + _STEP)
    if qualities and not found:
        raise EvaluationError(
            f"--qualities: {name} has qualities from {low:.4g} to {high:.4g};"
            f" got {', '.join(f'{q:g}' for q in qualities)}"
        )
    return found


def left_out(entry: Entry, qualities: tuple[float, ...]) -> str:
    """Returns a line on the qualities that a model does not have, or "".

    The arguments are those of `at_qualities`.
    """
    ends = _ends(entry)
    if ends is None:
        return f"{entry.name} has one rate, so --qualities has no effect on it" if qualities else ""
    missing = [q for q in qualities if q not in _within(entry.name, qualities, *ends)]
    if not missing:
        return ""
    return f"{entry.name} has no quality {', '.join(map('{:g}'.format, missing))}"


def _ends(entry: Entry) -> tuple[float, float] | None:
    """Returns the lowest and the highest quality of a set or a model; None for one rate."""
    if entry.set is not None:
        return entry.set.members[0].low, max(member.high for member in entry.set.members)
    known = read_manifest(entry.path).qualities
    return None if known is None else (known.low, known.high)


def describe(
    entries: Sequence[Entry],
) -> tuple[tuple[DescribedModel, ...], tuple[DrawnCurve, ...]]:
    """Returns the models with the content of their manifests, and the curves that they form.

    Raises:
      ModelError: a folder has no valid manifest.
    """
    manifests = [read_manifest(entry.path) for entry in entries]
    lmbdas = [_lmbda(entry, manifest) for entry, manifest in zip(entries, manifests)]
    trained = [
        identity.Trained(m.codec, m.experiment, m.precision, m.init_from, lmbda)
        for m, lmbda in zip(manifests, lmbdas)
    ]
    found = _curves(entries, trained, [manifest.fingerprint for manifest in manifests])
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


def _curves(
    entries: Sequence[Entry], trained: Sequence[identity.Trained], fingerprints: Sequence[str]
) -> list[identity.Identified]:
    """Returns the curve of each entry. The models of a set are one curve with its name.

    The identity of a set's curve has the settings that all of its models share, and in `set` their
    fingerprints.
    """
    places = collections.defaultdict(list)
    for place, entry in enumerate(entries):
        places[entry.curve].append(place)
    found: dict[int, identity.Identified] = {}
    for name, own in places.items():
        curves = identity.name_curves([trained[place] for place in own])
        if name:
            first, *others = (curve.identity for curve in curves)
            common = {
                key: value
                for key, value in first.items()
                if all(key in other and other[key] == value for other in others)
            }
            plans = dict.fromkeys(curve.identity["plan"] for curve in curves)
            settings = {**common, "plan": ", ".join(plans)}
            settings["set"] = list(dict.fromkeys(fingerprints[place] for place in own))
            curves = [identity.Identified(name, settings)] * len(own)
        found.update(zip(own, curves))
    return [found[place] for place in range(len(entries))]


def _lmbda(entry: Entry, manifest: Manifest) -> float | None:
    """Returns the weight of the distortion at the entry's quality."""
    if entry.quality is None:
        return manifest.experiment.get("lmbda")
    assert manifest.qualities is not None  # else its entries have no quality
    low, high = manifest.experiment["lmbda_range"]
    return float(f"{low * (high / low) ** manifest.qualities.level(entry.quality):.4g}")


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
