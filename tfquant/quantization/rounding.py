"""Rounding and the maps that relax it.

Every function is elementwise and pure, and defines its value and its slope. Sources: soft rounding,
its inverse and its denoiser are from Agustsson and Theis, "Universally Quantized Neural
Compression" (2020), sections 4.1 and 4.2. Gumbel mixing is from Yang, Bamler and Mandt, "Improving
Inference for Neural Image Compression" (2020), section 3.2. With `r = v - floor(v) - 1/2` and
`t = tanh(a/2)`:

| map                  | value                                        | slope                    |
|----------------------|----------------------------------------------|--------------------------|
| `hard_round`         | nearest integer, ties to even                | 0                        |
| `soft_round`         | `floor(v) + 1/2 + tanh(a r) / (2 t)`         | `a / (2 t cosh(a r)^2)`  |
| `soft_round_inverse` | `floor(w) + 1/2 + atanh(2 r t) / a`          | `2 t / (a (1 - (2rt)^2))`|
| `denoise`            | `soft_round_inverse(w - 1/2) + 1/2`          | the inverse's at `w - 1/2`|
| `dither`             | `round(v + u) - u`                           | 0                        |
| `stochastic_round`   | `floor(v) + Bernoulli(v - floor(v))`         | 0                        |
| `gumbel_mix`         | convex combination of floor and ceiling      | automatic                |

`alpha` (`a` above) is a positive scalar tensor. A larger `alpha` brings a map closer to rounding.
`alpha` follows a schedule and is not trained: no map gives it a gradient.
"""

from __future__ import annotations

import tensorflow as tf

from tfquant.ops.gradients import custom_gradient

# atanh is infinite at 1. SGA's logits stay this far from it: the slope stays finite, and in float32
# the value does not change.
_GUMBEL_MARGIN = 1e-5


def identity(v: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
    """Returns `v`, with slope 1: the map whose slope the plain straight-through estimator uses."""
    del alpha
    return tf.identity(v)


def hard_round(v: tf.Tensor) -> tf.Tensor:
    """Returns the nearest integer as a float, ties to even."""
    return tf.round(v)


def soft_round_slope(v: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
    """Returns `s_a'(v) = a / (2 tanh(a/2) cosh(a r)^2)`. Its mean over a period is 1."""
    r = v - tf.floor(v) - 0.5
    # 1 - tanh^2 would cancel for large `alpha`. cosh does not overflow, because |r| <= 1/2.
    return alpha / (2.0 * tf.tanh(0.5 * alpha) * tf.square(tf.cosh(alpha * r)))


@custom_gradient
def soft_round(v: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
    """Returns `s_a(v)`: the identity for `alpha -> 0`, rounding for `alpha -> inf`; invertible."""
    v = tf.convert_to_tensor(v)
    alpha = tf.convert_to_tensor(alpha, v.dtype)
    base = tf.floor(v) + 0.5
    value = base + tf.tanh(alpha * (v - base)) / (2.0 * tf.tanh(0.5 * alpha))

    def grad(upstream: tf.Tensor) -> tuple[tf.Tensor, None]:
        return upstream * soft_round_slope(v, alpha), None

    return value, grad


@custom_gradient
def soft_round_inverse(w: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
    """Returns `s_a^-1(w)`, accurate up to the ends of each unit interval for any `alpha`.

    At the ends, `1 - tanh(a/2)` underflows in float32 for `alpha` above about 17. Both factors of
    `1 - z^2` are therefore computed from `q = 1 - tanh(a/2) = 2 / (1 + exp(a))`.
    """
    w = tf.convert_to_tensor(w)
    alpha = tf.convert_to_tensor(alpha, w.dtype)
    base = tf.floor(w) + 0.5
    rho = 2.0 * (w - base)  # [-1, 1]
    size = tf.abs(rho)
    t = tf.tanh(0.5 * alpha)
    q = 2.0 * tf.sigmoid(-alpha)
    z = size * t
    one_minus_z = (1.0 - size) + size * q
    atanh = 0.5 * tf.math.log1p(2.0 * z / one_minus_z)
    value = base + tf.sign(rho) * atanh / alpha

    def grad(upstream: tf.Tensor) -> tuple[tf.Tensor, None]:
        return upstream * 2.0 * t / (alpha * one_minus_z * (1.0 + z)), None

    return value, grad


def denoise(w: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
    """Returns `r_a(w) = s_a^-1(w - 1/2) + 1/2`, the midpoint of all `v` with `s_a(v) + u = w`.

    It is the conditional mean of `v` for a locally flat density. It inverts both extremes of the
    noise: `r_a(s_a(v) + 1/2) = v + 1/2` and `r_a(s_a(v) - 1/2) = v - 1/2`.
    """
    return soft_round_inverse(w - 0.5, alpha) + 0.5


def dither(v: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
    """Returns `round(v + u) - u` (subtractive dither), distributed as `v + u` for any `v`."""
    return hard_round(v + u) - u


def stochastic_round(v: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
    """Returns `floor(v) + Bernoulli(v - floor(v))`, drawn from `u`, uniform on [-1/2, 1/2)."""
    return tf.floor(v + (u + 0.5))


def gumbel_mix(v: tf.Tensor, alpha: tf.Tensor, logistic: tf.Tensor) -> tf.Tensor:
    """Returns SGA's `floor(v) + w`, with Gumbel-softmax weight `w` of the ceiling.

    The temperature of the Gumbel-softmax is `1 / alpha`. The logits are `-atanh(v - floor(v))
    alpha` for the floor and `-atanh(ceil(v) - v) alpha` for the ceiling. A softmax over two classes
    needs only the difference of their two Gumbel variables, which is the argument `logistic`.
    """
    floor = tf.floor(v)
    d = tf.clip_by_value(v - floor, _GUMBEL_MARGIN, 1.0 - _GUMBEL_MARGIN)
    logit = alpha * (tf.atanh(d) - tf.atanh(1.0 - d))
    return floor + tf.sigmoid(alpha * (logit + logistic))
