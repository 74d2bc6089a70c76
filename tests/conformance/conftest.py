"""The list of codecs for all tests in this folder. Every registered codec must be on it."""

from __future__ import annotations

from typing import Callable

import pytest

from tfquant import models
from tfquant.legacy_keras import keras

WIDTHS = {"N": 8, "M": 12}
_SPREAD = 8.0
# Label -> name, and options that add to or replace these widths.
CODECS = {
    # One codec for each coding order, and for each kind of coding table.
    "factorized": ("factorized", {}),
    "ms_hyper": ("ms_hyper", {}),
    "ms_hyper_zero mixture": ("ms_hyper_zero", {"family": "mixture"}),
    "ms_context": ("ms_context", {}),
    "charm": ("charm", {"slices": 3}),
    "elic_sm_zero": ("elic_sm_zero", {}),
    # All other codecs.
    "scale_hyperprior": ("scale_hyperprior", {}),
    "ms_hyper_zero": ("ms_hyper_zero", {}),
    "ms_hyper laplacian": ("ms_hyper", {"family": "laplacian"}),
    "ms_hyper_zero laplacian": ("ms_hyper_zero", {"family": "laplacian"}),
    "res to res_attn": ("ms_hyper_zero", {"g_a": "res", "g_s": "res_attn"}),
    "res_attn to res": ("ms_hyper_zero", {"g_a": "res_attn", "g_s": "res"}),
    "cheng_anchor": ("cheng_anchor", {}),
    "cheng_attn": ("cheng_attn", {}),
    "charm_zero": ("charm_zero", {"slices": 3}),
    "elic_zero": ("elic_zero", {}),
}


@pytest.fixture(scope="session")
def listed() -> set:
    """Names of the codecs on the list."""
    return {name for name, _ in CODECS.values()}


@pytest.fixture(scope="module", params=CODECS)
def label(request) -> str:
    """Every codec of the list in turn."""
    return request.param


@pytest.fixture(scope="session")
def build() -> Callable[..., keras.Model]:
    """`build(label, precision, builder)`: that codec at small widths, always with the same
    weights.
    """

    def make(label, precision="float32", builder=models.build):
        keras.utils.set_random_seed(0)
        name, options = CODECS[label]
        codec = builder(name, precision, **{**WIDTHS, **options})
        if hasattr(codec, "h_a"):
            # Untrained hyper-latents all round to 0, which would not test the networks behind them.
            last = codec.h_a.layers[-1]
            last.kernel.assign(_SPREAD * last.kernel)
        return codec

    return make
