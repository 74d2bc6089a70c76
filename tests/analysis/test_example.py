"""The documented example: a user's own surrogate in every figure."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from tfquant.analysis import (
    distortion_error,
    distortion_error_2d,
    gradient_bias_network,
    gradient_risk,
    laplacian_source,
    rate_error_2d,
)
from tfquant.analysis.experiment import Progress
from tfquant.analysis.registry import EXPERIMENTS
from tfquant.quantization.surrogates import SURROGATES

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "custom_surrogate.py"

# The minimum of each experiment that draws something.
TINY = [
    (distortion_error, "_STEPS", 50), (distortion_error, "_TEST", 1024),
    (distortion_error_2d, "_STEPS", 50), (distortion_error_2d, "_SAMPLES", 4096),
    (distortion_error_2d, "_TEST", 1024), (distortion_error_2d, "CORRELATIONS", (0.0, 1.0)),
    (rate_error_2d, "_SAMPLES", 256), (rate_error_2d, "CORRELATIONS", (0.0, 0.9)),
    (gradient_risk, "_RESOLUTION", 8),
    (gradient_bias_network, "_STEPS", 0), (gradient_bias_network, "WIDTHS", (8, 16)),
    (laplacian_source, "_STEPS", 0),
]  # fmt: skip


@pytest.fixture(scope="module")
def half_noise():
    runpy.run_path(str(EXAMPLE), run_name="example")
    yield "half_noise"
    del SURROGATES["half_noise"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n, e in EXPERIMENTS.items() if not e.needs_model])
def test_the_examples_surrogate_is_in_every_figure(name, half_noise, monkeypatch):
    for module, constant, value in TINY:
        monkeypatch.setattr(module, constant, value)
    experiment = EXPERIMENTS[name]
    settings = experiment.settings(
        surrogates=("round", half_noise), sigmas=(0.5,), dataset="generated"
    )
    result = experiment.run(settings, Progress("test"))
    named = {r.get("surrogate", r.get("forward", r.get("method"))) for r in result.rows}
    assert any(half_noise in text for text in named)
    texts = [t.get_text() for legend in result.figure.legends for t in legend.get_texts()]
    for panel in result.figure.axes:
        texts += [panel.get_title(), *(t.get_text() for t in panel.get_yticklabels())]
    assert any(half_noise in text for text in texts)
    assert all(row.keys() <= set(result.columns) for row in result.rows)


def test_half_the_noise_has_a_twelfth_of_a_quarter_as_variance(half_noise):
    from tfquant.analysis import quadrature
    from tfquant.analysis.maps import Method

    points = quadrature.deviations(Method(half_noise), 0.3, 0.0, 32)
    assert (points.mass * points.value**2).sum() == pytest.approx(0.09 + 1 / 48, rel=1e-4)
