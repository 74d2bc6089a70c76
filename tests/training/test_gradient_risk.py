"""Bias and variance compared with integrals: a Gaussian rate and a parabola as distortion."""

import math

import numpy as np
import pytest
import tensorflow as tf
from scipy import integrate
from scipy.stats import norm

from tfquant import models
from tfquant.codec import Codec
from tfquant.entropy.conditional import ConditionalModel
from tfquant.legacy_keras import keras
from tfquant.quantization.plans import PLANS, QuantizationPlan
from tfquant.quantization.surrogates import Branch
from tfquant.training import losses
from tfquant.training.gradient_risk import gradient_risk

SIGMA, LMBDA, ALPHA, SIDE = 0.7, 0.01, 5.0, 8
# Factor between the picture and the latent of this codec.
SCALE = 3.0


class PictureCodec(Codec):
    """A codec with `y = SCALE x`, `x_hat = y_hat / SCALE` and a zero-mean Gaussian: a closed
    form.
    """

    downsampling = 1

    def __init__(self):
        super().__init__(dtype="float32")
        self.g_a = keras.layers.Lambda(lambda x: SCALE * x)
        self.g_s = keras.layers.Lambda(lambda y: y / SCALE)
        self.y_model = ConditionalModel("scale_gaussian", zero_center=False)
        self.entropy_models = (self.y_model,)

    def transmit(self, y, exchange):
        return exchange(self.y_model, y, tf.fill(tf.shape(y), math.log(SIGMA))).distortion


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).uniform(size=(1, SIDE, SIDE, 3)).astype(np.float32)


def risk(x, rate, distortion, draws=200, elements=50, codec=None, **choices):
    codec = codec or PictureCodec()
    plan = QuantizationPlan(Branch.parse(rate), Branch.parse(distortion), **choices)

    def measure(x):
        return gradient_risk(
            codec, plan, tf.constant(ALPHA), x,
            distortion=losses.mse, lmbda=LMBDA, draws=draws, elements=elements,
        )  # fmt: skip

    if elements > 1:  # tracing takes longer than a single element
        measure = tf.function(measure, autograph=False)
    return {name: float(value) for name, value in measure(x).items()}


# All functions below use NumPy in float64: `y: [n]` and noise `u: [n, 1001]`.
U = (np.arange(1001) + 0.5) / 1001 - 0.5


def rate_slope(v):
    """Returns `R'(v)` in bits."""
    mass = norm.cdf((v + 0.5) / SIGMA) - norm.cdf((v - 0.5) / SIGMA)
    density = norm.pdf((v + 0.5) / SIGMA) - norm.pdf((v - 0.5) / SIGMA)
    return -density / SIGMA / mass / math.log(2)


def distortion_slope(v, y):
    """Returns the slope of `lmbda pixels 255^2 MSE`, a sum over the three channels' means, in
    bits.
    """
    return LMBDA * 255.0**2 * 2 * (v - y) / SCALE**2 / 3


def s_a(y):
    return np.floor(y) + 0.5 + np.tanh(ALPHA * (y - np.floor(y) - 0.5)) / 2 / np.tanh(ALPHA / 2)


def s_a_slope(y):
    r = y - np.floor(y) - 0.5
    return ALPHA / 2 / np.tanh(ALPHA / 2) / np.cosh(ALPHA * r) ** 2


def sua(y):
    w = s_a(y)[:, None] + U - 0.5
    r = w - np.floor(w) - 0.5
    return np.floor(w) + 0.5 + np.arctanh(2 * r * np.tanh(ALPHA / 2)) / ALPHA + 0.5


def root_mean_square(values):
    return np.sqrt(np.mean(np.square(values)))


@pytest.mark.slow
def test_additive_noise_has_no_bias_and_the_variance_of_its_integral(x):
    found = risk(x, "aun:pathwise", "aun:pathwise")
    y = SCALE * x.ravel().astype(float)
    variance = [
        integrate.quad(lambda u, m=m: rate_slope(m + u) ** 2, -0.5, 0.5)[0]
        - integrate.quad(lambda u, m=m: rate_slope(m + u), -0.5, 0.5)[0] ** 2
        for m in y[::4]
    ]
    assert found["rate_variance"] == pytest.approx(np.mean(variance), rel=0.03)
    assert found["rate_bias"] <= 3 * found["rate_bias_error"] < 0.1 * found["rate_gradient"]
    mean_square = np.mean(rate_slope(y[:, None] + U).mean(1) ** 2)
    assert found["rate_gradient"] == pytest.approx(np.sqrt(mean_square), rel=0.02)
    assert found["distortion_variance"] == pytest.approx(distortion_slope(1, 0) ** 2 / 12, rel=0.03)
    assert found["distortion_bias"] <= 3 * found["distortion_bias_error"]


