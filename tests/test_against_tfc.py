"""Our own mathematics, compared with the package tensorflow-compression, if it is installed.

Only the classic stack has it. The default stack has only the operations of the coder.
"""

import numpy as np
import pytest
import tensorflow as tf

from tfquant.entropy.distributions import NoisyGaussian, NoisyGaussianMixture, NoisyLaplacian
from tfquant.entropy.factorized import Density, NoisyDensity
from tfquant.ops import gradients
from tfquant.quantization import rounding

tfc = pytest.importorskip("tensorflow_compression")


@pytest.fixture(name="densities")
def _densities():
    """Our density and theirs, with the same weights."""
    rng = np.random.default_rng(0)
    ours, theirs = Density(6, (3, 3, 3), 10.0), tfc.DeepFactorized((6,), (3, 3, 3), 10.0)
    for weight, same in zip(ours.trainable_variables, theirs.trainable_variables):
        np.testing.assert_allclose(weight.shape, same.shape)
        weight.assign_add(rng.normal(0, 0.3, weight.shape))
        same.assign(weight)
    return ours, theirs


def test_the_density_starts_as_theirs():
    tf.random.set_seed(1)
    ours = Density(6, (3, 3), 7.0)
    tf.random.set_seed(1)
    theirs = tfc.DeepFactorized((6,), (3, 3), 7.0)
    for weight, same in zip(ours.trainable_variables, theirs.trainable_variables):
        assert weight.name == same.name
        np.testing.assert_allclose(weight, same, rtol=1e-6)


def test_the_factorized_likelihood_and_its_gradients_are_theirs(densities):
    """Compares where theirs is exact: a few hundred bins on either side of the median."""
    v = tf.constant(np.linspace(-300, 300, 6 * 999).reshape(999, 6).astype(np.float32))
    results = []
    for prior, density in zip((NoisyDensity(densities[0]), tfc.UniformNoiseAdapter(densities[1])),
                              densities):  # fmt: skip
        with tf.GradientTape() as tape:
            tape.watch(v)
            log_p = prior.log_prob(v)
        results.append([log_p, *tape.gradient(log_p, [v, *density.trainable_variables])])
    (log_p, *ours), (expected, *theirs) = results
    np.testing.assert_allclose(log_p, expected, rtol=1e-5, atol=1e-4)
    for gradient, same in zip(ours, theirs):
        np.testing.assert_allclose(gradient, same, rtol=1e-3, atol=1e-3 * np.abs(same).max())


def test_conditional_likelihoods_are_theirs():
    rng = np.random.default_rng(3)
    loc, scale = rng.normal(size=(300, 3)), np.exp(rng.uniform(-2, 2, (300, 3)))
    v = loc[:, 0] + 3 * scale[:, 0] * rng.normal(size=300)
    for ours, theirs in ((NoisyGaussian, tfc.NoisyNormal), (NoisyLaplacian, tfc.NoisyLaplace)):
        expected = theirs(loc=loc[:, 0], scale=scale[:, 0]).log_prob(v)
        np.testing.assert_allclose(ours(loc[:, 0], scale[:, 0]).log_prob(v), expected, atol=5e-6)
    logits = rng.normal(size=(300, 3))
    theirs = tfc.NoisyNormalMixture(loc=loc, scale=scale, weight=tf.nn.softmax(logits))
    ours = NoisyGaussianMixture(logits, loc, scale)
    np.testing.assert_allclose(ours.log_prob(v), theirs.log_prob(v), atol=5e-6)


@pytest.mark.parametrize("alpha", [1.0, 5.0, 12.0])
def test_soft_rounds_are_theirs(alpha):
    v = np.random.default_rng(2).uniform(-3, 3, 4001).astype(np.float32)
    np.testing.assert_allclose(rounding.soft_round(v, alpha), tfc.soft_round(v, alpha), atol=1e-5)
    np.testing.assert_allclose(
        rounding.denoise(v, alpha), tfc.soft_round_conditional_mean(v, alpha), atol=2e-3
    )


@pytest.mark.parametrize("name", ["lower_bound", "upper_bound"])
def test_bounds_and_their_gradients_are_theirs(name):
    x = tf.constant([-1.0, 0.5, 0.5, 2.0, 2.0, -1.0])
    upstream = tf.constant([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    results = []
    for bound in (getattr(gradients, name), getattr(tfc, name)):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = bound(x, 0.5)
        results.append((y, tape.gradient(y, x, upstream)))
    for ours, theirs in zip(*results):
        np.testing.assert_array_equal(ours, theirs)
