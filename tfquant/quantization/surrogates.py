"""The surrogates of rounding: forward map x backward estimator.

A surrogate stands for `round(v)` while a codec trains, where `v = y - offset`. The table
`SURROGATES` says for each what the forward pass computes, which noise it draws, the map whose slope
the straight-through estimator uses, and the two ends of its expected gradient. Source: "On Uniform
Scalar Quantization for Learned Image Compression" (arXiv 2309.17051), section 4.1, named as there.

Estimators of the gradient:

- `standard`: automatic differentiation of a deterministic, differentiable forward map.
- `pathwise` (PGE): automatic differentiation through the sampled forward map; unbiased.
- `straight_through` (STE): the hard, stochastic or denoising part counts as the identity, the
  deterministic soft round before it does not: slope 1, or `s_a'(v)` for SUA and SRA.
- `expected` (EP): for the rate alone, the gradient of the expected bits in closed form,
  `backward'(v) [R(high) - R(low)]` with the ends below. The value stays the sampled one.

To add a surrogate: write one pure function in `ops/rounding.py`, and one line in the table.
"""

from __future__ import annotations

import dataclasses
from typing import Callable, NamedTuple

import tensorflow as tf

from tfquant.ops import random
from tfquant.ops.gradients import straight_through
from tfquant.quantization import rounding

ESTIMATORS = ("standard", "pathwise", "straight_through", "expected")


@dataclasses.dataclass(frozen=True)
class Surrogate:
    """One row of the table.

    Attributes:
      name: what flags and plans call it.
      formula: the forward map in the paper's symbols.
      forward: `(v, alpha, noise) -> v_tilde`, elementwise.
      estimators: the estimators that make sense for it.
      noise: `(seeds [B, 3], shape) -> [B, ...]`, or None for a deterministic map.
      backward: `(v, alpha) -> w`, the map whose slope stands for the forward map's under
        `straight_through` and `expected`.
      ends: `(v, alpha) -> (low, high)` of the expected gradient, or None where there is none.
      annealed: whether `alpha` matters.
      spread: how a sample lies about its ends: "uniform" between them, "ends" for one of the two,
        at the odds of stochastic rounding, or None where neither holds.
    """

    name: str
    formula: str
    forward: Callable
    estimators: tuple
    noise: Callable | None = None
    backward: Callable = rounding.identity
    ends: Callable | None = None
    annealed: bool = False
    spread: str | None = None


def _unit_ends(v, alpha):
    del alpha
    return v - 0.5, v + 0.5


def _soft_ends(v, alpha):
    s = rounding.soft_round(v, alpha)
    return s - 0.5, s + 0.5


def _integer_ends(v, alpha):
    # floor(s_a(v)) = floor(v): the soft round keeps each unit interval.
    del alpha
    return tf.floor(v), tf.floor(v) + 1.0


SURROGATES = {
    s.name: s
    for s in (
        Surrogate(
            "round", "round(v)",
            lambda v, alpha, u: rounding.hard_round(v),
            ("straight_through",),
        ),
        Surrogate(
            "sha", "s_a(v)",
            lambda v, alpha, u: rounding.soft_round(v, alpha),
            ("standard",), annealed=True,
        ),
        Surrogate(
            "aun", "v + u",
            lambda v, alpha, u: v + u,
            ("pathwise", "expected"), random.uniform, ends=_unit_ends, spread="uniform",
        ),
        Surrogate(
            "uq_s", "round(v + u) - u, one u an image",
            lambda v, alpha, u: rounding.dither(v, u),
            ("straight_through", "expected"), random.uniform_per_image, ends=_unit_ends,
            spread="uniform",
        ),
        Surrogate(
            "uq_i", "round(v + u) - u",
            lambda v, alpha, u: rounding.dither(v, u),
            ("straight_through", "expected"), random.uniform, ends=_unit_ends,
            spread="uniform",
        ),
        Surrogate(
            "sga", "floor(v) + Gumbel-softmax weight of the ceiling at temperature 1/a",
            lambda v, alpha, g: rounding.gumbel_mix(v, alpha, g),
            ("pathwise", "straight_through"), random.logistic, annealed=True,
        ),
        Surrogate(
            "sua_n", "s_a(v) + u",
            lambda v, alpha, u: rounding.soft_round(v, alpha) + u,
            ("pathwise", "expected"), random.uniform,
            backward=rounding.soft_round, ends=_soft_ends, annealed=True, spread="uniform",
        ),
        Surrogate(
            "sua", "r_a(s_a(v) + u)",
            lambda v, alpha, u: rounding.denoise(rounding.soft_round(v, alpha) + u, alpha),
            ("pathwise", "straight_through", "expected"), random.uniform,
            backward=rounding.soft_round, ends=_unit_ends, annealed=True,
        ),
        Surrogate(
            "sr", "floor(v) + Bernoulli(v - floor(v))",
            lambda v, alpha, u: rounding.stochastic_round(v, u),
            ("straight_through", "expected"), random.uniform, ends=_integer_ends,
            spread="ends",
        ),
        Surrogate(
            "sra", "floor(v) + Bernoulli(s_a(v) - floor(v))",
            lambda v, alpha, u: rounding.stochastic_round(rounding.soft_round(v, alpha), u),
            ("straight_through", "expected"), random.uniform,
            backward=rounding.soft_round, ends=_integer_ends, annealed=True, spread="ends",
        ),
    )
}  # fmt: skip