@pytest.mark.slow
def test_straight_through_annealing_has_the_bias_of_its_integral(x):
    # All elements, so that the distortion's bias does not depend on a random subset.
    found = risk(x[:, :4, :4], "sua:straight_through", "sua:straight_through", elements=48)
    y = SCALE * x[:, :4, :4].ravel().astype(float)
    v = sua(y)
    slope = s_a_slope(y)
    sampled = slope[:, None] * rate_slope(v)
    R = -np.log2([norm.cdf((y + e + 0.5) / SIGMA) - norm.cdf((y + e - 0.5) / SIGMA)
                  for e in (-0.5, 0.5)])  # fmt: skip
    bias = sampled.mean(1) - slope * (R[1] - R[0])
    assert found["rate_variance"] == pytest.approx(sampled.var(1).mean(), rel=0.05)
    assert found["rate_bias"] == pytest.approx(root_mean_square(bias), rel=0.05)
    # D is a parabola in y. The difference between its ends is 0, so all of the mean is bias.
    sampled = slope[:, None] * distortion_slope(v, y[:, None])
    assert found["distortion_variance"] == pytest.approx(sampled.var(1).mean(), rel=0.05)
    assert found["distortion_bias"] == pytest.approx(root_mean_square(sampled.mean(1)), rel=0.1)
    assert found["distortion_gradient"] == pytest.approx(root_mean_square(sampled.mean(1)), rel=0.1)


@pytest.mark.slow
def test_the_distortions_reference_is_the_slope_of_the_expected_distortion():
    """Uses a network and stochastic rounding: finite differences of the mean over all outcomes."""

    class Mixing(PictureCodec):
        """A codec that mixes two channels of a pixel in `x_hat`, so that elements are not
        separable.
        """

        def __init__(self):
            super().__init__()
            mix = tf.constant([[1.0, 0.5, 0.0], [-0.8, 1.0, 0.0], [0.0, 0.0, 1.0]])
            self.g_s = keras.layers.Lambda(lambda y: tf.square(y @ mix) / SCALE**2)

    x = np.array([0.22, 0.43, 0.71], np.float32).reshape(1, 1, 1, 3)
    found = risk(x, "sr:expected", "sr:straight_through", 5000, elements=3, codec=Mixing())
    mix = np.array([[1.0, 0.5, 0.0], [-0.8, 1.0, 0.0], [0.0, 0.0, 1.0]])
    bits = np.array(np.meshgrid([0, 1], [0, 1], [0, 1])).reshape(3, -1).T

    def loss(v):
        return LMBDA * 255.0**2 * np.mean((np.square(v @ mix) / SCALE**2 - x.ravel()) ** 2, axis=-1)

    def weights(y):
        part = y - np.floor(y)
        return np.prod(np.where(bits, part, 1 - part), axis=1)

    def expected(y):
        return np.sum(weights(y) * loss(np.floor(y) + bits))

    y, h = SCALE * x.ravel().astype(float), 1e-4
    steps = h * np.eye(3)
    gradient = np.array([(expected(y + d) - expected(y - d)) / (2 * h) for d in steps])
    outcomes = np.floor(y) + bits
    slopes = np.stack([(loss(outcomes + d) - loss(outcomes - d)) / (2 * h) for d in steps], axis=-1)
    straight_through = weights(y) @ slopes
    bias = root_mean_square(straight_through - gradient)
    assert bias > 0.3 * root_mean_square(gradient)
    assert found["distortion_bias"] == pytest.approx(bias, rel=0.1)


