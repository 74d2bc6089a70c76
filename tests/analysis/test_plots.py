"""Plot styles of surrogates at their temperatures."""

from __future__ import annotations

import pytest
from matplotlib import colors

from tfquant import plotting
from tfquant.analysis import plots
from tfquant.analysis.maps import Method


def test_a_label_names_surrogate_and_temperature(alter):
    alter("aun", "guest")
    methods = Method("aun"), Method("sua", 4.0), Method("guest")
    assert [plots.label(m) for m in methods] == ["AUN", "SUA, α = 4", "guest"]


def test_harder_temperatures_are_darker_and_share_the_rest():
    soft, hard = (plots.style(Method("sua", a), (4.0, 12.0)) for a in (4.0, 12.0))
    assert colors.to_rgb(hard["color"]) == pytest.approx(colors.to_rgb(plotting.METHODS["sua"][1]))
    assert sum(colors.to_rgb(soft["color"])) > sum(colors.to_rgb(hard["color"])) + 0.3
    assert soft["linestyle"] == hard["linestyle"]
    assert (soft["label"], hard["label"]) == ("SUA, α = 4", "SUA, α = 12")
