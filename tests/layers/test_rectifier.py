"""The rectifier: starts as the identity, can learn from there, float32 under any policy."""

import numpy as np
import pytest
import tensorflow as tf

from tfquant.layers.rectifier import QuantizationRectifier
from tfquant.legacy_keras import keras


def latent(seed=0, channels=6):
    """Returns y: [2, 8, 8, channels], smooth in space like a latent, with a range of a few bins."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 3, (2, 3, 3, channels))
    return tf.image.resize(coarse, (8, 8), "bicubic")


@pytest.mark.parametrize("width,depth", [(2, 0), (8, 1), (16, 3)])
def test_a_new_rectifier_is_the_identity_bit_for_bit(width, depth):
    y_hat = tf.round(latent()) + 0.3
    np.testing.assert_array_equal(QuantizationRectifier(width, depth)(y_hat), y_hat)


def test_a_new_rectifier_learns_at_its_last_layer_first_and_then_everywhere():
    rectifier, y = QuantizationRectifier(8, 1), latent()
    y_hat = tf.round(y)

    def gradients():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(y - rectifier(y_hat)))
        return tape.gradient(loss, rectifier.trainable_variables)

    rectifier(y_hat)
    last = {id(v) for v in rectifier.last.variables}
    for variable, gradient in zip(rectifier.trainable_variables, gradients()):
        assert np.any(gradient) == (id(variable) in last), variable.name
    rectifier.last.kernel.assign_add(
        tf.random.stateless_normal(rectifier.last.kernel.shape, [1, 2], stddev=0.01)
    )
    for variable, gradient in zip(rectifier.trainable_variables, gradients()):
        assert np.any(gradient), variable.name


@pytest.mark.slow
def test_training_reduces_quantization_error_on_unseen_latents():
    """Uses smooth fields, whose neighbours allow a partial prediction of the rounding errors."""
    keras.utils.set_random_seed(0)
    rectifier = QuantizationRectifier(16, 1)
    optimizer = keras.optimizers.Adam(1e-2)
    train = tf.concat([latent(seed) for seed in range(1, 97)], 0)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(train - rectifier(tf.round(train))))
        variables = rectifier.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))

    for _ in range(100):
        step()
    y = latent(0)
    before = np.mean(np.square(y - tf.round(y)))
    after = np.mean(np.square(y - rectifier(tf.round(y))))
    assert after < 0.8 * before


@pytest.mark.slow
@pytest.mark.parametrize("depth", [0, 1])
def test_no_graph_contains_a_pattern_that_onednn_computes_wrongly(onednn, depth):
    """Checks that the sum is not fused into the last convolution; see
    `tests/onednn_patterns.py`.
    """
    y = latent()
    rectifier = QuantizationRectifier(8, depth)
    rectifier(y)

    def gradients(y):
        with tf.GradientTape() as tape:
            tape.watch(y)
            loss = tf.reduce_mean(tf.square(rectifier(y)))
        return tape.gradient(loss, [y, *rectifier.trainable_variables])

    for function in (rectifier, gradients):
        assert not onednn.run(lambda y, function=function: function(y), y)[1]


def test_the_sum_is_float32_under_bfloat16_networks():
    """Uses a magnitude of 20, where bfloat16 would round to eighths."""
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        rectifier = QuantizationRectifier(8, 1)
        y_hat = 20.0 + latent()
        y_bar = rectifier(y_hat)
    finally:
        keras.mixed_precision.set_global_policy(before)
    assert rectifier.trunk.layers[0].compute_dtype == "bfloat16"
    assert y_bar.dtype == tf.float32
    np.testing.assert_array_equal(y_bar, y_hat)


def test_width_and_depth_are_as_requested():
    """Counts convolutions by hand: 3x3 in and out, two per block, the attention's 18 and one."""
    rectifier = QuantizationRectifier(8, 2)
    rectifier(latent())
    kernels = [w.shape.as_list() for w in rectifier.trainable_variables if w.shape.rank == 4]
    units = 6 * [[1, 1, 8, 4], [3, 3, 4, 4], [1, 1, 4, 8]]
    expected = [[3, 3, 6, 8], *4 * [[3, 3, 8, 8]], *units, [1, 1, 8, 8], [3, 3, 8, 6]]
    assert sorted(kernels) == sorted(expected)


@pytest.mark.parametrize(
    "width,depth,message",
    [(1, 1, "width must be at least 2; got 1"), (8, -1, "depth must not be negative; got -1")],
)
def test_invalid_sizes_are_rejected(width, depth, message):
    with pytest.raises(ValueError, match=message):
        QuantizationRectifier(width, depth)
