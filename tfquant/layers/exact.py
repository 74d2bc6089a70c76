"""Layers that compute the same numbers on every machine.

A sum of float32 products depends on the order in which a kernel adds them, unless every partial sum
is exact. Here both factors are small integers. Their number and size are limited so that no partial
sum exceeds 2**24. Every kernel then computes the same integers:

    x --> round(2**p x), clipped --> products with integer weights --> round --> * 2**-e --> raw

An input channel has the exponent `p`, an output channel has the exponent `e`. Both are chosen once,
when a model is exported, from the weights and from the layer's inputs for some pictures. The
conversion from real weights to integers is the only approximation.

The second rounding has no effect where a kernel adds products. It repairs the result of algorithms
that transform the products first, such as cuDNN's Winograd convolutions.

Integers have at most 11 bits, so TensorFloat-32 multiplies them exactly.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Callable

import numpy as np
import tensorflow as tf

from tfquant.legacy_keras import keras

# Largest sum below which float32 holds every integer, and largest factor.
MAX_SUM = (1 << 24) - 1
MAX_FACTOR = (1 << 11) - 1

# Inputs are clipped at the larger of these multiples: of the largest value that was seen, and of
# the root mean square. Larger limits would leave fewer bits for typical values.
_ROOM, _DEVIATIONS = 2.0, 16.0
# The number of groups of a layer's input channels grows while rounding adds more noise than
# `_NOISE`, relative to the output, and while each step reduces the noise below the share `_GAIN`.
_NOISE, _GROUPS, _GAIN = 0.02, (1, 2, 4, 8), 0.9
_LOWEST_SHARE = 1.0 / 64.0  # of the range, for the negative side of a leaky ReLU


class Seen:
    """Statistics of one part of a layer's input channels.

    Attributes:
      low, high: the smallest and the largest value.
      whole: True if all values are integers.
    """

    def __init__(self) -> None:
        self.low, self.high, self.whole = 0.0, 0.0, True
        self._squares, self._count = 0.0, 0

    def add(self, values: np.ndarray) -> None:
        """Adds values to the statistics."""
        self.low = min(self.low, float(values.min(initial=0.0)))
        self.high = max(self.high, float(values.max(initial=0.0)))
        self.whole = self.whole and bool(np.all(values == np.rint(values)))
        self._squares += float(np.sum(np.square(values, dtype=np.float64)))
        self._count += values.size

    @property
    def rms(self) -> float:
        return float(np.sqrt(self._squares / max(self._count, 1)))

    def range(self) -> tuple[float, float]:
        """Returns the magnitudes at which lower and upper values are clipped."""
        high = max(_ROOM * max(self.high, -self.low), _DEVIATIONS * self.rms)
        if high == 0.0:
            return 1.0, 1.0
        if self.low == 0.0:
            return 0.0, high
        one_sided = -self.low < self.high / 16.0
        return max(_LOWEST_SHARE * high, -_ROOM * self.low) if one_sided else high, high


@dataclasses.dataclass(frozen=True, eq=False)
class Integers:
    """Parameters of the conversion from a layer's real numbers to integers and back.

    Attributes:
      inputs: [C_in] int32. A value x of channel c becomes the integer `round(2**inputs[c] x)`.
      low, high: [C_in] int32, the limits of the integers.
      outputs: [C_out] int32. The sum s of channel o represents `2**-outputs[o] s`.
      groups: [1] int32, the number of groups of input channels with separate sums.
    """

    inputs: np.ndarray
    low: np.ndarray
    high: np.ndarray
    outputs: np.ndarray
    groups: np.ndarray

    def of(self, x: tf.Tensor, channels: slice = slice(None)) -> tf.Tensor:
        """Converts `x: [..., C]`, the inputs' `channels`, from real numbers to float32 integers."""
        scale = _power(self.inputs[channels])
        low, high = (limit[channels].astype(np.float32) for limit in (self.low, self.high))
        if len({*zip(scale, low, high)}) == 1:
            x = tf.round(tf.cast(x, tf.float32) * scale[0])
            return tf.raw_ops.ClipByValue(t=x, clip_value_min=low[0], clip_value_max=high[0])
        return tf.minimum(tf.maximum(tf.round(tf.cast(x, tf.float32) * scale), low), high)

    def real(self, sums: tf.Tensor) -> tf.Tensor:
        """Converts integer sums [..., C_out] to the real numbers that they represent."""
        return sums * _power(-self.outputs)

    def of_kernel(self, kernel: np.ndarray) -> np.ndarray:
        """Converts real weights [..., C_in, C_out] to integers."""
        # Adding 0 turns -0 into 0, so equal weights have equal bytes.
        return np.rint(np.ldexp(kernel, self.outputs - self.inputs[:, None])) + 0.0

    def of_bias(self, bias: np.ndarray) -> np.ndarray:
        """Converts a real bias [C_out] to integers."""
        return np.rint(np.ldexp(bias, self.outputs)) + 0.0

    def slices(self) -> list[slice]:
        """Returns the groups of input channels as slices."""
        return self.slices_of(len(self.inputs), int(self.groups[0]))

    @staticmethod
    def slices_of(channels: int, groups: int) -> list[slice]:
        """Splits input channels into `groups` slices."""
        edges = np.linspace(0, channels, groups + 1).astype(int)
        return [slice(a, b) for a, b in zip(edges, edges[1:])]


