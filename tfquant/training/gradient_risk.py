"""Gradient estimation risk: bias and variance of the gradients that the encoder is trained by.

"On Uniform Scalar Quantization for Learned Image Compression" (arXiv 2309.17051), section 4.4: a
surrogate's gradient `g` with respect to the latent `y` is an estimate of that of the expected loss,
`g_bar = d E[loss] / d y`. Conditional on `y`, over the surrogate's noise,

    bias = E[g] - g_bar,    variance = E[(g - E[g])^2],    E[(g - g_bar)^2] = bias^2 + variance.

The paper's Table II has the rate of one scalar; here `y`, its entropy parameters and the synthesis
transform are those of a codec, and the distortion is measured too. What stands for `g_bar`:

- Rate: bits are a sum over elements, so the expected gradient (`expected` in
  `tfquant/quantization/surrogates.py`) is exact. Entropy parameters are held: what an element does
  to the bits of those after it, in codecs with a context of `y` itself, is left out.
- Distortion: its expected gradient has no closed form, but the same ends of each element serve.
  With the other elements' noise held,

      d E[D] / d y_i = slope_i E_others[D(y_i at its high end) - D(y_i at its low end)]

  is exact for every surrogate with independent noise, at two decodings an element and a draw:
  hence a random subset of elements. Noise of the others is that of the measured gradient, so most
  of it cancels in the difference.
- SGA has no such ends: the pathwise gradient of the same draws stands for it.
- The mean: with zero-center quantization bits depend on `y - mu` alone, so that `g_bar` with
  respect to `mu` is minus that with respect to `y`. What reaches `mu` is the plan's choice
  (`stop_gradient` and `mean_gradient` in `tfquant/quantization/plans.py`).
- Rounding has none at all (its expected loss is a staircase), and neither has the distortion of
  UQ-s, whose elements share their noise: variance alone is reported.

What differs from the table: `bias` is the root mean square over elements, not the mean of absolute
values. Its square is estimated without the draws' own contribution, `variance / draws`, which would
otherwise look like a bias; `bias_error` says which bias that estimate could show by chance.
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
from tfquant.quantization.quantizer import Quantizer
from tfquant.quantization.surrogates import SURROGATES, Branch
from tfquant.training.losses import Outcome


def gradient_risk(
    codec: Codec,
    plan: QuantizationPlan,
    alpha: tf.Tensor,
    x: tf.Tensor,
    *,
    distortion: Callable[[Outcome], tf.Tensor],
    lmbda: float,
    draws: int = 32,
    elements: int = 16,
    seed: int = 0,
) -> dict:
    """Bias and variance of the rate's and the distortion's gradient with respect to `y`.

    With zero-center quantization also of the rate's gradient with respect to `mu`. Gradients are in
    bits per unit of `y`, those of `bits + lmbda pixels D` of a picture, so they compare with each
    other and with the paper's Table II. `z` is rounded: the noise is that of `y` alone.

    Args:
      codec: the codec.
      plan: the quantization plan.
      alpha: scalar float32, the temperature.
      x: [B, H, W, 3] float32 in [0, 1], static shape; small: it is decoded `2 B draws elements`
        times.
      distortion: D of an `Outcome` without an exchange, scalar, mean over its pictures.
      lmbda: weight of D against bits per pixel.
      draws: of the surrogate's noise, at least 2.
      elements: of each picture's latent, on which the distortion's bias is measured.
      seed: of the noise and the choice of elements.

    Returns:
      Name -> scalar float32, averages over the latent's elements; `*` is `rate`, `distortion`, or
      `mean` where the latent is quantized around a mean:
      `*_gradient`, root mean square of E[g], bits; `*_variance`, bits^2; `*_bias` and
      `*_bias_error`, bits, left out where there is no `g_bar` (see above).

    Raises:
      ValueError: fewer than 2 draws, or fewer than 1 element.
    """
    if draws < 2 or elements < 1:
        raise ValueError(f"expected draws >= 2 and elements >= 1; got {draws} and {elements}")
    pictures, height, width, _ = x.shape
    exchange = Rounding()
    codec.transmit(codec.analyze(x), exchange)
    model = next(m for m in codec.entropy_models if m.name == "y")

    def repeated(tensor):
        """[B, ...] -> [B draws, ...], a picture's draws side by side."""
        return tf.repeat(tensor, draws, axis=0)

    x = repeated(x)
    y = repeated(exchange.latents["y"])
    params = [repeated(p) for p in exchange.params["y"]]
    offset = model.offset(*params)
    # No constants, which the graph optimizer would turn into noise one by one, for minutes.
    index = tf.compat.v1.placeholder_with_default(tf.range(pictures * draws), [None])
    seeds = example_seeds(seed, "gradient_risk", index)
    weight = lmbda * height * width

    def by_picture(samples):
        """[B draws, ...] -> [draws, B elements]."""
        return tf.transpose(tf.reshape(samples, [pictures, draws, -1]), [1, 0, 2])

    def rate_gradient(branch: Branch) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(y)
            sample = branch.sample(y - offset, offset, alpha, seeds)
            bits = model.bits(sample, *params, floor=LIKELIHOOD_FLOOR)
        return tape.gradient(bits, y)

    def mean_gradient() -> tf.Tensor:
        (raw,) = params
        with tf.GradientTape() as tape:
            tape.watch(raw)
            sample = Quantizer(plan)(y, model.offset(raw), alpha, seeds).rate
            bits = model.bits(sample, raw, floor=LIKELIHOOD_FLOOR)
        mu, _ = model.split_mean(tape.gradient(bits, raw))
        return mu

    def distortion_gradient(branch: Branch) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(y)
            y_tilde = branch.sample(y - offset, offset, alpha, seeds).value
            x_hat = codec.synthesize(y_tilde, height, width)
            # D is a mean over pictures: times their number, each keeps its own.
            loss = weight * draws * pictures * distortion(Outcome(x, x_hat, None))
        return tape.gradient(loss, y)

    def one_distortion(pair):
        x, x_hat = pair
        return distortion(Outcome(x[None], x_hat[None], None))

    def expected_distortion_gradient(surrogate: str, positions) -> tf.Tensor:
        """[B draws, elements], each draw's contribution to the mean over the other elements."""
        sample = Branch(surrogate, "expected").sample(y - offset, offset, alpha, seeds)
        e = sample.expected
        slope, low, high, value = (
            tf.reshape(t, [pictures * draws, -1]) for t in (e.slope, e.low, e.high, sample.value)
        )

        def at(position):
            here = tf.one_hot(position, value.shape[1], True, False, dtype=tf.bool)
            ends = tf.concat([tf.where(here, high, value), tf.where(here, low, value)], axis=0)
            y_tilde = tf.reshape(ends, [-1, *y.shape[1:]])
            x_hat = codec.synthesize(y_tilde, height, width)
            D = tf.vectorized_map(one_distortion, (tf.tile(x, [2, 1, 1, 1]), x_hat))
            D_high, D_low = tf.split(D, 2)
            return weight * slope[:, position] * (D_high - D_low)

        return tf.transpose(tf.map_fn(at, positions, fn_output_signature=tf.float32))

    g = rate_gradient(plan.rate)
    results = {f"rate_{k}": v for k, v in _spread(by_picture(g)).items()}
    reference = _unbiased(plan.rate)
    exact = None if reference is None else rate_gradient(reference)
    if reference is not None:
        results.update(_bias("rate", by_picture(g - exact)))

    if model.has_mean and model.zero_center:
        g = mean_gradient()
        results.update({f"mean_{k}": v for k, v in _spread(by_picture(g)).items()})
        if exact is not None:
            results.update(_bias("mean", by_picture(g + exact)))

    g = distortion_gradient(plan.distortion)
    results.update({f"distortion_{k}": v for k, v in _spread(by_picture(g)).items()})
    reference = _unbiased(plan.distortion)
    if reference is None:
        return results
    if reference.estimator != "expected":
        difference = g - distortion_gradient(reference)
    elif SURROGATES[reference.surrogate].noise is not random.uniform_per_image:
        size = y[0].shape.num_elements()
        order = tf.argsort(tf.random.stateless_uniform([size], [seed, 1]))
        positions = order[: min(elements, size)]
        chosen = tf.gather(tf.reshape(g, [pictures * draws, size]), positions, axis=1)
        difference = chosen - expected_distortion_gradient(reference.surrogate, positions)
    else:
        return results
    results.update(_bias("distortion", by_picture(difference)))
    return results


