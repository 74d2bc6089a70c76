"""Conditional likelihoods: a parametric density convolved with the unit box, in log space.

The density of `y_tilde = y + u`, with `u` uniform on [-1/2, 1/2), and the probability of a rounded
latent are the same function (Balle et al., "Variational image compression with a scale hyperprior",
2018, appendix 6.2):

    p(v) = F(v + 1/2) - F(v - 1/2)

`F` is the CDF of the base density. `NoisyGaussian`, `NoisyLaplacian` and `NoisyGaussianMixture` are
TFP distributions, so `log_prob` is in nats, and `-log_prob / log(2)` is in bits.

The functions are those of `tfc.NoisyNormal` and related classes, but the arithmetic differs. Each
family's `log p` is one closed form with a closed-form gradient that shares its tensors. This is
about 10 times faster, forward and backward. It is accurate in float32: values and gradients are
accurate in the far tail (a thousand sigmas and more), at scales from 1e-6 to 256. No branch of a
`tf.where` is infinite or NaN, as long as `(|v - loc| / scale)^2 / scale` is below 1e38. The caller
applies the lower bound of sigma.

Both families are symmetric about `loc`, so all functions below use `c = |v - loc|`.
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import distributions as tfd

from tfquant.ops.gradients import custom_gradient

_SQRT_HALF = math.sqrt(0.5)

# Coefficients of erfcx(x) = exp(x^2) erfc(x) for x >= _TAIL, as t P(t) with t = 1 / (x + _SHIFT).
# P(0) = 1/sqrt(pi) makes the limit exact (erfcx(x) -> 1 / (x sqrt(pi))). The other six coefficients
# minimize the largest relative error compared with scipy.special.erfcx, 7.3e-7. They solve the
# linear program "minimize e subject to |t P(t) / erfcx(x) - 1| <= e" over 6000 Chebyshev points of
# t (scipy.optimize.linprog). _SHIFT is the best of values in steps of 0.05.
_TAIL = 0.7
_SHIFT = 1.65
_ERFCX = (
    1.0 / math.sqrt(math.pi),
    0.930829652,
    1.25905323,
    1.03336793,
    0.966305731,
    -6.70317807,
    5.03262864,
)


def _erfcx(x: tf.Tensor) -> tf.Tensor:
    """Returns `exp(x^2) erfc(x)` for `x >= _TAIL`, accurate to 1e-6."""
    t = tf.math.reciprocal(x + _SHIFT)
    value = _ERFCX[-1] * t
    for coefficient in _ERFCX[-2::-1]:
        value = (value + coefficient) * t
    return value


@custom_gradient
def _log_gaussian_mass(c: tf.Tensor, scale: tf.Tensor) -> tuple:
    """Returns `log(Phi((c + 1/2) / scale) - Phi((c - 1/2) / scale))` for `c >= 0`.

    With `a, b = (c -+ 1/2) / (scale sqrt 2)` and `S = 2 p exp(a^2)`,

        S = erfcx(a) - exp(a^2 - b^2) erfcx(b),    b^2 - a^2 = c / scale^2.

    This does not underflow, and with `expm1` it does not cancel. The result is `log p = log(S / 2)
    - a^2`. For `a < _TAIL`, where `erfcx` may overflow, `2 p = erf(b) - erf(a)` is used directly.
    In both cases, `r = exp(-a^2) / (2 p)` is available, and with `E = exp(-c / scale^2)`

        dlog p / dc     = -sqrt(2 / pi) / scale   r (1 - E)
        dlog p / dscale =  2 / sqrt(pi) / scale   r (a - b E).

    Args:
      c: [...] float, `|v - loc|`.
      scale: [...] float, the same shape as `c`.
    """
    k = _SQRT_HALF / scale
    a = (c - 0.5) * k
    b = a + k
    # 1 - E in this form, because c / scale^2 may be far below float32's epsilon.
    one_minus_e = -tf.math.expm1(-2.0 * c * k * k)

    central = a < _TAIL
    a_tail = tf.maximum(a, _TAIL)  # keeps the unselected branch finite
    near, far = _erfcx(a_tail), _erfcx(a_tail + k)
    mass = tf.where(central, tf.math.erf(b) - tf.math.erf(a), near - far + one_minus_e * far)
    minus_a2 = -tf.square(a)
    # mass is 2 p if central, and 2 p exp(a^2) in the tail.
    exponent = tf.where(central, minus_a2, tf.zeros_like(a))
    # erf may exceed 1 by an ulp.
    log_p = tf.math.log(tf.minimum(0.5 * mass, 1.0)) + (minus_a2 - exponent)

    def grad(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        common = tf.exp(exponent) / mass * k * upstream
        d_c = common * one_minus_e * (-2.0 / math.sqrt(math.pi))
        d_scale = common * (a - b * (1.0 - one_minus_e)) * (2.0 * math.sqrt(2.0 / math.pi))
        return d_c, d_scale

    return log_p, grad


@custom_gradient
def _log_laplacian_mass(c: tf.Tensor, scale: tf.Tensor) -> tuple:
    """Returns `log(F(c + 1/2) - F(c - 1/2))`, `F` the CDF of the Laplacian density, for `c >= 0`.

    With `n = min(c - 1/2, 0) / scale`, `m = max(c - 1/2, 0) / scale` and
    `g = 1 - exp(-min(2 c, 1) / scale)`,

        2 p exp(m) = S = exp(n) g + 2 (1 - exp(n))

    holds on both sides of `c = 1/2`. Both terms are positive, so nothing cancels, and there is no
    branch. With `r = exp(n) / (scale S)`

        dlog p / dc     = -r g
        dlog p / dscale =  r ((c - 1/2) - (c + 1/2) (1 - g)) / scale.

    Args:
      c: [...] float, `|v - loc|`.
      scale: [...] float, the same shape as `c`.
    """
    rate = tf.math.reciprocal(scale)
    near = c - 0.5
    edge = near * rate
    n = tf.minimum(edge, 0.0)
    exp_n = tf.exp(n)
    g = -tf.math.expm1(tf.maximum(-2.0 * c, -1.0) * rate)
    mass = exp_n * g - 2.0 * tf.math.expm1(n)
    log_p = tf.math.log(0.5 * mass) - tf.maximum(edge, 0.0)

    def grad(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        common = exp_n * rate / mass * upstream
        return -common * g, common * (near - (c + 0.5) * (1.0 - g)) * rate

    return log_p, grad


def _broadcast(x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Broadcasts both tensors to their common shape; adds no operation if they statically have
    it.
    """
    if x.shape.is_fully_defined() and x.shape == y.shape:
        return x, y
    shape = tf.broadcast_dynamic_shape(tf.shape(x), tf.shape(y))
    return tf.broadcast_to(x, shape), tf.broadcast_to(y, shape)


