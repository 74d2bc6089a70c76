"""Fig. 2a, 2b and 3: how far the distortion in training is from the distortion after rounding.

A Gaussian source `x ~ N(mu, sigma^2)` is its own latent, `y = x`. A synthesis transform is trained
for each surrogate to make `x` of `y_tilde`, and for rounding to make it of `y_hat`; the figure is

    (D_tilde - D) / D,        D_tilde = E[(x - g_s(y_tilde))^2],  D = E[(x - g_s(y_hat))^2].

Beside the trained network (leaky ReLU, two hidden layers) stands the best transform there is, from
`E[y | y_tilde]`: what separates the two is the network's, not the surrogate's.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfquant import plotting
from tfquant.analysis import channel, networks, plots
from tfquant.analysis.experiment import Experiment, Result
from tfquant.analysis.maps import ROUNDING, Method
from tfquant.ops.random import example_seeds

COLUMNS = (
    "surrogate", "alpha", "mu", "sigma", "distortion", "rounding", "relative_error", "low", "high",
    "best_relative_error",
)  # fmt: skip

MEANS = (0.0, 0.5)
_WIDTHS = (1, 32, 32, 1)
_BATCH = 256
_STEPS, _FULL_STEPS = 1000, 8000
_TEST = 1 << 16


class Synthesis:
    """A trained `g_s` for every mean and sigma.

    Args:
      method: the surrogate that it is trained on.
      sigmas: scales of the source.
      steps: of training.
      seed: of weights and data.
    """

    def __init__(self, method: Method, sigmas, steps: int, seed: int = 0):
        self.method = method
        self.cases = [(mu, sigma) for mu in MEANS for sigma in sigmas]
        self._mu, self._sigma = tf.constant(np.transpose(self.cases), tf.float32)
        self._seed = seed
        self._network = networks.Perceptrons(len(self.cases), _WIDTHS, seed)
        networks.train(self._loss, list(self._network.trainable_variables), steps)

    def __call__(self, y_tilde: tf.Tensor) -> tf.Tensor:
        """`y_tilde: [N, S]` -> x_hat, S the cases."""
        spread = tf.sqrt(tf.square(self._sigma) + 1.0 / 12.0)
        standard = (y_tilde - self._mu) / spread
        return self._mu + self._sigma * self._network(standard[..., None])[..., 0]

    def _squared_errors(self, purpose: str, step, count: int) -> tf.Tensor:
        seeds = example_seeds(self._seed, purpose, step[None])
        shape = [count, len(self.cases)]
        x = self._mu + self._sigma * tf.random.stateless_normal(shape, seeds[0, :2])
        sample = self.method.branch.sample(x[None], 0.0, self.method.temperature, seeds)
        return tf.square(x - self(sample.value[0]))

    def _loss(self, step):
        errors = self._squared_errors("synthesis", step, _BATCH) / tf.square(self._sigma)
        return tf.reduce_sum(tf.reduce_mean(errors, axis=0))

    def distortion(self) -> dict:
        """Case -> mean squared error on fresh samples and its standard error."""
        errors = self._squared_errors("test", tf.constant(0, tf.int64), _TEST).numpy()
        deviation = errors.std(axis=0) / np.sqrt(_TEST)
        return dict(zip(self.cases, zip(errors.mean(axis=0), deviation)))


def run(settings, progress) -> Result:
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


# Fig. 3: the same information, with the denoiser left to the network or not.
_DENOISING = ("sua", "sua_n")
# Those whose best transform has steps.
_STEEP = ("sua_n", "sga", "sha")


def _curves(synthesis: Synthesis, sigmas):
    """`g_s` for mean 0 and the sigma nearest 1: positions, values, the best transform's."""
    sigma = min(sigmas, key=lambda s: abs(s - 1.0))
    case = synthesis.cases.index((0.0, sigma))
    at, best = channel.best_synthesis(synthesis.method, sigma, 0.0)
    kept = np.abs(at) < 1.75
    at, best = at[kept], best[kept]
    tiled = np.repeat(at[:, None], len(synthesis.cases), axis=1).astype(np.float32)
    return at, synthesis(tf.constant(tiled)).numpy()[:, case], best, sigma


def _figure(rows, curves, settings):
    figure, axes = plots.new_figure(2, 2 if curves else 1, height=3.7)
    for panel, mu in zip(axes[0], MEANS):
        for method in settings.methods:
            here = [
                r for r in rows
                if (r["surrogate"], r["alpha"], r["mu"]) == (method.surrogate, method.alpha, mu)
            ]  # fmt: skip
            look = plots.style(method, settings.alphas, markers=True)
            sigma = [r["sigma"] for r in here]
            panel.plot(sigma, [r["relative_error"] for r in here], **look)
            look.update(linewidth=0.7, marker="", label=None)
            panel.plot(sigma, [r["best_relative_error"] for r in here], **look)
        panel.set(
            xscale="log", ylim=(-1.1, 1.8), title=plots.mean_title(mu),
            xlabel="σ of the source [quantization steps]", ylabel="(D̃ − D) / D",
        )  # fmt: skip
        panel.axhline(0.0, **plotting.ZERO)
    axes[0, 0].plot([], [], color="#555555", linewidth=0.7, label="thin: best transform")
    hardest = {name: max(m.alpha for m in curves if m.surrogate == name)
               for name in {m.surrogate for m in curves}}  # fmt: skip
    for panel, name in zip(axes[1:].ravel(), _DENOISING):
        for method, (at, learned, best, sigma) in curves.items():
            if method.surrogate == name and method.alpha == hardest[name]:
                panel.plot(at, best, **{**plotting.REFERENCE, "label": "E[y | ỹ]"})
                panel.plot(at, learned, **plots.style(method))
                panel.set(
                    title=f"learned g_s: {plots.label(method)}, σ = {sigma:g}",
                    xlabel="ỹ [quantization steps]", ylabel="x̂ [quantization steps]",
                )  # fmt: skip
    plotting.legend(figure)
    return figure


def _notes(rows) -> str:
    width = max(r["high"] - r["low"] for r in rows)
    easy = [r for r in rows if r["surrogate"] not in _STEEP]
    gap = max((abs(r["relative_error"] - r["best_relative_error"]) for r in easy), default=0.0)
    return "\n\n".join([
        "What to see: the error of SHA is about −1, since it lets everything through and a soft"
        " staircase is undone easily. AUN's is"
        " large for a small σ and depends on μ, and vanishes as σ grows; UQ-i is AUN. SUA's error"
        " shrinks as α grows. SUA-n lets through what SUA does (the thin lines are the same), but"
        " its network has to learn the denoiser, a staircase, and does not quite: the gap grows"
        " with α. SR's distortion is above rounding's where σ is large.",
        f"Accuracy: evaluated on {_TEST:,} samples, whose 95 % intervals (`low`, `high`) are up to"
        f" {width:.2f} wide. Networks come within {gap:.2f} of the best transform's relative error,"
        " except where that transform is steep: for SUA-n, SGA and SHA, whose full information a"
        " small network does not get at when α is large.",
    ])  # fmt: skip


EXPERIMENT = Experiment(
    name="distortion_error",
    reproduces="Fig. 2a, 2b, 3",
    summary="Distortion in training less distortion after rounding, with trained synthesis.",
    run=run,
    surrogates=("sha", "aun", "uq_i", "sua", "sua_n", "sga", "sr", "sra"),
    alphas=(4.0, 12.0),
    sigmas=(0.1, 0.2, 0.4, 0.8, 1.6, 3.2),
)
