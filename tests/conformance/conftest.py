"""The list of codecs for all tests in this folder. Every registered codec must be on it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
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
# Label -> another one with the same layers: they differ in how many there are, in which transforms
# stand together, in the centre, or in a family whose functions the other label calls as well. A
# graph takes seconds to make, so claims about graphs and bfloat16 are about the other one.
TWINS = {
    "ms_hyper_zero": "ms_hyper",
    "ms_hyper laplacian": "ms_hyper",
    "ms_hyper_zero laplacian": "ms_hyper",
    "res to res_attn": "cheng_attn",
    "res_attn to res": "cheng_attn",
    "cheng_anchor": "cheng_attn",
    "charm_zero": "charm",
    "elic_zero": "elic_sm_zero",
}

# Labels whose codec takes more than a second to build, so their tests are slow.
DEEP = {
    "elic_sm_zero", "elic_zero", "cheng_anchor", "cheng_attn", "res to res_attn", "res_attn to res",
}  # fmt: skip

SIZES = [(1, 1), (17, 33), (100, 37), (192, 256)]
# Label and size of the cases that `make check` tests, with padding and without. They run eagerly.
QUICK = {("ms_hyper_zero", (17, 33)), ("ms_hyper_zero", (64, 64))}


def sizes(label: str) -> list:
    """Returns the sizes of pictures for a codec.

    `ms_hyper_zero` also has 64x64, a small size without padding.

    The base class of all codecs pads pictures to blocks of 64 and crops them. The other labels with
    a twin therefore have only one block, and several blocks with padding. Eager steps of the serial
    context of `cheng_anchor` take seconds on several blocks.
    """
    if label == "ms_hyper_zero":
        return [*SIZES, (64, 64)]
    if label == "cheng_anchor":
        return SIZES[1:2]
    return SIZES[1:3] if label in TWINS else SIZES


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc):
    """Tests with the fixture `traced` are about the labels without a twin.

    Tests with the argument `size` are about every label with its sizes.
    """
    if "traced" in metafunc.fixturenames:
        labels = [label for label in CODECS if label not in TWINS]
        metafunc.definition.add_marker(pytest.mark.parametrize("label", labels, indirect=True))
    if "size" in metafunc.fixturenames:
        pairs = [
            pytest.param(
                label, size, marks=[] if (label, size) in QUICK else [pytest.mark.slow],
                id=f"{label}-{size[0]}x{size[1]}",
            )
            for label in CODECS
            for size in sizes(label)
        ]  # fmt: skip
        metafunc.definition.add_marker(
            pytest.mark.parametrize("label,size", pairs, indirect=["label"])
        )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items):
    """A test is slow if its label is deep or its functions run in graphs. All tests of a label come
    together.

    pytest keeps only those together that have the same list of labels. It would make the fixtures
    of a label, and trace its graphs, once for each list.
    """
    for item in items:
        if "label" in item.fixturenames and hasattr(item, "callspec"):
            label = item.callspec.params.get("label")
            if label in DEEP or ("in_graphs" in item.fixturenames and label not in TWINS):
                item.add_marker(pytest.mark.slow)
    result = yield
    folder, labels = Path(__file__).parent, list(CODECS)

    def place(item):
        label = item.callspec.params.get("label") if hasattr(item, "callspec") else None
        return item.path, labels.index(label) if label else -1, item.location[1]

    places = [i for i, item in enumerate(items) if folder in item.path.parents]
    ordered = sorted((items[i] for i in places), key=place)
    for i, item in zip(places, ordered):
        items[i] = item
    return result


@pytest.fixture(scope="session")
def listed() -> set:
    """Names of the codecs on the list."""
    return {name for name, _ in CODECS.values()}


@pytest.fixture(scope="module", params=CODECS)
def label(request) -> str:
    """Every codec of the list in turn."""
    return request.param


@pytest.fixture(scope="session")
def traced() -> None:
    """Restricts a test to the labels that have no twin, see `pytest_generate_tests`."""


@pytest.fixture(scope="module")
def in_graphs(label, eager_functions) -> Iterator[bool]:
    """False for a label with a twin, whose functions run eagerly from here on."""
    with eager_functions() if label in TWINS else contextlib.nullcontext():
        yield label not in TWINS


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
