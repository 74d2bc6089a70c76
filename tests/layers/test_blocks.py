"""Convolutions and residual blocks, compared with their definitions in plain operations."""

import numpy as np
import pytest
import tensorflow as tf

from tfquant.layers import blocks, klt
from tfquant.legacy_keras import keras


def features(height=8, width=6, channels=4, seed=0):
    rng = np.random.default_rng(seed)
    return tf.constant(rng.normal(0, 1, (2, height, width, channels)), tf.float32)


def scrambled(layer, x):
    """Returns the built layer with random weights. Biases would otherwise be zero."""
    layer(x)
    rng = np.random.default_rng(1)
    for weight in layer.weights:
        weight.assign_add(rng.normal(0, 0.1, weight.shape))
    return layer


def level(inputs, outputs):
    """Returns a level of the linear start with the given numbers of channels and components."""
    return klt.levels((outputs,))[0] if inputs == 3 else klt.levels((inputs, outputs))[1]


def leaky(x):
    return np.where(x > 0, x, 0.01 * x)


def test_the_leaky_slope_is_the_references_one_hundredth():
    x = np.linspace(-3, 3, 13, dtype=np.float32)
    np.testing.assert_allclose(blocks.leaky_relu()(x), leaky(x), rtol=1e-6)


def test_leaky_relu_has_a_gradient_in_bfloat16_graphs():
    @tf.function
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.reduce_sum(blocks.leaky_relu()(x))
        return tape.gradient(y, x)

    x = tf.cast([-2.0, 3.0], tf.bfloat16)
    np.testing.assert_allclose(tf.cast(gradient(x), tf.float32), [0.01, 1.0], rtol=1e-2)


def test_a_residual_sum_stays_outside_of_its_convolution(onednn):
    x, conv = features(), blocks.conv(4, 3)
    conv(x)
    assert not onednn.run(lambda x: blocks.residual(x, conv(x)), x)[1]


@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_and_their_transposes_scale_by_the_stride(stride):
    x = features()
    assert blocks.conv(3, 5, stride)(x).shape == (2, 8 // stride, 6 // stride, 3)
    assert blocks.deconv(3, 5, stride)(x).shape == (2, 8 * stride, 6 * stride, 3)


def test_precise_values_are_float32_and_their_gradients_of_the_policys_type():
    x = tf.cast(features(channels=16), tf.bfloat16)
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        precise, coarse = blocks.PreciseConv(4, 5, 2), blocks.conv(4, 5, 2)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    scrambled(precise, x), coarse(x)
    coarse.set_weights(precise.get_weights())
    values, gradients = [], []
    for layer in (precise, coarse):
        with tf.GradientTape() as tape:
            tape.watch(x)
            values.append(tf.cast(layer(x), tf.float32))
            loss = tf.reduce_sum(tf.range(4, dtype=tf.float32) * values[-1])
        gradients.append([tf.cast(g, tf.float32) for g in tape.gradient(loss, [x, layer.kernel])])
    expected = tf.nn.conv2d(tf.cast(x, tf.float32), precise.kernel, 2, "SAME") + precise.bias
    np.testing.assert_allclose(values[0], expected, atol=1e-5)
    assert np.abs(values[1] - expected).max() > 1e-3
    for a, b in zip(*gradients):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (8, 6)])
def test_the_deconvolution_to_pictures_is_the_transposed_convolution(size):
    x = features(*size)
    layer = scrambled(blocks.PictureDeconv(), x)
    kernel, bias = layer.weights
    assert kernel.shape == (5, 5, 3, 4) and (layer.kernel_size, layer.strides) == ((5, 5), (2, 2))
    with tf.GradientTape(persistent=True) as tape:
        y = layer(x)
        expected = tf.nn.conv2d_transpose(x, kernel, y.shape, 2, "SAME") + bias
        losses = [tf.reduce_sum(tf.sin(v)) for v in (y, expected)]
    np.testing.assert_allclose(y, expected, atol=1e-5)
    for weight in (kernel, bias):
        a, b = (tape.gradient(loss, weight) for loss in losses)
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_subpixel_convolution_interleaves_channels_into_pixels():
    x = features()
    layer = scrambled(blocks.SubpixelConv(3), x)
    wide = layer.conv(x).numpy()
    y = layer(x).numpy()
    assert y.shape == (2, 16, 12, 3)
    for row in range(2):
        for column in range(2):
            part = wide[..., 3 * (2 * row + column) :][..., :3]
            np.testing.assert_array_equal(y[:, row::2, column::2], part)


