"""The quantizer: the only place that knows offsets, surrogates, symbols and dequantization."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from tfquant.legacy_keras import keras
from tfquant.ops.random import salted
from tfquant.quantization.plans import QuantizationPlan
from tfquant.quantization.rounding import hard_round
from tfquant.quantization.surrogates import Branch, Sample


class Quantized(NamedTuple):
    """A latent as its three readers see it during training, each [B, ...] float32."""

    rate: Sample
    distortion: tf.Tensor
    context: tf.Tensor


class Quantizer(keras.layers.Layer):
    """`y -> y_tilde`: the surrogate of `round(y - offset) + offset` that a plan prescribes.

    Always computes in float32, whatever the precision of the networks around it: a latent of
    magnitude 20 has a spacing of 1/8 in bfloat16.

    Branches of one surrogate share one draw of noise, and branches that are equal share the tensor.
    Different surrogates draw independently, each with its name as salt, the rate's without. With
    one draw for both, the gradients of rate and distortion would correlate (0.7 for AUN's rate and
    SUA's distortion, pathwise, at a sigma of 0.4 and an alpha of 4), and the variance of their sum
    would be up to 1.4 times that of independent draws.
    """

    def __init__(self, plan: QuantizationPlan, name: str = "quantizer"):
        super().__init__(name=name, dtype="float32")
        self.plan = plan

    def call(self, y, offset, alpha, seeds) -> Quantized:
        """Quantizes for training.

        Args:
          y: [B, ...] float, the latent.
          offset: broadcasts to `y`: `mu` for zero-center quantization, a median, or 0. It receives
            a gradient from the branches that the plan's `stop_gradient` leaves alone.
          alpha: scalar float32 tensor, the temperature of annealed surrogates.
          seeds: [B, 3] int64 (see `tfquant.ops.random`).

        Returns:
          `Quantized` with the three branches.
        """
        y = tf.cast(y, tf.float32)
        offset = tf.cast(offset, tf.float32)
        alpha = tf.cast(alpha, tf.float32)
        plan, noise, samples = self.plan, {}, {}

        def sample(role: str, branch: Branch) -> Sample:
            name, stops = branch.surrogate, plan.stops(role)
            centre = tf.stop_gradient(offset) if stops else offset
            if name not in noise:
                own = seeds if name == plan.rate.surrogate else salted(seeds, name)
                noise[name] = branch.noise(y - centre, own)
            if (branch, stops) not in samples:
                made = branch.sample_with(noise[name], y - centre, centre, alpha)
                samples[branch, stops] = made
            return samples[branch, stops]

        rate = sample("rate", plan.rate)
        distortion = sample("distortion", plan.distortion)
        context = sample("context", plan.context_branch)
        if plan.mean_gradient == "expected":
            rate = rate._replace(mean=plan.rate.mean_gradient(y - offset, offset, alpha))
        return Quantized(rate, distortion.value, context.value)


def symbols(y: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    """The integers that are coded: `round(y - offset)`, int32."""
    return tf.cast(hard_round(tf.cast(y, tf.float32) - offset), tf.int32)


def dequantize(integers: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    """`y_hat = integers + offset`, float32."""
    return tf.cast(integers, tf.float32) + offset
