"""Gradient estimation risk: bias and variance of the gradients that train the encoder.

Source: "On Uniform Scalar Quantization for Learned Image Compression" (arXiv 2309.17051), section
4.4. A surrogate's gradient `g` with respect to the latent `y` estimates the gradient of the
expected loss, `g_bar = d E[loss] / d y`. Conditional on `y`, with expectations over the surrogate's
noise,

    bias = E[g] - g_bar,    variance = E[(g - E[g])^2],    E[(g - g_bar)^2] = bias^2 + variance.

The paper's Table II gives the rate of one scalar. Here, `y`, its entropy parameters and the
synthesis transform belong to a codec, and the distortion is measured too. The reference `g_bar` is:

- Rate: bits are a sum over elements, so the expected gradient (`expected` in
  `tfquant/quantization/surrogates.py`) is exact. Entropy parameters are constant: in codecs with a
  context of `y` itself, the effect of an element on the bits of later elements is ignored.
- Distortion: its expected gradient has no closed form, but it uses the same ends of each element.
  With constant noise of the other elements,

      d E[D] / d y_i = slope_i E_others[D(y_i at its high end) - D(y_i at its low end)]

  is exact for every surrogate with independent noise. It takes two decodings per element and draw,
  so it is measured on a random subset of elements. The noise of the other elements is that of the
  measured gradient, so most of it cancels in the difference.
- SGA has no such ends: the reference is the pathwise gradient of the same draws.
- Mean: with zero-center quantization, bits depend only on `y - mu`, so `g_bar` with respect to `mu`
  is the negative `g_bar` with respect to `y`. The plan determines the actual gradient to `mu`
  (`stop_gradient` and `mean_gradient` in `tfquant/quantization/plans.py`).
- Rounding has no reference, because its expected loss is a staircase. Neither has the distortion of
  UQ-s, whose elements share their noise. For these, only the variance is reported.

Differences from the table: `bias` is the root mean square over elements, not the mean of absolute
values. Its square is estimated without the contribution of the draws, `variance / draws`, which
would otherwise look like a bias. `bias_error` is the bias that this estimate may show by chance.
"""

from __future__ import annotations

from typing import Callable

import tensorflow as tf

from tfquant.codec import Codec
from tfquant.entropy.model import LIKELIHOOD_FLOOR
from tfquant.exchange import Rounding
from tfquant.ops import random
from tfquant.ops.random import example_seeds
from tfquant.quantization.plans import QuantizationPlan
from tfquant.quantization.quantizer import quantize
from tfquant.quantization.surrogates import SURROGATES, Branch, Sample
from tfquant.training.losses import Outcome


def gradient_risk(
    codec: Codec,
    plan: QuantizationPlan,
    alpha: tf.Tensor,
    x: tf.Tensor,
    *,
    distortion: Callable[[Outcome], tf.Tensor],
    lmbda: float,
    quality: float | None = None,
    draws: int = 32,
    elements: int = 16,
    seed: int = 0,
) -> dict[str, tf.Tensor]:
    """Measures bias and variance of the gradients of rate and distortion with respect to `y`.

    With zero-center quantization, also measures the gradient of the rate with respect to `mu`.
    Gradients are in bits per unit of `y`. They belong to the loss `bits + lmbda pixels D` of a
    picture, so they can be compared with each other and with the paper's Table II. `z` is rounded:
    all noise is that of `y`.

    Args:
      codec: the codec.
      plan: the quantization plan.
      alpha: scalar float32, the temperature.
      x: [B, H, W, 3] float32 in [0, 1], static shape. It should be small, because it is decoded `2
        B draws elements` times.
      distortion: D of an `Outcome` without an exchange; scalar, mean over its pictures.
      lmbda: weight of D against bits per pixel.
      quality: from 0 to 1, for a codec with gains.
      draws: number of draws of the surrogate's noise, at least 2.
      elements: number of elements of each picture's latent on which the distortion's bias is
        measured.
      seed: seed of the noise and of the choice of elements.

    Returns:
      Name -> scalar float32, averaged over the latent's elements. `*` is `rate`, `distortion`, or,
      if the latent is quantized around a mean, `mean`. `*_gradient` is the root mean square of E[g]
      in bits. `*_variance` is in bits^2. `*_bias` and `*_bias_error` are in bits, and are missing
      if there is no `g_bar` (see above).

    Raises:
      ValueError: fewer than 2 draws, or fewer than 1 element.
    """
    if draws < 2 or elements < 1:
        raise ValueError(f"expected draws >= 2 and elements >= 1; got {draws} and {elements}")
    latent = _Latent(codec, plan, alpha, x, distortion, lmbda, quality, draws, seed)
    results = {}

    def report(name: str, gradient: tf.Tensor, difference: tf.Tensor | None) -> None:
        spread = _spread(latent.by_picture(gradient))
        results.update({f"{name}_{quantity}": value for quantity, value in spread.items()})
        if difference is not None:
            results.update(_bias(name, latent.by_picture(difference)))

    g = latent.rate_gradient(plan.rate)
    reference = _unbiased(plan.rate)
    exact = None if reference is None else latent.rate_gradient(reference)
    report("rate", g, None if exact is None else g - exact)
    if latent.model.has_mean and latent.model.zero_center:
        g = latent.mean_gradient()
        report("mean", g, None if exact is None else g + exact)
    g = latent.distortion_gradient(plan.distortion)
    report("distortion", g, latent.distortion_difference(g, plan.distortion, elements))
    return results


