"""One look for all figures."""

from __future__ import annotations

import pytest
from matplotlib import colors

from tfquant.analysis import plots
from tfquant.analysis.maps import Method
from tfquant.surrogates import SURROGATES


def looks(names):
    found = [plots.plain_style(name, markers=True) for name in names]
    return [(look["color"], str(look["linestyle"]), look["marker"]) for look in found]


def test_every_surrogate_of_the_table_has_a_look_of_its_own():
    assert set(SURROGATES) < set(plots.STYLES)
    assert len(set(looks(plots.STYLES))) == len(plots.STYLES)
    # Dash and marker alone tell them apart, for whoever sees no colours.
    assert len({look[2] for look in looks(plots.STYLES)}) == len(plots.STYLES)


def test_a_surrogate_that_somebody_adds_gets_one_too(alter):
    alter("aun", "first_guest")
    alter("aun", "second_guest")
    first, second = looks(["first_guest", "second_guest"])
    assert first != second and not {first, second} & set(looks(plots.STYLES))
    assert looks(["first_guest"]) == [first]
    assert plots.label(Method("first_guest")) == "first_guest"


def test_harder_temperatures_are_darker_and_share_the_rest():
    soft, hard = (plots.style(Method("sua", a), (4.0, 12.0)) for a in (4.0, 12.0))
    assert colors.to_rgb(hard["color"]) == pytest.approx(colors.to_rgb(plots.STYLES["sua"][1]))
    assert sum(colors.to_rgb(soft["color"])) > sum(colors.to_rgb(hard["color"])) + 0.3
    assert soft["linestyle"] == hard["linestyle"]
    assert (soft["label"], hard["label"]) == ("SUA, α = 4", "SUA, α = 12")


def test_the_legend_names_everything_once_and_outside_the_axes():
    figure, axes = plots.new_figure(2)
    for panel in axes[0]:
        panel.plot([0, 1], [0, 1], **plots.style(Method("aun")))
    plots.legend(figure)
    figure.canvas.draw()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["AUN"]
    left = legend.get_window_extent().x0
    assert all(panel.get_window_extent().x1 <= left for panel in axes[0])
