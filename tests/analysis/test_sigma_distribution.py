"""Fig. 8a: the scales of a codec that is restored from a run's checkpoint."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tensorflow as tf

from tfquant import models
from tfquant.analysis import sigma_distribution
from tfquant.analysis.experiment import AnalysisError, Progress
from tfquant.data.images import write_image
from tfquant.exchange import Rounding
from tfquant.training import folder
from tfquant.training.checkpoint import RunCheckpoint
from tfquant.training.experiment import Experiment
from tfquant.training.trainer import Trainer

OPTIONS = {"N": 8, "M": 8}


def save_run(path, codec_name="ms_hyper_zero"):
    experiment = Experiment(codec=codec_name, codec_options=OPTIONS, plan="mix")
    folder.prepare(str(path), experiment)
    trainer = Trainer(models.build(codec_name, **OPTIONS), experiment)
    trainer.begin(experiment.all_stages()[0])
    RunCheckpoint(str(path), trainer).save(0, 1)
    return trainer.codec


@pytest.fixture
def trained(tmp_path, photograph):
    write_image(tmp_path / "picture.png", photograph)
    return save_run(tmp_path / "run"), tmp_path


def test_the_scales_are_those_of_the_restored_codec_without_its_bound(trained, photograph):
    codec, tmp_path = trained
    codec.y_model.set_sigma_bound(1e-6)
    exchange = Rounding()
    codec(tf.constant(photograph[None] / np.float32(255)), exchange)
    expected = codec.y_model.sigma(*exchange.params["y"]).numpy().ravel()
    found = sigma_distribution.sigmas(str(tmp_path / "run"), [photograph])
    np.testing.assert_allclose(np.sort(found), np.sort(expected), rtol=1e-5)


def test_shares_add_up_and_the_run_is_named(trained):
    _, tmp_path = trained
    settings = sigma_distribution.EXPERIMENT.settings(
        model_dirs=(str(tmp_path / "run"),), images=str(tmp_path / "picture.png")
    )
    result = sigma_distribution.run(settings, Progress("test"))
    assert sum(r["share"] for r in result.rows) == pytest.approx(1.0)
    assert {(r["run"], r["plan"]) for r in result.rows} == {("run", "mix")}
    assert "| run | ms_hyper_zero | mix |" in re.sub(" +", " ", result.notes)


@pytest.mark.slow
def test_a_folder_without_run_and_a_codec_without_scales_are_refused(tmp_path, photograph):
    with pytest.raises(AnalysisError, match="is not a training run: it has no experiment.json"):
        sigma_distribution.sigmas(str(tmp_path), [])
    save_run(tmp_path / "factorized", "factorized")
    with pytest.raises(AnalysisError, match="the codec factorized predicts no sigma for y"):
        sigma_distribution.sigmas(str(tmp_path / "factorized"), [photograph])