class UniformNoise(tfd.Distribution):
    """Distribution of `X + U`, `X` from `base` and `U` uniform on [-1/2, 1/2); events are scalars.

    A subclass adds `_log_prob`.
    """

    def __init__(
        self,
        base: tfd.Distribution,
        parameters: dict[str, Any],
        validate_args: bool,
        allow_nan_stats: bool,
        name: str,
    ):
        if base.dtype not in (tf.float32, tf.float64):
            raise ValueError(
                f"{type(self).__name__}: parameters of type {base.dtype.name}; known: float32, "
                "float64 (likelihoods are computed in full precision: cast first)"
            )
        self._base = base
        super().__init__(
            dtype=base.dtype,
            reparameterization_type=base.reparameterization_type,
            validate_args=validate_args,
            allow_nan_stats=allow_nan_stats,
            parameters=parameters,
            name=name,
        )

    @property
    def base(self) -> tfd.Distribution:
        """The distribution before the noise: that of `y`, if this one is that of `y_tilde`."""
        return self._base

    def _event_shape_tensor(self) -> tf.Tensor:
        return tf.constant([], dtype=tf.int32)

    def _event_shape(self) -> tf.TensorShape:
        return tf.TensorShape([])

    def _sample_n(self, n: tf.Tensor, seed: Any = None) -> tf.Tensor:
        base_seed, noise_seed = tfp.random.split_seed(seed, salt=type(self).__name__)
        samples = self.base.sample(n, seed=base_seed)
        u = tf.random.stateless_uniform(
            tf.shape(samples), noise_seed, minval=-0.5, maxval=0.5, dtype=self.dtype
        )
        return samples + u

    def _mean(self) -> tf.Tensor:
        return self.base.mean()

    def _variance(self) -> tf.Tensor:
        return self.base.variance() + 1.0 / 12.0


class _NoisyLocationScale(UniformNoise):
    """Noisy density that is symmetric about `loc`; `_log_mass(c, scale)` is its `log p`."""

    @property
    def loc(self) -> tf.Tensor:
        """The mean, [...]."""
        return self.base.loc

    @property
    def scale(self) -> tf.Tensor:
        """The scale parameter of the base density, [...]."""
        return self.base.scale

    def _log_prob(self, v: tf.Tensor) -> tf.Tensor:
        return self._log_mass(*_broadcast(tf.abs(v - self.loc), self.scale))


