"""Exported models under evaluation: where they lie, and what they do to a picture."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path

import numpy as np

from tfquant import files, metrics
from tfquant.data import images
from tfquant.evaluation import EvaluationError, measure
from tfquant.export.model_file import FOLDER, MANIFEST


@dataclasses.dataclass(frozen=True)
class Entry:
    """A model to evaluate.

    Attributes:
      name: unique in its evaluation, fit for a file name.
      path: the exported model's folder.
    """

    name: str
    path: str


def find_models(model_dirs) -> list:
    """Training runs or exported models -> entries, in the given order.

    Raises:
      EvaluationError: a folder that is neither.
    """
    entries = []
    for text in model_dirs:
        text = os.fspath(text).rstrip("/")
        candidates = [text, os.path.join(text, FOLDER)]
        path = next((c for c in candidates if files.isfile(os.path.join(c, MANIFEST))), None)
        if path is None:
            what = "has no exported model" if files.isdir(text) else "is no folder"
            raise EvaluationError(
                f"{text!r} {what}; expected a training run with "
                f"{FOLDER}/{MANIFEST} in it or an exported model with {MANIFEST}"
            )
        entries.append(Entry(_name(path, entries), path))
    return entries


def _name(path: str, entries) -> str:
    """The run's name; its whole path where another of the models has the same."""
    path = os.path.realpath(path) if files.is_local(path) else path
    run = os.path.dirname(path) if os.path.basename(path) == FOLDER else path
    name = os.path.basename(run)
    if any(entry.name == name for entry in entries):
        name = "_".join(part for part in run.split("://")[-1].split("/") if part)
    return name


def evaluate(model, pictures, folder: Path | None, progress) -> list:
    """Compresses and decompresses every picture.

    Args:
      model: `compress(image) -> bytes`, `decompress(bytes) -> image` and `evaluate(image) ->
        {"image", "bits"}`, images uint8 [H, W, 3].
      pictures: the `Picture`s.
      folder: where `NAME.tfq` and `NAME.png`, the reconstruction, are written; None writes neither.
      progress: called with each measurement when it is done.

    Returns:
      A measurement per picture. Each size is run once untimed before its first picture counts.

    Raises:
      EvaluationError: a file decodes to another picture than evaluation gives, or the model's bits
        are not finite.
    """
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    warm_sizes = set()
    measurements = []
    for picture in pictures:
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
        measurements.append(
            {
                "name": picture.name,
                "bpp": measure.bits_per_pixel(len(data), image),
                "estimated_bpp": bits / (image.shape[0] * image.shape[1]),
                **measure.quality(image, decoded),
                **_error_reduction(evaluated),
                "encode_s": encode_s,
                "decode_s": decode_s,
            }
        )
        if folder is not None:
            (folder / f"{picture.name}.tfq").write_bytes(data)
            images.write_image(folder / f"{picture.name}.png", decoded)
        progress(measurements[-1])
    return measurements


def _error_reduction(evaluated: dict) -> dict:
    """What a rectifier takes off the quantization error; nothing of models that do not tell."""
    if "y_bar" not in evaluated:
        return {}
    before, after = (
        float(np.sum(np.square(evaluated["y"] - evaluated[name], dtype=np.float64)))
        for name in ("y_hat", "y_bar")
    )
    return {"error_reduction": metrics.error_reduction(before, after)}


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
