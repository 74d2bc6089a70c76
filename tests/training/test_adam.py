"""`tfquant.training.adam`, compared with Keras' Adam and its wrapper for float16."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from tfquant.legacy_keras import keras
from tfquant.training.adam import Adam

RATE = keras.optimizers.schedules.PolynomialDecay(0.1, 10)


def weights(rng):
    return [tf.Variable(rng.normal(size=shape).astype(np.float32)) for shape in ((3, 4), (5,))]


def gradients(rng, size=1.0):
    return [tf.constant(size * rng.normal(size=s), tf.float32) for s in ((3, 4), (5,))]


def clipping_keras(rate):
    return keras.optimizers.Adam(rate, global_clipnorm=1.0)


def trained(optimizer, apply, steps=5):
    rng = np.random.default_rng(0)
    trained = weights(rng)
    optimizer.build(trained)
    step = tf.function(lambda gradients: apply(optimizer, gradients, trained))
    for number in range(steps):
        step(gradients(rng, size=0.1 + number))
    return trained, optimizer, step.get_concrete_function(gradients(rng))


def keras_step(optimizer, gradients, weights):
    optimizer.apply_gradients(zip(gradients, weights))


def our_step(optimizer, gradients, weights):
    return optimizer.step(tf.constant(1.0), gradients, weights)


def everything(optimizer, weights):
    return [v.numpy() for v in [*weights, *optimizer.variables]]


def test_weights_and_moments_are_those_of_keras_adam():
    """Includes clipped and unclipped gradients."""
    ours, our_optimizer, _ = trained(Adam(RATE, clip_norm=1.0), our_step)
    theirs, their_optimizer, _ = trained(clipping_keras(RATE), keras_step)
    for a, b in zip(everything(our_optimizer, ours), everything(their_optimizer, theirs)):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("devices", [[], ["a GPU"]])
def test_each_weight_adds_three_operations_to_the_graph(devices, monkeypatch):
    """Also checks that Keras does not compile every weight's update separately, as it would on a
    GPU.
    """
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: devices)

    def operations(count):
        some = [tf.Variable(tf.ones([3])) for _ in range(count)]
        optimizer = Adam(RATE, clip_norm=1.0)
        optimizer.build(some)
        step = tf.function(lambda g: optimizer.step(tf.constant(1.0), g, some))
        graph = step.get_concrete_function([tf.ones([3])] * count).graph
        return [op.type for op in graph.get_operations() if op.type != "Placeholder"]

    few, more = map(collections.Counter, (operations(2), operations(3)))
    assert more - few == {"L2Loss": 1, "MulNoNan": 1, "ResourceApplyAdam": 1}


def test_gradients_are_not_applied_without_the_check():
    optimizer, some = Adam(1e-3, scales_loss=True), weights(np.random.default_rng(0))
    with pytest.raises(RuntimeError, match="use Adam.step to apply gradients"):
        optimizer.apply_gradients(zip(gradients(np.random.default_rng(1)), some))


def test_replicas_take_and_skip_the_same_steps(fresh_python):
    """Runs in a graph on two devices; the second step's gradient is NaN on one of them."""
    fresh_python(
        """
        import numpy as np, tensorflow as tf
        from tfquant.training.adam import Adam

        two = [tf.config.LogicalDeviceConfiguration()] * 2
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, two)
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        with strategy.scope():
            weights = [tf.Variable([1.0, 2.0]), tf.Variable([[3.0]])]
            optimizer = Adam(0.1, clip_norm=1.0, scales_loss=True)
            optimizer.build(weights)

        def step(broken):
            context = tf.distribute.get_replica_context()
            first = context.replica_id_in_sync_group == 0
            bad = tf.where(broken & first, np.nan, 1.0)
            with tf.GradientTape() as tape:
                loss = bad * tf.add_n([tf.reduce_sum(tf.square(w)) for w in weights])
                scaled = optimizer.scaled(loss)
            gradients = context.all_reduce("SUM", tape.gradient(scaled, weights))
            return optimizer.step(context.all_reduce("SUM", loss), gradients, weights)

        run = tf.function(lambda broken: strategy.run(step, (broken,)))
        seen = []
        for broken in (False, True, False):
            finite = strategy.experimental_local_results(run(tf.constant(broken)))
            assert [bool(f) for f in finite] == [not broken] * 2
            copies = [strategy.experimental_local_results(w) for w in weights]
            assert all(np.array_equal(a, b) for a, b in copies)
            state = (optimizer.iterations.numpy(), optimizer.loss_scale.numpy())
            seen.append((*state, copies[0][0].numpy().tolist()))
        assert [s[:2] for s in seen] == [(1, 2.0**15), (1, 2.0**14), (2, 2.0**14)]
        assert seen[0][2] == seen[1][2] != seen[2][2]
        """
    )


@pytest.mark.parametrize(
    "loss, gradient", [(np.inf, 1.0), (1.0, np.nan), (1.0, -np.inf), (1.0, 1e30)]
)
@pytest.mark.parametrize("clip_norm", [1.0, None])
def test_a_non_finite_step_changes_nothing(loss, gradient, clip_norm):
    """Uses 1e30, which is finite, but whose square is not."""
    rng = np.random.default_rng(1)
    optimizer, some = Adam(RATE, clip_norm=clip_norm), weights(rng)
    assert optimizer.step(tf.constant(1.0), gradients(rng), some)
    before = everything(optimizer, some)
    wrong = gradients(rng)
    wrong[0] = tf.tensor_scatter_nd_update(wrong[0], [[1, 2]], [gradient])
    assert not optimizer.step(tf.constant(loss), wrong, some)
    for a, b in zip(everything(optimizer, some), before):
        np.testing.assert_array_equal(a, b)
    assert optimizer.step(tf.constant(1.0), gradients(rng), some)
    assert optimizer.iterations.numpy() == 2


@pytest.mark.slow
def test_the_loss_is_scaled_as_keras_scales_it():
    """Checks that the scale is halved after overflow and doubled after 2,000 good steps."""
    rng = np.random.default_rng(2)
    ours, theirs = weights(np.random.default_rng(3)), weights(np.random.default_rng(3))
    optimizer = Adam(1e-3, scales_loss=True)
    reference = keras.mixed_precision.LossScaleOptimizer(keras.optimizers.Adam(1e-3))

    @tf.function
    def both(gradients):
        scaled = [optimizer.scaled(g) for g in gradients]
        optimizer.step(tf.constant(1.0), scaled, ours)
        scaled = [reference.get_scaled_loss(g) for g in gradients]
        reference.apply_gradients(zip(reference.get_unscaled_gradients(scaled), theirs))

    @tf.function
    def several(gradients, steps):
        alike = True
        for _ in tf.range(steps):
            both(gradients)
            alike &= optimizer.loss_scale == reference.loss_scale
        return alike

    good, bad = gradients(rng), [g * np.inf for g in gradients(rng)]
    for batch, steps, scale in ((good, 1, 15), (bad, 2, 13), (good, 1999, 13), (good, 1, 14),
                                (bad, 1, 13)):  # fmt: skip
        assert several(batch, tf.constant(steps))
        if batch is bad:
            reference.iterations.assign_sub(steps)  # counts only the steps taken
        assert float(optimizer.loss_scale) == 2.0**scale
    for a, b in zip(ours, theirs):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-5)