class CentredCodec(PictureCodec):
    """A codec whose latent is quantized around its own mean, the same for all elements."""

    MU = 0.3

    def __init__(self):
        super().__init__()
        self.y_model = ConditionalModel("gaussian", zero_center=True)
        self.entropy_models = (self.y_model,)

    def transmit(self, y, exchange):
        raw = tf.concat([tf.fill(tf.shape(y), self.MU), tf.fill(tf.shape(y), math.log(SIGMA))], -1)
        return exchange(self.y_model, y, raw).distortion


@pytest.mark.slow
@pytest.mark.parametrize("stopped", ["both", "distortion", "none"])
def test_the_mean_has_the_bias_and_variance_of_its_integral(x, stopped):
    found = risk(x, "sua:expected", "round:straight_through", codec=CentredCodec(),
                 draws=1000, elements=1, stop_gradient=stopped)  # fmt: skip
    v = SCALE * x.ravel().astype(float) - CentredCodec.MU
    R = -np.log2([norm.cdf((v + e + 0.5) / SIGMA) - norm.cdf((v + e - 0.5) / SIGMA)
                  for e in (-0.5, 0.5)])  # fmt: skip
    expected = -s_a_slope(v) * (R[1] - R[0])
    assert found["rate_gradient"] == pytest.approx(root_mean_square(expected), rel=0.02)
    if stopped != "both":
        # Equal up to float32, because the sample's own gradients cancel.
        assert found["mean_variance"] < 1e-9 and found["mean_bias"] < 1e-4
        assert found["mean_gradient"] == pytest.approx(found["rate_gradient"], rel=1e-4)
        return
    sampled = -rate_slope(sua(v))
    assert found["mean_variance"] == pytest.approx(sampled.var(1).mean(), rel=0.05)
    bias = root_mean_square(sampled.mean(1) - expected)
    assert bias > 0.2 and found["mean_bias"] == pytest.approx(bias, rel=0.05)


@pytest.mark.slow
def test_the_means_gradient_in_closed_form_has_neither_bias_nor_variance_with_additive_noise(x):
    plans = {"sampled": {}, "expected": {"mean_gradient": "expected"}}
    sampled, closed = (
        risk(
            x,
            "aun:expected",
            "round:straight_through",
            codec=CentredCodec(),
            draws=200,
            elements=1,
            **p,
        )
        for p in plans.values()
    )
    assert sampled["mean_variance"] > 0.5 and closed["mean_variance"] < 1e-9
    assert sampled["mean_bias"] <= 3 * sampled["mean_bias_error"]
    assert closed["mean_bias"] < 1e-4


def test_the_expected_gradient_has_neither_bias_nor_variance(x):
    found = risk(x, "sua:expected", "sua:pathwise", draws=4, elements=1)
    assert found["rate_bias"] == found["rate_variance"] == 0
    assert found["rate_gradient"] > 0


@pytest.mark.parametrize(
    "distortion,known",
    [
        ("round:straight_through", False),
        ("uq_s:straight_through", False),
        ("uq_i:straight_through", True),
        ("sga:straight_through", True),
        ("sha:standard", True),
    ],
)
def test_a_bias_is_reported_only_with_a_reference(x, distortion, known):
    found = risk(x, distortion, distortion, draws=2, elements=1)
    assert ("distortion_bias" in found) == known
    assert ("rate_bias" in found) == (not distortion.startswith("round"))
    if distortion in ("round:straight_through", "sha:standard"):
        assert found["rate_variance"] == found["distortion_variance"] == 0


@pytest.mark.slow
def test_a_real_codec_is_measured_in_a_graph():
    codec = models.build("factorized", N=4, M=6)
    x = tf.random.stateless_uniform([1, 64, 64, 3], [0, 1])

    @tf.function(autograph=False)
    def measure(alpha):
        return gradient_risk(
            codec, PLANS["sua_ste"], alpha, x,
            distortion=losses.mse, lmbda=LMBDA, draws=4, elements=2,
        )  # fmt: skip

    soft, hard = measure(tf.constant(1.0)), measure(tf.constant(8.0))
    assert all(np.isfinite(value) for value in {**soft, **hard}.values())
    assert hard["distortion_variance"] > soft["distortion_variance"] > 0


def test_too_few_draws_are_refused(x):
    with pytest.raises(ValueError, match="draws >= 2 and elements >= 1; got 1 and 1"):
        risk(x, "aun:pathwise", "aun:pathwise", draws=1, elements=1)
