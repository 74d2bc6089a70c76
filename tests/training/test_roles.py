"""Tests the classification of the fields of an experiment."""

from __future__ import annotations

import dataclasses

import pytest

from tfquant import models
from tfquant.quantization.plans import PLANS
from tfquant.training import roles, schedules
from tfquant.training.experiment import STAGES, Experiment, Stage
from tfquant.training.losses import feature_term

SMALL = {"N": 8, "M": 40}


def test_every_field_of_an_experiment_is_classified():
    """Whoever adds a field adds a role that says whether it identifies a curve."""
    assert roles.ROLES.keys() == {field.name for field in dataclasses.fields(Experiment)}


@pytest.mark.slow
@pytest.mark.parametrize("name", models.CODECS)
def test_the_properties_of_a_codec_are_those_of_its_entropy_models(name):
    codec = models.build(name, **SMALL)
    found = {
        roles.HYPER: any(model.is_hyper for model in codec.entropy_models),
        roles.SIGMA: any(model.sigma_bound is not None for model in codec.entropy_models),
        roles.ZERO_CENTER: any(getattr(m, "zero_center", False) for m in codec.entropy_models),
        roles.CONTEXT: hasattr(codec, "context"),
    }
    assert {name for name, has in found.items() if has} == set(roles.PROPERTIES[name])


@pytest.fixture(name="mine")
def _mine(monkeypatch):
    """A stage as a user may register it: it reads fields of three stages of this package."""

    def mine(e):
        return Stage(
            name="mine", steps=e.joint_steps, plan=PLANS["sua_ste"],
            learning_rate=schedules.learning_rate("cosine", 1e-3, e.joint_steps),
            alpha=schedules.annealing(e.alpha_min, e.alpha_max, e.joint_steps),
            sigma_bound=e.joint_sigma_bound,
            loss={"bpp": 1.0, **e.distortion_loss(), feature_term(e.qr_distance): e.qr_weight},
        )  # fmt: skip

    monkeypatch.setitem(STAGES, "mine", mine)
    return "mine"


def test_a_stage_that_is_registered_elsewhere_may_read_every_field_of_a_stage(mine):
    experiment = Experiment(stages=(mine,), plan="aun", qr_weight=0.0)
    assert experiment.rectified
    assert roles.without_effect(vars(experiment)).keys() == {"quality_levels", "background"}
    # It cannot read what the codec does not have, and a known start still gives the weights.
    factorized = Experiment(stages=(mine,), codec="factorized", init_from="run")
    idle = roles.without_effect(vars(factorized))
    assert {"start", "stop_gradient", "joint_sigma_bound"} < idle.keys()
    assert "alpha_max" not in idle


@pytest.mark.parametrize("field", ["train_images", "background", "downscale"])
def test_null_in_a_record_is_the_empty_value(field):
    values = {**vars(Experiment()), field: None}
    assert roles.normal(values) == roles.normal(vars(Experiment()))
    assert roles.without_effect(values) == roles.without_effect(vars(Experiment()))


def test_a_reason_says_why_a_field_has_no_effect():
    found = roles.without_effect(vars(Experiment(codec="ms_hyper", plan="mix")))
    assert found["alpha_max"] == (
        "no branch of the plan is annealed (aun:pathwise, round:straight_through)"
    )
    assert found["qr_soft_steps"] == "no stage qr_soft is trained"
    assert found["stop_gradient"] == "ms_hyper does not have zero-center quantization"
    assert "post_steps" not in found and "lmbda" not in found
