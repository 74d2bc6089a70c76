"""Fig. 5: the rate of two correlated latents under a two-dimensional Gaussian (equation 25).

`(y_1, y_2) ~ N((mu, mu), sigma^2 [[1, rho], [rho, 1]])`, and the estimated distribution is the
same. The bits of a pair are those of the unit square around it,

    p(v_1, v_2) = integral over t in [v_1 - 1/2, v_1 + 1/2] of
                  N(t; mu, sigma^2)  p(v_2 | mu + rho (t - mu), sigma^2 (1 - rho^2)) dt

with the library's Gaussian as the inner factor. Surrogate and rounding use the same sample of
latents.
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from tfquant import plotting
from tfquant.analysis import pairs, plots
from tfquant.analysis.experiment import Experiment, Progress, Result, Rows, Settings
from tfquant.analysis.maps import ROUNDING
from tfquant.analysis.quadrature import ANY_MEAN, Mean
from tfquant.entropy.distributions import NoisyGaussian

COLUMNS = (
    "surrogate", "alpha", "mu", "sigma", "correlation", "rate", "rounding", "rate_error", "low",
    "high",
)  # fmt: skip

CORRELATIONS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98)
MEANS: tuple[Mean, ...] = (0.0, 0.5, ANY_MEAN)

_SAMPLES, _FULL_SAMPLES = 1 << 15, 1 << 18
_CHUNK = 1 << 14
_NODES = 48


@tf.function(reduce_retracing=True)
def _bits(deviation: tf.Tensor, sigma: tf.Tensor, rho: tf.Tensor) -> tf.Tensor:
    points, weights = np.polynomial.legendre.leggauss(_NODES)
    t = deviation[:, :1] + 0.5 * points
    outer = -0.5 * tf.square(t / sigma) - tf.math.log(sigma * math.sqrt(2.0 * math.pi))
    inner = NoisyGaussian(rho * t, sigma * tf.sqrt(1.0 - rho * rho)).log_prob(deviation[:, 1:])
    log_p = tf.reduce_logsumexp(outer + inner + np.log(0.5 * weights), axis=-1)
    return -log_p / math.log(2.0)


def pair_bits(deviation: np.ndarray, sigma: float, rho: float) -> np.ndarray:
    """Returns the bits of `v - mu = deviation: [N, 2]` float64, as [N]."""
    chunks = [deviation[i : i + _CHUNK] for i in range(0, len(deviation), _CHUNK)]
    sigma, rho = tf.constant(sigma, tf.float64), tf.constant(rho, tf.float64)
    return np.concatenate([_bits(tf.constant(c, tf.float64), sigma, rho).numpy() for c in chunks])


def run(settings: Settings, progress: Progress) -> Result:
    """Runs the experiment."""
    count = _FULL_SAMPLES if settings.full else _SAMPLES
    cases = [(s, r, m) for s in settings.sigmas for r in CORRELATIONS for m in MEANS]
    rows = []
    for sigma, rho, mu in progress.over(
        cases, lambda c: f"sigma={c[0]:g}, correlation={c[1]:g}, mu={c[2]}"
    ):
        # Evenly spaced, so that the average over the mean has no sampling error.
        spread = ((np.arange(count) + 0.5) / count)[:, None]
        mean = spread if mu == ANY_MEAN else np.array(mu)
        y = mean + pairs.correlated(count, sigma, rho, settings.seed)
        rounding = pair_bits(pairs.surrogate(ROUNDING, y, settings.seed) - mean, sigma, rho)
        for method in settings.methods:
            y_tilde = pairs.surrogate(method, y, settings.seed)
            difference = pair_bits(y_tilde - mean, sigma, rho) - rounding
            error, half = difference.mean(), 1.96 * difference.std() / math.sqrt(count)
            rows.append({
                "surrogate": method.surrogate,
                "alpha": method.alpha,
                "mu": mu,
                "sigma": sigma,
                "correlation": rho,
                "rate": float(rounding.mean() + error),
                "rounding": float(rounding.mean()),
                "rate_error": float(error),
                "low": float(error - half),
                "high": float(error + half),
            })  # fmt: skip
    return Result(COLUMNS, rows, _figure(rows, settings), _notes(rows))


def _figure(rows: Rows, settings: Settings) -> Figure:
    figure, axes = plots.new_figure(
        len(MEANS), len(settings.sigmas), width=4.0, height=3.4, sharex=True, sharey="row"
    )
    for j, sigma in enumerate(settings.sigmas):
        for panel, mu in zip(axes[j], MEANS):
            for method in settings.methods:
                here = [
                    r for r in rows
                    if (r["surrogate"], r["alpha"], r["mu"], r["sigma"])
                    == (method.surrogate, method.alpha, mu, sigma)
                ]  # fmt: skip
                at, error, low, high = (
                    np.array([r[c] for r in here])
                    for c in ("correlation", "rate_error", "low", "high")
                )
                look = plots.style(method, settings.alphas, markers=True)
                panel.plot(at, error, **look)
                panel.fill_between(at, low, high, color=look["color"], alpha=0.2, linewidth=0.0)
            panel.axhline(0.0, **plotting.ZERO)
            panel.set_title(f"{plots.mean_title(mu)}; σ = {sigma:g}")
        axes[j, 0].set_ylabel("R̃ − R [bits per pair]")
    for panel in axes[-1]:
        panel.set_xlabel("correlation ρ of the two latents")
    plotting.legend(figure)
    return figure


def _notes(rows: Rows) -> str:
    width = max(r["high"] - r["low"] for r in rows)
    return "\n\n".join([
        "Result: with independent noise (AUN, UQ-i), the rate in training departs from that of"
        " rounding as the correlation grows, because it produces pairs of values that are unlikely"
        " under the estimated distribution. SUA departs less, and UQ-s hardly. On average over a"
        " common mean, UQ-s counts exactly the bits of rounding.",
        f"Accuracy: the 95 % intervals of the sample (`low`, `high`, shaded) are up to {width:.2f}"
        " bits wide.",
    ])  # fmt: skip


EXPERIMENT = Experiment(
    name="rate_error_2d",
    reproduces="Fig. 5",
    summary="Rate in training minus rate after rounding, for two correlated latents.",
    run=run,
    surrogates=("aun", "uq_i", "uq_s", "sua"),
    alphas=(4.0, 12.0),
    sigmas=(0.5, 1.0),
)
