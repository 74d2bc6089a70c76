"""Fig. 2a, 2b and 3: error of the distortion in training, relative to that after rounding.

The source `x ~ N(mu, sigma^2)` is Gaussian and is its own latent, `y = x`. For each surrogate, a
synthesis transform is trained to predict `x` from `y_tilde`. For rounding, another one predicts it
from `y_hat`. The figure shows

    (D_tilde - D) / D,        D_tilde = E[(x - g_s(y_tilde))^2],  D = E[(x - g_s(y_hat))^2].

It also shows the relative error of the best possible transform, `E[y | y_tilde]`. The difference
between this error and that of the trained network (leaky ReLU, two hidden layers) is due to the
network, not to the surrogate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from tfquant import plotting
from tfquant.analysis import channel, networks, plots
from tfquant.analysis.experiment import Experiment, Progress, Result, Rows, Settings
from tfquant.analysis.maps import ROUNDING, Method
from tfquant.ops.random import example_seeds

COLUMNS = (
    "surrogate", "alpha", "mu", "sigma", "distortion", "rounding", "relative_error", "low", "high",
    "best_relative_error",
)  # fmt: skip

MEANS = (0.0, 0.5)
_WIDTHS = (1, 32, 32, 1)
_BATCH = 256  # samples per case and step
_STEPS, _FULL_STEPS = 1000, 8000  # training steps, without and with --full
_TEST = 1 << 16  # samples per case for the measured distortion


class Synthesis:
    """A trained `g_s` for every mean and sigma.

    Args:
      method: the surrogate for training.
      sigmas: scales of the source.
      steps: number of training steps.
      seed: seed of weights and data.

    Attributes:
      cases: the S pairs (mu, sigma), each with its own network.
    """

    def __init__(self, method: Method, sigmas: Sequence[float], steps: int, seed: int = 0):
        self.method = method
        self.cases = [(mu, sigma) for mu in MEANS for sigma in sigmas]
        self._mu, self._sigma = tf.constant(np.transpose(self.cases), tf.float32)
        self._seed = seed
        self._network = networks.Perceptrons(len(self.cases), _WIDTHS, seed)
        networks.train(self._loss, list(self._network.trainable_variables), steps)

    def __call__(self, y_tilde: tf.Tensor) -> tf.Tensor:
        """Maps `y_tilde: [N, S]`, a column for each of `cases`, to x_hat, [N, S]."""
        spread = tf.sqrt(tf.square(self._sigma) + 1.0 / 12.0)
        standard = (y_tilde - self._mu) / spread
        return self._mu + self._sigma * self._network(standard[..., None])[..., 0]

    def _squared_errors(self, purpose: str, step: tf.Tensor, count: int) -> tf.Tensor:
        seeds = example_seeds(self._seed, purpose, step[None])
        shape = [count, len(self.cases)]
        x = self._mu + self._sigma * tf.random.stateless_normal(shape, seeds[0, :2])
        sample = self.method.branch.sample(x[None], 0.0, self.method.temperature, seeds)
        return tf.square(x - self(sample.value[0]))

    def _loss(self, step: tf.Tensor) -> tf.Tensor:
        errors = self._squared_errors("synthesis", step, _BATCH) / tf.square(self._sigma)
        return tf.reduce_sum(tf.reduce_mean(errors, axis=0))

    def distortion(self) -> dict[tuple[float, float], tuple[float, float]]:
        """Returns (mu, sigma) -> (mean squared error on new samples, its standard error)."""
        errors = self._squared_errors("test", tf.constant(0, tf.int64), _TEST).numpy()
        deviation = errors.std(axis=0) / np.sqrt(_TEST)
        return dict(zip(self.cases, zip(errors.mean(axis=0), deviation)))


def run(settings: Settings, progress: Progress) -> Result:
    """Runs the experiment."""
    steps = _FULL_STEPS if settings.full else _STEPS
    methods = list(dict.fromkeys([ROUNDING, *settings.methods]))
    rows, curves = [], {}
    of_rounding = {}
    for method in progress.over(methods, lambda m: f"training for {m}"):
        synthesis = Synthesis(method, settings.sigmas, steps, settings.seed)
        for (mu, sigma), (distortion, deviation) in synthesis.distortion().items():
            if method == ROUNDING:
                of_rounding[mu, sigma] = (
                    distortion, channel.least_distortion(ROUNDING, sigma, mu).value
                )  # fmt: skip
            rounding, best_rounding = of_rounding[mu, sigma]
            best = channel.least_distortion(method, sigma, mu).value
            rows.append({
                "surrogate": method.surrogate,
                "alpha": method.alpha,
                "mu": mu,
                "sigma": sigma,
                "distortion": float(distortion),
                "rounding": float(rounding),
                "relative_error": float(distortion / rounding - 1.0),
                "low": float((distortion - 1.96 * deviation) / rounding - 1.0),
                "high": float((distortion + 1.96 * deviation) / rounding - 1.0),
                "best_relative_error": best / best_rounding - 1.0,
            })  # fmt: skip
        if method.surrogate in _DENOISING:
            curves[method] = _curves(synthesis, settings.sigmas)
    return Result(COLUMNS, rows, _figure(rows, curves, settings), _notes(rows))


# Fig. 3: two surrogates with the same information; with sua_n, the network has to denoise.
_DENOISING = ("sua", "sua_n")
# Positions, values of `g_s`, values of the best transform, and sigma.
_Curve = tuple[np.ndarray, np.ndarray, np.ndarray, float]

# Surrogates whose best transform has steps.
_STEEP = ("sua_n", "sga", "sha")


def _curves(synthesis: Synthesis, sigmas: Sequence[float]) -> _Curve:
    """Returns `g_s` for mean 0 and the sigma closest to 1: positions, values, best transform,
    sigma.
    """
    sigma = min(sigmas, key=lambda s: abs(s - 1.0))
    case = synthesis.cases.index((0.0, sigma))
    at, best = channel.best_synthesis(synthesis.method, sigma, 0.0)
    kept = np.abs(at) < 1.75
    at, best = at[kept], best[kept]
    tiled = np.repeat(at[:, None], len(synthesis.cases), axis=1).astype(np.float32)
    return at, synthesis(tf.constant(tiled)).numpy()[:, case], best, sigma


def _figure(rows: Rows, curves: Mapping[Method, _Curve], settings: Settings) -> Figure:
    figure, axes = plots.new_figure(2, 2 if curves else 1, height=3.7)
    for panel, mu in zip(axes[0], MEANS):
        for method in settings.methods:
            here = [
                r for r in rows
                if (r["surrogate"], r["alpha"], r["mu"]) == (method.surrogate, method.alpha, mu)
            ]  # fmt: skip
            look = plots.style(method, settings.alphas, markers=True)
            scales = [r["sigma"] for r in here]
            panel.plot(scales, [r["relative_error"] for r in here], **look)
            look.update(linewidth=0.7, marker="", label=None)
            panel.plot(scales, [r["best_relative_error"] for r in here], **look)
        panel.set(
            xscale="log", ylim=(-1.1, 1.8), title=plots.mean_title(mu),
            xlabel="σ of the source [quantization steps]", ylabel="(D̃ − D) / D",
        )  # fmt: skip
        panel.axhline(0.0, **plotting.ZERO)
    axes[0, 0].plot([], [], color="#555555", linewidth=0.7, label="thin: best transform")
    hardest = {name: max(m.temperature for m in curves if m.surrogate == name)
               for name in {m.surrogate for m in curves}}  # fmt: skip
    for panel, name in zip(axes[1:].ravel(), _DENOISING):
        for method, (at, learned, best, sigma) in curves.items():
            if method.surrogate == name and method.temperature == hardest[name]:
                panel.plot(at, best, **{**plotting.REFERENCE, "label": "E[y | ỹ]"})
                panel.plot(at, learned, **plots.style(method))
                panel.set(
                    title=f"learned g_s: {plots.label(method)}, σ = {sigma:g}",
                    xlabel="ỹ [quantization steps]", ylabel="x̂ [quantization steps]",
                )  # fmt: skip
    plotting.legend(figure)
    return figure


def _notes(rows: Rows) -> str:
    width = max(r["high"] - r["low"] for r in rows)
    easy = [r for r in rows if r["surrogate"] not in _STEEP]
    gap = max((abs(r["relative_error"] - r["best_relative_error"]) for r in easy), default=0.0)
    return "\n\n".join([
        "Result: the error of SHA is about −1, because SHA loses no information and a soft"
        " staircase is easy to invert. The error of AUN is large for a small σ and depends on μ. It"
        " vanishes as σ grows. UQ-i equals AUN. The error of SUA shrinks as α grows. SUA-n carries"
        " the same information as SUA (the thin lines are the same), but its network has to learn"
        " the denoiser, a staircase, and does not succeed fully: the gap grows with α. For a large"
        " σ, the distortion of SR is above that of rounding.",
        f"Accuracy: evaluated on {_TEST:,} samples, with 95 % intervals (`low`, `high`) of up to"
        f" {width:.2f}. The relative errors of the networks and of the best transform differ by at"
        f" most {gap:.2f}, except where the best transform is steep: for SUA-n, SGA and SHA with a"
        " large α, a small network does not recover the full information.",
    ])  # fmt: skip


EXPERIMENT = Experiment(
    name="distortion_error",
    reproduces="Fig. 2a, 2b, 3",
    summary="Distortion in training relative to that after rounding, with trained synthesis.",
    run=run,
    surrogates=("sha", "aun", "uq_i", "sua", "sua_n", "sga", "sr", "sra"),
    alphas=(4.0, 12.0),
    sigmas=(0.1, 0.2, 0.4, 0.8, 1.6, 3.2),
)
