"""Rebuilding the codec of an exported model from its manifest, weights and coding tables.

The functions of the rebuilt model use the coder of this process. A process without the coder's
operations cannot use the full SavedModel, so it loads exports in this way.
"""

from __future__ import annotations

import hashlib
import json
import os

import tensorflow as tf

from tfquant import exact, files
from tfquant.codec import Codec
from tfquant.coding import masses, table_file
from tfquant.coding.decisions import DecisionTable
from tfquant.coding.tables import Table
from tfquant.export import manifest_file, weight_file
from tfquant.export.codec_module import EagerModule
from tfquant.layers import klt
from tfquant.training import trained
from tfquant.training.experiment import Experiment


def rebuilt(path: str, manifest: manifest_file.Manifest) -> EagerModule:
    """Rebuilds the codec of an exported model, with its weights and tables.

    Args:
      path: the exported model.
      manifest: its manifest.

    Raises:
      ModelError: the export is corrupt or contains a codec of another version, or its files cannot
        be coded here.
    """
    try:
        experiment = Experiment.from_json(json.dumps(manifest.experiment))
        is_packed = manifest.flavour == manifest_file.PACKED
        if is_packed:
            content = _packed_files(path, manifest.files)
        with klt.left_out():
            codec = trained.build_as_decoded(experiment, manifest.precision)
        if is_packed:
            set_weights(codec, content[weight_file.NAME])
        else:
            prefix = tf.io.gfile.join(path, "variables", "variables")
            reader = tf.train.load_checkpoint(files.for_tensorflow(prefix))
            for index, weight in enumerate(codec.variables):
                weight.assign(reader.get_tensor(f"_weights/{index}/.ATTRIBUTES/VARIABLE_VALUE"))
        if manifest.file_version > 1:
            if not is_packed:
                content = {exact.NAME: files.read(tf.io.gfile.join(path, exact.NAME))}
            exact.load(codec, content[exact.NAME])
        stored = tf.io.gfile.join(path, table_file.NAME)
        tables = table_file.load(files.read(stored)) if files.exists(stored) else None
        lacking = {model.name for model in codec.entropy_models} - set(tables or {})
        if tables is not None and lacking:
            raise ValueError(f"{table_file.NAME} has no table for {', '.join(sorted(lacking))}")
    except (MemoryError, tf.errors.ResourceExhaustedError):
        raise manifest_file.ModelError(f"{path}: not enough memory to load the model") from None
    except (OSError, ValueError, TypeError, LookupError, tf.errors.OpError) as error:
        said = files.one_line(error)
        raise manifest_file.ModelError(f"{path}: cannot rebuild the model: {said}") from None
    of_0_1 = tables is None
    if tables is None:
        tables = _tables_of_0_1(codec)
    old = [t for t in tables.values() if isinstance(t, DecisionTable) and t.version == 2]
    if old and not masses.has_version_2():
        raise manifest_file.ModelError(
            f"{path}: an export of tfquant 0.1, whose decisions need TensorFlow 2.19 or older"
        )
    module = EagerModule(codec, tables, manifest.max_pixels, manifest.qualities)
    if module.fingerprint() != manifest.fingerprint:
        why = "its weights or tables do not match its fingerprint"
        if of_0_1:
            why = f"it has no {table_file.NAME}, and the recomputed coding tables differ"
        raise manifest_file.ModelError(f"{path}: cannot rebuild the model: {why}")
    return module


def set_weights(codec: Codec, data: bytes) -> None:
    """Assigns the weights of a packed export to a codec.

    Args:
      codec: the codec of the export's experiment.
      data: the file of weights.

    Raises:
      ValueError: the weights belong to another codec, or the file is corrupt.
    """
    weights = weight_file.load(data)
    variables = codec.variables
    if len(weights) != len(variables):
        raise ValueError(f"{len(weights)} weights for a codec that has {len(variables)}")
    for (name, array), variable in zip(weights, variables):
        if tuple(variable.shape) != array.shape:
            raise ValueError(f"{name} has shape {array.shape}, {variable.name} {variable.shape}")
        variable.assign(array)


def _packed_files(path: str, digests: dict[str, str]) -> dict[str, bytes]:
    """Returns the files of a packed export, name -> bytes, after checking their SHA-256."""
    content = {}
    for name in (weight_file.NAME, table_file.NAME):
        if name not in digests:
            raise ValueError(f"{manifest_file.MANIFEST} does not list {name}")
    for name in digests:
        content[name] = files.read(os.path.join(path, name))
        if hashlib.sha256(content[name]).hexdigest() != digests[name]:
            raise ValueError(f"{name} has another SHA-256 than {manifest_file.MANIFEST} says")
    return content


def _tables_of_0_1(codec: Codec) -> dict[str, Table]:
    """Computes the coding tables of an export of tfquant 0.1, which has no file of them.

    Its channel tables were computed in float32, and its decisions have version 2.
    """
    tables = {}
    for model in codec.entropy_models:
        older = getattr(model, "coding_table_of_0_1", model.coding_table)()
        tables[model.name] = DecisionTable(2) if isinstance(older, DecisionTable) else older
    return tables
