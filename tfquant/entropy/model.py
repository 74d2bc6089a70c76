"""What every entropy model offers, and the bits of a quantized latent with the chosen gradient."""

from __future__ import annotations

import math

import tensorflow as tf

from tfquant.ops.gradients import attach_gradient
from tfquant.surrogates import Sample


class EntropyModel(tf.keras.layers.Layer):
    """A distribution of one latent, elementwise; always float32.

    The layer's `name` is the latent's: `y` or `z`. A subclass says which distribution its
    parameters give (`prior`), where quantization is centred (`offset`), and how its integers are
    coded (`coding_table`, `write`, `read`).
    """

    def __init__(self, name: str):
        super().__init__(name=name, dtype="float32")

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
        """Range codes `integers: [1, h, w, C] int32` with `coding_table()`; the next handle."""
        raise NotImplementedError

    def read(self, table, handle: tf.Tensor, shape: tf.Tensor, *params):
        """Reads what `write` wrote: the next handle, and integers of `shape`, int32 [4]."""
        raise NotImplementedError

    def escape_bits(self, table, integers: tf.Tensor, *params) -> tf.Tensor:
        """What an escape code would take for each element, infinity where there is none."""
        raise NotImplementedError

    def bits(self, sample: Sample, *params) -> tf.Tensor:
        """Bits of every element, `-log2 p(value)`, [B, ...] float32.

        Under the expected gradient the value is the sampled one, its gradient reaches the model's
        parameters as usual, and the latent gets `slope (R(high) - R(low))` in closed form.
        """
        prior = self.prior(*params)

        def rate(value):
            return prior.log_prob(value) * (-1.0 / math.log(2.0))

        bits = rate(sample.value)
        if sample.expected is None:
            return bits
        v, slope, low, high = sample.expected
        return attach_gradient(bits, v, tf.stop_gradient(slope * (rate(high) - rate(low))))
