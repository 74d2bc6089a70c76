"""Distortion metrics per image in TensorFlow (MSE, PSNR and MS-SSIM), and a rectifier's effect.

Training and evaluation use the same metrics. Images are `x, x_hat: [..., H, W, C]`, either floating
point in [0, 1] or uint8 in [0, 255]. uint8 is first divided by 255. All computations are in
float32, for any precision of the input. Errors are therefore in units of the full range: `mse` is
in [0, 1], and the peak of `psnr` is 1.

MS-SSIM follows Wang, Simoncelli and Bovik, "Multiscale structural similarity for image quality
assessment" (2003), equation 7, for each colour channel, averaged over channels. It has an 11x11
Gaussian window of width 1.5 and five scales. `tf.image.ssim_multiscale` has the same definition,
but three problems. It sums its maps sequentially in float32, which costs up to 0.25 dB at 768x512
pixels and an MS-SSIM of 25 dB. It takes eight times as long, because its window is not separated.
Its gradient is NaN if a contrast term is negative. Details:

- An image whose smaller side is below `FULL_PYRAMID_SIDE` (161 pixels) has no room for five
  windows. The scales that fit are used, with renormalized weights; `ms_ssim_scales` returns their
  number. Values with different numbers of scales cannot be compared.
- A negative contrast term counts as 0, and so does its gradient.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfquant.data.pixels import to_float

# Wang et al. 2003, Section 3.2: the exponents of the five scales, finest first.
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
# The window and the constants C1 and C2 of SSIM for pixels in [0, 1] (Wang et al. 2004, Section
# III.C).
MS_SSIM_WINDOW = 11
_WINDOW_SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2
# Every scale halves the image, rounding up. At this side in pixels, the last one still fits a
# window.
FULL_PYRAMID_SIDE = (MS_SSIM_WINDOW - 1) * 2 ** (len(MS_SSIM_WEIGHTS) - 1) + 1


def mse(x: tf.Tensor | np.ndarray, x_hat: tf.Tensor | np.ndarray) -> tf.Tensor:
    """Returns the mean squared error per image, `[...] float32`, in units of the squared full
    range.
    """
    squared = tf.math.squared_difference(_unit_range(x), _unit_range(x_hat))
    return tf.reduce_mean(squared, axis=(-3, -2, -1))


def psnr(x: tf.Tensor | np.ndarray, x_hat: tf.Tensor | np.ndarray) -> tf.Tensor:
    """Returns the peak signal-to-noise ratio per image, `[...] float32`, in dB; infinite if
    identical.
    """
    return _negative_decibel(mse(x, x_hat))


def ms_ssim(x: tf.Tensor | np.ndarray, x_hat: tf.Tensor | np.ndarray) -> tf.Tensor:
    """Returns the multiscale structural similarity per image, `[...] float32` in [0, 1].

    Raises:
      ValueError: an image is smaller than one window, or its height or width is not static.
    """
    x, x_hat = _unit_range(x), _unit_range(x_hat)
    height, width = x.shape[-3], x.shape[-2]
    if height is None or width is None:
        raise ValueError(
            "MS-SSIM chooses its scales by the image's size: height and width must be static; got"
            f" the shape {x.shape}"
        )
    scales = ms_ssim_scales(height, width)
    if scales == 0:
        raise ValueError(
            f"image of {width}x{height} pixels (width x height) is smaller than MS-SSIM's window: "
            f"both sides must be >= {MS_SSIM_WINDOW}"
        )
    batch = tf.shape(x)[:-3]
    x, x_hat = (tf.reshape(image, [-1, *image.shape[-3:]]) for image in (x, x_hat))
    weights = MS_SSIM_WEIGHTS[:scales]
    value = 1.0  # [B, C] float32 after the first scale
    for scale, weight in enumerate(weights):
        if scale:
            # If a side is odd, the last window averages only the existing pixels.
            x, x_hat = (tf.nn.avg_pool2d(image, 2, 2, "SAME") for image in (x, x_hat))
        luminance, contrast = _luminance_and_contrast(x, x_hat)
        similarity = luminance * contrast if scale == scales - 1 else contrast
        # One mean per axis: the sum of a whole map loses digits in float32.
        mean = tf.reduce_mean(tf.reduce_mean(similarity, axis=2), axis=1)
        value *= _clamped_power(mean, weight / sum(weights))
    # Rounding may raise a near-perfect value above 1, where the decibels are undefined.
    return tf.reshape(tf.minimum(tf.reduce_mean(value, axis=-1), 1.0), batch)


def ms_ssim_scales(height: int, width: int) -> int:
    """Returns the number of MS-SSIM's five scales that fit an image; the standard metric has all
    5.
    """
    side, scales = min(height, width), 0
    while scales < len(MS_SSIM_WEIGHTS) and side >= MS_SSIM_WINDOW:
        side, scales = -(-side // 2), scales + 1
    return scales


def ms_ssim_db(value: tf.Tensor | np.ndarray | float) -> tf.Tensor:
    """Returns MS-SSIM on the papers' logarithmic scale, -10 log10(1 - MS-SSIM), in dB; infinite
    at 1.
    """
    return _negative_decibel(1.0 - tf.cast(value, tf.float32))


def error_reduction(error: float, rectified_error: float) -> float:
    """Returns `1 - ||y - y_bar||^2 / ||y - y_hat||^2` in percent; 0 if there is no error to
    reduce.
    """
    return 100.0 * (1.0 - rectified_error / error) if error else 0.0


def _negative_decibel(ratio: tf.Tensor) -> tf.Tensor:
    return -10.0 * tf.math.log(ratio) / tf.math.log(10.0)


def _luminance_and_contrast(x: tf.Tensor, x_hat: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns SSIM's l and c s (Wang et al. 2004, equations 6, 9, 10) as maps [B, H - 10, W -
    10, C].
    """
    offset = tf.range(MS_SSIM_WINDOW, dtype=tf.float32) - (MS_SSIM_WINDOW - 1) / 2
    taps = tf.nn.softmax(-0.5 * tf.square(offset / _WINDOW_SIGMA))
    rows = tf.tile(taps[:, None, None, None], [1, 1, x.shape[-1], 1])
    columns = tf.transpose(rows, [1, 0, 2, 3])
    maps = tf.concat([x, x_hat, x * x + x_hat * x_hat, x * x_hat], axis=0)
    for window in (rows, columns):
        maps = tf.nn.depthwise_conv2d(maps, window, [1, 1, 1, 1], "VALID")
    mean, mean_hat, power, product = tf.split(maps, 4, axis=0)
    means, mean_power = 2 * mean * mean_hat, tf.square(mean) + tf.square(mean_hat)
    luminance = (means + _C1) / (mean_power + _C1)
    contrast = (2 * product - means + _C2) / (power - mean_power + _C2)
    return luminance, contrast


def _clamped_power(base: tf.Tensor, exponent: float) -> tf.Tensor:
    """Returns max(base, 0) ** exponent.

    If base is not positive, the gradient is 0 instead of NaN.
    """
    positive = base > 0
    return tf.where(positive, tf.where(positive, base, 1.0) ** exponent, 0.0)


def _unit_range(image: tf.Tensor | np.ndarray) -> tf.Tensor:
    image = tf.convert_to_tensor(image)
    if image.dtype == tf.uint8:
        return to_float(image)
    if not image.dtype.is_floating:
        raise ValueError(
            f"images have type {image.dtype.name}; known: floating point in [0, 1], uint8"
        )
    return tf.cast(image, tf.float32)
