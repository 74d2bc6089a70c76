"""Quantization of a latent: surrogates in training, integers in coding, and dequantization."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from tfquant.ops.random import salted
from tfquant.quantization.plans import QuantizationPlan
from tfquant.quantization.rounding import hard_round
from tfquant.quantization.surrogates import Branch, Sample


class Quantized(NamedTuple):
    """One latent during training, as seen by its three readers; each is [B, ...] float32."""

    rate: Sample
    distortion: tf.Tensor
    context: tf.Tensor


def quantize(
    plan: QuantizationPlan,
    y: tf.Tensor,
    offset: tf.Tensor | float,
    alpha: tf.Tensor | float,
    seeds: tf.Tensor,
) -> Quantized:
    """Quantizes a latent for training: samples a plan's surrogates of `round(y - offset) + offset`.

    Always computes in float32, regardless of the precision of the surrounding networks: a latent of
    magnitude 20 has a spacing of 1/8 in bfloat16.

    Branches with the same surrogate share one draw of noise. Equal branches share one tensor.
    Different surrogates draw independently: each adds its name as a salt to the seeds, except the
    surrogate of the rate. If they shared one draw, the gradients of rate and distortion would
    correlate, and the variance of their sum would be up to 1.4 times that of independent draws. The
    correlation is 0.7 for AUN's rate and SUA's distortion, pathwise, at sigma = 0.4 and alpha = 4.

    Args:
      plan: the surrogate and the gradient estimator of each branch.
      y: [B, ...] float, the latent.
      offset: broadcasts to `y`: `mu` for zero-center quantization, a median, or 0. It gets a
        gradient from the branches that the plan's `stop_gradient` does not stop.
      alpha: scalar float32 tensor, the temperature of annealed surrogates.
      seeds: [B, 3] int64 (see `tfquant.ops.random`).

    Returns:
      `Quantized` with the three branches.
    """
    y = tf.cast(y, tf.float32)
    offset = tf.cast(offset, tf.float32)
    alpha = tf.cast(alpha, tf.float32)
    noise, samples = {}, {}

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
    """Returns the integers to code: `round(y - offset)`, int32, in the shape of `y`."""
    return tf.cast(hard_round(tf.cast(y, tf.float32) - offset), tf.int32)


def dequantize(integers: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    """Returns `y_hat = integers + offset`, float32."""
    return tf.cast(integers, tf.float32) + offset
