"""Convolutions and the residual and attention blocks of the codecs.

Residual blocks and the simplified attention block are those of Cheng et al. (2020), sections 3.2
and 3.3; reading from left to right, `+` closes a residual connection.
"""

from __future__ import annotations

import tensorflow as tf

from tfquant.layers.gdn import GDN

# The reference networks' leaky ReLU; TensorFlow's own default is 0.2.
LEAKY_SLOPE = 0.01

MID_GREY = tf.keras.initializers.Constant(0.5)

# Measured on photographs in [0, 1]: it brings the latents' standard deviation from 0.13 to near 3.
LATENT_GAIN = 20.0


def conv(filters: int, kernel: int = 5, stride: int = 1, **kwargs) -> tf.keras.layers.Layer:
    """A "same" convolution, downsampling by `stride`."""
    return tf.keras.layers.Conv2D(filters, kernel, stride, padding="same", **kwargs)


def latent_conv(filters: int, kernel: int = 5) -> tf.keras.layers.Layer:
    """The analysis transform's last layer, stride 2, float32 under any policy.

    Its weights start large, so that latents spread over several quantization bins (a standard
    deviation near 3) from the first step on: Glorot's would start at 1/8 of a bin, where the noise
    drowns them.
    """
    spread = tf.keras.initializers.VarianceScaling(LATENT_GAIN**2, "fan_avg", "uniform")
    return conv(filters, kernel, 2, kernel_initializer=spread, dtype="float32")


def deconv(filters: int, kernel: int = 5, stride: int = 2, **kwargs) -> tf.keras.layers.Layer:
    """A "same" transposed convolution, upsampling by `stride`."""
    return tf.keras.layers.Conv2DTranspose(filters, kernel, stride, padding="same", **kwargs)


def _leaky(x: tf.Tensor) -> tf.Tensor:
    # As tf.nn.leaky_relu, on whose bfloat16 gradient TF 2.14's graph rewriter fails.
    return tf.maximum(x, LEAKY_SLOPE * x)


def leaky_relu() -> tf.keras.layers.Layer:
    return tf.keras.layers.Activation(_leaky)


class SubpixelConv(tf.keras.layers.Layer):
    """3x3 convolution to `stride^2` times the channels, then depth to space."""

    def __init__(self, filters: int, stride: int = 2, bias_initializer="zeros", **kwargs):
        super().__init__(**kwargs)
        self.stride = stride
        self.conv = conv(filters * stride**2, 3, bias_initializer=bias_initializer)

    def call(self, x):
        return tf.nn.depth_to_space(self.conv(x), self.stride)


class ResidualBlock(tf.keras.layers.Layer):
    """conv 3x3, leaky ReLU, conv 3x3, leaky ReLU, + x (1x1 projected where widths differ)."""

    def __init__(self, filters: int, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.main = tf.keras.Sequential(
            [conv(filters, 3), leaky_relu(), conv(filters, 3), leaky_relu()]
        )
        self.skip = None

    def build(self, input_shape):
        if input_shape[-1] != self.filters:
            self.skip = conv(self.filters, 1)

    def call(self, x):
        return self.main(x) + (x if self.skip is None else self.skip(x))


class ResidualDown(tf.keras.layers.Layer):
    """conv 3x3 stride 2, leaky ReLU, conv 3x3, GDN, + 1x1 stride-2 projection of x."""

    def __init__(self, filters: int, **kwargs):
        super().__init__(**kwargs)
        self.main = tf.keras.Sequential(
            [conv(filters, 3, 2), leaky_relu(), conv(filters, 3), GDN()]
        )
        self.skip = conv(filters, 1)

    def call(self, x):
        # The same as a 1x1 convolution of stride 2, whose gradient in TF 2.14's oneDNN writes
        # outside its memory where channels are few, as in a picture.
        return self.main(x) + self.skip(x[:, ::2, ::2])


class ResidualUp(tf.keras.layers.Layer):
    """subpixel 3x3 up 2, leaky ReLU, conv 3x3, inverse GDN, + subpixel projection of x."""

    def __init__(self, filters: int, **kwargs):
        super().__init__(**kwargs)
        self.main = tf.keras.Sequential(
            [SubpixelConv(filters), leaky_relu(), conv(filters, 3), GDN(inverse=True)]
        )
        self.skip = SubpixelConv(filters)

    def call(self, x):
        return self.main(x) + self.skip(x)


class ResidualUnit(tf.keras.layers.Layer):
    """The attention block's unit: 1x1 to half the width, ReLU, 3x3, ReLU, 1x1 back, + x."""

    def build(self, input_shape):
        channels, dtype = input_shape[-1], self.dtype_policy
        self.main = tf.keras.Sequential(
            [
                conv(channels // 2, 1, activation="relu", dtype=dtype),
                conv(channels // 2, 3, activation="relu", dtype=dtype),
                conv(channels, 1, dtype=dtype),
            ]
        )

    def call(self, x):
        return x + self.main(x)


class Attention(tf.keras.layers.Layer):
    """The simplified attention block: `x + trunk(x) * sigmoid(mask(x))`, no non-local part."""

    def build(self, input_shape):
        dtype = self.dtype_policy
        units = [[ResidualUnit(dtype=dtype) for _ in range(3)] for _ in range(2)]
        self.trunk = tf.keras.Sequential(units[0])
        self.mask = tf.keras.Sequential(units[1] + [conv(input_shape[-1], 1, dtype=dtype)])

    def call(self, x):
        return x + self.trunk(x) * tf.sigmoid(self.mask(x))