class NoisyGaussian(_NoisyLocationScale):
    """`N(loc, scale^2)` plus uniform noise.

    Args:
      loc: [...] float32 or float64, mean `mu`.
      scale: [...] float, `sigma > 0`; broadcasts with `loc`.
      validate_args: if true, checks the parameters' values at run time, as in TFP.
      allow_nan_stats: as in TFP.
      name: name of the distribution.

    Raises:
      ValueError: the parameters have reduced precision.
    """

    _log_mass = staticmethod(_log_gaussian_mass)

    def __init__(
        self,
        loc: tf.Tensor,
        scale: tf.Tensor,
        validate_args: bool = False,
        allow_nan_stats: bool = True,
        name: str = "NoisyGaussian",
    ):
        parameters = dict(locals())
        base = tfd.Normal(loc, scale, validate_args=validate_args)
        super().__init__(base, parameters, validate_args, allow_nan_stats, name)

    @classmethod
    def _parameter_properties(
        cls, dtype: tf.DType, num_classes: int | None = None
    ) -> dict[str, Any]:
        return tfd.Normal.parameter_properties(dtype, num_classes)


class NoisyLaplacian(_NoisyLocationScale):
    """Laplacian density `exp(-|x - loc| / scale) / (2 scale)` plus uniform noise.

    Args:
      loc: [...] float32 or float64, mean `mu`.
      scale: [...] float, positive; broadcasts with `loc`. The variance of the base is `2 scale^2`.
      validate_args: if true, checks the parameters' values at run time, as in TFP.
      allow_nan_stats: as in TFP.
      name: name of the distribution.

    Raises:
      ValueError: the parameters have reduced precision.
    """

    _log_mass = staticmethod(_log_laplacian_mass)

    def __init__(
        self,
        loc: tf.Tensor,
        scale: tf.Tensor,
        validate_args: bool = False,
        allow_nan_stats: bool = True,
        name: str = "NoisyLaplacian",
    ):
        parameters = dict(locals())
        base = tfd.Laplace(loc, scale, validate_args=validate_args)
        super().__init__(base, parameters, validate_args, allow_nan_stats, name)

    @classmethod
    def _parameter_properties(
        cls, dtype: tf.DType, num_classes: int | None = None
    ) -> dict[str, Any]:
        return tfd.Laplace.parameter_properties(dtype, num_classes)


class NoisyGaussianMixture(UniformNoise):
    """`sum_k w_k N(loc_k, scale_k^2)` plus uniform noise, with `w = softmax(logits)`.

    Args:
      logits: [..., K] float32 or float64, unnormalized log weights.
      loc: [..., K] float, means of the components.
      scale: [..., K] float, `sigma > 0` of the components. All three broadcast; `batch_shape` is
        [...].
      validate_args: if true, checks the parameters' values at run time, as in TFP.
      allow_nan_stats: as in TFP.
      name: name of the distribution.

    Raises:
      ValueError: the parameters have reduced precision.
    """

    def __init__(
        self,
        logits: tf.Tensor,
        loc: tf.Tensor,
        scale: tf.Tensor,
        validate_args: bool = False,
        allow_nan_stats: bool = True,
        name: str = "NoisyGaussianMixture",
    ):
        parameters = dict(locals())
        self._components = NoisyGaussian(loc, scale, validate_args=validate_args)
        base = tfd.MixtureSameFamily(
            tfd.Categorical(logits=logits, validate_args=validate_args),
            self._components.base,
            validate_args=validate_args,
        )
        super().__init__(base, parameters, validate_args, allow_nan_stats, name)

    @classmethod
    def _parameter_properties(
        cls, dtype: tf.DType, num_classes: int | None = None
    ) -> dict[str, Any]:
        per_component = dict(
            event_ndims=1, shape_fn=lambda shape: tf.concat([shape, [num_classes]], axis=0)
        )
        return dict(
            logits=tfp.util.ParameterProperties(**per_component),
            loc=tfp.util.ParameterProperties(**per_component),
            scale=tfp.util.ParameterProperties(
                default_constraining_bijector_fn=tfp.bijectors.Softplus, **per_component
            ),
        )

    @property
    def logits(self) -> tf.Tensor:
        """The unnormalized log weights, [..., K]."""
        return self.base.mixture_distribution.logits

    @property
    def loc(self) -> tf.Tensor:
        """The means of the components, [..., K]."""
        return self._components.loc

    @property
    def scale(self) -> tf.Tensor:
        """The `sigma` of the components, [..., K]."""
        return self._components.scale

    def _log_prob(self, v: tf.Tensor) -> tf.Tensor:
        log_weights = tf.nn.log_softmax(self.logits, axis=-1)
        components = self._components.log_prob(v[..., tf.newaxis])
        return tf.reduce_logsumexp(log_weights + components, axis=-1)
