"""Fig. 2c: the distortion of two correlated latents, with independent and with shared noise.

`x = y` is a pair of Gaussians with mean 0 and correlation `rho`. For each surrogate, a synthesis
transform from two numbers to two is trained as in `distortion_error`. With independent noise, two
correlated latents give more information about each other than after rounding: at `rho = 1` they are
two noisy observations of one number. For this case, the information of the pair is also computed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from tfquant import plotting
from tfquant.analysis import channel, networks, outputs, pairs, plots
from tfquant.analysis.experiment import Experiment, Progress, Result, Rows, Settings
from tfquant.analysis.maps import ROUNDING, Method

COLUMNS = (
    "surrogate", "alpha", "sigma", "correlation", "distortion", "rounding", "relative_error",
    "low", "high", "information",
)  # fmt: skip

CORRELATIONS = (0.0, 0.5, 0.8, 0.9, 0.97, 1.0)

_WIDTHS = (2, 32, 32, 2)
_BATCH = 256
_STEPS, _FULL_STEPS = 1000, 8000
_SAMPLES, _TEST = 1 << 17, 1 << 15


def distortions(
    method: Method, sigmas: Sequence[float], steps: int, seed: int
) -> dict[tuple[float, float], tuple[float, float]]:
    """Returns (sigma, correlation) -> (mean squared error per element after training, standard
    error).
    """
    cases = [(sigma, rho) for sigma in sigmas for rho in CORRELATIONS]
    scale = np.array([sigma for sigma, _ in cases], np.float32)[:, None]
    y = np.stack([pairs.correlated(_SAMPLES, sigma, rho, seed) for sigma, rho in cases], axis=1)
    y_tilde = np.stack([pairs.surrogate(method, y[:, i], seed) for i in range(len(cases))], axis=1)
    # [N, S, 2], both in units of the source.
    x = tf.constant(y / scale, tf.float32)
    y_tilde = tf.constant(y_tilde / np.sqrt(scale**2 + 1.0 / 12.0), tf.float32)
    network = networks.Perceptrons(len(cases), _WIDTHS, seed)

    def loss(step: tf.Tensor) -> tf.Tensor:
        first = _TEST + (step * _BATCH) % (_SAMPLES - _TEST - _BATCH)
        x_hat = network(y_tilde[first : first + _BATCH])
        return tf.reduce_sum(tf.reduce_mean(tf.square(x[first : first + _BATCH] - x_hat), axis=0))

    networks.train(loss, list(network.trainable_variables), steps)
    errors = tf.reduce_mean(tf.square(x[:_TEST] - network(y_tilde[:_TEST])), -1).numpy()
    errors = errors * scale[:, 0] ** 2
    deviation = errors.std(axis=0) / np.sqrt(_TEST)
    return dict(zip(cases, zip(errors.mean(axis=0), deviation)))


def run(settings: Settings, progress: Progress) -> Result:
    """Runs the experiment."""
    steps = _FULL_STEPS if settings.full else _STEPS
    rows: Rows = []
    of_rounding: dict[tuple[float, float], tuple[float, float]] = {}
    methods = list(dict.fromkeys([ROUNDING, *settings.methods]))
    for method in progress.over(methods, lambda m: f"training for {m}"):
        found = distortions(method, settings.sigmas, steps, settings.seed)
        of_rounding = of_rounding or found
        for (sigma, rho), (distortion, deviation) in found.items():
            rounding = of_rounding[sigma, rho][0]
            carried = channel.pair_information(method, sigma, 0.0).value if rho == 1.0 else None
            rows.append({
                "surrogate": method.surrogate,
                "alpha": method.alpha,
                "sigma": sigma,
                "correlation": rho,
                "distortion": float(distortion),
                "rounding": float(rounding),
                "relative_error": float(distortion / rounding - 1.0),
                "low": float((distortion - 1.96 * deviation) / rounding - 1.0),
                "high": float((distortion + 1.96 * deviation) / rounding - 1.0),
                "information": carried,
            })  # fmt: skip
    return Result(COLUMNS, rows, _figure(rows, settings), _notes(rows))


def _figure(rows: Rows, settings: Settings) -> Figure:
    figure, axes = plots.new_figure(len(settings.sigmas), sharey=True)
    for panel, sigma in zip(axes[0], settings.sigmas):
        for method in settings.methods:
            here = [
                r for r in rows
                if (r["surrogate"], r["alpha"], r["sigma"])
                == (method.surrogate, method.alpha, sigma)
            ]  # fmt: skip
            panel.plot(
                [r["correlation"] for r in here], [r["relative_error"] for r in here],
                **plots.style(method, settings.alphas, markers=True),
            )  # fmt: skip
        panel.axhline(0.0, **plotting.ZERO)
        panel.set(title=f"σ = {sigma:g}", xlabel="correlation ρ of the two latents")
    axes[0, 0].set_ylabel("(D̃ − D) / D")
    plotting.legend(figure)
    return figure


def _notes(rows: Rows) -> str:
    carried = [
        {
            "surrogate": plots.label(Method(r["surrogate"], r["alpha"])),
            "sigma": r["sigma"],
            "information at ρ = 1 [bits]": r["information"],
        }
        for r in rows
        if r["information"] is not None
    ]
    width = max(r["high"] - r["low"] for r in rows)
    return "\n\n".join([
        "Result: with independent noise (AUN, UQ-i), the distortion in training falls below that of"
        " rounding as the correlation grows, because two noisy observations of one number are"
        " better than one. With noise that the elements of an image share (UQ-s), it does not. SUA"
        " lies between AUN and rounding, and is closer to rounding for a larger α.",
        "Information of the pair about the latent if both are the same number: for UQ-s it equals"
        " that of AUN for a single latent; for AUN and UQ-i it is larger.",
        outputs.table(("surrogate", "sigma", "information at ρ = 1 [bits]"), carried),
        f"Accuracy: evaluated on {_TEST:,} pairs that are not in the training set; 95 % intervals"
        f" (`low`, `high`) are up to {width:.2f} wide.",
    ])  # fmt: skip


EXPERIMENT = Experiment(
    name="distortion_error_2d",
    reproduces="Fig. 2c",
    summary="Distortion error of two correlated latents, with independent or shared noise.",
    run=run,
    surrogates=("aun", "uq_i", "uq_s", "sua"),
    alphas=(4.0, 12.0),
    sigmas=(0.4, 1.0),
)
