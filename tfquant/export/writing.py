"""Writing of an exported model: both SavedModels, the coding tables and the manifest.

An export has two SavedModels that do not need this package. The full one, `CodecModule`, in `path`,
uses the coder's operations. The stock one of `tfquant/export/stock.py` is in `path/stock`. If the
operations are not available, `PortableModule`, without the coder, replaces the full one.

The export contains integer coding tables, made once from the weights, in the SavedModel and in
`tables.npz`. The fingerprint covers the tables and the weights on which the meaning of the bits
depends (priors, hyper-decoder, context). It does not cover `g_s`, so a better decoder can still
read old files.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from logging import LogRecord

import numpy as np
import tensorflow as tf
from absl import logging

import tfquant
from tfquant import exact, files, stack
from tfquant.codec import Codec
from tfquant.coding import container, table_file
from tfquant.export import manifest_file, quality, stock
from tfquant.export.codec_module import CodecModule, PortableModule
from tfquant.export.stock import StockModule
from tfquant.names import first_few
from tfquant.training import folder, history, trained
from tfquant.training.experiment import Experiment, Stage


def export_run(
    run_dir: str,
    path: str | None = None,
    precision: str = "float32",
    version: int = container.VERSION,
    max_pixels: int = container.MAX_PIXELS,
) -> tuple[str, str]:
    """Exports the newest readable checkpoint of a run that is finished, interrupted or diverged.

    Args:
      run_dir: the run's folder.
      path: the folder to write; None for `<run_dir>/export`.
      precision: arithmetic of the exported transforms; may differ from that of the training.
      version: version of the files that the model is for, as in `export_codec`.
      max_pixels: limit of the pictures that the model writes or reads.

    Returns:
      The exported model's folder, and the name of the checkpoint.

    Raises:
      ValueError: the precision is unknown; or the folder contains no run, no readable checkpoint,
        or the checkpoint of another version's codec; or something else exists at `path`.
    """
    experiment, codec, newest = trained.load_run(run_dir, precision)
    validated_as_exported = _has_bound_of(experiment.all_stages()[-1], codec)
    if version > 1:
        of_float32 = codec if precision == "float32" else trained.load_run(run_dir).codec
        exact.become_exact(of_float32)
        if codec is not of_float32:
            exact.copy(of_float32, codec)
    path = path or tf.io.gfile.join(run_dir, manifest_file.FOLDER)
    name = os.path.basename(newest)
    measured = [r for r in history.read(run_dir) if name.endswith(f"-{r['run_step']}")]
    metrics = measured[-1] if measured and validated_as_exported else None
    start = folder.read_start(run_dir)
    export_codec(codec, experiment, path, metrics, version, max_pixels, start)
    return path, name


def _has_bound_of(stage: Stage, codec: Codec) -> bool:
    """Returns true if the codec has the bound of sigma of a stage, and so of its validation.

    A stage that lifts the bound has another one than the codec that it leaves.
    """
    bounds = [m.sigma_bound for m in codec.entropy_models if m.sigma_bound is not None]
    return stage.sigma_bound is None or all(
        float(bound) == np.float32(stage.sigma_bound) for bound in bounds
    )


def export_codec(
    codec: Codec,
    experiment: Experiment,
    path: str,
    metrics: dict | None = None,
    version: int = container.VERSION,
    max_pixels: int = container.MAX_PIXELS,
    init_from: dict | None = None,
) -> None:
    """Writes both flavours of the exported model to `path`, atomically.

    Args:
      codec: the codec with its trained weights. Its entropy models compute in float32. For files of
        version 2 it becomes exact, see `tfquant/exact.py`.
      experiment: the experiment, recorded in the manifest.
      path: the folder to write. An existing exported model is replaced.
      metrics: results of the last validation, for the manifest.
      version: version of the files that the model is for. Files of version 2 decode on every
        machine. Version 1 is for a model that has to read older files.
      max_pixels: limit of the pictures that the model writes or reads.
      init_from: the record of the run that gave the first weights, for the manifest; None if there
        is none.

    Raises:
      ValueError: something other than an exported model exists at `path`, the version is 1 and the
        codec is exact or has a range of rates, or the limit is below 1.
    """
    max_pixels = container.checked_limit(max_pixels)
    is_model = files.exists(tf.io.gfile.join(path, manifest_file.MANIFEST))
    if files.exists(path) and not is_model:
        raise ValueError(f"refusing to overwrite {path}: it exists and is not an exported model")
    if version == 1:
        if codec.gain is not None:
            raise ValueError(f"{path}: files of version 1 hold no quality, which this model needs")
        if exact.is_exact(codec):
            raise ValueError(f"{path}: an exact codec makes no files of version 1")
    elif not exact.is_exact(codec):
        exact.become_exact(codec)
    real = exact.real_weights(codec) if version > 1 else []
    if real:
        logging.warning(
            "%s: its files decode only where the arithmetic is that of the encoder, because these"
            " weights are real numbers: %s; build their layers with tfquant.layers.exact",
            files.shown(path), first_few(real, 3),
        )  # fmt: skip
    recorded = json.loads(experiment.to_json())
    qualities = quality.range_of(recorded)
    full = CodecModule(codec, max_pixels=max_pixels, qualities=qualities)
    manifest = {
        "format": manifest_file.FORMAT if version > 1 else manifest_file.FORMAT_OF_VERSION_1,
        "version": tfquant.__version__,
        "codec": codec.name,
        "fingerprint": full.fingerprint(),
        "precision": codec.parts()["g_s"].compute_dtype,
        "metrics": metrics or {},
        "max_pixels": max_pixels,
        "experiment": recorded,
        **({"init_from": init_from} if init_from is not None else {}),
    }
    with files.new_folder(path) as partial:
        coder = stack.coder()
        if coder.kind == stack.OPERATIONS:
            _save(full, manifest, manifest_file.FULL, partial)
        else:
            logging.info(
                "%s: the SavedModel evaluates pictures but does not code them (%s);"
                " tfquant compress and decompress work with it on every stack",
                files.shown(path), coder.source,
            )  # fmt: skip
            _save(PortableModule(full), manifest, manifest_file.PORTABLE, partial)
        files.write(tf.io.gfile.join(partial, table_file.NAME), table_file.dump(full.tables))
        if version > 1:
            files.write(tf.io.gfile.join(partial, exact.NAME), exact.dump(codec))
        served = StockModule(codec, full.tables, qualities, max_pixels, full.transforms)
        _save(served, manifest, manifest_file.STOCK, tf.io.gfile.join(partial, manifest_file.STOCK))


def _save(module: tf.Module, manifest: dict, flavour: str, path: str) -> None:
    """Saves one flavour's SavedModel, with its manifest as a file and as the signature `about`."""
    text = json.dumps({**manifest, "flavour": flavour}, indent=2) + "\n"
    module.about = stock.about(text)
    signatures = {**module.signatures(), "about": module.about}
    with files.as_oserror(path), _without_chatter():
        tf.saved_model.save(module, path, signatures)
    files.write(tf.io.gfile.join(path, manifest_file.MANIFEST), text)


@contextlib.contextmanager
def _without_chatter() -> Iterator[None]:
    """Hides TensorFlow's message about every captured tensor to which it has assigned a name."""

    def told_by_others(record: LogRecord) -> bool:
        return record.module not in ("signature_serialization", "fingerprinting_utils")

    logger = logging.get_absl_logger()
    logger.addFilter(told_by_others)
    try:
        yield
    finally:
        logger.removeFilter(told_by_others)
