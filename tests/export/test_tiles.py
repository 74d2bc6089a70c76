"""Transforms in tiles, compared with the transforms of the whole picture."""

import numpy as np
import pytest
import tensorflow as tf

from tfquant import models
from tfquant.data.pixels import to_float, to_uint8
from tfquant.export import tiles
from tfquant.layers import transforms
from tfquant.layers.gdn import GDN
from tfquant.legacy_keras import keras

SIDE = 128  # of the tiles; the margin of the attention of `elic` is larger
SIZES = [
    (1, 200),
    *(pytest.param(*size, marks=pytest.mark.slow) for size in [(129, 300), (257, 65)]),
]
WIDTHS = {"N": 8, "M": 12}
# Kind of the transforms -> the smallest codec with them.
CODECS = {
    "plain": ("ms_hyper_zero", {}),
    "res": ("ms_hyper_zero", {"g_a": "res", "g_s": "res"}),
    "res_attn": ("ms_hyper_zero", {"g_a": "res_attn", "g_s": "res_attn"}),
    "elic_sm": ("elic_sm_zero", {}),
    "elic": ("elic_zero", {}),
}


@pytest.fixture(scope="module", params=CODECS, name="codec")
def _codec(request):
    """A codec whose weights are random, so that every input of a kernel counts."""
    keras.utils.set_random_seed(0)
    name, options = CODECS[request.param]
    codec = models.build(name, **WIDTHS, **options)
    for transform in (codec.g_a, codec.g_s):
        transforms.start_at_random(transform)
    return codec


def test_every_kind_of_transform_is_tested():
    assert set(CODECS) == set(transforms.ANALYSIS) == set(transforms.SYNTHESIS)


def whole_latent(codec, picture):
    return codec.analyze(to_float(tf.constant(picture)[None])).numpy()


def largest_difference(a, b):
    return np.abs(a - b).max() / np.abs(b).max()


@pytest.mark.parametrize("height,width", SIZES)
def test_tiles_give_the_latent_of_the_whole_picture(codec, height, width, make_photograph):
    picture = make_photograph(height, width)
    y = tiles.analyze(codec, tf.constant(picture), side=SIDE).numpy()
    whole = whole_latent(codec, picture)
    assert y.shape == whole.shape
    # A kernel may add in another order for another size.
    assert largest_difference(y, whole) < 1e-5


@pytest.mark.parametrize("height,width", SIZES)
def test_tiles_give_the_pixels_of_the_whole_picture(codec, height, width):
    rows, columns = (-(-side // 64) * 4 for side in (height, width))
    y_bar = tf.random.stateless_normal([1, rows, columns, WIDTHS["M"]], [0, 0], stddev=3.0)
    made = tiles.synthesize(codec, y_bar, height, width, side=SIDE).numpy().astype(int)
    whole = to_uint8(codec.synthesize(y_bar, height, width)[0]).numpy().astype(int)
    assert made.shape == whole.shape == (height, width, 3)
    assert np.ptp(whole) > 10  # not one colour
    difference = np.abs(made - whole)
    assert difference.max() <= 1 and difference.mean() < 1e-3


def test_a_tile_without_margin_differs(codec, make_photograph, monkeypatch):
    """Tests that the tests above can fail."""
    monkeypatch.setattr(tiles, "_margin", lambda *_: 0)
    picture = make_photograph(129, 300)
    y = tiles.analyze(codec, tf.constant(picture), side=SIDE).numpy()
    assert largest_difference(y, whole_latent(codec, picture)) > 1e-3


def test_a_picture_within_one_tile_has_equal_bits(codec, make_photograph):
    picture = make_photograph(100, 120)
    y = tiles.analyze(codec, tf.constant(picture), side=SIDE).numpy()
    np.testing.assert_array_equal(y, whole_latent(codec, picture))


def test_a_transform_of_unknown_reach_is_computed_as_a_whole(make_photograph):
    class Blur(keras.layers.Layer):
        def call(self, x):
            return tf.nn.avg_pool2d(x, 3, 1, "SAME")

    codec = models.build("factorized", **WIDTHS)
    codec.g_a.layers.insert(0, Blur())
    picture = make_photograph(129, 300)
    y = tiles.analyze(codec, tf.constant(picture), side=SIDE).numpy()
    np.testing.assert_array_equal(y, whole_latent(codec, picture))


@pytest.fixture(scope="module", name="linear")
def _linear():
    """A codec with integer weights and without GDN: its sums are exact in any order."""
    codec = models.build("ms_hyper_zero", **WIDTHS)
    rng = np.random.default_rng(0)
    for transform in (codec.g_a, codec.g_s):
        for layer in transform.layers:
            if isinstance(layer, GDN):
                layer.call = tf.identity
            else:
                layer.kernel.assign(rng.integers(-1, 2, layer.kernel.shape) * 2.0**-4)
                layer.bias.assign(tf.zeros_like(layer.bias))
    return codec


@pytest.mark.slow
@pytest.mark.parametrize("height,width,side", [(150, 330, 64), (65, 70, 64), (257, 129, 192)])
def test_exact_sums_give_equal_bits_in_tiles_and_in_graphs(linear, height, width, side):
    picture = np.random.default_rng(1).choice(np.uint8([0, 255]), (height, width, 3))
    whole = whole_latent(linear, picture)
    analyze = tf.function(
        lambda image: tiles.analyze(linear, image, side=side),
        input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)],
    )
    np.testing.assert_array_equal(analyze(picture), whole)
    assert np.ptp(whole) > 0.1
    y_bar = tf.round(8.0 * whole / np.abs(whole).max())
    synthesize = tf.function(
        lambda y_bar, height, width: tiles.synthesize(linear, y_bar, height, width, side=side),
        input_signature=[
            tf.TensorSpec([1, None, None, WIDTHS["M"]]), *2 * [tf.TensorSpec([], tf.int32)]
        ],
    )  # fmt: skip
    expected = to_uint8(linear.synthesize(y_bar, height, width)[0])
    np.testing.assert_array_equal(synthesize(y_bar, height, width), expected)
    assert np.ptp(expected) > 10
