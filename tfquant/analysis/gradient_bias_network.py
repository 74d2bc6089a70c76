"""Fig. 6: the bias of the distortion's gradient grows with the networks.

Perceptrons with one hidden layer compress small images to two numbers. They train with the
surrogate's straight-through estimator; a surrogate without one trains with its own estimator. Then,
for each image with latent `y` and `D(y_tilde) = |x - g_s(y_tilde)|^2`,

    bias(y) = | E[estimate of d D / d y] - d E[D] / d y |.

Both expectations are sums over the noise of the two elements. They are exact for stochastic
rounding, which has four values. The derivative is a central difference. The figure shows the
largest bias over the images, as a function of the widths of `g_a` and `g_s`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from tfquant import plotting
from tfquant.analysis import maps, networks, plots, small_images
from tfquant.analysis.experiment import Experiment, Progress, Result, Rows, Settings
from tfquant.analysis.maps import Method
from tfquant.entropy.factorized import FactorizedModel
from tfquant.ops.random import example_seeds
from tfquant.quantization.surrogates import SURROGATES, Branch

COLUMNS = (
    "dataset", "surrogate", "alpha", "estimator", "g_a_width", "g_s_width", "run", "max_bias",
    "mean_bias", "max_gradient", "rate", "distortion",
)  # fmt: skip

WIDTHS, _FULL_WIDTHS = (8, 32, 128), (8, 16, 32, 64, 128, 256)
RUNS = 3

_LMBDA = 3.0
_BATCH = 128
_STEPS, _FULL_STEPS = 1500, 10_000
_SPREAD = 3.0  # initial standard deviation of the latents, in quantization steps
_IMAGES, _FULL_IMAGES = 96, 256
_CELLS = 4  # cells for each element's noise
_STEP = 1e-3


def estimator_of(surrogate: str) -> str:
    """Returns "straight_through" if the surrogate has it, otherwise its first estimator."""
    possible = SURROGATES[surrogate].estimators
    return "straight_through" if "straight_through" in possible else possible[0]


class Autoencoder(tf.Module):
    """`RUNS` independent networks of the same widths, trained on `R + lmbda |x - x_hat|^2`.

    Args:
      pixels: [N, d] float32.
      method: surrogate and temperature.
      widths: numbers of hidden units of `g_a` and `g_s`.
      steps: number of training steps.
      seed: seed of weights, data and noise.
    """

    def __init__(
        self, pixels: np.ndarray, method: Method, widths: tuple[int, int], steps: int, seed: int = 0
    ):
        super().__init__(name="autoencoder")
        self._pixels, self._seed, self._method = tf.constant(pixels), seed, method
        self._mean = tf.reduce_mean(self._pixels, axis=0)
        d = pixels.shape[1]
        self.g_a = networks.Perceptrons(RUNS, (d, widths[0], 2), seed)
        self.g_s = networks.Perceptrons(RUNS, (2, widths[1], d), seed + 1)
        self.prior = FactorizedModel(2, name="y")
        self._branch = Branch(method.surrogate, estimator_of(method.surrogate))
        self._gain = _SPREAD / tf.math.reduce_std(self._encoded(self._pixels), axis=0)
        variables = [*self.g_a.trainable_variables, *self.g_s.trainable_variables,
                     *self.prior.trainable_variables]  # fmt: skip
        networks.train(self._loss, variables, steps, 3e-3)
        self.rate, self.squared_error = (float(a) for a in self._terms(steps, len(pixels)))

    def _encoded(self, x: tf.Tensor) -> tf.Tensor:
        return self.g_a(tf.repeat((x - self._mean)[:, None], RUNS, axis=1))

    def latents(self, x: tf.Tensor) -> tf.Tensor:
        """Maps `x: [N, d]` to y: [N, RUNS, 2]."""
        return self._gain * self._encoded(x)

    def distortion(self, x: tf.Tensor, y_tilde: tf.Tensor) -> tf.Tensor:
        """Returns [K, N, RUNS] for `x: [N, d]` and `y_tilde: [K, N, RUNS, 2]`, float64 or
        float32.
        """
        flat = tf.reshape(y_tilde, [-1, RUNS, 2]) / _SPREAD
        x_hat = self.g_s(flat) + tf.cast(self._mean, flat.dtype)
        x_hat = tf.reshape(x_hat, [*y_tilde.shape[:-1], x.shape[-1]])
        return tf.reduce_sum(tf.square(x[:, None] - x_hat), axis=-1)

    def _terms(self, step: tf.Tensor | int, count: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns bits and squared error per image, averaged over images and runs."""
        seeds = example_seeds(self._seed, "small images", tf.cast(step, tf.int64)[None])
        chosen = tf.random.stateless_uniform(
            [count], seeds[0, :2], 0, len(self._pixels), dtype=tf.int64
        )
        x = tf.gather(self._pixels, chosen)
        y = self.latents(x)[None]
        sample = self._branch.sample(y, tf.zeros([]), self._method.temperature, seeds)
        bits = tf.reduce_sum(self.prior.bits(sample), axis=-1)
        return tf.reduce_mean(bits), tf.reduce_mean(self.distortion(x, sample.value))

    def _loss(self, step: tf.Tensor) -> tf.Tensor:
        rate, squared_error = self._terms(step, _BATCH)
        return RUNS * (rate + _LMBDA * squared_error)

    def bias(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns `|bias|` and `|d E[D] / d y|` at the latents of `x: [N, d]`; [N, RUNS] each."""
        x = tf.constant(x, tf.float64)
        y = self.latents(tf.cast(x, tf.float32)).numpy().astype(np.float64)
        noise, mass = _noise(self._method, y)
        here = tf.constant(np.broadcast_to(y, noise.shape))
        with tf.GradientTape() as tape:
            tape.watch(here)
            sample = maps.sample(self._branch, here, self._method.temperature, noise)
            found = self.distortion(x, sample.value)
        estimate = np.sum(mass[..., None] * tape.gradient(found, here).numpy(), axis=0)
        derivative = np.stack([self._derivative(x, y, axis) for axis in (0, 1)], axis=-1)
        norm = np.linalg.norm
        return norm(estimate - derivative, axis=-1), norm(derivative, axis=-1)

    def _derivative(self, x: tf.Tensor, y: np.ndarray, axis: int) -> np.ndarray:
        """Returns `d E[D] / d y_axis`, [N, RUNS]."""
        expected = []
        for step in (_STEP, -_STEP):
            moved = y + step * np.eye(2)[axis]
            noise, mass = _noise(self._method, moved)
            y_tilde = tf.constant(maps.values(self._method, moved, noise))
            expected.append(np.sum(mass * self.distortion(x, y_tilde).numpy(), axis=0))
        return (expected[0] - expected[1]) / (2.0 * _STEP)


def _noise(method: Method, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns noise of a pair and its probability: [K, N, RUNS, 2] and [K, N, RUNS]."""
    if not maps.is_random(method.surrogate):
        return np.zeros([1, *y.shape]), np.ones([1, *y.shape[:-1]])
    if maps.shares_noise(method.surrogate):
        p = (np.arange(256) + 0.5) / 256
        noise = maps.quantile(method.surrogate)(p)[:, None, None, None]
        shape = [p.size, *y.shape]
        return np.broadcast_to(noise, shape), np.full(shape[:-1], 1.0 / p.size)
    nodes = maps.noise_nodes(method, y.ravel(), _CELLS)
    noise, probability = (a.reshape([-1, *y.shape]) for a in (nodes.noise, nodes.probability))
    count = len(noise)
    first, second = np.divmod(np.arange(count**2), count)
    pair = np.stack([noise[first, ..., 0], noise[second, ..., 1]], axis=-1)
    return pair, probability[first, ..., 0] * probability[second, ..., 1]


def run(settings: Settings, progress: Progress) -> Result:
    """Runs the experiment."""
    images = small_images.load(settings.dataset)
    widths = _FULL_WIDTHS if settings.full else WIDTHS
    steps = _FULL_STEPS if settings.full else _STEPS
    chosen = np.random.default_rng(settings.seed).choice(
        len(images.pixels), _FULL_IMAGES if settings.full else _IMAGES, replace=False
    )
    cases = [(m, a, s) for m in settings.methods for a in widths for s in widths]
    rows = []
    for method, a, s in progress.over(cases, lambda c: f"{c[0]}, widths {c[1]} and {c[2]}"):
        trained = Autoencoder(images.pixels, method, (a, s), steps, settings.seed)
        bias, gradient = trained.bias(images.pixels[chosen])
        for i in range(RUNS):
            rows.append({
                "dataset": images.name,
                "surrogate": method.surrogate,
                "alpha": method.alpha,
                "estimator": estimator_of(method.surrogate),
                "g_a_width": a,
                "g_s_width": s,
                "run": i,
                "max_bias": float(bias[:, i].max()),
                "mean_bias": float(bias[:, i].mean()),
                "max_gradient": float(gradient[:, i].max()),
                "rate": trained.rate,
                "distortion": trained.squared_error,
            })  # fmt: skip
    return Result(COLUMNS, rows, _figure(rows, settings, widths), _notes(rows, widths, images))


def _largest(rows: Rows, method: Method, a: int, s: int) -> list[float]:
    key = (method.surrogate, method.alpha, a, s)
    return [r["max_bias"] for r in rows
            if (r["surrogate"], r["alpha"], r["g_a_width"], r["g_s_width"]) == key]  # fmt: skip


def _figure(rows: Rows, settings: Settings, widths: Sequence[int]) -> Figure:
    figure, axes = plots.new_figure(len(settings.methods), sharey=True)
    for panel, method in zip(axes[0], settings.methods):
        for width, look in zip(widths, plots.shades(method, len(widths))):
            runs = np.array([_largest(rows, method, width, s) for s in widths])
            look["label"] = f"g_a: {width} hidden units"
            panel.plot(widths, runs.mean(axis=1), **look)
            panel.fill_between(
                widths, runs.min(axis=1), runs.max(axis=1), color=look["color"], alpha=0.15,
                linewidth=0.0,
            )  # fmt: skip
        panel.set_xscale("log", base=2)
        panel.set(
            title=f"{plots.label(method)}, {plots.ESTIMATORS[estimator_of(method.surrogate)]}",
            xlabel="hidden units of g_s",
            ylim=(0.0, None),
        )
    axes[0, 0].set_ylabel("largest bias of dD/dy\n[squared error per step]")
    plotting.legend(figure)
    return figure


def _notes(rows: Rows, widths: Sequence[int], images: small_images.SmallImages) -> str:
    lines = [
        "Result: the largest difference between the straight-through gradient of the distortion and"
        " the gradient of the expected distortion. In the paper, it roughly increases with the"
        " transforms. Here:",
        "",
    ]
    for method in dict.fromkeys(Method(r["surrogate"], r["alpha"]) for r in rows):
        small, large = (np.mean(_largest(rows, method, w, w)) for w in (widths[0], widths[-1]))
        lines.append(
            f"- {plots.label(method)}: {small:.2g} with {widths[0]} hidden units in both,"
            f" {large:.2g} with {widths[-1]}."
        )
    lines += [
        "",
        f"Data: {len(images.pixels):,} images, {images.name}. The paper uses MNIST"
        " (`--dataset=tfds:mnist`). There are two latents, and networks with one hidden layer."
        f" Lines are means over {RUNS} runs, with shading from the smallest to the largest. The"
        " bias of each image is exact for SR and SRA.",
    ]
    return "\n".join(lines)


EXPERIMENT = Experiment(
    name="gradient_bias_network",
    reproduces="Fig. 6",
    summary="Largest bias of the distortion's gradient, over the widths of trained networks.",
    run=run,
    surrogates=("sr",),
    alphas=(5.0,),
)
