"""Bits of points under the library's entropy model, in float64, and their gradients."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfquant.analysis import maps
from tfquant.entropy.distributions import NoisyGaussian
from tfquant.entropy.model import EntropyModel
from tfquant.quantization.surrogates import Branch, Sample


class Gaussian(EntropyModel):
    """`N(mu, sigma^2)` plus uniform noise, parameters as they come: no network, no bound."""

    def __init__(self):
        super().__init__(name="y")

    def prior(self, mu, sigma):
        return NoisyGaussian(mu, sigma)


_MODEL = Gaussian()


@tf.function(reduce_retracing=True)
def _bits(value, sigma):
    return _MODEL.bits(Sample(value), tf.zeros([], value.dtype), sigma)


def bits(deviation: np.ndarray, sigma: float) -> np.ndarray:
    """`R(v) = -log2 p(v)` for `v - mu = deviation: [...]`, under `N(mu, sigma^2)`."""
    return _bits(tf.constant(deviation, tf.float64), tf.constant(sigma, tf.float64)).numpy()


def mean_bits(points, sigma: float) -> float:
    """`E[R]` of `quadrature.Points`, centred."""
    return float(np.sum(points.mass * bits(points.value, sigma)))


def bits_gradient(branch: Branch, alpha: float, y, noise, mu, sigma: float) -> np.ndarray:
    """`d R / d y` as `branch` estimates it, for each point of noise.

    Args:
      branch: surrogate and estimator.
      alpha: the temperature.
      y: broadcasts with `noise` and `mu`, float64.
      noise: likewise.
      mu: likewise, the mean of the estimated Gaussian; the quantization is centred on 0.
      sigma: its scale.
    """
    y, noise, mu = (tf.constant(a, tf.float64) for a in np.broadcast_arrays(y, noise, mu))
    with tf.GradientTape() as tape:
        tape.watch(y)
        drawn = maps.sample(branch, y, alpha, noise)
        rate = _MODEL.bits(drawn, mu, tf.constant(sigma, tf.float64))
    return tape.gradient(rate, y).numpy()
