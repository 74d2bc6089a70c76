"""Coding of codecs with groups. The tests of the codecs cover the dependencies of each group."""

import numpy as np
import pytest
import tensorflow as tf

from tfquant import models
from tfquant.exchange import Surrogates
from tfquant.legacy_keras import keras
from tfquant.quantization.plans import PLANS

M = 20


@pytest.fixture(
    scope="module", name="codec", params=["charm", "charm_zero", "elic_sm_zero", "elic_zero"]
)
def _codec(request):
    keras.utils.set_random_seed(0)
    return models.build(request.param, N=8, M=M)


@pytest.fixture(scope="module", name="y")
def _y():
    return np.random.default_rng(0).normal(0, 4, (1, 8, 4, M)).astype(np.float32)


@pytest.mark.slow
def test_training_with_rounding_predicts_the_same_parameters_as_evaluation(codec, y, parameters):
    """Uses the plan `mix`, which rounds contexts and distortion and has noise only in the rate."""
    exchange = Surrogates(PLANS["mix"], tf.constant(1.0), 0, tf.constant([3], tf.int64))
    trained = parameters(codec, y, exchange)
    np.testing.assert_allclose(trained, parameters(codec, y), rtol=1e-4, atol=1e-5)


def test_groups_see_the_context_and_the_synthesis_gets_the_distortion(
    codec, y, parameters, other_context
):
    shown = parameters(codec, y, other_context())
    assert np.max(np.abs(shown - parameters(codec, y))) > 1e-3
    assert np.max(np.abs(codec.transmit(y, other_context()) - y)) <= 0.5 + 1e-5
