"""The base codec: padding, cropping, shapes and parts, with networks that are easy to check."""

import numpy as np
import pytest
import tensorflow as tf

from tfquant.codec import Codec, pad_to_multiple
from tfquant.legacy_keras import keras

SIZES = [(1, 1), (17, 33), (64, 64), (100, 37), (128, 65)]


class Blocks(Codec):
    """A codec whose `g_a` stacks the pixels of 16x16 blocks and whose `g_s` inverts it without
    loss.
    """

    def __init__(self):
        super().__init__(name="blocks", dtype="float32")
        self.g_a = keras.layers.Lambda(lambda x: tf.nn.space_to_depth(x, 16))
        self.g_s = keras.layers.Lambda(lambda y: tf.nn.depth_to_space(y, 16))
        self.h_s = keras.layers.Dense(2)

    def latent_channels(self):
        return {"y": (16, 768), "z": (64, 5)}

    def transmit(self, y, exchange):
        return y


@pytest.fixture(scope="module", name="codec")
def _codec():
    return Blocks()


def picture(height, width, batch=2):
    rng = np.random.default_rng(height + width)
    return rng.uniform(size=(batch, height, width, 3)).astype(np.float32)


@pytest.mark.parametrize("size", SIZES)
def test_padding_repeats_the_last_row_and_column(size):
    x = picture(*size)
    margins = [(0, 0), *((0, -side % 64) for side in size), (0, 0)]
    expected = np.pad(x, margins, mode="edge")
    np.testing.assert_array_equal(pad_to_multiple(tf.constant(x), 64), expected)
    unknown_sizes = tf.function(
        lambda x: pad_to_multiple(x, 64), input_signature=[tf.TensorSpec([None, None, None, 3])]
    )
    np.testing.assert_array_equal(unknown_sizes(x), expected)


def test_padding_leaves_multiples_alone():
    x = tf.constant(picture(64, 128))
    assert pad_to_multiple(x, 64) is x


@pytest.mark.parametrize("size", SIZES)
def test_the_crop_undoes_the_padding_exactly(codec, size):
    x = picture(*size)
    np.testing.assert_array_equal(codec(x, exchange=None), x)


@pytest.mark.parametrize("size", SIZES)
def test_a_decoder_knows_the_latents_shapes_from_the_pictures_size(codec, size):
    y = codec.analyze(picture(*size, batch=1))
    shapes = codec.latent_shapes(*(tf.constant(side) for side in size))
    assert shapes["y"].dtype == tf.int32
    np.testing.assert_array_equal(shapes["y"], y.shape)
    np.testing.assert_array_equal(shapes["z"], [1, y.shape[1] // 4, y.shape[2] // 4, 5])


def test_latents_and_pictures_are_float32_for_any_networks(codec):
    half = Blocks()
    half.g_a = keras.layers.Lambda(lambda x: tf.cast(tf.nn.space_to_depth(x, 16), tf.bfloat16))
    half.g_s = keras.layers.Lambda(lambda y: tf.cast(tf.nn.depth_to_space(y, 16), tf.bfloat16))
    x = picture(64, 64)
    assert half.analyze(x).dtype == half(x, exchange=None).dtype == tf.float32


def test_all_other_parts_belong_to_the_entropy_group(codec):
    assert codec.parts() == {"g_a": codec.g_a, "g_s": codec.g_s, "h_s": codec.h_s}
    assert codec.group("encoder") == {"g_a": codec.g_a}
    assert codec.group("decoder") == {"g_s": codec.g_s}
    assert codec.group("entropy") == {"h_s": codec.h_s}
    with pytest.raises(ValueError, match="'context'; known: encoder, entropy, decoder"):
        codec.group("context")