def _unbiased(branch: Branch) -> Branch | None:
    """The estimator of the same forward map's gradient that has no bias, or None."""
    for estimator in ("expected", "pathwise", "standard"):
        if estimator in SURROGATES[branch.surrogate].estimators:
            return Branch(branch.surrogate, estimator)
    return None


def _mean_and_variance(samples):
    """Over the first axis: the mean, and the unbiased sample variance, 0 if all draws agree."""
    draws = samples.shape[0]
    mean, variance = tf.nn.moments(samples - samples[0], axes=[0])
    return samples[0] + mean, variance * (draws / (draws - 1))


def _spread(g: tf.Tensor) -> dict:
    """Root mean square of E[g], and the variance, of `g: [draws, ...]`."""
    mean, variance = _mean_and_variance(g)
    squared = tf.reduce_mean(tf.square(mean) - variance / g.shape[0])
    return {
        "gradient": tf.sqrt(tf.maximum(squared, 0.0)),
        "variance": tf.reduce_mean(variance),
    }


def _bias(name: str, difference: tf.Tensor) -> dict:
    """Root mean square of E[difference], `difference: [draws, ...]`, and its sampling error."""
    mean, variance = _mean_and_variance(difference)
    squared = tf.reshape(tf.square(mean) - variance / difference.shape[0], [-1])
    error = tf.math.reduce_std(squared) / tf.sqrt(float(squared.shape[0]))
    return {
        f"{name}_bias": tf.sqrt(tf.maximum(tf.reduce_mean(squared), 0.0)),
        f"{name}_bias_error": tf.sqrt(error),
    }
