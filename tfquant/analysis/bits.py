"""Bits of points under the library's entropy model, in float64, and their gradients."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfquant.analysis import maps, quadrature
from tfquant.entropy.distributions import NoisyGaussian
from tfquant.entropy.model import EntropyModel
from tfquant.quantization.surrogates import Branch, Sample


class Gaussian(EntropyModel):
    """`N(mu, sigma^2)` plus uniform noise.

    The parameters are given, without a network or a bound.
    """

    def __init__(self) -> None:
        super().__init__(name="y")

    def prior(self, mu: tf.Tensor, sigma: tf.Tensor) -> NoisyGaussian:
        """Returns the noisy Gaussian with these parameters."""
        return NoisyGaussian(mu, sigma)


_MODEL = Gaussian()


@tf.function(reduce_retracing=True)
def _bits(value: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
    return _MODEL.bits(Sample(value), tf.zeros([], value.dtype), sigma)


def bits(deviation: np.ndarray, sigma: float) -> np.ndarray:
    """Returns `R(v) = -log2 p(v)` for `v - mu = deviation: [...]`, under `N(mu, sigma^2)`."""
    return _bits(tf.constant(deviation, tf.float64), tf.constant(sigma, tf.float64)).numpy()


def mean_bits(points: quadrature.Points, sigma: float) -> float:
    """Returns `E[R]` in bits of the centred values `points`, a `quadrature.Points`."""
    return float(np.sum(points.mass * bits(points.value, sigma)))


def bits_gradient(
    branch: Branch, alpha: float, y: np.ndarray, noise: np.ndarray, mu: np.ndarray, sigma: float
) -> np.ndarray:
    """Returns `branch`'s estimate of `d R / d y` for each point of noise, [...] float64.

    Args:
      branch: surrogate and estimator.
      alpha: the temperature.
      y: float64; broadcasts with `noise` and `mu`.
      noise: float64; broadcasts likewise.
      mu: float64; broadcasts likewise. It is the mean of the estimated Gaussian; the quantization
        is centred on 0.
      sigma: scale of the estimated Gaussian.
    """
    y, noise, mu = (tf.constant(a, tf.float64) for a in np.broadcast_arrays(y, noise, mu))
    with tf.GradientTape() as tape:
        tape.watch(y)
        drawn = maps.sample(branch, y, alpha, noise)
        rate = _MODEL.bits(drawn, mu, tf.constant(sigma, tf.float64))
    return tape.gradient(rate, y).numpy()
