"""Builds the codec of an exported model again, from its manifest, weights and coding tables.

The functions of the rebuilt model code with whatever coder this process has. A process without the
coder's operations cannot use the full SavedModel, so it loads exports this way.
"""

from __future__ import annotations

import json

import tensorflow as tf

from tfquant import exact, files
from tfquant.codec import Codec
from tfquant.coding import masses, table_file
from tfquant.coding.decisions import DecisionTable
from tfquant.export import model_file
from tfquant.export.codec_module import CodecModule
from tfquant.training import trained
from tfquant.training.experiment import Experiment


def rebuilt(path: str, manifest: model_file.Manifest) -> CodecModule:
    """The codec of an exported model, built again by this package, with its weights and tables.

    Args:
      path: the exported model.
      manifest: its manifest.

    Raises:
      ModelError: the export is damaged or of another version's codec, or its files cannot be coded
        here.
    """
    try:
        experiment = Experiment.from_json(json.dumps(manifest.experiment))
        codec = trained.build_as_decoded(experiment, manifest.precision)
        reader = tf.train.load_checkpoint(tf.io.gfile.join(path, "variables", "variables"))
        for index, weight in enumerate(codec.variables):
            weight.assign(reader.get_tensor(f"_weights/{index}/.ATTRIBUTES/VARIABLE_VALUE"))
        if manifest.file_version > 1:
            exact.load(codec, files.read(tf.io.gfile.join(path, exact.NAME)))
        tables = tf.io.gfile.join(path, table_file.NAME)
        tables = table_file.load(files.read(tables)) if files.exists(tables) else None
        lacking = {model.name for model in codec.entropy_models} - set(tables or {})
        if tables is not None and lacking:
            raise ValueError(f"{table_file.NAME} has no table for {', '.join(sorted(lacking))}")
    except (OSError, ValueError, TypeError, LookupError, tf.errors.OpError) as error:
        said = " ".join(str(error).split())
        raise model_file.ModelError(f"{path}: cannot build the model again: {said}") from None
    of_0_1 = tables is None
    tables = _tables_of_0_1(codec) if of_0_1 else tables
    old = [t for t in tables.values() if isinstance(t, DecisionTable) and t.version == 2]
    if old and not masses.has_version_2():
        raise model_file.ModelError(
            f"{path}: an export of tfquant 0.1 whose decisions need TensorFlow 2.19 or older"
        )
    module = CodecModule(codec, tables, manifest.max_pixels)
    if module.fingerprint() != manifest.fingerprint:
        why = "its weights or tables are not those of its fingerprint"
        if of_0_1:
            why = f"it has no {table_file.NAME}, and its coding tables come out differently here"
        raise model_file.ModelError(f"{path}: cannot build the model again: {why}")
    return module


def _tables_of_0_1(codec: Codec) -> dict:
    """Coding tables of an export of tfquant 0.1, which has no file of them.

    Its channel tables were made in float32, and its decisions are of version 2.
    """
    tables = {}
    for model in codec.entropy_models:
        older = getattr(model, "coding_table_of_0_1", model.coding_table)()
        tables[model.name] = DecisionTable(2) if isinstance(older, DecisionTable) else older
    return tables
