"""Small networks, many of them in parallel: one for each sigma, weight of the rate, or width.

Independent copies are an additional axis of every tensor, so a whole curve trains at once.
"""

from __future__ import annotations

from typing import Callable

import numpy as np
import tensorflow as tf

from tfquant.legacy_keras import keras

_INNER_STEPS = 50


class Perceptrons(tf.Module):
    """Independent multilayer perceptrons of one shape, with leaky ReLU between the layers.

    Args:
      copies: number of copies S.
      widths: widths of the input, the hidden layers and the output.
      seed: seed of the initial weights.
      last_scale: factor of the output layer's initial weights.
    """

    def __init__(
        self, copies: int, widths: tuple[int, ...], seed: int = 0, last_scale: float = 1.0
    ):
        super().__init__(name="perceptrons")
        rng = np.random.default_rng(seed)
        self.kernels, self.biases = [], []
        for layer, (fan_in, fan_out) in enumerate(zip(widths, widths[1:])):
            scale = np.sqrt(2.0 / fan_in)
            if layer == len(widths) - 2:
                scale *= last_scale
            kernel = scale * rng.standard_normal([copies, fan_in, fan_out])
            # Random biases scatter the kinks. With one-dimensional inputs, all would otherwise be
            # at 0.
            bias = 0.5 * rng.standard_normal([1, copies, fan_out]) * (layer < len(widths) - 2)
            self.kernels.append(tf.Variable(kernel, dtype=tf.float32))
            self.biases.append(tf.Variable(bias, dtype=tf.float32))

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Maps `x: [N, S, inputs]`, float32 or float64, to [N, S, outputs]."""
        for layer, (kernel, bias) in enumerate(zip(self.kernels, self.biases)):
            if layer:
                x = tf.nn.leaky_relu(x)
            x = _product(x, tf.cast(kernel, x.dtype)) + tf.cast(bias, x.dtype)
        return x


def _product(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Returns `x: [N, S, i]` times `kernel: [S, i, o]`, as [N, S, o].

    If i or o is 1, a sum replaces the matrix product, because oneDNN in TensorFlow 2.14 mixes up
    such products; see `entropy.factorized._product`.
    """
    if 1 in kernel.shape[1:]:
        return tf.reduce_sum(x[..., None] * kernel, axis=2)
    return tf.einsum("nsi,sio->nso", x, kernel)


class Affine(tf.Module):
    """Independent affine maps of a scalar: `[N, S] -> [N, S]`."""

    def __init__(self, copies: int, slope: tf.Tensor | float = 1.0):
        super().__init__(name="affine")
        self.slope = tf.Variable(tf.ones([copies]) * slope)
        self.shift = tf.Variable(tf.zeros([copies]))

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Maps `x: [N, S]` to [N, S]."""
        return x * self.slope + self.shift


class Residual(tf.Module):
    """Independent stacks of residual blocks on a scalar, then an affine map: `[N, S] -> [N, S]`."""

    def __init__(
        self,
        copies: int,
        slope: tf.Tensor | float = 1.0,
        blocks: int = 2,
        width: int = 16,
        seed: int = 0,
    ):
        super().__init__(name="residual")
        self.blocks = [
            Perceptrons(copies, (1, width, width, 1), seed + i, last_scale=0.1)
            for i in range(blocks)
        ]
        self.last = Affine(copies, slope)

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Maps `x: [N, S]` to [N, S]."""
        for block in self.blocks:
            x = x + block(x[..., None])[..., 0]
        return self.last(x)


def train(
    loss: Callable[[tf.Tensor], tf.Tensor],
    variables: list[tf.Variable],
    steps: int,
    learning_rate: float = 3e-3,
    after: Callable[[], None] | None = None,
) -> None:
    """Trains with Adam and a cosine decay to zero.

    Args:
      loss: `(step: int64 scalar) -> scalar`, the sum over the copies.
      variables: the trained variables.
      steps: number of steps, rounded up to a multiple of 50.
      learning_rate: learning rate of the first step.
      after: called after each step.
    """
    rounds = -(-steps // _INNER_STEPS)
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, rounds * _INNER_STEPS)
    optimizer = keras.optimizers.Adam(schedule)
    optimizer.build(variables)

    def one_step(step: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            value = loss(step)
        gradients = tape.gradient(value, variables)
        optimizer.apply_gradients(zip(gradients, variables))
        if after is not None:
            after()
        return step + 1

    # Autograph would parse every function's source again, which takes seconds per training.
    @tf.function(autograph=False)
    def inner(first: tf.Tensor) -> None:
        last = first + _INNER_STEPS
        tf.while_loop(lambda step: step < last, one_step, [first], parallel_iterations=1)

    for r in range(rounds):
        inner(tf.constant(r * _INNER_STEPS, tf.int64))
