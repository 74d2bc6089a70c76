"""Analysis and synthesis transforms, `x: [B, H, W, 3] <-> y: [B, H/16, W/16, M]`.

Codecs take these as parts: `plain` is the four 5x5 layers with GDN of Balle et al. (2018); `res`
and `res_attn` are Cheng et al.'s (2020) residual transforms without and with attention, which
arXiv 2309.17051, Table IV, puts into `g_a` and `g_s` separately; `elic` has He et al.'s (2022) four
5x5 layers with three bottlenecks between and attention, `elic_sm` one bottleneck and no attention.

The last layer of an analysis transform computes in float32 under any policy: rounding latents to
bfloat16 would be a second quantizer before the one that is studied. The last layer of a synthesis
transform starts at mid-grey.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfquant.layers import klt
from tfquant.layers.blocks import (
    ATTENTION_START,
    LATENT_GAIN,
    MID_GREY,
    Attention,
    PictureDeconv,
    PreciseConv,
    ResidualBlock,
    ResidualDown,
    ResidualUnit,
    ResidualUp,
    SubpixelConv,
    conv,
    deconv,
    latent_conv,
)
from tfquant.layers.gdn import GDN

# Latents of the linear start, in units of a quantization bin: a bin of a quarter is the best one at
# about lmbda = 0.0067 for components of pictures in [0, 1], by high-rate theory.
_GAIN = 4.0
# GDN starts closer to linear than its usual 0.1, which would bend that start out of shape.
_GAMMA = 0.01
# ELIC's bottlenecks start close to the identity, for the same reason.
_UNIT_GAIN = 0.1


class _Near(tf.keras.initializers.Initializer):
    """A given value, plus a little of Glorot's noise so that no two weights start alike."""

    _NOISE = 0.02

    def __init__(self, value: np.ndarray):
        self._value = value

    def __call__(self, shape, dtype=None, **kwargs):
        noise = tf.keras.initializers.GlorotUniform()(shape, dtype)
        return tf.constant(self._value, dtype) + self._NOISE * noise


def _plain_analysis(N: int, M: int) -> list:
    first, *middle, last = klt.kernels((N, N, N, M))
    layers = [conv(N, 5, 2, kernel_initializer=_Near(first), bias_initializer=_centring(first))]
    for kernel in middle:
        layers += [GDN(gamma=_GAMMA), conv(N, 5, 2, kernel_initializer=_Near(kernel))]
    return [
        *layers, GDN(gamma=_GAMMA),
        PreciseConv(M, 5, 2, kernel_initializer=_Near(_GAIN * last)),
    ]  # fmt: skip


def _centring(kernel: np.ndarray):
    """Biases that make mid-grey zero."""

    def initializer(shape, dtype=None):
        return tf.constant(-MID_GREY.value * kernel.sum((0, 1, 2)), dtype, shape)

    return initializer


def _plain_synthesis(N: int, M: int) -> list:
    first, *middle, last = klt.kernels((N, N, N, M))
    # A transposed convolution has its kernel laid out as the convolution that it transposes.
    layers = [deconv(N, kernel_initializer=_Near(last / _GAIN))]
    for kernel in reversed(middle):
        layers += [GDN(inverse=True, gamma=_GAMMA), deconv(N, kernel_initializer=_Near(kernel))]
    return [
        *layers, GDN(inverse=True, gamma=_GAMMA),
        PictureDeconv(kernel_initializer=_Near(first), bias_initializer=MID_GREY),
    ]  # fmt: skip


def _residual_analysis(attention: bool):
    def layers(N: int, M: int) -> list:
        return [
            ResidualDown(N), ResidualBlock(N),
            ResidualDown(N), *([Attention()] if attention else []), ResidualBlock(N),
            ResidualDown(N), ResidualBlock(N),
            latent_conv(M, 3), *([Attention(dtype="float32")] if attention else []),
        ]  # fmt: skip

    return layers


def _residual_synthesis(attention: bool):
    def layers(N: int, M: int) -> list:
        del M
        return [
            # Three inverse GDNs make about the eighth power of what comes in.
            tf.keras.layers.Rescaling(1.0 / LATENT_GAIN),
            *([Attention()] if attention else []), ResidualBlock(N), ResidualUp(N),
            ResidualBlock(N), ResidualUp(N),
            *([Attention()] if attention else []), ResidualBlock(N), ResidualUp(N),
            ResidualBlock(N), SubpixelConv(3, bias_initializer=MID_GREY),
        ]  # fmt: skip

    return layers


def _bottlenecks(count: int) -> list:
    return [ResidualUnit(_UNIT_GAIN) for _ in range(count)]


def _attention(wanted: bool, **kwargs) -> list:
    return [Attention(_UNIT_GAIN, **kwargs)] if wanted else []


def _elic_analysis(blocks: int, attention: bool):
    gain = _GAIN / (ATTENTION_START**2 if attention else 1.0)

    def layers(N: int, M: int) -> list:
        first, second, third, last = klt.kernels((N, N, N, M))
        return [
            conv(N, 5, 2, kernel_initializer=_Near(first), bias_initializer=_centring(first)),
            *_bottlenecks(blocks),
            conv(N, 5, 2, kernel_initializer=_Near(second)),
            *_bottlenecks(blocks), *_attention(attention),
            conv(N, 5, 2, kernel_initializer=_Near(third)),
            *_bottlenecks(blocks),
            PreciseConv(M, 5, 2, kernel_initializer=_Near(gain * last)),
            *_attention(attention, dtype="float32"),
        ]  # fmt: skip

    return layers


def _elic_synthesis(blocks: int, attention: bool):
    gain = _GAIN * (ATTENTION_START**2 if attention else 1.0)

    def layers(N: int, M: int) -> list:
        first, second, third, last = klt.kernels((N, N, N, M))
        return [
            *_attention(attention),
            deconv(N, kernel_initializer=_Near(last / gain)),
            *_bottlenecks(blocks),
            deconv(N, kernel_initializer=_Near(third)),
            *_attention(attention), *_bottlenecks(blocks),
            deconv(N, kernel_initializer=_Near(second)),
            *_bottlenecks(blocks),
            PictureDeconv(kernel_initializer=_Near(first), bias_initializer=MID_GREY),
        ]  # fmt: skip

    return layers


ANALYSIS = {
    "plain": _plain_analysis,
    "res": _residual_analysis(attention=False),
    "res_attn": _residual_analysis(attention=True),
    "elic_sm": _elic_analysis(blocks=1, attention=False),
    "elic": _elic_analysis(blocks=3, attention=True),
}
SYNTHESIS = {
    "plain": _plain_synthesis,
    "res": _residual_synthesis(attention=False),
    "res_attn": _residual_synthesis(attention=True),
    "elic_sm": _elic_synthesis(blocks=1, attention=False),
    "elic": _elic_synthesis(blocks=3, attention=True),
}


def analysis(kind: str, N: int, M: int) -> tf.keras.Sequential:
    """`g_a`; a ValueError lists the kinds."""
    return tf.keras.Sequential(_choose(ANALYSIS, kind)(N, M), name="g_a")


def synthesis(kind: str, N: int, M: int) -> tf.keras.Sequential:
    """`g_s`; a ValueError lists the kinds."""
    return tf.keras.Sequential(_choose(SYNTHESIS, kind)(N, M), name="g_s")


def _choose(table: dict, kind: str):
    if kind not in table:
        raise ValueError(f"unknown transform {kind!r}; known: {', '.join(table)}")
    return table[kind]
