"""Tests a serial context front by front, against all elements at once and real files."""

import numpy as np
import pytest
import tensorflow as tf

from tfquant.contexts.serial import SerialContext
from tfquant.entropy.conditional import ConditionalModel
from tfquant.exchange import Reading, Rounding, Surrogates, Writing
from tfquant.legacy_keras import keras
from tfquant.quantization.plans import PLANS

M, F = 4, 6
SIZES = [(1, 1), (1, 7), (5, 1), (4, 2), (2, 3), (4, 6), (7, 3), (6, 8), (2, 12)]


@pytest.fixture(scope="module", params=["gaussian", "mixture"], name="parts")
def _parts(request):
    """Returns (context, entropy model, its tables) whose outputs depend on preceding elements."""
    keras.utils.set_random_seed(0)
    model = ConditionalModel(request.param, zero_center=False)
    context = SerialContext(M, model.outputs, (16, 12))
    context(tf.zeros([1, 2, 2, F]), tf.zeros([1, 2, 2, M]))
    return context, model, {"y": model.coding_table()}


def latent(size, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.normal(0, 2, (1, *size, M)).astype(np.float32)
    return tf.constant(y), tf.constant(rng.normal(size=(1, *size, F)).astype(np.float32))


@pytest.fixture(scope="module", name="coder")
def _coder(parts):
    """Returns `write(y, features)` and `read(streams, features, shape)` for latents of any size."""
    context, model, tables = parts
    y, features = (tf.TensorSpec([1, None, None, channels]) for channels in (M, F))
    streams, shape = tf.TensorSpec([None], tf.string), tf.TensorSpec([4], tf.int32)

    @tf.function(input_signature=[y, features], autograph=False)
    def write(y, features):
        writing = Writing(tables)
        received = context.transmit(y, writing, model, features)
        return writing.streams(), received.distortion, writing.bits_per_image()

    @tf.function(input_signature=[streams, features, shape], autograph=False)
    def read(streams, features, shape):
        reading = Reading(tables, streams, {"y": shape})
        received = context.transmit(None, reading, model, features)
        return received.distortion, reading.symbols[0]

    return write, read


class Counting(Rounding):
    """Counts the steps of a serial evaluation."""

    steps = 0

    def send(self, *args):
        self.steps += 1
        return super().send(*args)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_fronts_are_rounded_written_and_read_bit_for_bit_as_all_at_once(parts, coder, size):
    """Tests that the number of steps equals the number of fronts."""
    context, model, tables = parts
    write, read = coder
    y, features = latent(size)
    streams, written, bits = write(y, features)
    np.testing.assert_array_equal(written, np.rint(y))
    decoded, integers = read(streams, features, tf.shape(y))
    np.testing.assert_array_equal(decoded, written)
    np.testing.assert_array_equal(integers, np.rint(y))
    spent = 8 * sum(map(len, streams.numpy()))
    assert abs(spent - bits[0]) <= 0.005 * bits[0] + 64

    at_once, by_fronts = Rounding(), Counting(tables)
    context.transmit(y, at_once, model, features)
    context.transmit(y, by_fronts, model, features)
    np.testing.assert_allclose(by_fronts.bits_per_image(), bits, rtol=1e-6)
    assert by_fronts.steps == size[1] + 3 * (size[0] - 1)
    usual = at_once.bits["y"] < 5  # no escapes
    assert np.mean(usual) > 0.5
    np.testing.assert_allclose(
        by_fronts.bits["y"][usual], at_once.bits["y"][usual], rtol=2e-3, atol=2e-3
    )


def test_the_context_sees_the_surrogate_in_training(parts):
    """Tests that the rate's gradient also reaches the latent through later elements."""
    context, model, _ = parts
    y, features = latent((4, 6))
    with tf.GradientTape() as tape:
        tape.watch(y)
        exchange = Surrogates(PLANS["aun"], tf.constant(1.0), 0, tf.constant([0], tf.int64))
        context.transmit(y, exchange, model, features)
        last = tf.reduce_sum(exchange.bits["y"][:, -1, -1])
    gradient = np.any(tape.gradient(last, y).numpy() != 0, axis=-1)[0]
    window = np.zeros((4, 6), bool)
    window[1:3, 3:] = window[3, 3:] = True
    np.testing.assert_array_equal(gradient, window)


def test_replaying_takes_one_picture_at_a_time(parts):
    context, model, tables = parts
    y, features = latent((2, 3))
    with pytest.raises(tf.errors.InvalidArgumentError, match="one picture at a time"):
        y, features = (tf.concat([t, t], axis=0) for t in (y, features))
        context.transmit(y, Rounding(tables), model, features)
