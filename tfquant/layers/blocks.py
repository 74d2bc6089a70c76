"""Convolutions and the residual and attention blocks of the codecs.

The residual blocks and the simplified attention block are from Cheng et al. (2020), sections 3.2
and 3.3. In the docstrings, layers are listed in order of computation, and `+` adds a skip
connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfquant.layers import klt
from tfquant.layers.chain import Chain
from tfquant.layers.exact import Conv2D, Conv2DTranspose
from tfquant.layers.gdn import GDN
from tfquant.legacy_keras import keras
from tfquant.ops.gradients import straight_through

Constant = keras.initializers.Constant

# Slope of the reference networks' leaky ReLU. TensorFlow's default is 0.2.
LEAKY_SLOPE = 0.01

MID_GREY = 0.5  # of pixels in [0, 1]

# Initial factor of an attention block: its trunk starts as the identity and its mask at 0.5.
ATTENTION_START = 1.5

# Initial factor of a residual block's last weights. The block then starts close to the identity.
UNIT_GAIN = 0.1
# Initial gamma of GDN in networks that start as a linear transform. The usual 0.1 would distort it.
LINEAR_GAMMA = 0.01


class Near(keras.initializers.Initializer):
    """An initial value plus a little Glorot noise, so that no two weights start equal."""

    _NOISE = 0.02

    def __init__(self, value: np.ndarray):
        self._value = value

    def __call__(
        self, shape: Sequence[int], dtype: tf.DType | None = None, **kwargs: Any
    ) -> tf.Tensor:
        noise = keras.initializers.GlorotUniform()(shape, dtype)
        return tf.constant(self._value, dtype) + self._NOISE * noise


def glorot(gain: float) -> keras.initializers.Initializer:
    """Returns Glorot's initializer, with weights `gain` times as large."""
    return keras.initializers.VarianceScaling(gain**2, "fan_avg", "uniform")


def conv(filters: int, kernel: int = 5, stride: int = 1, **kwargs: Any) -> keras.layers.Layer:
    """Returns a "same" convolution that downsamples by `stride`."""
    return Conv2D(filters, kernel, stride, padding="same", **kwargs)


class PreciseConv(Conv2D):
    """A "same" convolution for latents and their parameters: computes in float32 under any policy.

    A latent rounded to bfloat16 would pass through a second quantizer before the one under study.
    The gradients are those of a convolution in the policy's type, as in every other layer. In
    bfloat16 they cost half as much, and they average over many examples.
    """

    def __init__(self, filters: int, kernel: int = 5, stride: int = 1, **kwargs: Any):
        super().__init__(filters, kernel, stride, padding="same", dtype="float32", **kwargs)
        self._backward_dtype = keras.mixed_precision.global_policy().compute_dtype

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        precise = super().convolution_op(inputs, kernel)
        if self._backward_dtype == "float32":
            return precise
        inputs, kernel = (tf.cast(t, self._backward_dtype) for t in (inputs, kernel))
        # In a graph, TensorFlow prunes the unused value and computes only its gradient.
        coarse = super().convolution_op(inputs, kernel)
        return straight_through(precise, tf.cast(coarse, tf.float32))


def deconv(filters: int, kernel: int = 5, stride: int = 2, **kwargs: Any) -> keras.layers.Layer:
    """Returns a "same" transposed convolution that upsamples by `stride`."""
    return Conv2DTranspose(filters, kernel, stride, padding="same", **kwargs)


class PictureDeconv(keras.layers.Conv2DTranspose):
    """A faster `deconv` to a picture's 3 channels: same weights and values, in under half the time.

    Output pixels 2 i and 2 i + 1 depend on inputs i - 1, i and i + 1, in rows and in columns. A 3x3
    convolution computes all four output pixels of an input, and depth to space arranges them.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(3, 5, 2, padding="same", **kwargs)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        inputs, outputs = self.kernel.shape[3], self.kernel.shape[2]
        kernel = tf.pad(self.kernel, [[1, 0], [1, 0], [0, 0], [0, 0]])
        kernel = tf.reshape(kernel, [3, 2, 3, 2, outputs, inputs])[::-1, :, ::-1]
        kernel = tf.reshape(tf.transpose(kernel, [0, 2, 5, 1, 3, 4]), [3, 3, inputs, 4 * outputs])
        x = tf.nn.depth_to_space(tf.nn.conv2d(x, kernel, 1, "SAME"), 2)
        return tf.nn.bias_add(x, self.bias)


def _leaky(x: tf.Tensor) -> tf.Tensor:
    # Same values as tf.nn.leaky_relu. TF 2.14's graph rewriter fails on that op's bfloat16
    # gradient.
    return tf.maximum(x, LEAKY_SLOPE * x)


def leaky_relu() -> keras.layers.Layer:
    """Returns a leaky ReLU layer with the reference networks' slope."""
    return keras.layers.Activation(_leaky)


