"""The factorized entropy model: a learned density per channel, with its median as offset."""

from __future__ import annotations

import math

import numpy as np
import scipy.special
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfquant.coding.tables import ChannelTable
from tfquant.entropy.distributions import UniformNoise
from tfquant.entropy.model import EntropyModel


class Density(tfd.Distribution):
    """A learned density per channel, whose CDF `F` is the sigmoid of a monotone network.

    Source: Balle et al., "Variational image compression with a scale hyperprior" (2018), appendix
    6.1. The network alternates affine maps with positive weights, `softplus(matrix) x + bias`, and
    `x + tanh(factor) tanh(x)`. Each channel has its own network from one unit to one unit.

    Args:
      channels: C; `batch_shape` is [C].
      filters: widths of the hidden layers.
      init_scale: initial width of the density, in quantization steps.
    """

    def __init__(
        self, channels: int, filters: tuple[int, ...] = (3, 3, 3), init_scale: float = 10.0
    ):
        self.channels = channels
        super().__init__(
            dtype=tf.float32,
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=False,
            parameters={"channels": channels, "filters": filters, "init_scale": init_scale},
            name="DeepFactorized",  # part of the variables' names, by which weights are restored
        )
        self._matrices, self._biases, self._factors = [], [], []
        widths = (1, *filters, 1)
        # Initially, the network multiplies by 1 / init_scale, with the same factor in each layer.
        gain = init_scale ** (-1.0 / (len(widths) - 1))
        with self.name_scope:
            for layer, (inputs, outputs) in enumerate(zip(widths, widths[1:])):
                weight = math.log(math.expm1(gain / outputs))  # the inverse of softplus
                matrix = tf.fill([channels, outputs, inputs], weight)
                bias = tf.random.uniform([channels, outputs, 1], -0.5, 0.5)
                self._matrices.append(tf.Variable(matrix, name=f"matrix_{layer}"))
                self._biases.append(tf.Variable(bias, name=f"bias_{layer}"))
                if layer < len(filters):
                    factor = tf.zeros([channels, outputs, 1])
                    self._factors.append(tf.Variable(factor, name=f"factor_{layer}"))

    def logit_cdf(self, v: tf.Tensor) -> tf.Tensor:
        """Returns `log(F(v) / (1 - F(v)))` for `v` that broadcasts to [..., C], in that shape."""
        v = self._per_channel(v)
        row = tf.transpose(tf.reshape(v, [-1, self.channels]))[:, None]
        (weights, bias), *rest = zip(map(tf.nn.softplus, self._matrices), self._biases)
        units = weights * row + bias  # [C, units, n]
        for bend, (weights, bias) in zip(self._factors, rest):
            units = _product(weights, units + tf.tanh(bend) * tf.tanh(units)) + bias
        return tf.reshape(tf.transpose(units[:, 0]), tf.shape(v))

    def _per_channel(self, v: tf.Tensor) -> tf.Tensor:
        """Broadcasts `v` to [..., C]."""
        v = tf.convert_to_tensor(v, tf.float32)
        return tf.broadcast_to(v, tf.broadcast_dynamic_shape(tf.shape(v), [self.channels]))

    def cdf64(self, v: np.ndarray) -> np.ndarray:
        """Returns `F(v)` for `v: [n, C]` float64, computed by NumPy in float64, for coding tables.

        Another machine may round a last bit of float64 differently. This changes a frequency of
        2**-16 only once in many thousand models.
        """
        units = v.T[:, None]  # [C, units, n]
        weights, biases, factors = (
            [w.numpy().astype(np.float64) for w in group]
            for group in (self._matrices, self._biases, self._factors)
        )
        for layer, (matrix, bias) in enumerate(zip(weights, biases)):
            # log(1 + exp(x)), i.e. softplus, without overflow
            units = np.logaddexp(0.0, matrix) @ units + bias
            if layer < len(factors):
                units = units + np.tanh(factors[layer]) * np.tanh(units)
        return scipy.special.expit(units[:, 0].T)

    def _log_cdf(self, v: tf.Tensor) -> tf.Tensor:
        return tf.math.log_sigmoid(self.logit_cdf(v))

    def _cdf(self, v: tf.Tensor) -> tf.Tensor:
        return tf.math.sigmoid(self.logit_cdf(v))

    def _log_prob(self, v: tf.Tensor) -> tf.Tensor:
        v = self._per_channel(v)  # otherwise the slopes of all channels would be added
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(v)
            logit = self.logit_cdf(v)
        slope = tape.gradient(logit, v)
        return tf.math.log_sigmoid(logit) + tf.math.log_sigmoid(-logit) + tf.math.log(slope)

    def _batch_shape(self) -> tf.TensorShape:
        return tf.TensorShape([self.channels])

    def _batch_shape_tensor(self) -> tf.Tensor:
        return tf.constant([self.channels])

    def _event_shape(self) -> tf.TensorShape:
        return tf.TensorShape([])

    def _event_shape_tensor(self) -> tf.Tensor:
        return tf.constant([], tf.int32)