class ExpectedGradient(NamedTuple):
    """What the expected gradient of the bits needs: `d E[R] / d v = slope (R(high) - R(low))`.

    Attributes:
      v: the centred latent, the one tensor here that carries gradient.
      slope: `backward'(v)`, same shape.
      low: lower end, on the latent's own axis (offset added).
      high: upper end, likewise.
    """

    v: tf.Tensor
    slope: tf.Tensor
    low: tf.Tensor
    high: tf.Tensor


class MeanGradient(NamedTuple):
    """What the expected gradient of a sample's bits to the mean of `p(. | mu, sigma)` needs.

    With `R'` the slope of the bits to the value, that gradient is `-E[R'(value)]`:
    `-(R(high) - R(low))` for a value that is uniform between its ends, and
    `-((1 - odds) R'(low) + odds R'(high))` for one that is one of them.

    Attributes:
      low: lower end, on the latent's own axis (offset added), without gradient.
      high: upper end, likewise.
      odds: the probability of the upper end; None for a uniform value.
    """

    low: tf.Tensor
    high: tf.Tensor
    odds: tf.Tensor | None


class Sample(NamedTuple):
    """A quantized latent, and where the gradient of its bits comes from.

    Attributes:
      value: its value.
      expected: under the estimator `expected`, the latent's gradient.
      mean: in place of the value's own, the gradient to the mean of its distribution.
    """

    value: tf.Tensor
    expected: ExpectedGradient | None = None
    mean: MeanGradient | None = None


@dataclasses.dataclass(frozen=True)
class Branch:
    """A surrogate with the estimator of its gradient, such as `Branch.parse("sua:expected")`.

    Raises:
      ValueError: for an unknown name or an estimator that has no meaning for the surrogate; the
        message lists what is possible.
    """

    surrogate: str
    estimator: str

    def __post_init__(self):
        if self.surrogate not in SURROGATES:
            raise ValueError(
                f"unknown surrogate {self.surrogate!r}; known: {', '.join(SURROGATES)}"
            )
        if self.estimator not in ESTIMATORS:
            raise ValueError(
                f"unknown gradient estimator {self.estimator!r}; known: {', '.join(ESTIMATORS)}"
            )
        possible = SURROGATES[self.surrogate].estimators
        if self.estimator not in possible:
            raise ValueError(
                f"surrogate {self.surrogate!r} has no {self.estimator!r} gradient;"
                f" possible: {', '.join(possible)}"
            )

    @classmethod
    def parse(cls, text: str) -> Branch:
        """`surrogate:estimator`, as flags write it."""
        surrogate, colon, estimator = text.partition(":")
        if not colon:
            raise ValueError(
                f"a branch is written surrogate:estimator, such as 'aun:pathwise'; got {text!r}"
            )
        return cls(surrogate, estimator)

    def __str__(self) -> str:
        return f"{self.surrogate}:{self.estimator}"

    @property
    def annealed(self) -> bool:
        return SURROGATES[self.surrogate].annealed

    def sample(self, v, offset, alpha, seeds) -> Sample:
        """The surrogate of `round(v) + offset`, with the estimator's gradient to `v`.

        Args:
          v: [B, ...] float32, the latent less its offset.
          offset: broadcasts to `v`; is added again, and gets the plain gradient of that addition.
          alpha: scalar float32 tensor, the temperature.
          seeds: [B, 3] int64.

        Returns:
          The sample, [B, ...] float32.
        """
        return self.sample_with(self.noise(v, seeds), v, offset, alpha)

    def noise(self, v, seeds) -> tf.Tensor | None:
        """What the forward pass draws for `v`; the same for all branches of one surrogate.

        Args:
          v: [B, ...] float32, of which the shape counts.
          seeds: [B, 3] int64.

        Returns:
          [B, ...] float32 that broadcasts to `v`; None for a deterministic forward pass.
        """
        draw = SURROGATES[self.surrogate].noise
        if draw is None:
            return None
        static = v.shape[1:]
        return draw(seeds, static.as_list() if static.is_fully_defined() else tf.shape(v)[1:])

    def sample_with(self, noise, v, offset, alpha) -> Sample:
        """What `sample` gives, of `noise` that `self.noise` has drawn."""
        surrogate = SURROGATES[self.surrogate]
        if self.estimator in ("standard", "pathwise"):
            return Sample(surrogate.forward(v, alpha, noise) + offset)
        still = tf.stop_gradient(v)
        value = tf.stop_gradient(surrogate.forward(still, alpha, noise))
        if self.estimator == "straight_through":
            return Sample(straight_through(value, surrogate.backward(v, alpha)) + offset)
        with tf.GradientTape() as tape:
            tape.watch(still)
            relaxed = surrogate.backward(still, alpha)
        slope = tape.gradient(relaxed, still)
        low, high = surrogate.ends(still, alpha)
        fixed = tf.stop_gradient(offset)
        return Sample(value + offset, ExpectedGradient(v, slope, low + fixed, high + fixed))

    def mean_gradient(self, v, offset, alpha) -> MeanGradient:
        """The expected gradient of the bits to the mean, for a surrogate with a `spread`.

        Arguments as in `sample`.
        """
        surrogate = SURROGATES[self.surrogate]
        v, offset = tf.stop_gradient(v), tf.stop_gradient(offset)
        low, high = surrogate.ends(v, alpha)
        odds = surrogate.backward(v, alpha) - low if surrogate.spread == "ends" else None
        return MeanGradient(low + offset, high + offset, odds)
