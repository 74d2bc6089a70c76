"""Packed exports: a model as a few small files without a SavedModel.

    MODEL/tfquant.json     the manifest of `model_file.py`, with flavour "packed" and the SHA-256 of
                           the other files
    MODEL/weights.tfqw     the weights of the codec's variables, in their order
    MODEL/tables.npz       the coding tables
    MODEL/integers.npz     how the entropy model's networks compute with integers, see
                           `tfquant/exact.py`; only in models that write files of version 2

An export of training with N 128 and M 192 takes 120 MB. Packed, it takes 26 MB with the same
weights, or 8 MB with weights of a limited precision. `tfquant models --add` packs an export with
the same weights, so that the files of one are read by the other. The models that tfquant brings
along have weights of a limited precision.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable

import numpy as np
import tensorflow as tf

import tfquant
from tfquant import exact, files
from tfquant.codec import Codec
from tfquant.coding import table_file
from tfquant.export import model_file, quality, rebuilding, weight_file
from tfquant.export.codec_module import CodecModule
from tfquant.training.experiment import Experiment


def pack_export(export: str, path: str) -> model_file.Manifest:
    """Packs an exported model with the same weights, tables and fingerprint.

    Args:
      export: the exported model, of any flavour but the stock one.
      path: the folder to write; what is there is replaced.

    Returns:
      The manifest of the packed export.

    Raises:
      ModelError: not an exported model, or one that cannot be built again here.
      OSError: the folder cannot be written.
    """
    manifest = model_file.read_manifest(export)
    if manifest.flavour == model_file.STOCK:
        raise model_file.ModelError(
            f"{export}: the stock flavour of a model, without range coder; name the folder that"
            " it is in"
        )
    module = rebuilding.rebuilt(export, manifest)
    fields = {
        "format": manifest.format,
        "version": manifest.version,
        "codec": manifest.codec,
        "fingerprint": manifest.fingerprint,
        "precision": manifest.precision,
        "max_pixels": manifest.max_pixels,
        "metrics": manifest.metrics,
        "experiment": manifest.experiment,
    }
    weights = weight_file.dump(_named(module.weights))
    return _write(module, fields, path, weights)


def pack_codec(
    codec: Codec, experiment: Experiment, path: str, step: float | None = None
) -> model_file.Manifest:
    """Writes a codec as a packed export.

    Args:
      codec: with its trained weights; its entropy model computes in float32. It becomes exact, and
        with a `step` it gets the weights that the file holds.
      experiment: recorded in the manifest.
      path: the folder to write; what is there is replaced.
      step: precision of the weights, as in `weight_file.dump`; None keeps them as they are.

    Returns:
      The manifest of the packed export.

    Raises:
      ValueError: the step is no such number.
      OSError: the folder cannot be written.
    """
    exact.become_exact(codec)
    weights = weight_file.dump(_named(codec.variables), step)
    # Tables and fingerprint are those of the weights that are stored.
    rebuilding.set_weights(codec, weights)
    recorded = json.loads(experiment.to_json())
    module = CodecModule(codec, qualities=quality.range_of(recorded))
    fields = {
        "format": model_file.FORMAT,
        "version": tfquant.__version__,
        "codec": codec.name,
        "fingerprint": module.fingerprint(),
        "precision": codec.parts()["g_s"].compute_dtype,
        "metrics": {},
        "experiment": recorded,
    }
    return _write(module, fields, path, weights)


def _named(variables: Iterable[tf.Variable]) -> list[tuple[str, np.ndarray]]:
    """Returns (name, array) pairs."""
    return [(variable.name, variable.numpy()) for variable in variables]


def _write(module: CodecModule, fields: dict, path: str, weights: bytes) -> model_file.Manifest:
    """Writes the folder atomically."""
    content = {weight_file.NAME: weights, table_file.NAME: table_file.dump(module.tables)}
    if module.version > 1:
        content[exact.NAME] = exact.dump(module.codec)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
    manifest = {
        "flavour": model_file.PACKED,
        **fields,
        "files": digests,
    }
    with files.new_folder(path) as partial:
        for name, data in content.items():
            files.write(os.path.join(partial, name), data)
        text = json.dumps(manifest, indent=2) + "\n"
        files.write(os.path.join(partial, model_file.MANIFEST), text)
    return model_file.read_manifest(path)
