"""Convolutions and the residual and attention blocks of the codecs.

Residual blocks and the simplified attention block are those of Cheng et al. (2020), sections 3.2
and 3.3; reading from left to right, `+` closes a residual connection.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfquant.layers import klt
from tfquant.layers.chain import Chain
from tfquant.layers.exact import Conv2D, Conv2DTranspose
from tfquant.layers.gdn import GDN
from tfquant.legacy_keras import keras
from tfquant.ops.gradients import straight_through

Constant = keras.initializers.Constant

# The reference networks' leaky ReLU; TensorFlow's own default is 0.2.
LEAKY_SLOPE = 0.01

MID_GREY = 0.5

# What an attention block first multiplies by if its trunk is the identity and its mask 0.
ATTENTION_START = 1.5


# What a residual block's last weights are multiplied by at first: it starts close to the identity.
UNIT_GAIN = 0.1
# GDN in networks that start as a linear transform: its usual 0.1 would bend that out of shape.
LINEAR_GAMMA = 0.01


class Near(keras.initializers.Initializer):
    """A given value, plus a little of Glorot's noise so that no two weights start alike."""

    _NOISE = 0.02

    def __init__(self, value: np.ndarray):
        self._value = value

    def __call__(self, shape, dtype=None, **kwargs):
        noise = keras.initializers.GlorotUniform()(shape, dtype)
        return tf.constant(self._value, dtype) + self._NOISE * noise


def glorot(gain: float) -> keras.initializers.Initializer:
    """Glorot's initial weights, `gain` times as large."""
    return keras.initializers.VarianceScaling(gain**2, "fan_avg", "uniform")


def conv(filters: int, kernel: int = 5, stride: int = 1, **kwargs) -> keras.layers.Layer:
    """A "same" convolution, downsampling by `stride`."""
    return Conv2D(filters, kernel, stride, padding="same", **kwargs)


class PreciseConv(Conv2D):
    """A "same" convolution that makes latents or their parameters: float32 under any policy.

    Its gradients are those of a convolution in the policy's type, as every other layer's are, and
    half the cost in bfloat16: they average over many examples, where a rounded latent would be a
    second quantizer before the one that is studied.
    """

    def __init__(self, filters: int, kernel: int = 5, stride: int = 1, **kwargs):
        super().__init__(filters, kernel, stride, padding="same", dtype="float32", **kwargs)
        self._backward_dtype = keras.mixed_precision.global_policy().compute_dtype

    def convolution_op(self, inputs, kernel):
        precise = super().convolution_op(inputs, kernel)
        if self._backward_dtype == "float32":
            return precise
        inputs, kernel = (tf.cast(t, self._backward_dtype) for t in (inputs, kernel))
        # In a graph only its gradient is computed: TensorFlow prunes the value that nobody uses.
        coarse = super().convolution_op(inputs, kernel)
        return straight_through(precise, tf.cast(coarse, tf.float32))


def deconv(filters: int, kernel: int = 5, stride: int = 2, **kwargs) -> keras.layers.Layer:
    """A "same" transposed convolution, upsampling by `stride`."""
    return Conv2DTranspose(filters, kernel, stride, padding="same", **kwargs)


class PictureDeconv(keras.layers.Conv2DTranspose):
    """`deconv` to a picture's 3 channels, its weights and its values, in less than half the time.

    Output pixels 2 i and 2 i + 1 see inputs i - 1, i and i + 1, in rows as in columns: a 3x3
    convolution makes the four of them, and depth to space puts them in their places.
    """

    def __init__(self, **kwargs):
        super().__init__(3, 5, 2, padding="same", **kwargs)

    def call(self, x):
        inputs, outputs = self.kernel.shape[3], self.kernel.shape[2]
        kernel = tf.pad(self.kernel, [[1, 0], [1, 0], [0, 0], [0, 0]])
        kernel = tf.reshape(kernel, [3, 2, 3, 2, outputs, inputs])[::-1, :, ::-1]
        kernel = tf.reshape(tf.transpose(kernel, [0, 2, 5, 1, 3, 4]), [3, 3, inputs, 4 * outputs])
        x = tf.nn.depth_to_space(tf.nn.conv2d(x, kernel, 1, "SAME"), 2)
        return tf.nn.bias_add(x, self.bias)


def _leaky(x: tf.Tensor) -> tf.Tensor:
    # As tf.nn.leaky_relu, on whose bfloat16 gradient TF 2.14's graph rewriter fails.
    return tf.maximum(x, LEAKY_SLOPE * x)


def leaky_relu() -> keras.layers.Layer:
    return keras.layers.Activation(_leaky)


class SubpixelConv(keras.layers.Layer):
    """3x3 convolution to `stride^2` times the channels, then depth to space."""

    def __init__(self, filters: int, stride: int = 2, **kwargs):
        super().__init__()
        self.stride = stride
        self.conv = conv(filters * stride**2, 3, **kwargs)

    def call(self, x):
        return tf.nn.depth_to_space(self.conv(x), self.stride)


