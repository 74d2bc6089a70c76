"""GDN, compared with its formula in NumPy: values, bounds, precision."""

import numpy as np
import pytest
import tensorflow as tf

from tfquant.layers import gdn
from tfquant.layers.gdn import GDN


def features(channels=5, seed=0):
    return np.random.default_rng(seed).normal(0, 2, (2, 3, 4, channels)).astype(np.float32)


def randomized(layer, x):
    """Returns the layer with random weights, and its beta [C] and gamma [C, C]."""
    layer(x)
    rng = np.random.default_rng(1)
    for weight in layer.trainable_variables:
        weight.assign(rng.uniform(0.05, 1.0, weight.shape))
    return np.square(layer.beta_root.numpy()), np.square(layer.gamma_root.numpy())


@pytest.mark.parametrize("inverse", [False, True])
def test_it_divides_by_the_root_of_beta_plus_gamma_x_squared(inverse):
    """Compares with `x_i / sqrt(beta_i + sum_j gamma_ji x_j^2)`; the inverse multiplies."""
    x, layer = features(), GDN(inverse=inverse)
    beta, gamma = randomized(layer, x)
    norm = np.sqrt(beta + np.square(x.astype(np.float64)) @ gamma)
    np.testing.assert_allclose(layer(x), x * norm if inverse else x / norm, rtol=2e-5)


def test_it_starts_near_the_diagonal():
    x, layer = features(), GDN(gamma=0.1)
    layer(x)
    beta, gamma = np.square(layer.beta_root.numpy()), np.square(layer.gamma_root.numpy())
    np.testing.assert_allclose(beta, 1.0)
    np.testing.assert_allclose(gamma, 0.1 * np.eye(5), atol=2e-6)
    assert np.all(layer.gamma_root.numpy() > 0)  # a square has no slope at zero


def test_weights_below_their_bound_count_as_the_bound_and_can_leave_it():
    x, layer = features(), GDN()
    layer(x)
    layer.beta_root.assign(tf.fill([5], -0.3))
    layer.gamma_root.assign(tf.fill([5, 5], -0.3))
    norm = np.sqrt(1e-6 + 1e-6 * np.square(x).sum(-1, keepdims=True))
    np.testing.assert_allclose(layer(x), x / norm, rtol=1e-4)
    with tf.GradientTape(persistent=True) as tape:
        total = tf.reduce_sum(tf.abs(layer(x)))
        opposite = -total
    for weight in layer.trainable_variables:
        # A larger norm makes outputs smaller, so descent on `total` raises the weights.
        assert np.all(tape.gradient(total, weight) < 0)
        assert not np.any(tape.gradient(opposite, weight))


@pytest.mark.parametrize("inverse", [False, True])
def test_its_gradient_is_a_finite_difference(inverse):
    x, layer = features(3), GDN(inverse=inverse)
    randomized(layer, x)
    with tf.GradientTape() as tape:
        tape.watch(x := tf.constant(x))
        loss = tf.reduce_sum(tf.sin(layer(x)))
    gradients = tape.gradient(loss, [x, *layer.trainable_variables])
    rng = np.random.default_rng(2)
    for index, gradient in enumerate(gradients):
        direction = rng.normal(size=gradient.shape).astype(np.float32)
        values = []
        for step in (1e-2, -1e-2):
            if index == 0:
                values.append(float(tf.reduce_sum(tf.sin(layer(x + step * direction)))))
            else:
                weight = layer.trainable_variables[index - 1]
                weight.assign_add(step * direction)
                values.append(float(tf.reduce_sum(tf.sin(layer(x)))))
                weight.assign_sub(step * direction)
        slope = np.sum(gradient.numpy() * direction)
        np.testing.assert_allclose(slope, (values[0] - values[1]) / 2e-2, rtol=2e-2, atol=2e-3)


def test_it_computes_in_the_precision_of_its_input_with_float32_weights():
    layer = GDN(dtype="mixed_bfloat16")
    x = features()
    y = layer(x)
    assert y.dtype == tf.bfloat16
    assert {weight.dtype for weight in layer.weights} == {tf.float32}
    reference = GDN()
    reference(x)
    np.testing.assert_allclose(tf.cast(y, tf.float32), reference(x), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("inverse", [False, True])
def test_a_large_picture_in_strips_gives_the_same_result(inverse, monkeypatch):
    layer = GDN(inverse)
    x = tf.random.stateless_normal([2, 7, 9, 5], [1, 2])
    whole = layer(x)
    monkeypatch.setattr(gdn, "_LARGE", 100)
    of_any_size = tf.function(layer, input_signature=[tf.TensorSpec([None, None, None, 5])])
    np.testing.assert_allclose(of_any_size(x), whole, rtol=1e-6)
