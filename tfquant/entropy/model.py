"""What every entropy model offers, and the bits of a quantized latent with the chosen gradient."""

from __future__ import annotations

import math
from typing import Callable

import tensorflow as tf

from tfquant.legacy_keras import keras
from tfquant.ops.gradients import attach_gradient, beyond_floor, floor_log
from tfquant.quantization.surrogates import Sample

# The literature's, for training: 29.9 bits. Evaluation and coding have no floor.
LIKELIHOOD_FLOOR = 1e-9


class EntropyModel(keras.layers.Layer):
    """A distribution of one latent, elementwise; always float32.

    The layer's `name` is the latent's: `y` or `z`. A subclass says which distribution its
    parameters give (`prior`), where quantization is centred (`offset`), and how its integers are
    coded (`coding_table`, `write`, `read`).

    Attributes:
      sigma_bound: variable, the lower bound of sigma; None where the distribution has none.
      exact: True if the rows of coding tables must come out the same on every machine, given the
        parameters. Files of version 1 were made without.
    """

    sigma_bound = None
    exact = False

    def __init__(self, name: str):
        super().__init__(name=name, dtype="float32")

    @property
    def is_hyper(self) -> bool:
        """Whether the latent is side information: `y` is what the synthesis transform decodes."""
        return self.name != "y"

    @property
    def has_mean(self) -> bool:
        """Whether one of the parameters is a mean that the distribution is symmetric about."""
        return False

    def split_mean(self, *params) -> tuple:
        """Where `has_mean`: that parameter, and the parameters without gradient to it."""
        raise NotImplementedError

    def mean(self, *params) -> tf.Tensor:
        """Where the distribution is centred, for display: broadcasts to the latent."""
        return self.offset(*params)

    def sigma(self, *params) -> tf.Tensor | None:
        """Scale of every element after the bound, None where there is no such parameter."""
        del params
        return None

    def set_sigma_bound(self, bound: float) -> None:
        """Sets the lower bound of sigma, where the distribution has one."""

    def track_offset(self) -> None:
        """Moves an offset that no gradient reaches after the weights, one step; once a step."""
        return  # AutoGraph cannot read a body that is a docstring alone

    def prior(self, *params):
        """The distribution of the latent plus uniform noise, a TFP distribution over `[B, ...]`."""
        raise NotImplementedError

    def offset(self, *params) -> tf.Tensor:
        """The quantization offset, broadcasts to the latent: decoding adds it to the integers."""
        raise NotImplementedError

    def coding_table(self):
        """Integer tables for the range coder, made from the weights as they are now."""
        raise NotImplementedError

    def write(self, table, handle: tf.Tensor, integers: tf.Tensor, *params) -> tf.Tensor:
        """Range codes `integers: [..., C] int32` with `coding_table()`; the next handle."""
        raise NotImplementedError

    def read(self, table, handle: tf.Tensor, shape: tf.Tensor, *params):
        """Reads what `write` wrote: the next handle and the integers.

        Where there are parameters, these say how many; else `shape`, int32 [4], does.
        """
        raise NotImplementedError

    def join_params(self, groups: list, join: Callable) -> tuple:
        """The parameters of a latent that went in groups.

        Args:
          groups: each group's parameters.
          join: puts a list of the groups' tensors together.
        """
        raise NotImplementedError

    def price(self, table, bits: tf.Tensor, integers: tf.Tensor, *params) -> tf.Tensor:
        """What each element takes in the stream, where the distribution alone says `bits`.

        They differ for improbable elements, which escape at a bounded price.
        """
        raise NotImplementedError

    def bits(self, sample: Sample, *params, floor: float | None = None) -> tf.Tensor:
        """Bits of every element, `-log2 p(value)`, [B, ...] float32.

        Under the expected gradient the value is the sampled one, its gradient reaches the model's
        parameters as usual, and the latent gets `slope (R(high) - R(low))` in closed form. A sample
        with a `mean` gives its gradient to the distribution's mean, where there is one.

        Args:
          sample: the quantized latent.
          *params: the model's parameters.
          floor: of the likelihood, for training: no element costs more than `-log2 floor` bits.
            Below it gradients are those of `beyond_floor` in `tfquant/ops/gradients.py`, the
            expected one included, so that an element far out of its sigma still moves, and leaves
            the rest of the step as it is. None: no floor.
        """
        mean = None
        if sample.mean is not None and self.has_mean:
            mean, params = self.split_mean(*params)
        prior = self.prior(*params)

        def rate(value, floored: Callable):
            log_p = prior.log_prob(value)
            if floor is not None:
                log_p = floored(log_p, math.log(floor))
            return log_p * (-1.0 / math.log(2.0))

        bits = rate(sample.value, floor_log)
        if sample.expected is not None:
            v, slope, low, high = sample.expected
            at_low, at_high = tf.unstack(rate(tf.stack([low, high]), beyond_floor))
            bits = attach_gradient(bits, v, tf.stop_gradient(slope * (at_high - at_low)))
        if mean is not None:
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