class _Latent:
    """The latent `y` of pictures with several draws of noise, and gradients with respect to it.

    The arguments are those of `gradient_risk`.

    Attributes:
      model: the entropy model of `y`.
    """

    def __init__(
        self,
        codec: Codec,
        plan: QuantizationPlan,
        alpha: tf.Tensor,
        x: tf.Tensor,
        distortion: Callable[[Outcome], tf.Tensor],
        lmbda: float,
        quality: float | None,
        draws: int,
        seed: int,
    ):
        self._codec, self._plan, self._alpha = codec, plan, alpha
        self._distortion, self._quality, self._draws, self._seed = distortion, quality, draws, seed
        self._pictures, self._height, self._width, _ = x.shape
        self._weight = lmbda * self._height * self._width
        exchange = Rounding()
        codec.transmit(codec.analyze(x, self._qualities(x)), exchange)
        self.model = next(m for m in codec.entropy_models if m.name == "y")
        self._x = self._repeated(x)
        self._y = self._repeated(exchange.latents["y"])
        self._params = [self._repeated(p) for p in exchange.params["y"]]
        self._offset = self.model.offset(*self._params)
        # Not a constant: the graph optimizer would fold its noise, which takes minutes.
        index = tf.compat.v1.placeholder_with_default(tf.range(self._pictures * draws), [None])
        self._seeds = example_seeds(seed, "gradient_risk", index)

    def _repeated(self, tensor: tf.Tensor) -> tf.Tensor:
        """Repeats [B, ...] to [B draws, ...], with the draws of a picture next to each other."""
        return tf.repeat(tensor, self._draws, axis=0)

    def _qualities(self, pictures: tf.Tensor) -> tf.Tensor | None:
        if self._quality is None:
            return None
        return tf.fill([tf.shape(pictures)[0]], self._quality)

    def _decoded(self, y_bar: tf.Tensor) -> tf.Tensor:
        return self._codec.synthesize(y_bar, self._height, self._width, self._qualities(y_bar))

    def _sample(self, branch: Branch) -> Sample:
        return branch.sample(self._y - self._offset, self._offset, self._alpha, self._seeds)

    def by_picture(self, samples: tf.Tensor) -> tf.Tensor:
        """Reshapes [B draws, ...] to [draws, B elements]."""
        samples = tf.reshape(samples, [self._pictures, self._draws, -1])
        return tf.transpose(samples, [1, 0, 2])

    def rate_gradient(self, branch: Branch) -> tf.Tensor:
        """Returns the gradient of the bits with respect to `y`, in the shape of `y`."""
        with tf.GradientTape() as tape:
            tape.watch(self._y)
            sample = self._sample(branch)
            bits = self.model.bits(sample, *self._params, floor=LIKELIHOOD_FLOOR)
        return tape.gradient(bits, self._y)

    def mean_gradient(self) -> tf.Tensor:
        """Returns the gradient of the plan's bits with respect to `mu`, in the shape of `y`."""
        (raw,) = self._params
        with tf.GradientTape() as tape:
            tape.watch(raw)
            offset = self.model.offset(raw)
            sample = quantize(self._plan, self._y, offset, self._alpha, self._seeds).rate
            bits = self.model.bits(sample, raw, floor=LIKELIHOOD_FLOOR)
        mu, _ = self.model.split_mean(tape.gradient(bits, raw))
        return mu

    def distortion_gradient(self, branch: Branch) -> tf.Tensor:
        """Returns the gradient of `lmbda pixels D` with respect to `y`, in the shape of `y`."""
        with tf.GradientTape() as tape:
            tape.watch(self._y)
            x_hat = self._decoded(self._sample(branch).value)
            # D is a mean over pictures. Times their number, each picture keeps its own gradient.
            count = self._draws * self._pictures
            loss = self._weight * count * self._distortion(Outcome(self._x, x_hat, None))
        return tape.gradient(loss, self._y)

    def distortion_difference(
        self, gradient: tf.Tensor, branch: Branch, elements: int
    ) -> tf.Tensor | None:
        """Returns the distortion's gradient minus its reference; None without a reference."""
        reference = _unbiased(branch)
        if reference is None:
            return None
        if reference.estimator != "expected":
            return gradient - self.distortion_gradient(reference)
        if SURROGATES[reference.surrogate].noise is random.uniform_per_image:
            return None
        size = self._y[0].shape.num_elements()
        order = tf.argsort(tf.random.stateless_uniform([size], [self._seed, 1]))
        positions = order[: min(elements, size)]
        flat = tf.reshape(gradient, [self._pictures * self._draws, size])
        chosen = tf.gather(flat, positions, axis=1)
        return chosen - self._expected_distortion_gradient(reference, positions)

    def _expected_distortion_gradient(self, branch: Branch, positions: tf.Tensor) -> tf.Tensor:
        """Returns [B draws, elements], each draw's contribution to the mean over other elements."""
        sample = self._sample(branch)
        e = sample.expected
        assert e is not None  # the estimator is `expected`
        slope, low, high, value = (
            tf.reshape(t, [self._pictures * self._draws, -1])
            for t in (e.slope, e.low, e.high, sample.value)
        )

        def one_distortion(pair: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            x, x_hat = pair
            return self._distortion(Outcome(x[None], x_hat[None], None))

        def at(position: tf.Tensor) -> tf.Tensor:
            here = tf.one_hot(position, value.shape[1], True, False, dtype=tf.bool)
            ends = tf.concat([tf.where(here, high, value), tf.where(here, low, value)], axis=0)
            x_hat = self._decoded(tf.reshape(ends, [-1, *self._y.shape[1:]]))
            D = tf.vectorized_map(one_distortion, (tf.tile(self._x, [2, 1, 1, 1]), x_hat))
            D_high, D_low = tf.split(D, 2)
            return self._weight * slope[:, position] * (D_high - D_low)

        return tf.transpose(tf.map_fn(at, positions, fn_output_signature=tf.float32))


def _unbiased(branch: Branch) -> Branch | None:
    """Returns an unbiased estimator of the same forward map's gradient, or None."""
    for estimator in ("expected", "pathwise", "standard"):
        if estimator in SURROGATES[branch.surrogate].estimators:
            return Branch(branch.surrogate, estimator)
    return None


def _mean_and_variance(samples: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns mean and unbiased sample variance over the first axis; variance 0 if all are
    equal.
    """
    draws = samples.shape[0]
    mean, variance = tf.nn.moments(samples - samples[0], axes=[0])
    return samples[0] + mean, variance * (draws / (draws - 1))


def _spread(g: tf.Tensor) -> dict[str, tf.Tensor]:
    """Returns the root mean square of E[g] and the variance, for `g: [draws, ...]`."""
    mean, variance = _mean_and_variance(g)
    squared = tf.reduce_mean(tf.square(mean) - variance / g.shape[0])
    return {
        "gradient": tf.sqrt(tf.maximum(squared, 0.0)),
        "variance": tf.reduce_mean(variance),
    }


def _bias(name: str, difference: tf.Tensor) -> dict[str, tf.Tensor]:
    """Returns the root mean square of E[difference], [draws, ...], and its sampling error."""
    mean, variance = _mean_and_variance(difference)
    squared = tf.reshape(tf.square(mean) - variance / difference.shape[0], [-1])
    error = tf.math.reduce_std(squared) / tf.sqrt(float(squared.shape[0]))
    return {
        f"{name}_bias": tf.sqrt(tf.maximum(tf.reduce_mean(squared), 0.0)),
        f"{name}_bias_error": tf.sqrt(error),
    }
