"""The zoo: one line a codec. Networks only; padding, coding and training are `tfquant`'s."""

from __future__ import annotations

import functools
import inspect

import tensorflow as tf
from tfquant.models.charm import Charm
from tfquant.models.context import Cheng, MeanScaleContext
from tfquant.models.elic import Elic
from tfquant.models.factorized import Factorized
from tfquant.models.hyperprior import MeanScaleHyperprior, ScaleHyperprior

from tfquant.codec import Codec
from tfquant.exchange import Rounding
from tfquant.legacy_keras import keras

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


def widths(name: str, N: int | None = None, M: int | None = None) -> dict:
    """N and M of a codec; where they are not given, its paper's (of the lower rates)."""
    own = inspect.signature(CODECS[name]).parameters
    N = own["N"].default if N is None else N
    M = own["M"].default if M is None else M
    return {"N": N, "M": N if M is None else M}


def build(name: str, precision: str = "float32", **options) -> Codec:
    """A codec with its weights made.

    Args:
      name: a key of `CODECS`.
      precision: of the networks' arithmetic; weights, quantization and likelihoods are float32.
      **options: the codec's own arguments, such as N and M.

    Raises:
      ValueError: for an unknown codec, precision or option; the message lists what is possible.
    """
    if name not in CODECS:
        raise ValueError(f"unknown codec {name!r}; known: {', '.join(CODECS)}")
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; known: {', '.join(PRECISIONS)}")
    bound = getattr(CODECS[name], "keywords", {})
    known = [p for p in inspect.signature(CODECS[name]).parameters if p not in bound]
    for option in options:
        if option not in known:
            raise ValueError(f"{name} has no option {option!r}; known: {', '.join(known)}")
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(PRECISIONS[precision])
    try:
        codec = CODECS[name](**options)
        codec(tf.zeros([1, codec.downsampling, codec.downsampling, 3]), Rounding())
    finally:
        keras.mixed_precision.set_global_policy(before)
    return codec


def build_for_files(name: str, precision: str = "float32", **options) -> Codec:
    """As `build`, for making and reading files: only the transforms compute in `precision`.

    What gives bits their meaning does in float32, so that a model of one precision reads the files
    of another. The weights are those of `build(name, **options)`.
    """
    codec = build(name, **options)
    if precision != "float32":
        transforms = build(name, precision, **options)
        for part in ("g_a", "g_s"):
            of_precision = getattr(transforms, part)
            of_precision.set_weights(getattr(codec, part).get_weights())
            setattr(codec, part, of_precision)
    return codec
