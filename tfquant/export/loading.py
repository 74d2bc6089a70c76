"""Loads models by name: those that tfquant brings along, those that were added, and exports."""

from __future__ import annotations

from tfquant.export import registry
from tfquant.export.model_set import ModelSet


def load(name: str = registry.DEFAULT) -> ModelSet:
    """Loads a set of models.

        model = load()
        data = model.compress(image, quality=50)  # uint8 [H, W, 3] -> bytes of a .tfq file
        image = model.decompress(data)

    Args:
      name: `default`, the name of a set that `tfquant models` lists, or the folder of an exported
        model, which is a set of one.

    Returns:
      The set. It imports TensorFlow and reads weights when they are needed for the first time.

    Raises:
      ModelError: there is no such model, or it cannot be read.
    """
    return registry.find(name)