def _product(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Returns `a [C, m, k]` times `b [C, k, n]`, as [C, m, n].

    If `a` has one row or one column, a sum replaces the matrix product. oneDNN in TensorFlow 2.14
    mixes up a matrix of one row with the transpose of one of one column. If two threads create both
    for the first time, it writes outside its memory. Later versions of TensorFlow do not.
    """
    if 1 in a.shape[1:]:
        return tf.reduce_sum(a[..., None] * b[:, None], axis=2)
    return a @ b


class NoisyDensity(UniformNoise):
    """A `Density` plus uniform noise: `p(v) = F(v + 1/2) - F(v - 1/2)`.

    With `above` and `below`, the logits at both ends, and the sigmoid `s`, `p = s(above) s(-below)
    (1 - exp(below - above))`. No factor cancels in either tail, and the network runs once at each
    end.
    """

    def __init__(self, density: Density):
        super().__init__(density, {"density": density}, False, False, "NoisyDensity")

    def _batch_shape(self) -> tf.TensorShape:
        return self.base.batch_shape

    def _batch_shape_tensor(self) -> tf.Tensor:
        return self.base.batch_shape_tensor()

    def _log_prob(self, v: tf.Tensor) -> tf.Tensor:
        below, above = tf.unstack(self.base.logit_cdf(tf.stack([v - 0.5, v + 0.5])))
        rise = tf.maximum(above - below, _LEAST_RISE)
        return (
            tf.math.log_sigmoid(above)
            + tf.math.log_sigmoid(-below)
            + tf.math.log(-tf.math.expm1(-rise))
        )


# Lower bound of the logit's increase across the box, for logits so large that float32 shows none.
_LEAST_RISE = 1e-12


class FactorizedModel(EntropyModel):
    """Entropy model `p(z)`: a learned `Density` for each channel, plus uniform noise.

    The quantization offset is each channel's median, a weight without gradient. In each training
    step, `track_offset` takes one Newton step on the density's logit. This keeps the weight at the
    median while the density changes, and costs one evaluation per channel. Without these steps the
    median is constant, as post-training requires.

    Args:
      channels: channels of the latent.
      filters: hidden widths of the density network; (3, 3, 3) as in the papers.
      init_scale: initial width of the density, in quantization steps.
      name: the latent's name.
    """

    def __init__(
        self,
        channels: int,
        filters: tuple[int, ...] = (3, 3, 3),
        init_scale: float = 10.0,
        name: str = "z",
    ):
        super().__init__(name=name)
        self.channels = channels
        self.density = Density(channels, filters, init_scale)
        self.medians = self.add_weight(
            "medians",
            shape=(channels,),
            initializer="zeros",
            trainable=False,
            aggregation=tf.VariableAggregation.MEAN,
        )

    def prior(self) -> NoisyDensity:
        return NoisyDensity(self.density)

    def offset(self) -> tf.Tensor:
        return self.medians

    def track_offset(self) -> None:
        """Takes one Newton step of every median towards `F(median) = 1/2`, of length at most 1."""
        medians = tf.identity(self.medians)
        with tf.GradientTape() as tape:
            tape.watch(medians)
            logit = self.density.logit_cdf(medians)
        step = logit / tf.maximum(tape.gradient(logit, medians), 1e-6)
        self.medians.assign(medians - tf.clip_by_value(step, -1.0, 1.0))

    def coding_table(self) -> ChannelTable:
        medians = self.medians.numpy().astype(np.float64)
        return ChannelTable.from_cdf(lambda v: self.density.cdf64(v + medians), self.channels)

    def coding_params(self, shape: tf.Tensor) -> tuple[tf.Tensor]:
        return (shape,)

    def coding_table_of_0_1(self) -> ChannelTable:
        """Returns the table of tfquant 0.1 for the same weights, from TensorFlow's float32 kernels.

        It depends on the version of TensorFlow: softplus, tanh and sigmoid may differ in the last
        bit.
        """
        medians = self.medians.numpy()

        def cdf(points: np.ndarray) -> np.ndarray:
            return self.density.cdf(tf.constant(points + medians, tf.float32)).numpy()

        return ChannelTable.from_cdf(cdf, self.channels)
