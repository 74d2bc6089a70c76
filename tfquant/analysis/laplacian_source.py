"""Fig. 7: rate and distortion of a Laplacian source, trained by each method.

Source and latent are scalars: `y = g_a(x)`, `x_hat = g_s(y_hat)`. Both transforms are affine
("linear") or stacks of residual blocks ("residual"). The symbols are coded under a learned density.
Training minimizes `R + lmbda D` with a surrogate of rounding. R is in bits per sample, and D is the
squared error. The figure shows measurements with rounding.

With a scalar latent, the distortion also has an expected gradient in closed form,

    d E[D] / d y = slope [D(high) - D(low)],

where `slope`, `low` and `high` are those of the rate's expected gradient (`ExpectedGradient` in
`tfquant/quantization/surrogates.py`). Methods labelled "EP" alone use the expected gradient for the
rate and for the distortion. The figure's two limits are the Shannon lower bound and the best
entropy-constrained scalar quantizer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Callable

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from tfquant import plotting
from tfquant.analysis import laplacian, networks, plots
from tfquant.analysis.experiment import Experiment, Progress, Result, Rows, Settings
from tfquant.entropy.factorized import FactorizedModel
from tfquant.ops.gradients import attach_gradient
from tfquant.ops.random import example_seeds
from tfquant.quantization.plans import PLANS
from tfquant.quantization.quantizer import dequantize, symbols
from tfquant.quantization.surrogates import SURROGATES, Branch, Sample

# `rate` is in bits per sample; `snr` and `loss_to_optimum` are in dB.
COLUMNS = (
    "transform", "method", "rate_branch", "distortion_branch", "alpha", "lmbda", "rate",
    "distortion", "snr", "loss_to_optimum",
)  # fmt: skip

TRANSFORMS = {"linear": networks.Affine, "residual": networks.Residual}
LMBDAS = (0.5, 0.8, 1.4, 3.0, 7.0, 16.0)

_BATCH = 256
_STEPS, _FULL_STEPS = 1000, 12_000


@dataclasses.dataclass(frozen=True)
class Combination:
    """The surrogate and the gradient estimator (`Branch`) of the rate and of the distortion.

    Attributes:
      name: the surrogate's name, or "mix".
      rate: the branch whose bits are counted.
      distortion: the branch that `g_s` decodes.
    """

    name: str
    rate: Branch
    distortion: Branch

    @property
    def annealed(self) -> bool:
        """True if one of the branches depends on `alpha`."""
        return self.rate.annealed or self.distortion.annealed

    @property
    def label(self) -> str:
        """Name for legends and tables, such as "SUA: EP + STE"."""
        parts = dict.fromkeys(plots.ESTIMATORS[b.estimator] for b in (self.rate, self.distortion))
        return f"{plotting.method(self.name)['label']}: {' + '.join(parts)}"


MIX = Combination("mix", PLANS["mix"].rate, PLANS["mix"].distortion)


def combinations(surrogates: Iterable[str]) -> list[Combination]:
    """Returns every way to train on each surrogate, and MIX.

    If the surrogate supports `pathwise`, the rate uses the expected gradient (or `pathwise` if
    there is none), and there is a combination for each other estimator of the distortion.
    Otherwise, there is a combination for each estimator, which both terms use.
    """
    found = []
    for name in surrogates:
        possible = SURROGATES[name].estimators
        others = [e for e in possible if e != "expected"]
        if "pathwise" in possible:
            rate = "expected" if "expected" in possible else "pathwise"
            pairs = [(rate, e) for e in others]
        else:
            pairs = [(e, e) for e in possible]
        found += [Combination(name, Branch(name, r), Branch(name, d)) for r, d in pairs]
    return [*found, MIX]


def source(u: tf.Tensor) -> tf.Tensor:
    """Returns standard Laplacian samples, from `u` uniform on [-1, 1), float32."""
    # The bound avoids an infinite sample for -1, which occurs once in 2^23 draws.
    return -tf.sign(u) * tf.math.log1p(-tf.minimum(tf.abs(u), 1.0 - 2.0**-24))


class ScalarCodec(tf.Module):
    """Independent codecs of scalars, one for each of the L values in LMBDAS.

    The constructor trains them together.

    Args:
      transform: a value of `TRANSFORMS`.
      combination: the branches that train the codecs.
      alpha: the temperature at the end of the annealing, which starts at 1.
      steps: number of training steps.
      seed: seed of weights and data.
    """

    def __init__(
        self,
        transform: Callable[[int, tf.Tensor], tf.Module],
        combination: Combination,
        alpha: float,
        steps: int,
        seed: int = 0,
    ):
        super().__init__(name="scalar_codec")
        self._combination, self._alpha, self._steps, self._seed = combination, alpha, steps, seed
        self._lmbda = tf.constant(LMBDAS)
        # The optimal quantization step at high rate.
        step = tf.sqrt(6.0 / (self._lmbda * np.log(2.0)))
        self.g_a = transform(len(LMBDAS), 1.0 / step)
        self.g_s = transform(len(LMBDAS), step)
        self.prior = FactorizedModel(len(LMBDAS), name="y")
        variables = [
            *self.g_a.trainable_variables, *self.g_s.trainable_variables,
            *self.prior.trainable_variables,
        ]  # fmt: skip
        networks.train(self._loss, variables, steps, 5e-3, after=self.prior.track_offset)

    def _loss(self, step: tf.Tensor) -> tf.Tensor:
        seeds = example_seeds(self._seed, "laplacian", step[None])
        x = source(tf.random.stateless_uniform([_BATCH, 1], seeds[0, :2], -1.0, 1.0))
        progress = tf.cast(step, tf.float32) / self._steps
        alpha = 1.0 + (self._alpha - 1.0) * progress
        offset = tf.stop_gradient(self.prior.offset())
        v = (self.g_a(tf.tile(x, [1, len(LMBDAS)])) - offset)[None]
        rate = self.prior.bits(self._combination.rate.sample(v, offset, alpha, seeds))
        sample = self._combination.distortion.sample(v, offset, alpha, seeds)
        return tf.reduce_sum(tf.reduce_mean(rate + self._lmbda * self._distortion(x, sample), 1))

    def _distortion(self, x: tf.Tensor, sample: Sample) -> tf.Tensor:
        def distortion(value: tf.Tensor) -> tf.Tensor:
            return tf.square(x - self.g_s(value[0]))[None]

        found = distortion(sample.value)
        if sample.expected is None:
            return found
        v, slope, low, high = sample.expected
        rise = distortion(high) - distortion(low)
        return attach_gradient(found, v, tf.stop_gradient(slope * rise))

    def measure(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns rate [bits] and distortion with rounding for every lmbda, [L] float64 each.

        Both are sums over a fine grid of the source.
        """
        x = np.linspace(-25.0, 25.0, 50_001)
        weight = np.exp(-np.abs(x))
        weight = (weight / weight.sum())[:, None]
        x = tf.tile(tf.constant(x[:, None], tf.float32), [1, len(LMBDAS)])
        offset = self.prior.offset()
        y_hat = dequantize(symbols(self.g_a(x), offset), offset)
        bits = self.prior.bits(Sample(y_hat)).numpy()
        errors = tf.square(x - self.g_s(y_hat)).numpy()
        return (weight * bits).sum(0), (weight * errors).sum(0)


