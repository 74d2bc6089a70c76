"""Loading of models by name: pretrained ones, added ones and exports."""

from __future__ import annotations

from tfquant import stack
from tfquant.export import model_file, registry
from tfquant.export.model_file import ExportedModel
from tfquant.export.model_set import ModelSet


def load(name: str = registry.DEFAULT) -> ModelSet | ExportedModel:
    """Loads a set of models or an exported model.

        model = tq.load("default")
        data = model.compress(image, quality=50)  # uint8 [H, W, 3] -> bytes of a .tfq file
        image = model.decompress(data)

    Args:
      name: `default`, the name of a set that `tfquant models` lists, such a name and the folder of
        one model, such as `default/q38`, or a folder: of a set, or one that training exported, such
        as `runs/mine/export`.

    Returns:
      The set or the exported model, with `compress`, `decompress` and `evaluate`. A set and a
      model for a range of rates have qualities. A set loads each of its models when it is needed
      for the first time.

    Raises:
      ModelError: there is no such set or folder, or it contains no model that can be loaded here.
      StackError: the installed packages are not compatible.
    """
    stack.import_tensorflow()
    found = registry.find(name)
    own = found.members[0]
    if own.path == found.path:  # an exported model, not a set of one
        return model_file.ExportedModel.load(own.path)
    return found
