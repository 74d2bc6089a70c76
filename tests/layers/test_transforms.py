"""Layers, shapes, precision and start of the transforms."""

import numpy as np
import pytest
import tensorflow as tf

from tfquant.layers import transforms
from tfquant.layers.blocks import (
    Attention,
    PictureDeconv,
    PreciseConv,
    ResidualBlock,
    ResidualDown,
    ResidualUnit,
    ResidualUp,
    SubpixelConv,
)
from tfquant.layers.exact import Conv2D, Conv2DTranspose
from tfquant.layers.gdn import GDN
from tfquant.legacy_keras import keras

KINDS = ["plain", "res", "res_attn", "elic_sm", "elic"]
N, M = 8, 12


@pytest.fixture(scope="module", name="pairs")
def _pairs():
    tf.random.set_seed(0)
    return {kind: (transforms.analysis(kind, N, M), transforms.synthesis(kind, N, M))
            for kind in KINDS}  # fmt: skip


def picture(height=64, width=32):
    rng = np.random.default_rng(0)
    return tf.constant(rng.uniform(size=(1, height, width, 3)), tf.float32)


def test_both_directions_offer_the_same_kinds():
    assert list(transforms.ANALYSIS) == list(transforms.SYNTHESIS) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_latents_have_a_sixteenth_of_the_pictures_sides(kind, pairs):
    g_a, g_s = pairs[kind]
    y = g_a(picture())
    assert y.shape == (1, 4, 2, M)
    assert g_s(y).shape == (1, 64, 32, 3)
    assert (g_a.name, g_s.name) == ("g_a", "g_s")


def kinds_of(network, *wanted):
    return [type(layer) for layer in network.layers if type(layer) in wanted]


def test_plain_is_four_5x5_layers_with_gdn_between(pairs):
    g_a, g_s = pairs["plain"]
    for network, inverse in ((g_a, False), (g_s, True)):
        convolutions, normalizations = network.layers[::2], network.layers[1::2]
        assert [c.kernel_size for c in convolutions] == 4 * [(5, 5)]
        assert [c.strides for c in convolutions] == 4 * [(2, 2)]
        assert [n.inverse for n in normalizations] == 3 * [inverse]
    assert [c.filters for c in g_a.layers[::2]] == [N, N, N, M]
    assert [c.filters for c in g_s.layers[::2]] == [N, N, N, 3]


@pytest.mark.parametrize("kind,attentions", [("res", 0), ("res_attn", 2)])
def test_residual_transforms_halve_and_double_in_residual_blocks(kind, attentions, pairs):
    """Compares with Cheng et al. (2020), figure 4; attention after the second stage and at the
    latent.
    """
    g_a, g_s = pairs[kind]
    assert kinds_of(g_a, ResidualDown, ResidualBlock) == 3 * [ResidualDown, ResidualBlock]
    assert kinds_of(g_s, ResidualUp, ResidualBlock) == [
        *3 * [ResidualBlock, ResidualUp], ResidualBlock,
    ]  # fmt: skip
    assert isinstance(g_s.layers[-1], SubpixelConv)
    for network in (g_a, g_s):
        assert len(kinds_of(network, Attention)) == attentions
        assert not kinds_of(network, GDN)
    if attentions:
        assert isinstance(g_a.layers[-1], Attention) and isinstance(g_s.layers[1], Attention)


