"""Analysis and synthesis transforms, `x: [B, H, W, 3] <-> y: [B, H/16, W/16, M]`.

Codecs take these as parts: `plain` is the four 5x5 layers with GDN of Balle et al. (2018); `res`
and `res_attn` are Cheng et al.'s (2020) residual transforms without and with attention, which
arXiv 2309.17051, Table IV, puts into `g_a` and `g_s` separately.

The last layer of an analysis transform computes in float32 under any policy: rounding latents to
bfloat16 would be a second quantizer before the one that is studied. The last layer of a synthesis
transform starts at mid-grey.
"""

from __future__ import annotations

import tensorflow as tf

from tfquant.layers.blocks import (
    MID_GREY,
    Attention,
    ResidualBlock,
    ResidualDown,
    ResidualUp,
    SubpixelConv,
    conv,
    deconv,
    latent_conv,
)
from tfquant.layers.gdn import GDN


def _plain_analysis(N: int, M: int) -> list:
    return [
        conv(N, 5, 2), GDN(),
        conv(N, 5, 2), GDN(),
        conv(N, 5, 2), GDN(),
        latent_conv(M),
    ]  # fmt: skip


def _plain_synthesis(N: int, M: int) -> list:
    del M
    return [
        deconv(N), GDN(inverse=True),
        deconv(N), GDN(inverse=True),
        deconv(N), GDN(inverse=True),
        deconv(3, bias_initializer=MID_GREY),
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
            *([Attention()] if attention else []), ResidualBlock(N), ResidualUp(N),
            ResidualBlock(N), ResidualUp(N),
            *([Attention()] if attention else []), ResidualBlock(N), ResidualUp(N),
            ResidualBlock(N), SubpixelConv(3, bias_initializer=MID_GREY),
        ]  # fmt: skip

    return layers


ANALYSIS = {
    "plain": _plain_analysis,
    "res": _residual_analysis(attention=False),
    "res_attn": _residual_analysis(attention=True),
}
SYNTHESIS = {
    "plain": _plain_synthesis,
    "res": _residual_synthesis(attention=False),
    "res_attn": _residual_synthesis(attention=True),
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
