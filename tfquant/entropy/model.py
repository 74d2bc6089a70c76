"""Base class of entropy models, and the bits of a quantized latent with the chosen gradient."""

from __future__ import annotations

import math
from typing import Callable

import tensorflow as tf

from tfquant.coding.tables import Table
from tfquant.entropy.distributions import UniformNoise
from tfquant.legacy_keras import keras
from tfquant.ops.gradients import attach_gradient, beyond_floor, floor_log
from tfquant.quantization.surrogates import Sample

# The literature's floor of the likelihood: 29.9 bits. Training has it under surrogates and, in
# validation, under rounding. Exported models have none: their tables give the cost of an escape.
LIKELIHOOD_FLOOR = 1e-9


class EntropyModel(keras.layers.Layer):
    """An elementwise distribution of one latent; always float32.

    As a Keras layer, it maps a latent to the bits of its elements. The layer's `name` is the
    latent's name: `y` or `z`. A subclass defines the distribution for
    given parameters (`prior`), the centre of the quantization (`offset`), and how the integers are
    coded (`coding_table`, `coding_params`). The table codes them.

    Attributes:
      sigma_bound: variable, the lower bound of sigma; None if the distribution has none.
      exact: if true, the rows of coding tables are the same on every machine for the same
        parameters. Files of version 1 were made without.
    """

    sigma_bound: tf.Variable | None = None
    exact = False

    def __init__(self, name: str):
        super().__init__(name=name, dtype="float32")

    @property
    def is_hyper(self) -> bool:
        """True if the latent is side information; false for `y`, which the synthesis transform
        decodes.
        """
        return self.name != "y"

    @property
    def has_mean(self) -> bool:
        """True if one of the parameters is a mean about which the distribution is symmetric."""
        return False

    def split_mean(self, *params: tf.Tensor) -> tuple[tf.Tensor, tuple]:
        """Returns the mean, and the parameters without gradient to it. Requires `has_mean`."""
        raise NotImplementedError

    def mean(self, *params: tf.Tensor) -> tf.Tensor:
        """Returns the centre of the distribution, for display; broadcasts to the latent."""
        return self.offset(*params)

    def sigma(self, *params: tf.Tensor) -> tf.Tensor | None:
        """Returns the scale of every element after the bound, or None if there is none."""
        del params
        return None

    def set_sigma_bound(self, bound: float) -> None:
        """Sets the lower bound of sigma, if the distribution has one."""

    def track_offset(self) -> None:
        """Moves an offset without gradient by one step, to follow the weights; called once per
        step.
        """
        return  # AutoGraph cannot read a body that contains only a docstring

    def prior(self, *params: tf.Tensor) -> UniformNoise:
        """Returns the distribution of the latent plus uniform noise, a TFP distribution over
        `[B, ...]`.
        """
        raise NotImplementedError

    def offset(self, *params: tf.Tensor) -> tf.Tensor:
        """Returns the quantization offset, which decoding adds to the integers; broadcasts to
        the latent.
        """
        raise NotImplementedError

    def coding_table(self) -> Table:
        """Returns integer tables for the range coder, made from the current weights."""
        raise NotImplementedError

    def coding_params(self, shape: tf.Tensor, *params: tf.Tensor) -> tuple:
        """Returns the arguments with which `coding_table()` codes the latent's integers.

        Args:
          shape: int32, the shape of the integers, [..., C]. A model with parameters takes their
            shape instead.
          *params: the model's parameters.
        """
        raise NotImplementedError

    def join_params(self, groups: list[tuple], join: Callable) -> tuple:
        """Returns the parameters of a latent that was transmitted in groups.

        Args:
          groups: the parameters of each group.
          join: joins a list of the groups' tensors.
        """
        raise NotImplementedError

    def call(self, y: tf.Tensor, *params: tf.Tensor) -> tf.Tensor:
        """Returns the bits of every element of a latent, [B, ...] float32.

        Args:
          y: [B, ...] float32, quantized or with additive noise.
          *params: the model's parameters.
        """
        return self.bits(Sample(y), *params)

    def bits(self, sample: Sample, *params: tf.Tensor, floor: float | None = None) -> tf.Tensor:
        """Returns the bits of every element, `-log2 p(value)`, [B, ...] float32.

        With the expected gradient, the value is the sampled one and its gradient reaches the
        model's parameters as usual. The latent gets `slope (R(high) - R(low))` in closed form. A
        sample with a `mean` gives its gradient to the distribution's mean, if there is one.

        Args:
          sample: the quantized latent.
          *params: the model's parameters.
          floor: lower bound of the likelihood, for training: no element costs more than `-log2
            floor` bits. Below it, all gradients, including the expected one, are those of
            `beyond_floor` in `tfquant/ops/gradients.py`. An element far out of its sigma still
            moves, without dominating the rest of the step. None: no floor.
        """
        mean = None
        if sample.mean is not None and self.has_mean:
            mean, params = self.split_mean(*params)
        prior = self.prior(*params)

        def rate(value: tf.Tensor, floored: Callable[[tf.Tensor, float], tf.Tensor]) -> tf.Tensor:
            log_p = prior.log_prob(value)
            if floor is not None:
                log_p = floored(log_p, math.log(floor))
            return log_p * (-1.0 / math.log(2.0))

        bits = rate(sample.value, floor_log)
        if sample.expected is not None:
            v, slope, low, high = sample.expected
            at_low, at_high = tf.unstack(rate(tf.stack([low, high]), beyond_floor))
            bits = attach_gradient(bits, v, tf.stop_gradient(slope * (at_high - at_low)))
        if sample.mean is not None and mean is not None:
            low, high, odds = sample.mean
            ends = tf.stack([low, high])
            with tf.GradientTape() as tape:
                tape.watch(ends)
                at_ends = rate(ends, beyond_floor)
            if odds is None:
                slope = at_ends[1] - at_ends[0]
            else:
                at_low, at_high = tf.unstack(tape.gradient(at_ends, ends))
                slope = (1.0 - odds) * at_low + odds * at_high
            bits = attach_gradient(bits, mean, -tf.stop_gradient(slope))
        return bits
