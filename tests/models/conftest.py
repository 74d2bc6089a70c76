"""Fixtures for tests of context models: entropy parameters for a given `y`, and a modified
context.
"""

from __future__ import annotations

from typing import Callable

import numpy as np
import pytest

from tfquant.exchange import Exchange, Rounding


class OtherContext(Rounding):
    """An exchange that shows contexts another latent than the one that is coded."""

    def send(self, model, state, group, latent, *params):
        state, passed = super().send(model, state, group, latent, *params)
        y_hat = passed.received.distortion
        if model.name == "y":
            passed = passed._replace(received=passed.received._replace(context=y_hat + 3.0))
        return state, passed


@pytest.fixture(scope="session")
def other_context() -> type:
    """The class `OtherContext`."""
    return OtherContext


@pytest.fixture(scope="session")
def parameters() -> Callable[..., np.ndarray]:
    """`parameters(codec, y, exchange=None)`: means and log sigmas of all elements, [2, *y.shape].

    Only `y` varies: `h_a` gets a constant. Without an exchange, `y` is rounded.
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
