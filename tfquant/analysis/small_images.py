"""Small grayscale images as vectors, for networks that train in seconds.

- `digits`: scikit-learn's 1,797 handwritten digits of 8x8 pixels (the extra `digits`). Without
  scikit-learn, falls back to `generated`, and the name says so.
- `generated`: bright strokes on a dark background, 8x8 pixels, generated here.
- `tfds:NAME`: the first 10,000 training images of a data set such as `tfds:mnist`.
  tensorflow-datasets (the extra `tfds`) must have it or be able to download it.

Install the extras from the checkout: `pip install -c constraints.txt -e '.[digits,tfds]'`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tfquant.analysis.experiment import AnalysisError
from tfquant.names import check_known

DATASETS = ("digits", "generated", "tfds:NAME")

_SIDE = 8
_GENERATED = 1800
_FETCHED = 10_000


class SmallImages(NamedTuple):
    """Images as vectors, and their name.

    Attributes:
      pixels: [N, d] float32 in [0, 1].
      name: the name for tables and captions.
    """

    pixels: np.ndarray
    name: str


def load(dataset: str) -> SmallImages:
    """Returns the images with that name. An AnalysisError lists the known ones."""
    if dataset.startswith("tfds:"):
        return _fetched(dataset)
    if dataset == "generated":
        return SmallImages(_generated(), "generated strokes, 8x8")
    check_known("data set", dataset, DATASETS, AnalysisError)
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        return SmallImages(_generated(), "generated strokes, 8x8 (scikit-learn is not installed)")
    return SmallImages((load_digits().data / 16.0).astype(np.float32), "scikit-learn's digits, 8x8")


def _generated() -> np.ndarray:
    """Returns strokes of random position, direction, length, thickness and bend, [N, 64]."""
    rng = np.random.default_rng(0)
    along = np.linspace(-1.0, 1.0, 24)
    rows, columns = np.mgrid[0:_SIDE, 0:_SIDE].reshape(2, -1, 1)
    images = []
    for _ in range(_GENERATED):
        centre, angle = rng.uniform(2.0, 5.0, size=2), rng.uniform(0.0, np.pi)
        length, bend, thickness = rng.uniform([1.0, -1.5, 0.5], [3.5, 1.5, 1.0])
        x, y = length * along, bend * (along**2 - 0.5)
        row = centre[0] + x * np.sin(angle) + y * np.cos(angle)
        column = centre[1] + x * np.cos(angle) - y * np.sin(angle)
        nearest = np.min(np.hypot(rows - row, columns - column), axis=1)
        images.append(np.exp(-0.5 * (nearest / thickness) ** 2))
    return np.array(images, np.float32)


def _fetched(dataset: str) -> SmallImages:
    name = dataset[len("tfds:") :]
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise AnalysisError(
            f"--dataset={dataset} needs tensorflow-datasets: pip install -c constraints.txt"
            " -e '.[tfds]'"
        ) from None
    try:
        images = tfds.as_numpy(tfds.load(name, split=f"train[:{_FETCHED}]", batch_size=-1))["image"]
    except Exception as error:  # of many types: no such data set, no network, no such split
        raise AnalysisError(f"--dataset={dataset} cannot be loaded: {error}") from None
    pixels = images.astype(np.float32).mean(axis=-1).reshape(len(images), -1) / 255.0
    return SmallImages(pixels, f"{name}, {images.shape[1]}x{images.shape[2]}")
