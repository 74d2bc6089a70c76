"""What tests of context models share: their parameters for a given `y`, and a context apart."""

from __future__ import annotations

from typing import Callable

import numpy as np
import pytest

from tfquant.exchange import Exchange, Rounding


class OtherContext(Rounding):
    """Shows contexts something else than what is to be decoded."""

    def send(self, model, state, group, latent, *params):
        state, passed = super().send(model, state, group, latent, *params)
        y_hat = passed.received.distortion
        if model.name == "y":
            passed = passed._replace(received=passed.received._replace(context=y_hat + 3.0))
        return state, passed


@pytest.fixture(scope="session")
def other_context() -> type:
    """The class above."""
    return OtherContext


@pytest.fixture(scope="session")
def parameters() -> Callable[..., np.ndarray]:
    """`parameters(codec, y, exchange=None)`: means and log sigmas of all elements, [2, *y.shape].

    `y` alone varies: `h_a` sees a fixed one. Without an exchange, it is rounded.
    """

    def measure(codec, y: np.ndarray, exchange: Exchange | None = None) -> np.ndarray:
        exchange = exchange or Rounding()
        z = codec.h_a(np.random.default_rng(0).normal(0, 4, y.shape).astype(np.float32))
        h_a, codec.h_a = codec.h_a, lambda y: z
        try:
            codec.transmit(y, exchange)
        finally:
            codec.h_a = h_a
        (raw,) = exchange.params["y"]
        return np.stack(np.split(raw, 2, axis=-1))

    return measure