def run(settings: Settings, progress: Progress) -> Result:
    """Runs the experiment."""
    steps = _FULL_STEPS if settings.full else _STEPS
    alpha_of = {True: settings.alphas, False: (None,)}
    cases = [
        (transform, combination, alpha)
        for transform in TRANSFORMS
        for combination in combinations(settings.surrogates)
        for alpha in alpha_of[combination.annealed]
    ]
    optimum = _optimum()
    rows = []
    for transform, combination, alpha in progress.over(
        cases, lambda c: f"{c[0]}, {c[1].label}" + (f", alpha={c[2]:g}" if c[2] else "")
    ):
        codec = ScalarCodec(TRANSFORMS[transform], combination, alpha or 1.0, steps, settings.seed)
        for lmbda, rate, distortion in zip(LMBDAS, *codec.measure()):
            snr = _snr(distortion)
            rows.append({
                "transform": transform,
                "method": combination.label + (f", α = {alpha:g}" if alpha else ""),
                "rate_branch": str(combination.rate),
                "distortion_branch": str(combination.distortion),
                "alpha": alpha,
                "lmbda": lmbda,
                "rate": float(rate),
                "distortion": float(distortion),
                "snr": float(snr),
                "loss_to_optimum": float(np.interp(rate, *optimum) - snr),
            })  # fmt: skip
    styles = {
        c.label + (f", α = {a:g}" if a else ""): _style(c)
        for _, c, a in cases
    }  # fmt: skip
    return Result(COLUMNS, rows, _figure(rows, styles, optimum), _notes(rows))


