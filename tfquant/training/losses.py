"""Loss terms by name. A stage's loss is a weighted sum of them, such as `bpp + lmbda mse`.

`bpp` is R. The distortions are those that the literature weights by lmbda: `255^2 MSE` for pictures
in [0, 1], or `1 - MS-SSIM`. The `feature_*` terms are the distances `d(y, y_bar)` that train a
Quantization Rectifier (`tfquant/layers/rectifier.py`). They are means over elements, so their
weight is independent of the latent's width and the size of the crops.
"""

from __future__ import annotations

from typing import Callable, NamedTuple

import tensorflow as tf

from tfquant import metrics
from tfquant.exchange import Exchange
from tfquant.names import check_known


class Outcome(NamedTuple):
    """Results of a forward pass, from which the loss terms are computed.

    Attributes:
      x: [B, H, W, 3] float32 in [0, 1].
      x_hat: same shape, not clipped.
      exchange: the exchange that transmitted the latents; None if only the distortion counts.
      y: [B, h, w, M] float32, the latent before quantization, as the feature terms use it.
      y_hat: same shape, the transmitted latent.
      y_bar: same shape, the rectified latent; `y_hat` if there is no rectifier.
      lmbda: [B] float32, each picture's weight of the distortion, in training for a range of rates.
    """

    x: tf.Tensor
    x_hat: tf.Tensor
    exchange: Exchange | None
    y: tf.Tensor | None = None
    y_hat: tf.Tensor | None = None
    y_bar: tf.Tensor | None = None
    lmbda: tf.Tensor | None = None


def rate(outcome: Outcome) -> tf.Tensor:
    """Returns R in bits per pixel, mean over the batch."""
    assert outcome.exchange is not None
    pixels = tf.cast(tf.shape(outcome.x)[1] * tf.shape(outcome.x)[2], tf.float32)
    return tf.reduce_mean(outcome.exchange.bits_per_image()) / pixels


def mse(outcome: Outcome) -> tf.Tensor:
    """Returns the mean squared error on the 8-bit scale, `255^2 MSE`."""
    return 255.0**2 * tf.reduce_mean(tf.square(outcome.x - outcome.x_hat))


def weighted_mse(outcome: Outcome) -> tf.Tensor:
    """Returns the mean over the pictures of `lmbda 255^2 MSE`, each with its own lmbda."""
    errors = tf.reduce_mean(tf.square(outcome.x - outcome.x_hat), axis=[1, 2, 3])
    return 255.0**2 * tf.reduce_mean(outcome.lmbda * errors)


def one_minus_ms_ssim(outcome: Outcome) -> tf.Tensor:
    """Returns 1 - MS-SSIM, mean over the batch."""
    return 1.0 - tf.reduce_mean(metrics.ms_ssim(outcome.x, outcome.x_hat))


def weighted_one_minus_ms_ssim(outcome: Outcome) -> tf.Tensor:
    """Returns the mean over the pictures of `lmbda (1 - MS-SSIM)`, each with its own lmbda."""
    return tf.reduce_mean(outcome.lmbda * (1.0 - metrics.ms_ssim(outcome.x, outcome.x_hat)))


def _features(outcome: Outcome) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns y and y_bar, which the outcome of a whole forward pass has."""
    assert outcome.y is not None and outcome.y_bar is not None
    return outcome.y, outcome.y_bar


def l2(outcome: Outcome) -> tf.Tensor:
    """Returns the mean of `(y - y_bar)^2`, the best of the four distances in the rectifier's
    paper.
    """
    y, y_bar = _features(outcome)
    return tf.reduce_mean(tf.square(y - y_bar))


def l1(outcome: Outcome) -> tf.Tensor:
    """Returns the mean of `|y - y_bar|`."""
    y, y_bar = _features(outcome)
    return tf.reduce_mean(tf.abs(y - y_bar))


def smooth_l1(outcome: Outcome) -> tf.Tensor:
    """Returns the mean of `e^2 / 2` if `|e| < 1`, otherwise of `|e| - 1/2`, with `e = y - y_bar`.

    Quantization errors are below 1/2, so for a good rectifier this is half of `l2`.
    """
    y, y_bar = _features(outcome)
    error = tf.abs(y - y_bar)
    return tf.reduce_mean(tf.where(error < 1.0, 0.5 * tf.square(error), error - 0.5))


def cosine(outcome: Outcome) -> tf.Tensor:
    """Returns `1 - cos(y, y_bar)` over a picture's whole latent, mean over the batch."""
    y, y_bar = (tf.reshape(v, [tf.shape(v)[0], -1]) for v in _features(outcome))
    y, y_bar = (tf.math.l2_normalize(v, axis=1) for v in (y, y_bar))
    return 1.0 - tf.reduce_mean(tf.reduce_sum(y * y_bar, axis=1))


def quantization_error(outcome: Outcome) -> tf.Tensor:
    """Returns the mean of `(y - y_hat)^2`, the error that a rectifier reduces."""
    assert outcome.y is not None and outcome.y_hat is not None
    return tf.reduce_mean(tf.square(outcome.y - outcome.y_hat))


DISTORTIONS = {"mse": mse, "ms_ssim": one_minus_ms_ssim}
WEIGHTED = {"mse": weighted_mse, "ms_ssim": weighted_one_minus_ms_ssim}
FEATURE_DISTANCES = {"l2": l2, "l1": l1, "smooth_l1": smooth_l1, "cosine": cosine}

TERMS = {
    "bpp": rate,
    **DISTORTIONS,
    **{f"weighted_{name}": term for name, term in WEIGHTED.items()},
    **{f"feature_{name}": distance for name, distance in FEATURE_DISTANCES.items()},
    "quantization_error": quantization_error,
    "rectified_error": l2,
}


def distortion(name: str) -> Callable[[Outcome], tf.Tensor]:
    """Returns the distortion with that name. A ValueError lists the known ones."""
    check_known("distortion", name, DISTORTIONS)
    return DISTORTIONS[name]


def feature_term(distance: str) -> str:
    """Returns the term name of a feature distance. A ValueError lists the known distances."""
    check_known("feature distance", distance, FEATURE_DISTANCES)
    return f"feature_{distance}"
