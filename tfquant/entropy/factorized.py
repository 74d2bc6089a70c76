"""The factorized entropy model: a learned density per channel, with its median as offset."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
import tensorflow_compression as tfc

from tfquant.coding.tables import ChannelTable
from tfquant.entropy.model import EntropyModel


class Density(tfc.DeepFactorized):
    """TFC's density, with the logit of its CDF: what the network behind all of it computes."""

    def logit_cdf(self, v) -> tf.Tensor:
        """`log(F(v) / (1 - F(v)))`, of `v`'s shape, [..., C]."""
        return self._logits_cumulative(self._broadcast_inputs(v))

    def _logits_cumulative(self, inputs):
        """`log(F / (1 - F))` at `inputs` [..., C], of their shape; what all of TFC's methods ask.

        Appendix 6.1 of Balle et al. (2018): affine maps with positive weights, and between them
        `x + tanh(a) tanh(x)`. In the place of TFC's own, for the products of `_product`.
        """
        row = tf.transpose(tf.reshape(inputs, [-1, self.batch_shape.num_elements()]))[:, None]
        (weights, bias), *rest = zip(map(tf.nn.softplus, self._matrices), self._biases)
        units = weights * row + bias  # [C, units, n]
        for bend, (weights, bias) in zip(self._factors, rest):
            units = _product(weights, units + tf.tanh(bend) * tf.tanh(units)) + bias
        return tf.reshape(tf.transpose(units[:, 0]), tf.shape(inputs))


def _product(a, b):
    """`a [C, m, k]` times `b [C, k, n]`: [C, m, n].

    Where `a` is one row or one column this is no matrix product. TF 2.14's oneDNN takes a matrix of
    one row for the transpose of one of one column. When two threads make both for the first time,
    it writes outside of its memory.
    """
    if 1 in a.shape[1:]:
        return tf.reduce_sum(a[..., None] * b[:, None], axis=2)
    return a @ b


class NoisyDensity(tfc.UniformNoiseAdapter):
    """A `Density` plus uniform noise: `p(v) = F(v + 1/2) - F(v - 1/2)`.

    With `above` and `below`, the logits of the two, and `s`, the sigmoid,
    `p = s(above) s(-below) (1 - exp(below - above))`: no factor of it cancels in either tail, and
    the network runs once at each end, where TFC's own form runs it for the CDF and again for its
    complement.
    """

    def _log_prob(self, v):
        below, above = tf.unstack(self.base.logit_cdf(tf.stack([v - 0.5, v + 0.5])))
        rise = tf.maximum(above - below, _LEAST_RISE)
        return (
            tf.math.log_sigmoid(above)
            + tf.math.log_sigmoid(-below)
            + tf.math.log(-tf.math.expm1(-rise))
        )


# What a logit rises by across the box where it is so large that float32 no longer tells.
_LEAST_RISE = 1e-12


class FactorizedModel(EntropyModel):
    """`p(z)`: TFC's `DeepFactorized` density for each channel, plus uniform noise.

    The quantization offset is each channel's median. It is a weight that gets no gradient: one
    Newton step on the density's logit a training step (`track_offset`) keeps it at the median
    while the density moves, at the price of one evaluation a channel, and leaving those steps out
    freezes it, as post-training wants.

    Args:
      channels: the latent's channels.
      filters: hidden widths of the density network; (3, 3, 3) as in the papers' networks.
      init_scale: width of the density at first.
      name: the latent's name.
    """

    def __init__(self, channels: int, filters=(3, 3, 3), init_scale: float = 10.0, name: str = "z"):
        super().__init__(name=name)
        self.channels = channels
        self.density = Density(batch_shape=(channels,), num_filters=filters, init_scale=init_scale)
        self.medians = self.add_weight(
            "medians",
            shape=(channels,),
            initializer="zeros",
            trainable=False,
            aggregation=tf.VariableAggregation.MEAN,
        )

    def prior(self):
        return NoisyDensity(self.density)

    def offset(self):
        return self.medians

    def track_offset(self):
        """One Newton step of every median towards `F(median) = 1/2`, at most 1 long."""
        medians = tf.identity(self.medians)
        with tf.GradientTape() as tape:
            tape.watch(medians)
            logit = self.density.logit_cdf(medians)
        step = logit / tf.maximum(tape.gradient(logit, medians), 1e-6)
        self.medians.assign(medians - tf.clip_by_value(step, -1.0, 1.0))

    def coding_table(self) -> ChannelTable:
        medians = self.medians.numpy()

        def cdf(points: np.ndarray) -> np.ndarray:
            """F at `points: [P, C]` relative to the medians."""
            return self.density.cdf(tf.constant(points + medians, tf.float32)).numpy()

        return ChannelTable.from_cdf(cdf, self.channels)

    def write(self, table, handle, integers):
        return table.encode(handle, integers)

    def price(self, table, bits, integers):
        return tf.reshape(table.price(tf.reshape(bits, [-1]), integers), tf.shape(integers))

    def read(self, table, handle, shape):
        return table.decode(handle, shape)
