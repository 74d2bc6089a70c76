"""Loss terms by name. A stage's loss is a weighted sum of them, such as `bpp + lmbda mse`.

`bpp` is R; the distortions are those that the literature weighs by lmbda: `255^2 MSE` for pictures
in [0, 1], or `1 - MS-SSIM`.
"""

from __future__ import annotations

from typing import Callable, NamedTuple

import tensorflow as tf

from tfquant import metrics
from tfquant.exchange import Exchange


class Outcome(NamedTuple):
    """What a forward pass leaves for the loss.

    Attributes:
      x: [B, H, W, 3] float32 in [0, 1].
      x_hat: same shape, not clipped.
      exchange: the exchange that the latents passed.
    """

    x: tf.Tensor
    x_hat: tf.Tensor
    exchange: Exchange


def rate(outcome: Outcome) -> tf.Tensor:
    """R in bits per pixel, mean over the batch."""
    pixels = tf.cast(tf.shape(outcome.x)[1] * tf.shape(outcome.x)[2], tf.float32)
    return tf.reduce_mean(outcome.exchange.bits_per_image()) / pixels


def mse(outcome: Outcome) -> tf.Tensor:
    """Mean squared error on the 8-bit scale, `255^2 MSE`."""
    return 255.0**2 * tf.reduce_mean(tf.square(outcome.x - outcome.x_hat))


def one_minus_ms_ssim(outcome: Outcome) -> tf.Tensor:
    """1 - MS-SSIM, mean over the batch."""
    return 1.0 - tf.reduce_mean(metrics.ms_ssim(outcome.x, outcome.x_hat))


DISTORTIONS = {"mse": mse, "ms_ssim": one_minus_ms_ssim}

TERMS = {"bpp": rate, **DISTORTIONS}


def distortion(name: str) -> Callable[[Outcome], tf.Tensor]:
    """The distortion of that name; a ValueError lists the known ones."""
    if name not in DISTORTIONS:
        raise ValueError(f"unknown distortion {name!r}; known: {', '.join(DISTORTIONS)}")
    return DISTORTIONS[name]
