"""Adam (Kingma and Ba, 2015) whose update of a weight is one operation.

Keras writes the update in some forty operations a weight. A codec has hundreds of weights, so most
of a training step's graph would be the optimizer's, to be traced and optimized before the first
step.
"""

from __future__ import annotations

import tensorflow as tf


class Adam(tf.keras.optimizers.Adam):
    """Keras' Adam, its arguments but `amsgrad`, its slots and its numbers, for dense gradients.

    m <- b1 m + (1 - b1) g, v <- b2 v + (1 - b2) g^2,
    weight <- weight - rate sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + epsilon).
    """

    def update_step(self, gradient, variable):
        place = self._index_dict[self._var_key(variable)]
        step = tf.cast(self.iterations + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[place].handle,
            v=self._velocities[place].handle,
            beta1_power=tf.pow(tf.cast(self.beta_1, variable.dtype), step),
            beta2_power=tf.pow(tf.cast(self.beta_2, variable.dtype), step),
            lr=tf.cast(self.learning_rate, variable.dtype),
            beta1=tf.cast(self.beta_1, variable.dtype),
            beta2=tf.cast(self.beta_2, variable.dtype),
            epsilon=tf.cast(self.epsilon, variable.dtype),
            grad=gradient,
        )
