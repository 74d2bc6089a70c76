"""The exported model that the tests of this folder share."""

from __future__ import annotations

import types
from pathlib import Path

import pytest
import tensorflow as tf

from tfquant import models
from tfquant.export.model_file import ExportedModel
from tfquant.export.writing import export_codec
from tfquant.legacy_keras import keras
from tfquant.training.experiment import Experiment

EXPERIMENT = Experiment(
    codec="ms_hyper_zero", codec_options={"N": 8, "M": 12}, lmbda=0.0036,
    stages=("qr_predictive",), init_from="baseline", rectifier_width=8, rectifier_depth=1,
)  # fmt: skip


@pytest.fixture(scope="session")
def shared() -> types.SimpleNamespace:
    """The metrics and the limit of pixels in the manifest of the shared model."""
    return types.SimpleNamespace(metrics={"R": 0.5, "psnr": 31.0}, max_pixels=1 << 20)


@pytest.fixture(scope="session")
def export(made_once, stir, shared) -> Path:
    """An export of an untrained codec with a rectifier, in the folder of a run named `mine`.

    Every function that decodes must apply the rectifier.
    """

    def make(folder):
        keras.utils.set_random_seed(0)
        codec = models.build("ms_hyper_zero", N=8, M=12)
        codec.add_rectifier(8, 1)
        stir(codec.rectifier)
        path = str(folder / "mine" / "export")
        export_codec(codec, EXPERIMENT, path, shared.metrics, max_pixels=shared.max_pixels)

    return made_once("shared export", make) / "mine" / "export"


@pytest.fixture(scope="session")
def saved(export) -> ExportedModel:
    """The shared model, loaded once: loading takes seconds."""
    return ExportedModel.load(export)


@pytest.fixture
def loaded_already(saved, export, monkeypatch) -> None:
    """`tf.saved_model.load` returns the shared model's SavedModel, and loads no other."""
    monkeypatch.setattr(tf.saved_model, "load", {str(export): saved._functions}.__getitem__)
