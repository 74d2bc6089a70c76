"""Runs and exports that take less time: SavedModels take seconds to trace, to save and to load.

A test's own Python imports this file, after adding its folder to `sys.path`, and calls
`use_rebuilt` or `use_small`. In pytest's process, use the fixtures `exports_are_rebuilt` and
`exports_are_small`.
"""

from __future__ import annotations

import json
import os

import tensorflow as tf

from tfquant.export import manifest_file, writing

_SAVE, _EXPORT_RUN = writing._save, writing.export_run


def rebuilt(module: tf.Module, manifest: dict, flavour: str, path: str) -> None:
    """Replaces `writing._save`: writes what a codec is rebuilt from, and no stock flavour."""
    tf.io.gfile.makedirs(path)
    if flavour != manifest_file.STOCK:
        weights = tf.train.Checkpoint(_weights=module._weights)
        weights.write(os.path.join(path, "variables", "variables"))
        with open(os.path.join(path, manifest_file.MANIFEST), "w") as file:
            json.dump({**manifest, "flavour": manifest_file.PORTABLE}, file)


def without_stock(module: tf.Module, manifest: dict, flavour: str, path: str) -> None:
    """Replaces `writing._save`: the stock flavour is an empty folder."""
    if flavour == manifest_file.STOCK:
        tf.io.gfile.makedirs(path)
    else:
        _SAVE(module, manifest, flavour, path)


def in_graphs(*arguments, **options) -> tuple[str, str]:
    """Replaces `writing.export_run`: only a traced function can be saved."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(False)
    try:
        return _EXPORT_RUN(*arguments, **options)
    finally:
        tf.config.run_functions_eagerly(before)


def use_rebuilt() -> None:
    """Makes this process train eagerly and write exports that are rebuilt."""
    tf.config.run_functions_eagerly(True)
    writing._save = rebuilt


def use_small(eagerly: bool = True) -> None:
    """Makes this process train eagerly, and write exports with only the full SavedModel."""
    if eagerly:
        tf.config.run_functions_eagerly(True)
        writing.export_run = in_graphs
    writing._save = without_stock
