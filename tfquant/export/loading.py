"""Loading of an exported model."""

from __future__ import annotations

from tfquant import stack
from tfquant.export.model_file import ExportedModel


def load(path: str) -> ExportedModel:
    """Loads an exported model.

    Args:
      path: the folder that training exported, such as `runs/mine/export`.

    Returns:
      The model, with `compress`, `decompress` and `evaluate`.

    Raises:
      ModelError: the folder contains no exported model, or one that cannot be loaded here.
      StackError: the installed packages are not compatible.
    """
    stack.import_tensorflow()
    return ExportedModel.load(path)
