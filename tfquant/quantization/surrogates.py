"""Surrogates of rounding: a forward map and the estimators of its gradient.

A surrogate replaces `round(v)` while a codec trains, where `v = y - offset`. The table `SURROGATES`
defines for each surrogate the forward map, its noise, the map whose slope the straight-through
estimator uses, and the two ends of its expected gradient. Source: "On Uniform Scalar Quantization
for Learned Image Compression" (arXiv 2309.17051), section 4.1. The names are the paper's.

Estimators of the gradient:

- `standard`: automatic differentiation of a deterministic, differentiable forward map.
- `pathwise` (PGE): automatic differentiation through the sampled forward map; unbiased.
- `straight_through` (STE): treats the hard, stochastic or denoising part as the identity, but not
  the deterministic soft round before it. The slope is 1, or `s_a'(v)` for SUA and SRA.
- `expected` (EP), for the rate only: the gradient of the expected bits in closed form,
  `backward'(v) [R(high) - R(low)]` with the ends `low` and `high`. The value stays the sampled one.

To add a surrogate, write one pure function in `rounding.py` and add one row to the table.
"""

from __future__ import annotations

import dataclasses
from typing import Callable, NamedTuple

import tensorflow as tf

from tfquant.names import check_known
from tfquant.ops import random
from tfquant.ops.gradients import straight_through
from tfquant.quantization import rounding

ESTIMATORS = ("standard", "pathwise", "straight_through", "expected")


