"""Entropy models whose parameters a network predicts for every element.

The families are Gaussian (mean-scale, or scale only), Laplacian and Gaussian mixture. Each has the
lower bound of sigma of arXiv 2309.17051, section 5.2: 0.11 in joint training, 1e-6 afterwards.

The network predicts `log sigma`. Without large weights, sigma can then span four decades, from dead
to active channels, and it is never negative. When the bound is lowered after joint training, the
sigmas have trained values instead of arbitrary ones.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Callable

import numpy as np
import scipy.special
import tensorflow as tf

from tfquant.coding.decisions import VERSION, VERSION_OF_FILES_1, DecisionTable
from tfquant.coding.portable_math import exp
from tfquant.coding.tables import MeanScaleTable, ScaleTable, Table, Tail
from tfquant.entropy import distributions
from tfquant.entropy.model import EntropyModel
from tfquant.legacy_keras import keras
from tfquant.names import check_known
from tfquant.ops.gradients import lower_bound, upper_bound
from tfquant.quantization.quantizer import symbols

# The literature's largest scale, and the largest one in the coding tables.
SIGMA_MAX = 256.0
_LOG_SIGMA_MAX = math.log(SIGMA_MAX)
JOINT_SIGMA_BOUND = 0.11
POST_SIGMA_BOUND = 1e-6


@dataclasses.dataclass(frozen=True)
class Family:
    """A parametric family: maps raw network outputs to a distribution.

    Attributes:
      outputs: network outputs per latent channel. Raw outputs contain them as blocks of M channels
        each.
      build: `(blocks, to_sigma) -> distribution over [B, ..., M]`, from `outputs` tensors of that
        shape.
      tail: `P(X > x)` at scale 1 in NumPy, for a symmetric family with one scale, whose symbols are
        coded with tables. None (for the mixture) codes by decisions from the exact CDF.
    """

    outputs: int
    build: Callable
    tail: Callable | None = None


_ToSigma = Callable[[tf.Tensor], tf.Tensor]


def _scale_gaussian(blocks: Sequence[tf.Tensor], to_sigma: _ToSigma) -> distributions.NoisyGaussian:
    (log_sigma,) = blocks
    sigma = to_sigma(log_sigma)
    return distributions.NoisyGaussian(tf.zeros_like(sigma), sigma)


def _gaussian(blocks: Sequence[tf.Tensor], to_sigma: _ToSigma) -> distributions.NoisyGaussian:
    mu, log_sigma = blocks
    return distributions.NoisyGaussian(mu, to_sigma(log_sigma))


def _laplacian(blocks: Sequence[tf.Tensor], to_sigma: _ToSigma) -> distributions.NoisyLaplacian:
    mu, log_sigma = blocks
    return distributions.NoisyLaplacian(mu, to_sigma(log_sigma))


MIXTURE_COMPONENTS = 3


def _mixture(blocks: Sequence[tf.Tensor], to_sigma: _ToSigma) -> distributions.NoisyGaussianMixture:
    K = MIXTURE_COMPONENTS
    logits, mu, log_sigma = (tf.stack(blocks[i * K : (i + 1) * K], axis=-1) for i in range(3))
    return distributions.NoisyGaussianMixture(logits, mu, to_sigma(log_sigma))


def _gaussian_tail(x: np.ndarray) -> np.ndarray:
    return scipy.special.ndtr(-x)


def _laplacian_tail(x: np.ndarray) -> np.ndarray:
    return 0.5 * np.exp(-x)


FAMILIES = {
    "scale_gaussian": Family(1, _scale_gaussian, _gaussian_tail),
    "gaussian": Family(2, _gaussian, _gaussian_tail),
    "laplacian": Family(2, _laplacian, _laplacian_tail),
    "mixture": Family(3 * MIXTURE_COMPONENTS, _mixture),
}


class ConditionalModel(EntropyModel):
    """Entropy model `p(y | raw)`, with `raw: [B, h, w, outputs * M]` from the hyper-decoder.

    Args:
      family: a key of `FAMILIES`.
      zero_center: if true, quantizes around the mean (`round(y - mu) + mu`), otherwise around 0.
      name: the latent's name.

    Raises:
      ValueError: the family is unknown.
    """

    sigma_bound: tf.Variable

    def __init__(self, family: str, zero_center: bool, name: str = "y"):
        super().__init__(name=name)
        check_known("entropy family", family, FAMILIES)
        self.family = family
        self.zero_center = zero_center
        self.sigma_bound = self.add_weight(
            "sigma_bound",
            shape=(),
            initializer=keras.initializers.Constant(JOINT_SIGMA_BOUND),
            trainable=False,
        )

    @property
    def outputs(self) -> int:
        """Network outputs per latent channel."""
        return FAMILIES[self.family].outputs

    def set_sigma_bound(self, bound: float) -> None:
        self.sigma_bound.assign(bound)

    def _to_sigma(self, log_sigma: tf.Tensor) -> tf.Tensor:
        # Bounds before exp: after it, the gradient that should raise sigma would shrink with sigma.
        log_sigma = upper_bound(log_sigma, math.log(SIGMA_MAX))
        return tf.exp(lower_bound(log_sigma, tf.math.log(self.sigma_bound)))

    def prior(self, raw: tf.Tensor) -> distributions.UniformNoise:
        return FAMILIES[self.family].build(self._blocks(raw), self._to_sigma)

    def _blocks(self, raw: tf.Tensor) -> list[tf.Tensor]:
        return tf.split(tf.cast(raw, tf.float32), self.outputs, axis=-1)

    def offset(self, raw: tf.Tensor) -> tf.Tensor:
        return self.mean(raw) if self.zero_center else tf.zeros([])

    @property
    def has_mean(self) -> bool:
        return self.outputs == 2  # the components of a mixture have several means

    def split_mean(self, raw: tf.Tensor) -> tuple[tf.Tensor, tuple[tf.Tensor]]:
        mu, log_sigma = self._blocks(raw)
        return mu, (tf.concat([tf.stop_gradient(mu), log_sigma], axis=-1),)

    def mean(self, raw: tf.Tensor) -> tf.Tensor:
        # Uses any scale: the real one would add a dozen unused operations.
        return FAMILIES[self.family].build(self._blocks(raw), tf.ones_like).mean()

    def sigma(self, raw: tf.Tensor) -> tf.Tensor:
        """Returns scale parameters after the bound, [B, ..., M(, K)]."""
        return self.prior(raw).scale

    @property
    def _centred(self) -> bool:
        """True if the symbols' distribution is symmetric about 0."""
        return self.zero_center or self.outputs == 1

    def coding_table(self) -> Table:
        tail = FAMILIES[self.family].tail
        if tail is None:
            return DecisionTable(VERSION if self.exact else VERSION_OF_FILES_1)
        return _table_of(ScaleTable if self._centred else MeanScaleTable, tail)

    def join_params(self, groups: list[tuple], join: Callable) -> tuple[tf.Tensor]:
        blocks = zip(*(self._blocks(raw) for (raw,) in groups))
        return (tf.concat([join(list(parts)) for parts in blocks], axis=-1),)

    def coding_params(self, shape: tf.Tensor, raw: tf.Tensor) -> tuple:
        del shape  # `raw` has it
        if FAMILIES[self.family].tail is None:
            return self._decisions(raw)
        if self.exact:
            *mu, log_sigma = self._blocks(raw)
            sigma = self._exact_sigma(log_sigma)
            return (sigma,) if self._centred else (*mu, sigma)
        prior = self.prior(raw)
        return (prior.scale,) if self._centred else (prior.loc, prior.scale)

    def _exact_sigma(self, log_sigma: tf.Tensor) -> tf.Tensor:
        return tf.maximum(exp(tf.minimum(log_sigma, _LOG_SIGMA_MAX)), self.sigma_bound)

    def _decisions(self, raw: tf.Tensor) -> tuple:
        """Returns the arguments of `DecisionTable`, for the integers `round(y - offset)` of a
        mixture.

        They determine the bits of a file: see `decisions.VERSION`.
        """
        logits, mu, log_sigma = tf.split(tf.stack(self._blocks(raw)), 3)  # [K, ..., M] each
        # tf.nn.softmax would transpose twice.
        weights = (exp if self.exact else tf.exp)(logits - tf.reduce_max(logits, axis=0))
        weights /= tf.reduce_sum(weights, axis=0)
        sigma = (self._exact_sigma if self.exact else self._to_sigma)(log_sigma)
        mean = tf.reduce_sum(weights * mu, axis=0)
        if self.zero_center:
            mu, mean = mu - mean, tf.zeros_like(mean)
        centre = symbols(mean, 0.0)
        far = tf.abs(mu - mean) + _REACH * sigma
        reach = tf.reduce_max(tf.where(weights > _LIGHT, far, 0.0), axis=0)
        slope = math.sqrt(0.5) / sigma
        start = (tf.cast(centre, tf.float32) - 0.5 - mu) * slope
        return centre, reach, (weights, start, slope)


# A mixture has almost no mass beyond _REACH sigmas of every component with a weight above _LIGHT.
_REACH, _LIGHT = 5.0, 1e-4


@functools.cache
def _table_of(kind: type[ScaleTable] | type[MeanScaleTable], tail: Tail) -> Table:
    """Returns the table of a family, which is made once: it takes up to 3 s of processor time."""
    return kind(tail, SIGMA_MAX)
