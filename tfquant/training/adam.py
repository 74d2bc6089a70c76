"""Adam (Kingma and Ba, 2015) for graphs of hundreds of weights, and for steps that go wrong.

Keras writes the update in some forty operations a weight, its wrapper against overflow in a dozen
more, so most of a training step's graph would be the optimizer's, to be traced and optimized before
the first step. Here a weight costs three: its gradient's norm, a factor, the update.
"""

from __future__ import annotations

import types

import tensorflow as tf

from tfquant.legacy_keras import keras

# float16 ends at 65504: the scale starts here, doubles after so many good steps in a row, and
# halves with every bad one. The numbers are those of Keras' LossScaleOptimizer.
_FIRST_SCALE, _GOOD_STEPS = 2.0**15, 2000


def state_variable(name: str, value=0, dtype=tf.int64) -> tf.Variable:
    """A scalar of training's own, not trained, to which all replicas assign the same."""
    return tf.Variable(
        value, dtype=dtype, trainable=False, name=name,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )  # fmt: skip


class Adam(keras.optimizers.Adam):
    """Keras' Adam, its slots and its numbers, for dense gradients; leaves out steps gone wrong.

    m <- b1 m + (1 - b1) g, v <- b2 v + (1 - b2) g^2,
    weight <- weight - rate sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + epsilon).

    Args:
      learning_rate: a number or a Keras schedule.
      clip_norm: `step` shortens gradients with a larger norm, over all weights, to it; None: never.
      scales_loss: scale the loss, so that gradients fit float16.
    """

    def __init__(self, learning_rate, clip_norm: float | None = None, scales_loss: bool = False):
        # Keras would compile every weight's update by itself where there is a GPU.
        super().__init__(learning_rate, jit_compile=False)
        self._clip_norm = clip_norm
        self._finite = self._shared = None
        self.loss_scale = self._good_steps = None
        if scales_loss:
            self.loss_scale = state_variable("loss_scale", _FIRST_SCALE, tf.float32)
            self._good_steps = state_variable("good_steps")

    def scaled(self, loss: tf.Tensor) -> tf.Tensor:
        """The loss whose gradients `step` takes."""
        return loss if self.loss_scale is None else loss * self.loss_scale

    def step(self, loss: tf.Tensor, gradients: list, variables: list) -> tf.Tensor:
        """One step, unless it went wrong: then weights, slots and `iterations` stay as they are.

        Args:
          loss: scalar; an infinite one may have finite gradients.
          gradients: of `scaled(loss)`, added up over all replicas.
          variables: what they belong to.

        Returns:
          Whether the loss and the gradients' norm are finite: bool scalar.
        """
        scale = 1.0 if self.loss_scale is None else self.loss_scale.read_value()
        norm = tf.linalg.global_norm(gradients) / scale
        finite = tf.math.is_finite(loss) & tf.math.is_finite(norm)
        factor = 1.0 / scale
        if self._clip_norm is not None:
            factor *= self._clip_norm / tf.maximum(norm, self._clip_norm)
        factor = tf.where(finite, factor, 0.0)
        # NaN times this zero is zero.
        gradients = [tf.math.multiply_no_nan(g, factor) for g in gradients]
        # Replicas take turns in this method and meet in the updates: theirs are all the same.
        self._finite = finite
        self.apply_gradients(zip(gradients, variables), skip_gradients_aggregation=True)
        self._finite = None
        # Keras counts every step.
        self.iterations.assign_sub(tf.cast(~finite, tf.int64))
        if self.loss_scale is not None:
            self._rescale(finite)
        return finite

    def _rescale(self, finite):
        good = tf.where(finite, self._good_steps + 1, 0)
        grown = tf.where(good == _GOOD_STEPS, 2.0 * self.loss_scale, self.loss_scale)
        self.loss_scale.assign(tf.where(finite, grown, tf.maximum(0.5 * self.loss_scale, 1.0)))
        self._good_steps.assign(good % _GOOD_STEPS)

    def apply_gradients(self, *args, **kwargs):
        """For `step` alone, which clips, unscales and checks.

        Raises:
          RuntimeError: called by anybody else.
        """
        if self._finite is None:
            raise RuntimeError("gradients are applied by Adam.step, which clips and checks them")
        self._shared = None  # tensors of the last step, and perhaps of another graph
        return super().apply_gradients(*args, **kwargs)

    def _of_this_step(self):
        """What the updates of all weights share; without effect where the step went wrong."""
        finite, step = self._finite, tf.cast(self.iterations + 1, tf.float32)
        return types.SimpleNamespace(
            beta1_power=tf.pow(self.beta_1, step),
            beta2_power=tf.pow(self.beta_2, step),
            lr=tf.where(finite, self.learning_rate, 0.0),
            beta1=tf.where(finite, self.beta_1, 1.0),
            beta2=tf.where(finite, self.beta_2, 1.0),
            epsilon=tf.constant(self.epsilon),
        )

    def update_step(self, gradient, variable):
        if self._shared is None:
            self._shared = self._of_this_step()
        place = self._index_dict[self._var_key(variable)]
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[place].handle,
            v=self._velocities[place].handle,
            grad=gradient,
            **vars(self._shared),
        )
