"""Tests the classification of the fields of an experiment."""

from __future__ import annotations

import dataclasses

import pytest

from tfquant import models
from tfquant.training import roles
from tfquant.training.experiment import Experiment

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


def test_a_stage_that_is_registered_elsewhere_may_read_every_field_of_a_stage():
    values = {**vars(Experiment()), "stages": ("decoder_only",)}
    assert not roles.Effects(values).reason("joint_learning_rate")


def test_a_reason_says_why_a_field_has_no_effect():
    found = roles.without_effect(vars(Experiment(codec="ms_hyper", plan="mix")))
    assert found["alpha_max"] == (
        "no branch of the plan is annealed (aun:pathwise, round:straight_through)"
    )
    assert found["qr_soft_steps"] == "no stage qr_soft is trained"
    assert found["stop_gradient"] == "ms_hyper does not have zero-center quantization"
    assert "post_steps" not in found and "lmbda" not in found
