"""Entropy models whose parameters a network predicts for every element.

Gaussian (mean-scale, or scale only), Laplacian and Gaussian mixture; each with the lower bound of
sigma of arXiv 2309.17051, section 5.2: larger in joint training (0.11), tiny (1e-6) afterwards.

The network predicts `log sigma`: sigma then spans the four decades between dead and busy channels
without large weights, and never turns negative, so that lowering the bound after joint training
finds the sigmas where the rate left them rather than at arbitrary values.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Callable

import numpy as np
import scipy.special
import tensorflow as tf
import tensorflow_probability as tfp

from tfquant.coding.tables import DecisionTable, ScaleTable
from tfquant.entropy import distributions
from tfquant.entropy.model import EntropyModel
from tfquant.ops.gradients import lower_bound, upper_bound
from tfquant.quantizer import symbols

# The literature's largest scale; beyond it the coding tables end.
SIGMA_MAX = 256.0
JOINT_SIGMA_BOUND = 0.11
POST_SIGMA_BOUND = 1e-6


@dataclasses.dataclass(frozen=True)
class Family:
    """A parametric family: raw network outputs to a distribution.

    Attributes:
      outputs: network outputs per latent channel.
      build: `(raw: [B, ..., outputs * M], to_sigma) -> distribution over [B, ..., M]`.
      parameters: the distribution's parameters as tensors over `[B, ..., M]` or `[B, ..., M, K]`.
      tails: `(parameters, x) -> (P(X <= x), P(X > x))`, both accurate far out.
      tail: for a family symmetric about its mean with one scale, `P(X > x)` at scale 1, NumPy: its
        zero-center symbols are coded from tables by scale. None: by decisions from the exact CDF.
    """

    outputs: int
    build: Callable
    parameters: Callable
    tails: Callable
    tail: Callable | None = None


def _scale_gaussian(raw, to_sigma):
    sigma = to_sigma(raw)
    return distributions.NoisyGaussian(tf.zeros_like(sigma), sigma)


def _gaussian(raw, to_sigma):
    mu, log_sigma = tf.split(raw, 2, axis=-1)
    return distributions.NoisyGaussian(mu, to_sigma(log_sigma))


def _laplacian(raw, to_sigma):
    mu, log_sigma = tf.split(raw, 2, axis=-1)
    return distributions.NoisyLaplacian(mu, to_sigma(log_sigma))


MIXTURE_COMPONENTS = 3


def _mixture(raw, to_sigma):
    def components(chunk):
        shape = tf.shape(chunk)
        channels = chunk.shape[-1] // MIXTURE_COMPONENTS
        return tf.reshape(chunk, tf.concat([shape[:-1], [channels, MIXTURE_COMPONENTS]], 0))

    logits, mu, log_sigma = (components(c) for c in tf.split(raw, 3, axis=-1))
    return distributions.NoisyGaussianMixture(logits, mu, to_sigma(log_sigma))


def _location_scale(prior):
    return prior.loc, prior.scale


def _tails_of(base):
    def tails(parameters, x):
        distribution = base(*parameters)
        return distribution.cdf(x), distribution.survival_function(x)

    return tails


def _weighted_components(prior):
    return tf.nn.softmax(prior.logits), prior.loc, prior.scale


def _mixture_tails(parameters, x):
    weights, mu, sigma = parameters
    below, above = _tails_of(tfp.distributions.Normal)((mu, sigma), x[:, None])
    return tf.reduce_sum(weights * below, -1), tf.reduce_sum(weights * above, -1)


def _gaussian_tail(x: np.ndarray) -> np.ndarray:
    return scipy.special.ndtr(-x)


def _laplacian_tail(x: np.ndarray) -> np.ndarray:
    return 0.5 * np.exp(-x)


_gaussian_tails = _tails_of(tfp.distributions.Normal)
_laplacian_tails = _tails_of(tfp.distributions.Laplace)

FAMILIES = {
    "scale_gaussian": Family(
        1, _scale_gaussian, _location_scale, _gaussian_tails, _gaussian_tail
    ),
    "gaussian": Family(2, _gaussian, _location_scale, _gaussian_tails, _gaussian_tail),
    "laplacian": Family(2, _laplacian, _location_scale, _laplacian_tails, _laplacian_tail),
    "mixture": Family(3 * MIXTURE_COMPONENTS, _mixture, _weighted_components, _mixture_tails),
}


class ConditionalModel(EntropyModel):
    """`p(y | raw)`, `raw: [B, h, w, outputs * M]` from the hyper-decoder.

    Args:
      family: a key of `FAMILIES`.
      zero_center: quantize around the mean (`round(y - mu) + mu`) rather than around 0.
      name: the latent's name.

    Raises:
      ValueError: for an unknown family.
    """

    def __init__(self, family: str, zero_center: bool, name: str = "y"):
        super().__init__(name=name)
        if family not in FAMILIES:
            raise ValueError(f"unknown entropy family {family!r}; known: {', '.join(FAMILIES)}")
        self.family = family
        self.zero_center = zero_center
        self.sigma_bound = self.add_weight(
            "sigma_bound",
            shape=(),
            initializer=tf.keras.initializers.Constant(JOINT_SIGMA_BOUND),
            trainable=False,
        )

    @property
    def outputs(self) -> int:
        """Network outputs per latent channel."""
        return FAMILIES[self.family].outputs

    def _to_sigma(self, log_sigma):
        sigma = tf.exp(upper_bound(log_sigma, math.log(SIGMA_MAX)))
        return lower_bound(sigma, self.sigma_bound)

    def prior(self, raw):
        return FAMILIES[self.family].build(tf.cast(raw, tf.float32), self._to_sigma)

    def offset(self, raw):
        return self.prior(raw).mean() if self.zero_center else tf.zeros([])

    def sigma(self, raw) -> tf.Tensor:
        """Scale parameters after the bound, for histograms: [B, h, w, M(, K)]."""
        prior = self.prior(raw)
        return prior.scale

    @property
    def _by_scale(self) -> bool:
        family = FAMILIES[self.family]
        return family.tail is not None and (self.zero_center or family.outputs == 1)

    def coding_table(self):
        if not self._by_scale:
            return DecisionTable()
        return ScaleTable(FAMILIES[self.family].tail, SIGMA_MAX)

    def write(self, table, handle, integers, raw):
        if self._by_scale:
            return table.encode(handle, integers, self.prior(raw).scale)
        centre, params, survival = self._decisions(raw)
        return table.encode(handle, tf.reshape(integers, [-1]), centre, params, survival)

    def read(self, table, handle, shape, raw):
        if self._by_scale:
            return table.decode(handle, self.prior(raw).scale)
        handle, integers = table.decode(handle, *self._decisions(raw))
        return handle, tf.reshape(integers, shape)

    def _decisions(self, raw):
        """What a decision table asks for: central integers, parameters, and the CDF of integers."""
        prior, offset = self.prior(raw), self.offset(raw)
        centre = symbols(prior.mean(), offset)
        flat = [tf.reshape(tf.broadcast_to(offset, tf.shape(centre)), [-1])]
        for parameter in FAMILIES[self.family].parameters(prior):
            rest = parameter.shape[centre.shape.rank :]
            flat.append(tf.reshape(parameter, [-1, *rest]))

        def survival(params, x):
            offset, *parameters = params
            return FAMILIES[self.family].tails(parameters, x + offset)

        return tf.reshape(centre, [-1]), tuple(flat), survival