def _snr(distortion: np.ndarray | float) -> np.ndarray:
    return 10.0 * np.log10(laplacian.VARIANCE / np.asarray(distortion))


def _optimum() -> tuple[np.ndarray, np.ndarray]:
    """Returns rates and signal-to-noise ratios of the best scalar quantizers, starting at rate
    0.
    """
    points = [laplacian.best_scalar_quantizer(lmbda) for lmbda in np.geomspace(0.36, 200.0, 60)]
    rate, distortion = np.array([(0.0, laplacian.VARIANCE), *points]).T
    order = np.argsort(rate)
    return rate[order], _snr(distortion)[order]


def _style(combination: Combination) -> dict[str, Any]:
    """Returns the plot style of the surrogate, with hollow markers for straight-through."""
    look = plotting.method(combination.name, markers=True)
    straight = combination.distortion.estimator == "straight_through"
    return plotting.hollow(look) if straight else look


def _figure(
    rows: Rows, styles: Mapping[str, dict[str, Any]], optimum: tuple[np.ndarray, np.ndarray]
) -> Figure:
    figure, axes = plots.new_figure(len(TRANSFORMS), 2, height=3.6, sharex=True, sharey="row")
    rate = np.linspace(0.0, 3.2, 200)
    limits = {
        "Shannon lower bound": (rate, _snr(laplacian.shannon_lower_bound(rate)), (0, (1, 1.5))),
        "best scalar quantizer": (*optimum, (0, (6, 2))),
    }
    for i, transform in enumerate(TRANSFORMS):
        for name, (x, snr, dash) in limits.items():
            look = {**plotting.REFERENCE, "linestyle": dash, "label": name}
            axes[0, i].plot(x, snr, **look)
            axes[1, i].plot(x, np.interp(x, *optimum) - snr, **look)
        for method, look in styles.items():
            here = [r for r in rows if (r["transform"], r["method"]) == (transform, method)]
            here.sort(key=lambda r: r["rate"])
            rates = [r["rate"] for r in here]
            axes[0, i].plot(rates, [r["snr"] for r in here], **{**look, "label": method})
            axes[1, i].plot(
                rates, [r["loss_to_optimum"] for r in here], **{**look, "label": method}
            )
        axes[0, i].set(title=f"{transform} transforms", xlim=(0.0, 3.2), ylim=(-1.0, 18.0))
        axes[1, i].set(xlabel="rate [bits per sample]", ylim=(3.2, -1.7))
    axes[0, 0].set_ylabel("signal-to-noise ratio [dB]")
    axes[1, 0].set_ylabel("loss to the best\nscalar quantizer [dB]")
    plotting.legend(figure)
    return figure


def _notes(rows: Rows) -> str:
    losses: dict[tuple[str, str], list[float]] = {}
    for r in rows:
        losses.setdefault((r["transform"], r["method"]), []).append(r["loss_to_optimum"])
    mean = {key: np.mean(values) for key, values in losses.items()}
    best_first = sorted(mean.items(), key=lambda item: np.nan_to_num(item[1], nan=np.inf))
    lines = [
        f"- {transform}: "
        + ", ".join(
            f"{method} {loss:.2f} dB" if np.isfinite(loss) else f"{method} diverged"
            for (t, method), loss in best_first
            if t == transform
        )
        for transform in TRANSFORMS
    ]
    return "\n".join([
        "Result: with linear transforms, all methods are close to each other. With residual"
        " transforms, rounding, and to a lesser extent MIX, are worse than the methods whose"
        " gradients have little or no bias. Mean loss to the best scalar quantizer, best first:",
        "",
        *lines,
        "",
        "Accuracy: rates and distortions are sums over a grid of 50,001 points of the source. Each"
        " point of a curve is one training run, so the variation between runs is the larger"
        f" uncertainty. alpha is annealed from 1 to α, in the {len(LMBDAS)} codecs trained"
        " together.",
    ])  # fmt: skip


EXPERIMENT = Experiment(
    name="laplacian_source",
    reproduces="Fig. 7",
    summary="Rate and distortion of a Laplacian source under each method, with the limits.",
    run=run,
    surrogates=("round", "aun", "sr", "sua"),
    alphas=(12.0,),
)
