"""Adam (Kingma and Ba, 2015) for graphs with hundreds of weights; skips non-finite steps.

Keras' update takes about forty operations per weight, and its loss scaling about a dozen more. Most
of a training step's graph would belong to the optimizer and would have to be traced and optimized
before the first step. Here, a weight takes three operations: the norm of its gradient, a factor and
the update.
"""

from __future__ import annotations

import types
from typing import Any

import tensorflow as tf

from tfquant.legacy_keras import keras

# The maximum of float16 is 65504. The scale starts at _FIRST_SCALE. It doubles after _GOOD_STEPS
# finite steps in a row, and halves after every non-finite step. These are the numbers of Keras'
# LossScaleOptimizer.
_FIRST_SCALE, _GOOD_STEPS = 2.0**15, 2000


def state_variable(name: str, value: float = 0, dtype: tf.DType = tf.int64) -> tf.Variable:
    """Creates a scalar of the training state, not trained.

    All replicas must assign the same value.
    """
    return tf.Variable(
        value, dtype=dtype, trainable=False, name=name,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )  # fmt: skip


class Adam(keras.optimizers.Adam):
    """Keras' Adam for dense gradients, with the same slots and numbers; skips non-finite steps.

    m <- b1 m + (1 - b1) g, v <- b2 v + (1 - b2) g^2,
    weight <- weight - rate sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + epsilon).

    Args:
      learning_rate: a number or a Keras schedule.
      clip_norm: global norm over all weights to which `step` clips gradients; None for no clipping.
      scales_loss: if true, scales the loss, so that gradients fit into float16.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
        clip_norm: float | None = None,
        scales_loss: bool = False,
    ):
        # By default, Keras would compile the update of every weight separately on a GPU.
        super().__init__(learning_rate, jit_compile=False)
        self._clip_norm = clip_norm
        self._finite: tf.Tensor | None = None
        self._shared: types.SimpleNamespace | None = None
        self.loss_scale: tf.Variable | None = None
        self._good_steps: tf.Variable | None = None
        if scales_loss:
            self.loss_scale = state_variable("loss_scale", _FIRST_SCALE, tf.float32)
            self._good_steps = state_variable("good_steps")

    def scaled(self, loss: tf.Tensor) -> tf.Tensor:
        """Returns the scaled loss. `step` expects its gradients."""
        return loss if self.loss_scale is None else loss * self.loss_scale

    def step(
        self, loss: tf.Tensor, gradients: list[tf.Tensor], variables: list[tf.Variable]
    ) -> tf.Tensor:
        """Takes one step. If it is not finite, weights, slots and `iterations` do not change.

        Args:
          loss: scalar; an infinite loss may have finite gradients.
          gradients: gradients of `scaled(loss)`, summed over all replicas.
          variables: the variables of the gradients.

        Returns:
          A bool scalar: true if the loss and the norm of the gradients are finite.
        """
        scale = 1.0 if self.loss_scale is None else self.loss_scale.read_value()
        norm = tf.linalg.global_norm(gradients) / scale
        finite = tf.math.is_finite(loss) & tf.math.is_finite(norm)
        factor = 1.0 / scale
        if self._clip_norm is not None:
            factor *= self._clip_norm / tf.maximum(norm, self._clip_norm)
        factor = tf.where(finite, factor, 0.0)
        # multiply_no_nan turns NaN times zero into zero.
        gradients = [tf.math.multiply_no_nan(g, factor) for g in gradients]
        # Replicas run this method in turn and meet in the updates, so they all share this value.
        self._finite = finite
        self.apply_gradients(zip(gradients, variables), skip_gradients_aggregation=True)
        self._finite = None
        # Keras has counted this step, even if it was skipped.
        self.iterations.assign_sub(tf.cast(~finite, tf.int64))
        if self.loss_scale is not None:
            self._rescale(finite)
        return finite

    def _rescale(self, finite: tf.Tensor) -> None:
        assert self.loss_scale is not None and self._good_steps is not None
        good = tf.where(finite, self._good_steps + 1, 0)
        grown = tf.where(good == _GOOD_STEPS, 2.0 * self.loss_scale, self.loss_scale)
        self.loss_scale.assign(tf.where(finite, grown, tf.maximum(0.5 * self.loss_scale, 1.0)))
        self._good_steps.assign(good % _GOOD_STEPS)

    def apply_gradients(self, *args: Any, **kwargs: Any) -> tf.Variable:
        """Applies gradients. Only `step` may call this, because it clips, unscales and checks them.

        Raises:
          RuntimeError: the caller is not `step`.
        """
        if self._finite is None:
            raise RuntimeError("use Adam.step to apply gradients: it clips and checks them")
        self._shared = None  # holds tensors of the last step, possibly from another graph
        return super().apply_gradients(*args, **kwargs)

    def _of_this_step(self) -> types.SimpleNamespace:
        """Returns the values that all weights' updates share.

        They disable the update of a skipped step.
        """
        finite, step = self._finite, tf.cast(self.iterations + 1, tf.float32)
        return types.SimpleNamespace(
            beta1_power=tf.pow(self.beta_1, step),
            beta2_power=tf.pow(self.beta_2, step),
            lr=tf.where(finite, self.learning_rate, 0.0),
            beta1=tf.where(finite, self.beta_1, 1.0),
            beta2=tf.where(finite, self.beta_2, 1.0),
            epsilon=tf.constant(self.epsilon),
        )

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
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