@pytest.mark.parametrize("kind,blocks,attention", [("elic_sm", 1, []), ("elic", 3, [Attention])])
def test_elic_is_four_5x5_layers_with_bottlenecks_between(kind, blocks, attention, pairs):
    """Compares with He et al. (2022), figure 3; attention after the second stage and at the
    latent.
    """
    g_a, g_s = pairs[kind]
    down, up = Conv2D, Conv2DTranspose
    stage = blocks * [ResidualUnit]
    assert [type(layer) for layer in g_a.layers] == [
        down, *stage, down, *stage, *attention, down, *stage, PreciseConv, *attention,
    ]  # fmt: skip
    assert [type(layer) for layer in g_s.layers] == [
        *attention, up, *stage, up, *attention, *stage, up, *stage, PictureDeconv,
    ]  # fmt: skip
    kinds = keras.layers.Conv2D, keras.layers.Conv2DTranspose
    for network, kind, ends in ((g_a, kinds[0], M), (g_s, kinds[1], 3)):
        layers = [layer for layer in network.layers if isinstance(layer, kind)]
        assert [layer.filters for layer in layers] == [N, N, N, ends]
        assert {(layer.kernel_size, layer.strides) for layer in layers} == {((5, 5), (2, 2))}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_linear_start_is_a_transform_and_its_inverse(kind, photograph):
    """Checks that wide transforms lose nothing, except by nonlinearities and noise on the
    weights.
    """
    tf.random.set_seed(0)
    g_a, g_s = transforms.analysis(kind, 24, 48), transforms.synthesis(kind, 24, 48)
    x = photograph[None, :64, :64].astype(np.float32) / 255
    x_hat = g_s(g_a(x))
    # 0.09 to 0.24. Leaky ReLUs distort most, depending on the picture.
    assert np.mean((x_hat - x) ** 2) < 0.3 * np.var(x)


@pytest.mark.parametrize("kind", KINDS)
def test_latents_are_not_rounded_to_the_networks_precision(kind):
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        g_a = transforms.analysis(kind, N, M)
        y = g_a(picture())
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert y.dtype == tf.float32
    assert np.mean(y != tf.cast(tf.cast(y, tf.bfloat16), tf.float32)) > 0.9
    assert g_a.layers[0].compute_dtype == "bfloat16"


@pytest.mark.parametrize("kind", KINDS)
def test_latents_spread_over_bins_before_any_training(kind, pairs, photograph):
    """Guards against a standard deviation far below a bin, which would be lost in the noise."""
    y = pairs[kind][0](photograph[None, :64, :64].astype(np.float32) / 255)
    assert np.std(y) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_untrained_reconstructions_are_not_far_beyond_pictures(kind, pairs, photograph):
    """Guards against inverse GDN, which squares large values three times."""
    g_a, g_s = pairs[kind]
    assert np.std(g_s(g_a(photograph[None, :64, :64].astype(np.float32) / 255))) < 100


@pytest.mark.parametrize("kind", KINDS)
def test_synthesis_starts_at_mid_grey(kind, pairs):
    y = tf.zeros([1, 4, 4, M])
    np.testing.assert_allclose(pairs[kind][1](y), 0.5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_papers_start_is_glorots_kernels_no_biases_and_the_usual_gdn(kind):
    """Checks uniform weights up to sqrt(6 / (fan in + fan out)) in every layer, with no equal
    layers.
    """
    tf.random.set_seed(0)
    for network, first in (
        (transforms.analysis(kind, N, M), picture()),
        (transforms.synthesis(kind, N, M), tf.zeros([1, 4, 2, M])),
    ):
        network(first)
        linear = [w.numpy() for w in network.weights]
        transforms.start_at_random(network)
        kernels, drawn = [], []
        for weight in network.weights:
            value, name = weight.numpy(), weight.name.split("/")[-1].split(":")[0]
            if name == "kernel":
                limit = np.sqrt(6 / np.prod(value.shape[:2]) / sum(value.shape[2:]))
                assert np.abs(value).max() <= limit
                kernels.append(value.ravel()[:24])
                drawn.append(value.ravel() / limit)
            elif name == "gamma_root":
                np.testing.assert_allclose(value**2, 0.1 * np.eye(len(value)), atol=2e-6)
            else:
                assert np.all(value == (name == "beta_root")), name
        drawn = np.concatenate(drawn)
        assert np.std(drawn) == pytest.approx(1 / np.sqrt(3), rel=0.02)
        assert abs(np.mean(drawn)) < 0.03
        assert len({k.tobytes() for k in kernels}) == len(kernels)
        changed = [np.any(a != b) for a, b in zip(linear, network.weights)]
        assert sum(changed) > len(kernels)
        assert np.all(np.isfinite(network(first)))


def test_an_unknown_kind_lists_the_choices():
    message = "unknown transform 'big'; known: plain, res, res_attn"
    for make in (transforms.analysis, transforms.synthesis):
        with pytest.raises(ValueError, match=message):
            make("big", N, M)
