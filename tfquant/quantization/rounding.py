"""Rounding and the maps that relax it.

Every function is elementwise and pure; each gives its value and its slope. Sources: soft rounding
and its inverse and denoiser are Agustsson and Theis, "Universally Quantized Neural Compression"
(2020), sections 4.1 and 4.2; Gumbel mixing is Yang, Bamler and Mandt, "Improving Inference for
Neural Image Compression" (2020), section 3.2. With `r = v - floor(v) - 1/2` and
`t = tanh(a/2)`:

| map                  | value                                        | slope                    |
|----------------------|----------------------------------------------|--------------------------|
| `hard_round`         | nearest integer, ties to even                | none: 0                  |
| `soft_round`         | `floor(v) + 1/2 + tanh(a r) / (2 t)`         | `a / (2 t cosh(a r)^2)`  |
| `soft_round_inverse` | `floor(w) + 1/2 + atanh(2 r t) / a`          | `2 t / (a (1 - (2rt)^2))`|
| `denoise`            | `soft_round_inverse(w - 1/2) + 1/2`          | the inverse's, `w - 1/2` |
| `dither`             | `round(v + u) - u`                           | none: 0                  |
| `stochastic_round`   | `floor(v) + Bernoulli(v - floor(v))`         | none: 0                  |
| `gumbel_mix`         | convex mix of floor and ceiling              | automatic                |

`alpha` (written `a` above) is a positive scalar tensor, larger is harder. It is a schedule, not a
parameter: no map sends it a gradient.
"""

from __future__ import annotations

import tensorflow as tf

# atanh is infinite at 1; SGA's logits keep this distance from it, which leaves the value unchanged
# in float32 and the slope finite.
_GUMBEL_MARGIN = 1e-5


def identity(v: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
    """The map whose slope the plain straight-through estimator uses: `v`, slope 1."""
    del alpha
    return tf.identity(v)


def hard_round(v: tf.Tensor) -> tf.Tensor:
    """The nearest integer, ties to even, as a float."""
    return tf.round(v)


def soft_round_slope(v: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
    """`s_a'(v) = a / (2 tanh(a/2) cosh(a r)^2)`; 1 on average over a period."""
    r = v - tf.floor(v) - 0.5
    # 1 / cosh^2 = 1 - tanh^2 would cancel for large `alpha`; as |r| <= 1/2, cosh does not overflow.
    return alpha / (2.0 * tf.tanh(0.5 * alpha) * tf.square(tf.cosh(alpha * r)))


@tf.custom_gradient
def soft_round(v: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
    """`s_a(v)`: the identity for `alpha -> 0`, rounding for `alpha -> inf`, invertible between."""
    v = tf.convert_to_tensor(v)
    alpha = tf.convert_to_tensor(alpha, v.dtype)
    base = tf.floor(v) + 0.5
    value = base + tf.tanh(alpha * (v - base)) / (2.0 * tf.tanh(0.5 * alpha))

    def grad(upstream):
        return upstream * soft_round_slope(v, alpha), None

    return value, grad


@tf.custom_gradient
def soft_round_inverse(w: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
    """`s_a^-1(w)`, accurate up to the ends of each unit interval for any `alpha`.

    There `1 - tanh(a/2)` underflows in float32 from `alpha` of about 17 on, so both factors of
    `1 - z^2` are formed from `q = 1 - tanh(a/2) = 2 / (1 + exp(a))`.
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

    def grad(upstream):
        return upstream * 2.0 * t / (alpha * one_minus_z * (1.0 + z)), None

    return value, grad


def denoise(w: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
    """`r_a(w) = s_a^-1(w - 1/2) + 1/2`: the middle of all `v` that `s_a(v) + u` may have come from.

    It is the conditional mean of `v` for a locally flat density, and undoes the noise's ends:
    `r_a(s_a(v) + 1/2) = v + 1/2` and `r_a(s_a(v) - 1/2) = v - 1/2`.
    """
    return soft_round_inverse(w - 0.5, alpha) + 0.5


def dither(v: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
    """Subtractive dither, `round(v + u) - u`: distributed as `v + u` whatever `v` is."""
    return hard_round(v + u) - u


def stochastic_round(v: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
    """`floor(v) + Bernoulli(v - floor(v))`, the draw made from `u` uniform on [-1/2, 1/2)."""
    return tf.floor(v + (u + 0.5))


def gumbel_mix(v: tf.Tensor, alpha: tf.Tensor, logistic: tf.Tensor) -> tf.Tensor:
    """SGA: `floor(v) + w`, `w` the Gumbel-softmax weight of the ceiling at temperature `1/alpha`.

    The logits are `-atanh(v - floor(v)) a` for the floor and `-atanh(ceil(v) - v) a` for the
    ceiling. A softmax over two classes needs only the difference of their two Gumbel variables,
    which is `logistic`.
    """
    floor = tf.floor(v)
    d = tf.clip_by_value(v - floor, _GUMBEL_MARGIN, 1.0 - _GUMBEL_MARGIN)
    logit = alpha * (tf.atanh(d) - tf.atanh(1.0 - d))
    return floor + tf.sigmoid(alpha * (logit + logistic))
