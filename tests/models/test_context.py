"""Sizes of the serial codecs, compared with the published ones.

`tests/contexts/test_serial.py` tests their coding.
"""

import pytest

from tfquant import models


def trained(*layers):
    return sum(v.shape.num_elements() for layer in layers for v in layer.trainable_variables)


def dense(*widths):
    """Returns the number of parameters of 1x1 layers."""
    return sum((a + 1) * b for a, b in zip(widths, widths[1:]))


# Parameters in millions, from CompressAI's documentation, with a single Gaussian. Its models have
# 61 parameters per channel in the density of z, ours 43. They also store weights under the mask of
# the causal convolution: 13 of 25 taps, from M channels to 2M. Cheng's own parameter network is
# wider than Minnen's, which CompressAI uses instead.
@pytest.mark.slow
@pytest.mark.parametrize(
    "name,N,published,hidden,own",
    [
        ("ms_context", 192, 14.13, (640, 512), (640, 512)),
        ("cheng_attn", 128, 13.18, (426, 341), (640, 640)),
    ],
)
def test_parameters_are_as_many_as_published(name, N, published, hidden, own):
    codec = models.build(name, N=N, M=N, family="gaussian")
    count = trained(codec) + (61 - 43) * N + 13 * N * 2 * N
    ours = trained(codec.context.parameters)
    assert ours == dense(4 * N, *own, 2 * N)
    count += dense(4 * N, *hidden, 2 * N) - ours
    assert round(count / 1e6, 2) == published


@pytest.mark.slow
def test_chengs_parameters_are_those_of_three_gaussians():
    codec = models.build("cheng_anchor", N=128)
    assert trained(codec.context.parameters) == dense(512, 640, 640, 9 * 128)


@pytest.mark.slow
def test_the_two_cheng_codecs_differ_only_in_attention():
    N = 16
    unit = dense(N, N // 2) + (9 * (N // 2) + 1) * (N // 2) + dense(N // 2, N)
    anchor, attention = (
        trained(models.build(name, N=N)) for name in ("cheng_anchor", "cheng_attn")
    )
    assert attention - anchor == 4 * (6 * unit + dense(N, N))
