"""Groups and checkerboards: the dependencies of each half, and the number of parameters."""

import numpy as np
import pytest
import tensorflow as tf
from tfquant.models.elic import group_sizes

from tfquant import models
from tfquant.exchange import Rounding
from tfquant.legacy_keras import keras
from tfquant.quantization.surrogates import Sample

N, M = 8, 24
SIZES = (2, 2, 4, 8, 8)
STARTS = np.cumsum((0, *SIZES))


@pytest.fixture(scope="module", name="codec", params=["elic_sm_zero", "elic_zero"])
def _codec(request):
    keras.utils.set_random_seed(0)
    return models.build(request.param, N=N, M=M)


def latent(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 4, (1, 8, 8, M)).astype(np.float32)


@pytest.fixture(scope="module", name="before")
def _before(codec, parameters):
    """Entropy parameters of `latent()`, the reference that the tests modify."""
    return parameters(codec, latent())


def halves_moved(before, after):
    """Returns (group, half) of all halves with changed parameters; half 0: anchors, 1: others."""
    changed = np.any(before != after, axis=(0, 1))
    parity = np.indices((8, 8)).sum(axis=0) % 2
    return {
        (k, half)
        for k in range(5)
        for half in range(2)
        if np.any(changed[..., STARTS[k] : STARTS[k + 1]][parity == half])
    }


@pytest.mark.parametrize("k", [0, *(pytest.param(k, marks=pytest.mark.slow) for k in range(1, 5))])
@pytest.mark.parametrize("half,row,column", [(0, 3, 3), (1, 3, 4)])
def test_an_element_affects_only_later_halves(codec, parameters, before, k, half, row, column):
    """Checks that an anchor affects the others of its group and later groups, and an other only
    these.
    """
    y = latent()
    y[:, row, column, STARTS[k] : STARTS[k + 1]] += 3.0
    moved = halves_moved(before, parameters(codec, y))
    later = {(j, h) for j in range(k + 1, 5) for h in range(2)}
    assert moved == later | ({(k, 1)} if half == 0 else set())


def test_an_anchor_affects_the_odd_places_of_its_5x5_window(codec, parameters, before):
    y = latent()
    y[:, 3, 3, :2] += 3.0
    changed = np.any(before != parameters(codec, y), axis=(0, 1))[..., :2].any(axis=-1)
    rows, columns = np.indices((8, 8)) - 3
    window = (np.abs(rows) <= 2) & (np.abs(columns) <= 2) & ((rows + columns) % 2 != 0)
    np.testing.assert_array_equal(changed, window)


def test_anchors_get_zeros_instead_of_features_and_their_bias(codec, parameters, before):
    """Checks that the bias of the features affects only the parameters of the others."""
    bias = codec.context.g_sp[4].bias
    kept = bias.numpy()
    bias.assign_add(tf.ones_like(bias))
    try:
        assert halves_moved(before, parameters(codec, latent())) == {(4, 1)}
    finally:
        bias.assign(kept)


def test_all_but_the_first_anchors_see_the_context(codec, parameters, before, other_context):
    moved = halves_moved(before, parameters(codec, latent(), other_context()))
    assert moved == {(k, half) for k in range(5) for half in range(2)} - {(0, 0)}


def test_latents_parameters_and_bits_keep_their_positions(codec):
    y, exchange = latent(), Rounding()
    y_hat = codec.transmit(y, exchange)
    (raw,) = exchange.params["y"]
    np.testing.assert_allclose(y_hat - raw[..., :M], np.rint(y - raw[..., :M]), atol=1e-5)
    paid, bits = exchange.bits["y"].numpy(), codec.y_model.bits(Sample(y_hat), raw).numpy()
    cheap = bits < 20  # an escape bounds what the others cost
    assert np.mean(cheap) > 0.5
    np.testing.assert_allclose(paid[cheap], bits[cheap], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "width,sizes",
    [
        (320, (16, 16, 32, 64, 192)),
        (192, (16, 16, 32, 64, 64)),
        (24, (2, 2, 4, 8, 8)),
        (191, (15, 15, 30, 60, 71)),
        (12, (1, 1, 2, 4, 4)),
    ],
)
def test_groups_are_the_papers_from_192_channels_on(width, sizes):
    assert group_sizes(width) == sizes and sum(sizes) == width


def test_a_latent_too_narrow_for_five_groups_is_refused():
    with pytest.raises(ValueError, match="ELIC's groups need M to be 12 or more, got 11"):
        models.build("elic_zero", N=8, M=11)


def conv(kernel, inputs, outputs):
    return kernel * kernel * inputs * outputs + outputs


def bottleneck(width):
    return conv(1, width, width // 2) + conv(3, width // 2, width // 2) + conv(1, width // 2, width)


def attention(width):
    return 6 * bottleneck(width) + conv(1, width, width)


@pytest.mark.slow
@pytest.mark.parametrize("name,blocks,attentions", [("elic_zero", 3, 1), ("elic_sm_zero", 1, 0)])
def test_parameters_are_as_many_as_the_papers_layers_have(name, blocks, attentions):
    """Compares with sizes from the paper's figures, and from CompressAI where the paper gives
    none.
    """
    transforms = conv(5, 3, 192) + 2 * conv(5, 192, 192) + conv(5, 192, 320)
    transforms += conv(5, 320, 192) + 2 * conv(5, 192, 192) + conv(5, 192, 3)
    transforms += 2 * 3 * blocks * bottleneck(192)
    transforms += attentions * 2 * (attention(192) + attention(320))
    hyper = conv(3, 320, 192) + 2 * conv(5, 192, 192)
    hyper += conv(5, 192, 192) + conv(5, 192, 288) + conv(3, 288, 640)
    context = 0
    for before, size in zip((0, 16, 32, 64, 128), (16, 16, 32, 64, 192)):
        features = 2 * size if before else 0
        if before:
            context += conv(5, before, 224) + conv(5, 224, 128) + conv(5, 128, 2 * size)
        context += 12 * size * 2 * size + 2 * size  # 12 of a 5x5 window's 25 places
        context += conv(1, 640 + features + 2 * size, 640) + conv(1, 640, 512)
        context += conv(1, 512, 2 * size)
    codec = models.build(name)
    count = sum(v.shape.num_elements() for v in codec.trainable_variables)
    assert count == transforms + hyper + context + 192 * 43
    if name == "elic_zero":
        # Size of CompressAI's `elic2022-chandelier`, layer by layer. Its `g_ch` uses the first
        # group and the last one. It has masked kernels in `g_sp`, and 61 parameters per channel in
        # the density.
        unseen = 5 * 5 * (16 + 48) * 224
        masked = 13 * sum(2 * size * size for size in (16, 16, 32, 64, 192))
        assert count - unseen + masked + 192 * (61 - 43) == 33_792_771