class ExactLayer:
    """Mixin for a Keras layer that adds products. It computes with integers once it has them.

    Attributes:
      integers: `Integers`, with which the kernel and the bias are integers too. None for real
        arithmetic.
      parts: [n] integers, the numbers of channels of the concatenated parts of the input. None for
        one part.
      seen: a function that is called with every input, or None.
      may_split: True if input channels may be summed in groups.
    """

    integers: Integers | None = None
    parts: np.ndarray | None = None
    seen: Callable[[tf.Tensor], None] | None = None
    may_split = True
    in_axis, out_axis = -2, -1  # of the kernel
    # Set by Keras, or by `build` of the layer.
    kernel: tf.Variable
    bias: tf.Variable | None
    variables: list[tf.Variable]

    @property
    def factors(self) -> tf.Variable:
        """The kernel."""
        return self.kernel

    def products(self, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Returns sums of products, without bias and activation."""
        raise NotImplementedError

    def phases(self, kernel: np.ndarray) -> list[np.ndarray]:
        """Returns the parts of a kernel that are summed for one output, with the kernel's axes."""
        return [kernel]

    def call(self, x: tf.Tensor) -> tf.Tensor:
        if self.seen is not None:
            self.seen(x)
        if self.integers is None:
            return self.call_real(x)
        x, (first, *others) = self.integers.of(x), self.integers.slices()
        total = self._products_of(x, first)
        for channels in others:
            # The rounding in between prevents TensorFlow's optimizer from reordering the sum.
            total = tf.round(tf.round(total) + tf.round(self._products_of(x, channels)))
        return self.finish(total)

    def call_real(self, x: tf.Tensor) -> tf.Tensor:
        """Calls the layer in real arithmetic."""
        return super().call(x)  # type: ignore[misc]  # that of the Keras layer

    def finish(self, sums: tf.Tensor) -> tf.Tensor:
        """Adds the bias to integer sums of products, applies the activation, returns real
        numbers.
        """
        if self.bias is not None:
            sums = tf.nn.bias_add(sums, self.bias)
        activation = getattr(self, "activation", None)
        if activation is not None:
            sums = activation(sums)
        assert self.integers is not None
        return self.integers.real(tf.round(sums))

    def _products_of(self, x: tf.Tensor, channels: slice) -> tf.Tensor:
        assert self.integers is not None
        if self.integers.groups[0] == 1:
            return self.products(x, self.factors)
        kernel = self.factors[..., channels] if self.in_axis == -1 else (
            self.factors[..., channels, :])  # fmt: skip
        return self.products(x[..., channels], kernel)

    def become_exact(self, seen: list[Seen]) -> None:
        """Converts the weights to integers that fit a `Seen` for each part."""
        kernel = np.moveaxis(self.factors.numpy(), (self.in_axis, self.out_axis), (-2, -1))
        bias = np.zeros(kernel.shape[-1]) if self.bias is None else self.bias.numpy()
        phases = [
            np.moveaxis(phase, (self.in_axis, self.out_axis), (-2, -1)).reshape(
                -1, *kernel.shape[-2:]
            )
            for phase in self.phases(self.factors.numpy())
        ]
        parts = kernel.shape[-2:-1] if self.parts is None else self.parts
        self.integers = fit(phases, bias, parts, seen, self.may_split)
        kernel = self.integers.of_kernel(kernel)
        self.factors.assign(np.moveaxis(kernel, (-2, -1), (self.in_axis, self.out_axis)))
        if self.bias is not None:
            self.bias.assign(self.integers.of_bias(bias))


def fit(
    phases: list[np.ndarray],
    bias: np.ndarray,
    parts: Sequence[int] | np.ndarray,
    seen: list[Seen],
    may_split: bool,
) -> Integers:
    """Returns the finest integers whose sums stay exact.

    With inputs of magnitude A and weights W, the magnitude of a sum is at most `sum(A |W|)`, in any
    order. The remaining bits of 24 are shared between the rounding of the inputs, in steps of s,
    and of the weights, in steps of g / s, where g is the step of the output. Both add the same
    noise where `s**4 = mean(x**2) / mean((W / g)**2)`.

    Args:
      phases: [taps, C_in, C_out] each, the weights that are summed for one output.
      bias: [C_out].
      parts: numbers of input channels of each part.
      seen: a `Seen` for each part.
      may_split: True if input channels may be summed in groups.
    """
    phases = [phase.astype(np.float64) for phase in phases]
    C = int(sum(parts))
    low, high, rms = (
        np.repeat(values, parts)
        for values in (*zip(*(s.range() for s in seen)), [s.rms for s in seen])
    )
    rms = np.maximum(rms, high / 1024)
    best = None
    for groups in _GROUPS if may_split else _GROUPS[:1]:
        slices = Integers.slices_of(C, groups)
        bounds = _bound(phases, slices, low, high) + np.abs(bias)
        outputs = _floor_log2(MAX_SUM / np.maximum(bounds, 2.0**-60))
        relative = [np.ldexp(phase, outputs) for phase in phases]
        strength = sum(np.square(r).sum((0, 2)) for r in relative) / sum(
            r.shape[0] * r.shape[2] for r in relative
        )  # [C], mean squares of weights in steps of the output
        inputs, begin = np.zeros(C, np.int32), 0
        for s, width in zip(seen, parts):
            part = slice(begin, begin + width)
            power = np.mean(strength[part])
            fourth = np.mean(np.square(rms[part])) / power if power > 0 else 1.0
            exponent = int(np.round(-0.25 * np.log2(fourth)))
            exponent = min(exponent, int(_floor_log2(MAX_FACTOR / max(low[begin], high[begin]))))
            inputs[part] = min(exponent, 0) if s.whole else exponent
            begin += width
        found = Integers(
            inputs,
            -np.floor(np.ldexp(low, inputs)).astype(np.int32),
            np.floor(np.ldexp(high, inputs)).astype(np.int32),
            outputs,
            np.array([groups], np.int32),
        )
        while True:
            integers = [found.of_kernel(phase) for phase in phases]
            largest = np.max([np.abs(i).max((0, 1)) for i in integers], axis=0)
            sums = _bound(integers, slices, -found.low, found.high) + np.abs(found.of_bias(bias))
            bad = (largest > MAX_FACTOR) | (sums > MAX_SUM)
            if not bad.any():
                break
            found = dataclasses.replace(found, outputs=found.outputs - bad.astype(np.int32))
        whole = np.repeat([s.whole for s in seen], parts) & (found.inputs >= 0)
        noise = _noise(phases, found, rms, whole)
        if best is not None and noise > _GAIN * best[0]:
            break
        best = noise, found
        if noise <= _NOISE:
            break
    assert best is not None  # the loop tries at least one number of groups
    return best[1]


def _floor_log2(x: np.ndarray | float) -> np.ndarray:
    """Returns floor(log2(x)), int32. The exponent is exact."""
    return (np.frexp(np.clip(x, 2.0**-60, 2.0**60))[1] - 1).astype(np.int32)


def _power(exponents: np.ndarray) -> np.ndarray:
    """Returns 2**exponents, float32. NumPy's `exp2` of float32 is not exact."""
    return np.ldexp(np.float32(1.0), exponents)


def _bound(
    phases: list[np.ndarray], slices: list[slice], low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """Returns the largest magnitude of a partial sum for each output, [C_out]."""
    low, high, bounds = low[:, None], high[:, None], []
    for phase in phases:
        up, down = np.maximum(phase, 0.0).sum(0), np.maximum(-phase, 0.0).sum(0)
        for group in slices:
            bounds.append((up * high + down * low)[group].sum(0))
            bounds.append((down * high + up * low)[group].sum(0))
    return np.max(bounds, axis=0)


def _noise(
    phases: list[np.ndarray], integers: Integers, rms: np.ndarray, whole: np.ndarray
) -> float:
    """Returns the noise of rounding weights and inputs (those not `whole`), relative to the
    outputs.
    """
    step = np.ldexp(1.0, -integers.inputs)[:, None]
    weight_step = np.ldexp(1.0, -integers.outputs) / step
    step = np.where(whole[:, None], 0.0, step)
    noise = signal = 0.0
    for phase in phases:
        squares = np.square(phase).sum(0)
        noise += np.sum(squares * step**2 + len(phase) * (rms[:, None] * weight_step) ** 2) / 12.0
        signal += np.sum(squares * rms[:, None] ** 2)
    return float(np.sqrt(noise / signal)) if signal > 0.0 else 0.0


class Conv2D(ExactLayer, keras.layers.Conv2D):
    """A convolution with "same" padding."""

    def products(self, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return tf.nn.conv2d(x, kernel, self.strides, "SAME")


class Conv2DTranspose(ExactLayer, keras.layers.Conv2DTranspose):
    """A transposed convolution with "same" padding."""

    in_axis, out_axis = -1, -2

    def products(self, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        batch, height, width = (tf.shape(x)[axis] for axis in range(3))
        down, right = self.strides
        shape = [batch, down * height, right * width, kernel.shape[-2]]
        return tf.nn.conv2d_transpose(x, kernel, shape, self.strides, "SAME")

    def phases(self, kernel: np.ndarray) -> list[np.ndarray]:
        down, right = self.strides
        return [kernel[i::down, j::right] for i in range(down) for j in range(right)]


class Dense(ExactLayer, keras.layers.Dense):
    """A matrix product over the last axis."""

    may_split = False

    def products(self, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return tf.tensordot(x, kernel, 1)


def layers_of(network: tf.Module) -> list[ExactLayer]:
    """The layers of a network that can become exact, always in the same order."""
    return [layer for layer in network.submodules if isinstance(layer, ExactLayer)]
