"""Codecs by name. `build` creates one: `models.build("ms_hyper_zero", N=64, M=96)`.

A codec defines its networks and the order in which it transmits its latents. Everything else is in
the base class, `tfquant.codec.Codec`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable
from typing import Any

import tensorflow as tf
from tfquant.models.charm import Charm
from tfquant.models.elic import Elic
from tfquant.models.factorized import Factorized
from tfquant.models.hyperprior import MeanScaleHyperprior, ScaleHyperprior
from tfquant.models.serial_context import Cheng, MeanScaleContext

from tfquant.codec import Codec
from tfquant.entropy.conditional import FAMILIES
from tfquant.exchange import Rounding
from tfquant.layers.transforms import ANALYSIS, SYNTHESIS
from tfquant.legacy_keras import keras
from tfquant.names import check_known

CODECS = {
    "factorized": Factorized,
    "scale_hyperprior": ScaleHyperprior,
    "ms_hyper": functools.partial(MeanScaleHyperprior, zero_center=False),
    "ms_hyper_zero": functools.partial(MeanScaleHyperprior, zero_center=True),
    "ms_context": MeanScaleContext,
    "cheng_anchor": functools.partial(Cheng, attention=False),
    "cheng_attn": functools.partial(Cheng, attention=True),
    "charm": functools.partial(Charm, zero_center=False),
    "charm_zero": functools.partial(Charm, zero_center=True),
    "elic_sm_zero": functools.partial(Elic, small=True),
    "elic_zero": functools.partial(Elic, small=False),
}

PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


# Option of a codec -> (type or choices, help text). Not every codec has every option. An omitted
# option has the codec's own default.
OPTIONS = {
    "N": (int, "Width of the transforms (and channels of z). Default: the codec's own."),
    "M": (int, "Channels of the latent y. Default: the codec's own."),
    "family": (
        [name for name, family in FAMILIES.items() if family.outputs > 1],
        "Distribution of y, for codecs that offer a choice. Default: the codec's own.",
    ),
    "g_a": (list(ANALYSIS), "ms_hyper*: analysis transform. Default: plain."),
    "g_s": (list(SYNTHESIS), "ms_hyper*: synthesis transform. Default: plain."),
    "slices": (int, "charm*: number of channel slices, a divisor of M. Default: 10."),
}


def widths(name: str, N: int | None = None, M: int | None = None) -> dict:
    """Returns {"N": ..., "M": ...} of a codec, a key of `CODECS`.

    A missing value is the codec's default: that of the paper, at low rates if it has several.
    """
    own = inspect.signature(CODECS[name]).parameters
    N = own["N"].default if N is None else N
    M = own["M"].default if M is None else M
    return {"N": N, "M": N if M is None else M}


def check_options(name: str, options: Iterable[str]) -> None:
    """Raises a ValueError, with the known names, if a codec or one of its options is unknown."""
    check_known("codec", name, CODECS)
    bound = getattr(CODECS[name], "keywords", {})
    known = [p for p in inspect.signature(CODECS[name]).parameters if p not in bound]
    for option in options:
        if option not in known:
            raise ValueError(f"{name} has no option {option!r}; known: {', '.join(known)}")


def build(name: str, precision: str = "float32", **options: Any) -> Codec:
    """Builds a codec and creates its weights.

    Args:
      name: a key of `CODECS`.
      precision: arithmetic of the networks, a key of `PRECISIONS`. Weights, quantization and
        likelihoods are always float32.
      **options: the codec's own arguments, such as N and M.

    Raises:
      ValueError: the codec, the precision or an option is unknown; the message lists the known
        ones. Also if the codec does not allow a value, such as `slices` that does not divide M.
    """
    check_known("precision", precision, PRECISIONS)
    check_options(name, options)
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(PRECISIONS[precision])
    try:
        codec = CODECS[name](**options)
        codec(tf.zeros([1, codec.downsampling, codec.downsampling, 3]), Rounding())
    finally:
        keras.mixed_precision.set_global_policy(before)
    return codec


def build_for_files(name: str, precision: str = "float32", **options: Any) -> Codec:
    """Builds a codec for compression and decompression: only the transforms compute in `precision`.

    Everything that encoder and decoder must compute identically (the hyper-decoder, the contexts
    and the entropy models) computes in float32, so a model of one precision reads the files of
    another. The weights are those of `build(name, **options)`.
    """
    codec = build(name, **options)
    if precision != "float32":
        transforms = build(name, precision, **options)
        for part in ("g_a", "g_s"):
            of_precision = getattr(transforms, part)
            of_precision.set_weights(getattr(codec, part).get_weights())
            setattr(codec, part, of_precision)
    return codec
