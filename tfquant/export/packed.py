"""Packed exports: a model as a few small files without a SavedModel.

    MODEL/tfquant.json     the manifest of `manifest_file.py`, with flavour "packed" and the SHA-256
                           of the other files
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

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf

import tfquant
from tfquant import exact, files
from tfquant.codec import Codec
from tfquant.coding import table_file
from tfquant.export import manifest_file, model_set, quality, rebuilding, weight_file
from tfquant.export.codec_module import CodecModule
from tfquant.training import trained
from tfquant.training.experiment import Experiment

_WIDER_BY = 2  # octaves of lmbda, on either side of a model with one rate


def pack_export(export: str, path: str) -> manifest_file.Manifest:
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
    manifest = model_set.packable(export)
    module = rebuilding.rebuilt(export, manifest)
    weights = weight_file.dump(_named(module.weights), packed=_packed_weights(export, manifest))
    return _write(module, _fields(manifest), path, weights)


def pack_codec(
    codec: Codec, experiment: Experiment, path: str, step: float | None = None
) -> manifest_file.Manifest:
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
        "format": manifest_file.FORMAT,
        "version": tfquant.__version__,
        "codec": codec.name,
        "fingerprint": module.fingerprint(),
        "precision": codec.parts()["g_s"].compute_dtype,
        "metrics": {},
        "experiment": recorded,
    }
    return _write(module, fields, path, weights)


def widen(export: str, path: str) -> manifest_file.Manifest:
    """Packs an exported model with one rate as a model for a range of rates, without training.

    The gain is the square root of the change of lmbda, over two octaves on either side, because the
    best step of uniform quantization is proportional to `lmbda ** -0.5`. At the model's own lmbda,
    the gain is 1, so the pictures are those of the export. Weights, tables and fingerprint stay the
    same, and so files that the export made before decode as before. The further the quality is
    from the model's own, the more bits are lost against a model that was trained for it.

    Args:
      export: the exported model, of any flavour but the stock one.
      path: the folder to write; what is there is replaced.

    Returns:
      The manifest of the packed export.

    Raises:
      ModelError: not an exported model, one for files of version 1, one that already has a range of
        rates, or one that cannot be built again here.
      OSError: the folder cannot be written.
    """
    manifest = model_set.packable(export, widened=True)
    module = rebuilding.rebuilt(export, manifest)
    experiment = _widened(Experiment.from_json(json.dumps(manifest.experiment)))
    codec = trained.build_as_decoded(experiment, manifest.precision)
    for name, part in module.codec.parts().items():
        codec.parts()[name].set_weights(part.get_weights())
    exact.copy(module.codec, codec)
    octaves = np.arange(experiment.quality_levels, dtype=np.float32)[:, None] - _WIDER_BY
    for name, sign in (("gain", 1.0), ("inverse_gain", -1.0)):
        (log_factors,) = codec.parts()[name].weights
        log_factors.assign(np.broadcast_to(sign * 0.5 * np.log(2.0) * octaves, log_factors.shape))
    recorded = json.loads(experiment.to_json())
    widened = CodecModule(codec, module.tables, manifest.max_pixels, quality.range_of(recorded))
    fields = {**_fields(manifest), "experiment": recorded}
    weights = weight_file.dump(_named(codec.variables), packed=_packed_weights(export, manifest))
    return _write(widened, fields, path, weights)


def _widened(experiment: Experiment) -> Experiment:
    """Returns the experiment with `_WIDER_BY` octaves of lmbda on both sides of its own."""
    lmbda_of = functools.partial(quality.to_lmbda, distortion=experiment.distortion)
    # A file can store this quality, at which the gains are exactly 1.
    base = quality.base_of(experiment.lmbda, experiment.distortion)
    ends = (base - _WIDER_BY * quality.PER_OCTAVE, base + _WIDER_BY * quality.PER_OCTAVE)
    return dataclasses.replace(
        experiment, lmbda_range=tuple(map(lmbda_of, ends)), quality_levels=2 * _WIDER_BY + 1
    )


def _fields(manifest: manifest_file.Manifest) -> dict[str, Any]:
    """Returns the fields of a manifest that packing keeps."""
    names = ("format", "version", "codec", "fingerprint", "precision", "max_pixels", "metrics",
             "experiment")  # fmt: skip
    fields = {name: getattr(manifest, name) for name in names}
    if manifest.init_from is not None:
        fields["init_from"] = manifest.init_from
    return fields


def _packed_weights(export: str, manifest: manifest_file.Manifest) -> bytes:
    """Returns the file of weights of a packed export; empty for an export of another flavour."""
    if manifest.flavour != manifest_file.PACKED:
        return b""
    return files.read(os.path.join(export, weight_file.NAME))


def _named(variables: Iterable[tf.Variable]) -> list[tuple[str, np.ndarray]]:
    """Returns (name, array) pairs."""
    return [(variable.name, variable.numpy()) for variable in variables]


def _write(module: CodecModule, fields: dict, path: str, weights: bytes) -> manifest_file.Manifest:
    """Writes the folder atomically."""
    content = {weight_file.NAME: weights, table_file.NAME: table_file.dump(module.tables)}
    if module.version > 1:
        content[exact.NAME] = exact.dump(module.codec)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
    manifest = {
        "flavour": manifest_file.PACKED,
        **fields,
        "files": digests,
    }
    with files.new_folder(path) as partial:
        for name, data in content.items():
            files.write(os.path.join(partial, name), data)
        text = json.dumps(manifest, indent=2) + "\n"
        files.write(os.path.join(partial, manifest_file.MANIFEST), text)
    return manifest_file.read_manifest(path)
