"""Channel slices: the dependencies of each slice, and the number of parameters."""

import numpy as np
import pytest

from tfquant import models
from tfquant.exchange import Rounding
from tfquant.legacy_keras import keras

N, M, SLICES = 8, 20, 10
WIDTH = M // SLICES


@pytest.fixture(scope="module", name="codec", params=["charm", "charm_zero"])
def _codec(request):
    keras.utils.set_random_seed(0)
    return models.build(request.param, N=N, M=M)


def latent(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 4, (1, 8, 4, M)).astype(np.float32)


@pytest.fixture(scope="module", name="before")
def _before(codec, parameters):
    """Entropy parameters of `latent()`, the reference that the tests modify."""
    return parameters(codec, latent())


def by_slice(found):
    """Returns parameters with the slices first: [slices, 2, 1, 8, 4, width]."""
    return np.stack(np.split(found, SLICES, axis=-1))


@pytest.mark.parametrize(
    "k", [0, *(pytest.param(k, marks=pytest.mark.slow) for k in range(1, SLICES))]
)
def test_only_the_first_five_slices_affect_others_and_only_later_ones(codec, parameters, before, k):
    y = latent()
    y[..., WIDTH * k : WIDTH * (k + 1)] += 3.0
    pairs = zip(by_slice(before), by_slice(parameters(codec, y)))
    moved = [j for j, (a, b) in enumerate(pairs) if np.any(a != b)]
    assert moved == (list(range(k + 1, SLICES)) if k < 5 else [])


@pytest.mark.parametrize("row,column,reached", [(0, 0, 6), (7, 3, 6)])
def test_a_slice_sees_five_rows_around_each_element(
    codec, parameters, before, row, column, reached
):
    """Checks that kernels of 5, 5 and 3 reach 5 elements, so the sixth row has no effect."""
    y = latent()
    y[:, row, column, :WIDTH] += 3.0
    second = [by_slice(found)[1] for found in (before, parameters(codec, y))]
    changed = np.any(second[0] != second[1], axis=(0, 1, 3, 4))
    distance = np.abs(np.arange(8) - row)
    assert not np.any(changed[distance >= reached])
    assert np.any(changed[distance < reached])


def test_slices_but_the_first_see_the_context(codec, parameters, before, other_context):
    shown, hidden = map(by_slice, (parameters(codec, latent(), other_context()), before))
    np.testing.assert_array_equal(shown[0], hidden[0])
    assert all(np.any(a != b) for a, b in zip(shown[1:], hidden[1:]))


def test_offsets_are_zero_or_the_mean(codec):
    y = latent()
    exchange = Rounding()
    codec.transmit(y, exchange)
    mu = exchange.params["y"][0][..., :M] if codec.y_model.zero_center else 0.0
    y_hat = exchange.received["y"]
    np.testing.assert_allclose(y_hat - mu, np.rint(y - mu), atol=1e-5)


def conv(kernel, inputs, outputs, bias=True):
    return kernel * kernel * inputs * outputs + bias * outputs


@pytest.mark.slow
@pytest.mark.parametrize("name", ["charm", "charm_zero"])
def test_parameters_are_as_many_as_the_papers_layers_have(name):
    """Compares with sizes from the paper's appendix and its authors' `ms2020.py`, without LRP."""
    g_a = conv(5, 3, 192) + 2 * conv(5, 192, 192) + conv(5, 192, 320)
    g_s = conv(5, 320, 192) + 2 * conv(5, 192, 192) + conv(5, 192, 3)
    gdn = 6 * (192 + 192 * 192)
    h_a = conv(3, 320, 320) + conv(5, 320, 256) + conv(5, 256, 192, bias=False)
    h_s = conv(5, 192, 192) + conv(5, 192, 256) + conv(3, 256, 320)
    slices = 0
    for seen in (0, 1, 2, 3, 4, 5, 5, 5, 5, 5):
        slices += conv(5, 320 + 32 * seen, 224) + conv(5, 224, 128) + conv(3, 128, 32)
    density = 192 * 43  # hidden widths (3, 3, 3)
    codec = models.build(name)
    count = sum(v.shape.num_elements() for v in codec.trainable_variables)
    assert count == g_a + g_s + gdn + h_a + 2 * h_s + 2 * slices + density
    context = sum(v.shape.num_elements() for v in codec.context.trainable_variables)
    assert context == 2 * slices


@pytest.mark.parametrize("slices", [0, 3, -2])
def test_slices_that_do_not_divide_the_latent_are_refused(slices):
    message = f"slices must divide M: got {slices} slices of 20 channels"
    with pytest.raises(ValueError, match=message):
        models.build("charm", N=N, M=M, slices=slices)
