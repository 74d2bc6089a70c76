"""Tests that the sums of exact layers equal integer arithmetic, in any order of summation."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfquant.contexts import checkerboard
from tfquant.contexts.causal import NEIGHBOURS, CausalConv
from tfquant.layers import exact
from tfquant.legacy_keras import keras

C_IN, C_OUT = 12, 5


def _layer(kind, channels=C_IN):
    keras.utils.set_random_seed(1)
    made = {
        "conv": lambda: exact.Conv2D(C_OUT, 5, padding="same", activation="relu"),
        "strided conv": lambda: exact.Conv2D(C_OUT, 3, 2, padding="same"),
        "deconv": lambda: exact.Conv2DTranspose(C_OUT, 5, 2, padding="same"),
        "dense": lambda: exact.Dense(C_OUT),
        "causal": lambda: CausalConv(C_OUT),
        "checkerboard": lambda: checkerboard.CheckerboardConv(C_OUT),
    }[kind]()
    made(tf.zeros([1, 4, 4, channels]))
    rng = np.random.default_rng(2)
    made.bias.assign(rng.normal(0, 0.3, made.bias.shape))
    return made


KINDS = ("conv", "strided conv", "deconv", "dense", "causal", "checkerboard")


def _input(channels=C_IN, scale=3.0, seed=0, size=(6, 8)):
    rng = np.random.default_rng(seed)
    return rng.normal(0, scale, (1, *size, channels)).astype(np.float32)


def _seen(x):
    seen = exact.Seen()
    seen.add(x)
    return [seen]


def _in_int64(layer, x):
    """Computes the layer's integers in NumPy's int64. Returns the output and the integer sums."""
    integers = layer.integers
    scaled = np.rint(x.astype(np.float64) * np.ldexp(1.0, integers.inputs))
    numbers = np.clip(scaled, integers.low, integers.high).astype(np.int64)
    weights = layer.factors.numpy()
    assert np.all(weights == np.rint(weights)) and np.abs(weights).max() <= 2047
    sums = _SUMS[type(layer)](layer, numbers, weights.astype(np.int64))
    sums = sums + layer.bias.numpy().astype(np.int64)
    if getattr(layer, "activation", None) is keras.activations.relu:
        sums = np.maximum(sums, 0)
    return sums * np.ldexp(1.0, -integers.outputs), sums


def _conv_sums(layer, x, kernel):
    side, stride = kernel.shape[0], layer.strides[0]
    height, width = (-(-n // stride) for n in x.shape[1:3])
    total = [max((n - 1) * stride + side - m, 0) for n, m in zip((height, width), x.shape[1:3])]
    padded = np.pad(x, [(0, 0), *((t // 2, t - t // 2) for t in total), (0, 0)])
    out = np.zeros((1, height, width, kernel.shape[-1]), np.int64)
    for i in range(height):
        for j in range(width):
            window = padded[0, i * stride : i * stride + side, j * stride : j * stride + side]
            out[0, i, j] = np.tensordot(window, kernel, 3)
    return out


def _deconv_sums(layer, x, kernel):
    """Adds, for every input, its kernel around its position, 5x5 with stride 2."""
    _, height, width, _ = x.shape
    out = np.zeros((1, 2 * height + 3, 2 * width + 3, kernel.shape[2]), np.int64)
    for i in range(height):
        for j in range(width):
            out[0, 2 * i : 2 * i + 5, 2 * j : 2 * j + 5] += kernel @ x[0, i, j]
    return out[:, 1 : 1 + 2 * height, 1 : 1 + 2 * width]


def _window_sums(places):
    def sums(layer, x, kernel):
        del layer
        _, height, width, _ = x.shape
        out = np.zeros((1, height, width, kernel.shape[-1]), np.int64)
        for tap, (row, column) in zip(kernel, places):
            for i in range(height):
                for j in range(width):
                    if 0 <= i + row < height and 0 <= j + column < width:
                        out[0, i, j] += x[0, i + row, j + column] @ tap
        return out

    return sums


def _checkerboard_sums(layer, anchors, kernel):
    places = [(i - 2, j - 2) for i in range(5) for j in range(5) if (i + j) % 2]
    whole = checkerboard.merge(anchors, np.zeros_like(anchors)).numpy()
    return checkerboard.split(_window_sums(places)(layer, whole, kernel))[1].numpy()


_SUMS = {
    exact.Conv2D: _conv_sums,
    exact.Conv2DTranspose: _deconv_sums,
    exact.Dense: lambda layer, x, kernel: x @ kernel,
    CausalConv: _window_sums(NEIGHBOURS),
    checkerboard.CheckerboardConv: _checkerboard_sums,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_gives_what_int64_gives(kind):
    layer, x = _layer(kind), _input()
    layer.become_exact(_seen(x))
    expected, _ = _in_int64(layer, x)
    np.testing.assert_array_equal(layer(x), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_keeps_close_to_real_arithmetic(kind):
    layer, x = _layer(kind), _input()
    real = layer(x).numpy()
    layer.become_exact(_seen(x))
    error = layer(x).numpy() - real
    assert 0 < np.sqrt(np.mean(error**2)) < 0.01 * np.sqrt(np.mean(real**2))


@pytest.mark.parametrize("kind", KINDS)
def test_no_input_makes_a_sum_inexact(kind):
    """Uses inputs far outside the calibrated range, with the signs of the largest sums."""
    layer, x = _layer(kind), _input(size=(12, 12))
    layer.become_exact(_seen(x))
    largest = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        signs = np.sign(rng.normal(size=C_IN))
        x = np.broadcast_to(1e6 * signs.astype(np.float32), (1, 12, 12, C_IN))
        expected, sums = _in_int64(layer, x)
        np.testing.assert_array_equal(layer(x), expected)
        largest.append(np.abs(sums).max())
    assert max(largest) < 2**24


def test_the_limit_of_the_sums_is_used():
    """Tests that the sum with the signs of one output's weights is near 2**24 and not above."""
    layer, x = _layer("dense"), _input()
    layer.become_exact(_seen(x))
    kernel = layer.kernel.numpy()
    sums = []
    for output in range(C_OUT):
        worst = 1e6 * np.sign(kernel[:, output])
        _, found = _in_int64(layer, worst[None].astype(np.float32))
        sums.append(found[0, output])
    assert 2**21 < max(np.abs(sums)) < 2**24