@dataclasses.dataclass(frozen=True)
class Surrogate:
    """One row of `SURROGATES`.

    Attributes:
      name: the name in flags and plans.
      formula: the forward map in the paper's symbols.
      forward: `(v, alpha, noise) -> v_tilde`, elementwise.
      estimators: the estimators that this surrogate supports.
      noise: `(seeds [B, 3], shape) -> [B, ...]`, or None for a deterministic map.
      backward: `(v, alpha) -> w`, the map whose slope replaces the forward map's with
        `straight_through` and `expected`.
      ends: `(v, alpha) -> (low, high)` of the expected gradient, or None if there is none.
      annealed: true if the forward map depends on `alpha`.
      spread: distribution of a sample relative to its ends: "uniform" between them; "ends" for one
        of the two, with the odds of stochastic rounding; None for any other distribution.
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


def _unit_ends(v: tf.Tensor, alpha: tf.Tensor | float) -> tuple[tf.Tensor, tf.Tensor]:
    del alpha
    return v - 0.5, v + 0.5


def _soft_ends(v: tf.Tensor, alpha: tf.Tensor | float) -> tuple[tf.Tensor, tf.Tensor]:
    s = rounding.soft_round(v, alpha)
    return s - 0.5, s + 0.5


def _integer_ends(v: tf.Tensor, alpha: tf.Tensor | float) -> tuple[tf.Tensor, tf.Tensor]:
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
    """The terms of the expected gradient of the bits: `d E[R] / d v = slope (R(high) - R(low))`.

    Attributes:
      v: the centred latent; the only tensor here with a gradient.
      slope: `backward'(v)`, in the shape of `v`.
      low: lower end plus offset, in the shape of `v`.
      high: upper end plus offset, in the shape of `v`.
    """

    v: tf.Tensor
    slope: tf.Tensor
    low: tf.Tensor
    high: tf.Tensor


class MeanGradient(NamedTuple):
    """The terms of the expected gradient of a sample's bits to the mean of `p(. | mu, sigma)`.

    With `R'`, the slope of the bits to the value, the gradient is `-E[R'(value)]`. It equals
    `-(R(high) - R(low))` for a value that is uniform between its ends. It equals
    `-((1 - odds) R'(low) + odds R'(high))` for a value that is one of its ends.

    Attributes:
      low: lower end plus offset, without gradient.
      high: upper end plus offset, without gradient.
      odds: the probability of the upper end; None for a uniform value.
    """

    low: tf.Tensor
    high: tf.Tensor
    odds: tf.Tensor | None


class Sample(NamedTuple):
    """A quantized latent and the terms of the gradient of its bits.

    Attributes:
      value: the quantized values, [B, ...] float32.
      expected: the terms of the latent's gradient, with the estimator `expected`; otherwise None.
      mean: the terms of the gradient to the mean of the distribution, which replace the value's own
        gradient; None to keep the value's own.
    """

    value: tf.Tensor
    expected: ExpectedGradient | None = None
    mean: MeanGradient | None = None


@dataclasses.dataclass(frozen=True)
class Branch:
    """A surrogate with the estimator of its gradient, such as `Branch.parse("sua:expected")`.

    Raises:
      ValueError: a name is unknown, or the surrogate does not support the estimator; the message
        lists the possible values.
    """

    surrogate: str
    estimator: str

    def __post_init__(self) -> None:
        check_known("surrogate", self.surrogate, SURROGATES)
        check_known("gradient estimator", self.estimator, ESTIMATORS)
        possible = SURROGATES[self.surrogate].estimators
        if self.estimator not in possible:
            raise ValueError(
                f"surrogate {self.surrogate!r} has no {self.estimator!r} gradient;"
                f" possible: {', '.join(possible)}"
            )

    @classmethod
    def parse(cls, text: str) -> Branch:
        """Parses `surrogate:estimator`, the form that flags use."""
        surrogate, colon, estimator = text.partition(":")
        if not colon:
            raise ValueError(
                f"a branch must be surrogate:estimator, such as 'aun:pathwise'; got {text!r}"
            )
        return cls(surrogate, estimator)

    def __str__(self) -> str:
        return f"{self.surrogate}:{self.estimator}"

    @property
    def annealed(self) -> bool:
        """True if the surrogate depends on `alpha`."""
        return SURROGATES[self.surrogate].annealed

    def sample(
        self, v: tf.Tensor, offset: tf.Tensor | float, alpha: tf.Tensor | float, seeds: tf.Tensor
    ) -> Sample:
        """Samples the surrogate of `round(v) + offset`, with the estimator's gradient to `v`.

        Args:
          v: [B, ...] float32, the latent minus its offset.
          offset: broadcasts to `v`. It is added to the sample and gets the gradient of the
            addition.
          alpha: scalar float32 tensor, the temperature.
          seeds: [B, 3] int64.

        Returns:
          The sample, [B, ...] float32.
        """
        return self.sample_with(self.noise(v, seeds), v, offset, alpha)

    def noise(self, v: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor | None:
        """Draws the noise of the forward pass; all branches of one surrogate use the same noise.

        Args:
          v: [B, ...] float32; only its shape is used.
          seeds: [B, 3] int64.

        Returns:
          [B, ...] float32 that broadcasts to `v`; None for a deterministic forward pass.
        """
        draw = SURROGATES[self.surrogate].noise
        if draw is None:
            return None
        static = v.shape[1:]
        return draw(seeds, static.as_list() if static.is_fully_defined() else tf.shape(v)[1:])

    def sample_with(
        self,
        noise: tf.Tensor | None,
        v: tf.Tensor,
        offset: tf.Tensor | float,
        alpha: tf.Tensor | float,
    ) -> Sample:
        """Does the same as `sample`, with `noise` that `self.noise` has drawn."""
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
        assert surrogate.ends is not None  # every surrogate with this estimator has them
        low, high = surrogate.ends(still, alpha)
        fixed = tf.stop_gradient(offset)
        return Sample(value + offset, ExpectedGradient(v, slope, low + fixed, high + fixed))

    def mean_gradient(
        self, v: tf.Tensor, offset: tf.Tensor | float, alpha: tf.Tensor | float
    ) -> MeanGradient:
        """Returns the terms of the expected gradient of the bits to the mean.

        The surrogate must have a `spread`. The arguments are those of `sample`.
        """
        surrogate = SURROGATES[self.surrogate]
        v, offset = tf.stop_gradient(v), tf.stop_gradient(offset)
        assert surrogate.ends is not None  # every surrogate with a `spread` has them
        low, high = surrogate.ends(v, alpha)
        odds = surrogate.backward(v, alpha) - low if surrogate.spread == "ends" else None
        return MeanGradient(low + offset, high + offset, odds)
