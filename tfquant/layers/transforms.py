"""Analysis and synthesis transforms, `x: [B, H, W, 3] <-> y: [B, H/16, W/16, M]`.

Codecs choose their transforms by kind:

- `plain`: the four 5x5 layers with GDN of Balle et al. (2018).
- `res` and `res_attn`: the residual transforms of Cheng et al. (2020), without and with attention.
  arXiv 2309.17051, Table IV, uses them for `g_a` and `g_s` separately.
- `elic`: the four 5x5 layers of He et al. (2022), with three bottlenecks between them, and
  attention.
- `elic_sm`: one bottleneck, no attention.

The last layer of an analysis transform computes in float32 under any policy. A latent rounded to
bfloat16 would pass through a second quantizer before the one under study. A synthesis transform
starts with mid-grey output. All weights start near a linear transform (`klt.py`); `start_at_random`
gives them the start of the papers instead.
"""

from __future__ import annotations

from typing import Any, Callable

import numpy as np
import tensorflow as tf

from tfquant.layers import klt
from tfquant.layers.blocks import (
    ATTENTION_START,
    LINEAR_GAMMA,
    MID_GREY,
    UNIT_GAIN,
    Attention,
    Constant,
    Near,
    PictureDeconv,
    PreciseConv,
    ResidualBlock,
    ResidualDown,
    ResidualUnit,
    ResidualUp,
    SubpixelConv,
    conv,
    deconv,
)
from tfquant.layers.chain import Chain
from tfquant.layers.gdn import GDN, USUAL_GAMMA
from tfquant.legacy_keras import keras
from tfquant.names import check_known

# Scale of the latents at the linear start, in quantization bins. By high-rate theory, a bin of 1/4
# is optimal at about lmbda = 0.0067 for components of pictures in [0, 1].
_GAIN = 4.0

_Layers = list[keras.layers.Layer]
_Transform = Callable[[int, int], _Layers]  # of N and M


def _first(kernel: np.ndarray, filters: int) -> keras.layers.Layer:
    """Returns the first convolution, on the picture. Its biases map mid-grey to zero."""
    bias = Constant(-MID_GREY * kernel.sum((0, 1, 2)))
    return conv(filters, 5, 2, kernel_initializer=Near(kernel), bias_initializer=bias)


def _kernels(N: int, M: int) -> tuple[np.ndarray, ...]:
    return tuple(level.convolution(5) for level in klt.levels((N, N, N, M)))


def _plain_analysis(N: int, M: int) -> _Layers:
    first, *middle, last = _kernels(N, M)
    layers = [_first(first, N)]
    for kernel in middle:
        layers += [GDN(gamma=LINEAR_GAMMA), conv(N, 5, 2, kernel_initializer=Near(kernel))]
    return [
        *layers, GDN(gamma=LINEAR_GAMMA),
        PreciseConv(M, 5, 2, kernel_initializer=Near(_GAIN * last)),
    ]  # fmt: skip


def _plain_synthesis(N: int, M: int) -> _Layers:
    first, *middle, last = _kernels(N, M)
    # The kernel of a transposed convolution has the layout of the convolution that it transposes.
    layers = [deconv(N, kernel_initializer=Near(last / _GAIN))]
    for kernel in reversed(middle):
        layers += [
            GDN(inverse=True, gamma=LINEAR_GAMMA), deconv(N, kernel_initializer=Near(kernel))
        ]  # fmt: skip
    return [*layers, GDN(inverse=True, gamma=LINEAR_GAMMA), _last(first)]


def _last(kernel: np.ndarray) -> keras.layers.Layer:
    return PictureDeconv(kernel_initializer=Near(kernel), bias_initializer=Constant(MID_GREY))


def _residual_analysis(attention: bool) -> _Transform:
    gain = _GAIN / (ATTENTION_START**2 if attention else 1.0)

    def layers(N: int, M: int) -> _Layers:
        first, second, third, last = klt.levels((N, N, N, M))
        return [
            ResidualDown(first, MID_GREY), ResidualBlock(N),
            ResidualDown(second), *_attention(attention), ResidualBlock(N),
            ResidualDown(third), ResidualBlock(N),
            PreciseConv(M, 3, 2, kernel_initializer=Near(gain * last.convolution(3))),
            *_attention(attention, dtype="float32"),
        ]  # fmt: skip

    return layers