def residual(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """`x + y`, `y` as a convolution gives it.

    Between the two stands an operation that does nothing. TensorFlow's optimizer would make the sum
    a part of the convolution. The oneDNN kernel of that keeps a field for the summand: two threads
    that run the graph write into each other's memory. TF 2.14 to 2.22 are affected, see
    `benchmarks/onednn_fused_sum.py`. For the same reason `x` must be no convolution's result that
    is used only here. Tests look for such sums in all codecs.
    """
    return x + tf.ensure_shape(y, y.shape)


class ResidualBlock(keras.layers.Layer):
    """conv 3x3, leaky ReLU, conv 3x3, leaky ReLU, + x (1x1 projected where widths differ).

    It starts close to the identity; a projection, to the first channels.
    """

    def __init__(self, filters: int, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        last = conv(filters, 3, kernel_initializer=glorot(UNIT_GAIN))
        self.main = Chain([conv(filters, 3), leaky_relu(), last, leaky_relu()])
        self.skip = None

    def build(self, input_shape):
        channels = input_shape[-1]
        if channels != self.filters:
            identity = np.eye(channels, self.filters, dtype=np.float32)[None, None]
            self.skip = conv(self.filters, 1, kernel_initializer=Near(identity))

    def call(self, x):
        return residual(self.main(x), x if self.skip is None else self.skip(x))


class ResidualDown(keras.layers.Layer):
    """conv 3x3 stride 2, leaky ReLU, conv 3x3, GDN, + 1x1 stride-2 projection of x.

    Args:
      level: the transform that it starts close to; its filters are the components.
      centre: what is taken off its input at first.
    """

    # Biases of so many standard deviations keep the leaky ReLU linear at first for almost all.
    _OPEN = 3.0

    def __init__(self, level: klt.Level, centre: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        kernel, filters = level.convolution(3), len(level.deviations)
        identity = np.pad(
            np.eye(filters, dtype=np.float32)[None, None], [(1, 1), (1, 1), *2 * [(0, 0)]]
        )
        opening = self._OPEN * level.deviations
        self.main = Chain(
            [
                conv(
                    filters, 3, 2, kernel_initializer=Near(kernel),
                    bias_initializer=Constant(opening - centre * kernel.sum((0, 1, 2))),
                ),
                leaky_relu(),
                conv(
                    filters, 3, kernel_initializer=Near(identity),
                    bias_initializer=Constant(-opening),
                ),
                GDN(gamma=LINEAR_GAMMA),
            ]
        )  # fmt: skip
        self.skip = conv(filters, 1, kernel_initializer=glorot(UNIT_GAIN))

    def call(self, x):
        # The same as a 1x1 convolution of stride 2. oneDNN's gradient of that writes outside its
        # memory where channels are few, as in a picture. TF 2.14 to 2.22 are affected, see
        # `benchmarks/onednn_strided_gradient.py`.
        return residual(self.main(x), self.skip(x[:, ::2, ::2]))


class ResidualUp(keras.layers.Layer):
    """subpixel 3x3 up 2, leaky ReLU, conv 3x3, inverse GDN, + subpixel projection of x.

    Args:
      level: the transform whose transpose it starts close to, in its projection.
    """

    def __init__(self, level: klt.Level, **kwargs):
        super().__init__(**kwargs)
        kernel = level.subpixel(3)
        filters = kernel.shape[-1] // 4
        self.main = Chain(
            [
                SubpixelConv(filters),
                leaky_relu(),
                conv(filters, 3, kernel_initializer=glorot(UNIT_GAIN)),
                GDN(inverse=True, gamma=LINEAR_GAMMA),
            ]
        )
        self.skip = SubpixelConv(filters, kernel_initializer=Near(kernel))

    def call(self, x):
        return residual(self.main(x), self.skip(x))


class ResidualUnit(keras.layers.Layer):
    """A bottleneck: 1x1 to half the width, ReLU, 3x3, ReLU, 1x1 back, + x.

    The attention block's unit, and ELIC's residual block (He et al., 2022).

    Args:
      gain: of the last convolution's initial weights; near 0 the unit starts as the identity.
    """

    def __init__(self, gain: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        self._gain = gain

    def build(self, input_shape):
        channels, dtype = input_shape[-1], self.dtype_policy
        self.main = Chain(
            [
                conv(channels // 2, 1, activation="relu", dtype=dtype),
                conv(channels // 2, 3, activation="relu", dtype=dtype),
                conv(channels, 1, kernel_initializer=glorot(self._gain), dtype=dtype),
            ]
        )

    def call(self, x):
        return residual(x, self.main(x))


class Attention(keras.layers.Layer):
    """The simplified attention block: `x + trunk(x) * sigmoid(mask(x))`, no non-local part.

    Args:
      gain: of its units', and the mask's, last initial weights; near 0 the block starts as
        `ATTENTION_START` times its input.
    """

    def __init__(self, gain: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        self._gain = gain

    def build(self, input_shape):
        gain, dtype = self._gain, self.dtype_policy
        units = [[ResidualUnit(gain, dtype=dtype) for _ in range(3)] for _ in range(2)]
        last = conv(input_shape[-1], 1, kernel_initializer=glorot(gain), dtype=dtype)
        self.trunk = Chain(units[0])
        self.mask = Chain([*units[1], last])

    def call(self, x):
        return x + self.trunk(x) * tf.sigmoid(self.mask(x))