def test_the_order_of_the_channels_does_not_matter():
    """Also checks that it does matter in real arithmetic."""
    layer, x = _layer("dense", 600), _input(600)
    other, order = _layer("dense", 600), np.random.default_rng(3).permutation(600)

    def outputs():
        other.kernel.assign(layer.kernel.numpy()[order])
        other.bias.assign(layer.bias)
        return layer(x).numpy(), other(x[..., order]).numpy()

    real, reordered = outputs()
    assert np.any(real != reordered)
    layer.become_exact(_seen(x))
    integers = layer.integers
    by_input = {name: getattr(integers, name)[order] for name in ("inputs", "low", "high")}
    other.integers = exact.dataclasses.replace(integers, **by_input)
    np.testing.assert_array_equal(*outputs())


def test_many_channels_are_summed_in_groups():
    layer, x = _layer("conv", 400), _input(400)
    real = layer(x).numpy()
    layer.become_exact(_seen(x))
    assert layer.integers.groups[0] > 1
    expected, _ = _in_int64(layer, x)
    np.testing.assert_array_equal(layer(x), expected)
    error = layer(x).numpy() - real
    assert np.sqrt(np.mean(error**2)) < 0.03 * np.sqrt(np.mean(real**2))


def test_parts_of_different_size_keep_their_precision():
    layer = _layer("dense")
    layer.parts = np.array([4, 8])
    x = np.concatenate([_input(4, 1e-3), _input(8, 100.0, 1)], axis=-1)
    layer.kernel.assign(tf.concat([1e5 * layer.kernel[:4], layer.kernel[4:]], 0))
    real = layer(x).numpy()
    layer.become_exact([*_seen(x[..., :4]), *_seen(x[..., 4:])])
    error = layer(x).numpy() - real
    assert np.sqrt(np.mean(error**2)) < 0.01 * np.sqrt(np.mean(real**2))


def test_whole_inputs_are_not_rounded():
    layer = _layer("dense")
    x = np.rint(_input())
    layer.become_exact(_seen(x))
    assert np.all(layer.integers.inputs == 0)


def test_a_layer_without_input_or_weights_becomes_exact():
    layer = _layer("dense")
    layer.kernel.assign(0 * layer.kernel)
    layer.become_exact(_seen(np.zeros((1, C_IN), np.float32)))
    np.testing.assert_allclose(layer(_input())[0, 0, 0], layer.bias / 2.0**layer.integers.outputs)