class SubpixelConv(keras.layers.Layer):
    """A 3x3 convolution to `stride^2` times the channels, then depth to space."""

    def __init__(self, filters: int, stride: int = 2, **kwargs: Any):
        super().__init__()
        self.stride = stride
        self.conv = conv(filters * stride**2, 3, **kwargs)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.depth_to_space(self.conv(x), self.stride)


def residual(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Returns `x + y`, where `y` is the output of a convolution.

    The no-op between the two works around a race in oneDNN. Without it, TensorFlow's optimizer
    fuses the sum into the convolution. The fused oneDNN kernel keeps a shared field for the
    summand, so two threads that run the graph write into each other's memory. TF 2.14 to 2.22 are
    affected; see `benchmarks/onednn_fused_sum.py`. For the same reason, `x` must not be the output
    of a convolution that is used only here. Tests search all codecs for such sums.
    """
    return x + tf.ensure_shape(y, y.shape)


class ResidualBlock(keras.layers.Layer):
    """conv 3x3, leaky ReLU, conv 3x3, leaky ReLU, + x (with a 1x1 projection if widths differ).

    The block starts close to the identity. Its projection starts by selecting the first channels.
    """

    def __init__(self, filters: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.filters = filters
        last = conv(filters, 3, kernel_initializer=glorot(UNIT_GAIN))
        self.main = Chain([conv(filters, 3), leaky_relu(), last, leaky_relu()])
        self.skip: keras.layers.Layer | None = None

    def build(self, input_shape: tf.TensorShape) -> None:
        channels = input_shape[-1]
        if channels != self.filters:
            identity = np.eye(channels, self.filters, dtype=np.float32)[None, None]
            self.skip = conv(self.filters, 1, kernel_initializer=Near(identity))

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return residual(self.main(x), x if self.skip is None else self.skip(x))


class ResidualDown(keras.layers.Layer):
    """conv 3x3 stride 2, leaky ReLU, conv 3x3, GDN, + 1x1 stride-2 projection of x.

    Args:
      level: the transform that the block starts close to. The number of components is the width.
      centre: constant that the block initially subtracts from its input.
    """

    # Initial biases in standard deviations. At 3, the leaky ReLU is linear for almost all inputs.
    _OPEN = 3.0

    def __init__(self, level: klt.Level, centre: float = 0.0, **kwargs: Any):
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

    def call(self, x: tf.Tensor) -> tf.Tensor:
        # Equals a 1x1 convolution of stride 2. The gradient of that in oneDNN writes outside its
        # memory if there are few channels, as in a picture. TF 2.14 to 2.22 are affected; see
        # `benchmarks/onednn_strided_gradient.py`.
        return residual(self.main(x), self.skip(x[:, ::2, ::2]))


class ResidualUp(keras.layers.Layer):
    """subpixel 3x3 up 2, leaky ReLU, conv 3x3, inverse GDN, + subpixel projection of x.

    Args:
      level: the transform. The block's projection starts close to its transpose.
    """

    def __init__(self, level: klt.Level, **kwargs: Any):
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

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return residual(self.main(x), self.skip(x))


class ResidualUnit(keras.layers.Layer):
    """A bottleneck: 1x1 to half the width, ReLU, 3x3, ReLU, 1x1 back, + x.

    It is the unit of the attention block, and ELIC's residual block (He et al., 2022).

    Args:
      gain: factor of the last convolution's initial weights. Near 0, the unit starts as the
        identity.
    """

    def __init__(self, gain: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        self._gain = gain

    def build(self, input_shape: tf.TensorShape) -> None:
        channels, dtype = input_shape[-1], self.dtype_policy
        self.main = Chain(
            [
                conv(channels // 2, 1, activation="relu", dtype=dtype),
                conv(channels // 2, 3, activation="relu", dtype=dtype),
                conv(channels, 1, kernel_initializer=glorot(self._gain), dtype=dtype),
            ]
        )

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return residual(x, self.main(x))


class Attention(keras.layers.Layer):
    """The simplified attention block `x + trunk(x) * sigmoid(mask(x))`, without a non-local part.

    Args:
      gain: factor of the initial weights of the last convolution in each unit and in the mask. Near
        0, the block starts as a multiplication by `ATTENTION_START`.
    """

    def __init__(self, gain: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        self._gain = gain

    def build(self, input_shape: tf.TensorShape) -> None:
        gain, dtype = self._gain, self.dtype_policy
        units = [[ResidualUnit(gain, dtype=dtype) for _ in range(3)] for _ in range(2)]
        last = conv(input_shape[-1], 1, kernel_initializer=glorot(gain), dtype=dtype)
        self.trunk = Chain(units[0])
        self.mask = Chain([*units[1], last])

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return x + self.trunk(x) * tf.sigmoid(self.mask(x))