def _residual_synthesis(attention: bool) -> _Transform:
    gain = _GAIN * (ATTENTION_START**2 if attention else 1.0)

    def layers(N: int, M: int) -> _Layers:
        del M  # the first block outputs N channels for any M
        first, second, third, last = klt.levels((N, N, N, N))
        return [
            keras.layers.Rescaling(1.0 / gain),
            *_attention(attention), ResidualBlock(N), ResidualUp(last),
            ResidualBlock(N), ResidualUp(third),
            *_attention(attention), ResidualBlock(N), ResidualUp(second),
            ResidualBlock(N),
            SubpixelConv(
                3, kernel_initializer=Near(first.subpixel(3)), bias_initializer=Constant(MID_GREY)
            ),
        ]  # fmt: skip

    return layers


def _bottlenecks(count: int) -> _Layers:
    return [ResidualUnit(UNIT_GAIN) for _ in range(count)]


def _attention(wanted: bool, **kwargs: Any) -> _Layers:
    return [Attention(UNIT_GAIN, **kwargs)] if wanted else []


def _elic_analysis(blocks: int, attention: bool) -> _Transform:
    gain = _GAIN / (ATTENTION_START**2 if attention else 1.0)

    def layers(N: int, M: int) -> _Layers:
        first, second, third, last = _kernels(N, M)
        return [
            _first(first, N),
            *_bottlenecks(blocks),
            conv(N, 5, 2, kernel_initializer=Near(second)),
            *_bottlenecks(blocks), *_attention(attention),
            conv(N, 5, 2, kernel_initializer=Near(third)),
            *_bottlenecks(blocks),
            PreciseConv(M, 5, 2, kernel_initializer=Near(gain * last)),
            *_attention(attention, dtype="float32"),
        ]  # fmt: skip

    return layers


def _elic_synthesis(blocks: int, attention: bool) -> _Transform:
    gain = _GAIN * (ATTENTION_START**2 if attention else 1.0)

    def layers(N: int, M: int) -> _Layers:
        first, second, third, last = _kernels(N, M)
        return [
            *_attention(attention),
            deconv(N, kernel_initializer=Near(last / gain)),
            *_bottlenecks(blocks),
            deconv(N, kernel_initializer=Near(third)),
            *_attention(attention), *_bottlenecks(blocks),
            deconv(N, kernel_initializer=Near(second)),
            *_bottlenecks(blocks),
            _last(first),
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


def analysis(kind: str, N: int, M: int) -> Chain:
    """Returns `g_a`. A ValueError for an unknown kind lists the known ones."""
    return Chain(_choose(ANALYSIS, kind)(N, M), name="g_a")


def synthesis(kind: str, N: int, M: int) -> Chain:
    """Returns `g_s`. A ValueError for an unknown kind lists the known ones."""
    return Chain(_choose(SYNTHESIS, kind)(N, M), name="g_s")


# Initial weights of the transforms: near a linear transform (`tfquant/layers/klt.py`), or the
# papers'.
STARTS = ("klt", "glorot")


def start_at_random(network: keras.layers.Layer) -> None:
    """Sets a built `g_a` or `g_s` to the initial weights of the papers, not the linear start.

    Kernels are Glorot's, biases are 0, and GDN has beta 1 and gamma 0.1 on its diagonal. The
    constant by which residual synthesis divides its input stays, because it is not a weight.
    """
    for layer in network.submodules:
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.Conv2DTranspose)):
            layer.kernel.assign(keras.initializers.GlorotUniform()(layer.kernel.shape))
            layer.bias.assign(tf.zeros_like(layer.bias))
        elif isinstance(layer, GDN):
            layer.start_at(USUAL_GAMMA)


def _choose(table: dict[str, _Transform], kind: str) -> _Transform:
    check_known("transform", kind, table)
    return table[kind]
