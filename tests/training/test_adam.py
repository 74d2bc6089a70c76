"""`tfquant.training.adam`: Keras' own Adam is the oracle."""

import numpy as np
import tensorflow as tf

from tfquant.training.adam import Adam


def trained(optimizer_class, steps=5):
    rng = np.random.default_rng(0)
    rate = tf.keras.optimizers.schedules.PolynomialDecay(0.1, 10)
    optimizer = optimizer_class(rate, global_clipnorm=1.0)
    weights = [tf.Variable(rng.normal(size=shape).astype(np.float32)) for shape in ((3, 4), (5,))]
    optimizer.build(weights)

    @tf.function
    def step(gradients):
        optimizer.apply_gradients(zip(gradients, weights))

    for _ in range(steps):
        step([tf.constant(rng.normal(size=w.shape).astype(np.float32)) for w in weights])
    return weights, optimizer, step.get_concrete_function([tf.zeros(w.shape) for w in weights])


def test_weights_and_moments_are_those_of_keras_adam():
    ours, our_optimizer, _ = trained(Adam)
    theirs, their_optimizer, _ = trained(tf.keras.optimizers.Adam)
    for a, b in zip([*ours, *our_optimizer.variables], [*theirs, *their_optimizer.variables]):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-6)


def test_a_weights_update_is_one_operation():
    _, _, step = trained(Adam, 1)
    kinds = [op.type for op in step.graph.get_operations()]
    assert kinds.count("ResourceApplyAdam") == 2
    assert kinds.count("AssignSubVariableOp") == 0