def test_a_residual_block_adds_its_input():
    x = features()
    block = scrambled(blocks.ResidualBlock(4), x)
    assert block.skip is None
    first, _, second, _ = block.main.layers
    expected = leaky(second(leaky(first(x).numpy()))) + x.numpy()
    np.testing.assert_allclose(block(x), expected, atol=1e-5)


def test_a_residual_block_projects_where_widths_differ():
    x = features()
    block = scrambled(blocks.ResidualBlock(6), x)
    kernel, bias = (w.numpy() for w in block.skip.weights)
    np.testing.assert_allclose(block(x) - block.main(x), x @ kernel[0, 0] + bias, atol=1e-5)


@pytest.mark.parametrize("channels", [3, 16])
def test_the_downsampling_shortcut_is_a_1x1_convolution_of_stride_2(channels):
    x = features(channels=channels)
    block = scrambled(blocks.ResidualDown(level(channels, 8)), x)
    kernel, bias = block.skip.weights
    strided = tf.nn.conv2d(x, kernel, 2, "SAME") + bias
    np.testing.assert_allclose(block(x) - block.main(x), strided, atol=1e-5)


def test_the_downsampling_shortcuts_gradient_leaves_the_memory_intact(fresh_python):
    """Checks that the process survives: oneDNN's gradient of a strided 1x1 convolution would end
    it.
    """
    fresh_python("""
        import tensorflow as tf
        from tfquant.layers import klt
        from tfquant.layers.blocks import ResidualDown

        block = ResidualDown(klt.levels((8,))[0])
        x = tf.random.stateless_normal([4, 64, 64, 3], [0, 0])
        for _ in range(10):
            with tf.GradientTape() as tape:
                y = tf.reduce_sum(block(x) ** 2)
            gradients = tape.gradient(y, block.trainable_variables)
        assert all(bool(tf.reduce_all(tf.math.is_finite(g))) for g in gradients)
    """)


def test_the_upsampling_block_adds_a_subpixel_projection():
    x = features()
    block = scrambled(blocks.ResidualUp(level(5, 4)), x)
    y = block(x)
    assert y.shape == (2, 16, 12, 5)
    np.testing.assert_allclose(y, block.main(x) + block.skip(x), atol=1e-5)
    assert block.main.layers[-1].inverse


def test_attention_adds_its_trunk_gated_by_its_mask():
    x = features()
    attention = scrambled(blocks.Attention(), x)
    gate = 1.0 / (1.0 + np.exp(-attention.mask(x).numpy()))
    np.testing.assert_allclose(attention(x), x + attention.trunk(x) * gate, atol=1e-5)


def test_the_attention_unit_is_a_bottleneck_without_a_final_activation():
    x = features()
    unit = scrambled(blocks.ResidualUnit(), x)
    down, middle, up = unit.main.layers
    shapes = [layer.kernel.shape for layer in unit.main.layers]
    assert shapes == [(1, 1, 4, 2), (3, 3, 2, 2), (1, 1, 2, 4)]
    hidden = middle(down(x))
    assert np.min(hidden) == 0 and np.min(down(x)) == 0
    kernel, bias = (w.numpy() for w in up.weights)
    np.testing.assert_allclose(unit(x), x + hidden @ kernel[0, 0] + bias, atol=1e-5)


def test_blocks_of_small_gain_start_close_to_a_multiple_of_their_input():
    tf.random.set_seed(0)
    x = features(channels=16)
    for block, multiple in (
        (blocks.ResidualUnit(0.01), 1.0),
        (blocks.Attention(0.01), blocks.ATTENTION_START),
    ):
        assert 0 < np.std(block(x) - multiple * x) < 0.02


def test_attention_on_latents_stays_float32_under_a_mixed_policy():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        attention = blocks.Attention(dtype="float32")
        y = attention(features())
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert y.dtype == tf.float32
    assert np.any(y != tf.cast(tf.cast(y, tf.bfloat16), tf.float32))
    inner = {layer.compute_dtype for layer in attention.mask.layers + attention.trunk.layers}
    assert inner == {"float32"}
