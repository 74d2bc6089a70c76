"""A Keras layer that rounds, and that trains with any surrogate of rounding."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfquant.legacy_keras import keras
from tfquant.names import check_known
from tfquant.quantization.plans import PLANS
from tfquant.quantization.quantizer import dequantize, symbols
from tfquant.quantization.surrogates import Branch


@keras.utils.register_keras_serializable("tfquant")
class Quantizer(keras.layers.Layer):
    """Rounds its input; in training, replaces rounding by a differentiable surrogate.

        quantizer = Quantizer("sua_ste", alpha=4.0)
        y_tilde = quantizer(y, training=True)      # stochastic, with a gradient
        y_hat = quantizer(y)                       # round(y)
        quantizer.alpha.assign(8.0)                # anneal

    Args:
      surrogate: name of a quantization plan, such as "sua_ste" or "mix"; the layer uses the plan's
        distortion branch. Or a surrogate and an estimator, such as "aun:pathwise".
      alpha: initial temperature of annealed surrogates, above 0. The layer stores it as a
        non-trainable weight.
      seed: seed of the noise, or None. As with `tf.random.uniform`, the noise also depends on
        `tf.random.set_seed`.

    Raises:
      ValueError: the surrogate is unknown or has no such estimator, or `alpha` is not positive.
    """

    def __init__(
        self,
        surrogate: str = "sua_ste",
        alpha: float = 4.0,
        seed: int | None = None,
        name: str | None = None,
        **options: Any,
    ):
        super().__init__(name=name, **{"dtype": "float32", **options})
        self.surrogate = surrogate
        self.seed = seed
        if ":" in surrogate:
            self._branch = Branch.parse(surrogate)
        else:
            check_known("quantization plan", surrogate, PLANS)
            self._branch = PLANS[surrogate].distortion
        if not alpha > 0:
            raise ValueError(f"alpha must be a positive number; got {alpha}")
        self._first_alpha = alpha
        self.alpha = self.add_weight(
            name="alpha", shape=(), trainable=False,
            initializer=keras.initializers.Constant(alpha),
        )  # fmt: skip

    def call(
        self, y: tf.Tensor, offset: tf.Tensor | float = 0.0, training: bool | None = None
    ) -> tf.Tensor:
        """Quantizes `y` around `offset`.

        Args:
          y: [B, ...] float.
          offset: broadcasts to `y`. The result is an integer plus this offset.
          training: if true, uses the surrogate; otherwise rounds.

        Returns:
          [B, ...] float32: `round(y - offset) + offset`, or a sample of its surrogate.
        """
        y, offset = tf.cast(y, tf.float32), tf.cast(offset, tf.float32)
        if not training:
            return dequantize(symbols(y, offset), offset)
        limit = tf.int64.max
        seeds = tf.random.uniform([tf.shape(y)[0], 3], -limit, limit, tf.int64, seed=self.seed)
        return self._branch.sample(y - offset, offset, self.alpha, seeds).value

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the layer, for `from_config`."""
        own = {"surrogate": self.surrogate, "alpha": self._first_alpha, "seed": self.seed}
        return {**super().get_config(), **own}
