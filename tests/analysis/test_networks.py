"""Many networks in parallel."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfquant.analysis import networks


@pytest.mark.parametrize("widths", [(2, 5, 4), (1, 5, 1)])
def test_copies_are_independent_perceptrons(widths):
    side_by_side = networks.Perceptrons(3, widths, seed=1)
    x = np.random.default_rng(0).standard_normal([7, 3, widths[0]]).astype(np.float32)
    found = side_by_side(tf.constant(x)).numpy()
    first, second = (k.numpy() for k in side_by_side.kernels)
    bias = side_by_side.biases[0].numpy()[0]
    for s in range(3):
        hidden = x[:, s] @ first[s] + bias[s]
        expected = np.where(hidden > 0, hidden, 0.2 * hidden) @ second[s]
        np.testing.assert_allclose(found[:, s], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_no_graph_contains_a_pattern_that_onednn_computes_wrongly(monkeypatch, onednn):
    """Searches with `tests/onednn_patterns.py`. Plain products would contain its pattern (b)."""

    def defects():
        transform = networks.Residual(2, width=4)
        one_unit, two_units = (networks.Perceptrons(2, (n, 4, 4, n)) for n in (1, 2))

        @tf.function(autograph=False)
        def gradients(x):
            with tf.GradientTape(persistent=True) as tape:
                tape.watch(x)
                losses = [tf.reduce_sum(transform(x) ** 2)]
                inputs = tf.stack([x, x], axis=-1)
                losses += [tf.reduce_sum(one_unit(inputs[..., :1]) ** 2)]
                losses += [tf.reduce_sum(two_units(inputs) ** 2)]
            of = [transform, one_unit, two_units]
            return [tape.gradient(loss, [x, *n.variables]) for loss, n in zip(losses, of)]

        return onednn.in_traced(gradients.get_concrete_function(tf.TensorSpec([5, 2])).graph)

    assert not defects()
    monkeypatch.setattr(
        networks, "_product", lambda x, kernel: tf.einsum("nsi,sio->nso", x, kernel)
    )
    found = defects()
    assert found and all(text.startswith("(b)") for text in found)


def test_training_finds_a_line_for_each_copy():
    affine = networks.Affine(2)
    slopes, shifts = tf.constant([2.0, -1.0]), tf.constant([0.5, 3.0])
    seen = tf.Variable(0, dtype=tf.int64)

    def loss(step):
        x = tf.random.stateless_normal([64, 2], tf.stack([step, 0]))
        return tf.reduce_sum(tf.reduce_mean(tf.square(affine(x) - slopes * x - shifts), axis=0))

    networks.train(
        loss, list(affine.trainable_variables), 330, 0.05, after=lambda: seen.assign_add(1)
    )
    np.testing.assert_allclose(affine.slope, slopes, atol=0.02)
    np.testing.assert_allclose(affine.shift, shifts, atol=0.02)
    assert seen.numpy() == 350  # whole rounds of 50


def test_residual_transforms_start_near_a_line():
    transform = networks.Residual(2, tf.constant([2.0, 0.5]))
    x = tf.constant(np.linspace(-1, 1, 9, dtype=np.float32)[:, None].repeat(2, axis=1))
    assert np.abs(transform(x) / tf.constant([2.0, 0.5]) - x).max() < 1.0
    assert transform(x).shape == (9, 2)
