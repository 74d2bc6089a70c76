"""The common style of all figures."""

from __future__ import annotations

import pytest
from matplotlib import colors

from tfquant import plotting
from tfquant.quantization.plans import PLANS
from tfquant.quantization.surrogates import SURROGATES


def looks_of(names):
    found = [plotting.method(name, markers=True) for name in names]
    return [(look["color"], str(look["linestyle"]), look["marker"]) for look in found]


def test_every_surrogate_of_the_table_has_its_own_style():
    assert set(SURROGATES) < set(plotting.METHODS)
    assert len(set(looks_of(plotting.METHODS))) == len(plotting.METHODS)
    # Markers alone distinguish them, without colours.
    assert len({look[2] for look in looks_of(plotting.METHODS)}) == len(plotting.METHODS)


def test_an_added_surrogate_gets_its_own_style():
    first, second = looks_of(["first guest", "second guest"])
    assert first != second and not {first, second} & set(looks_of(plotting.METHODS))
    assert looks_of(["first guest"]) == [first]
    assert plotting.method("first guest")["label"] == "first guest"


def test_every_plan_has_the_style_of_its_distortion_branch():
    for name, plan in PLANS.items():
        look = plotting.plan(name)
        key = "mix" if name == "mix" else plan.distortion.surrogate
        assert (look["color"], look["marker"]) == (
            plotting.METHODS[key][1],
            plotting.METHODS[key][3],
        )
        straight = plan.distortion.estimator == "straight_through"
        assert (look.get("markerfacecolor") == "white") == straight


def test_a_series_goes_from_pale_to_full():
    shades = [plotting.shade(plotting.BLUE, i, 3) for i in range(3)]
    assert (
        shades[2]
        == plotting.shade(plotting.BLUE, 0, 1)
        == pytest.approx(colors.to_rgb(plotting.BLUE))
    )
    assert sum(shades[0]) > sum(shades[1]) > sum(shades[2])


def test_curves_of_a_series_differ_in_colour_and_in_marker():
    made = [plotting.series(i) for i in range(6)]
    assert len({m["color"] for m in made}) == len({m["marker"] for m in made}) == 6
    more = [tuple(sorted(plotting.series(i).items())) for i in range(12)]
    assert len(set(more)) == 12
    assert all(plotting.series(i)["markerfacecolor"] == "white" for i in range(6, 12))


def test_a_legend_below_breaks_names_that_are_wider_than_the_figure():
    figure, axes = plotting.new_figure((6, 5))
    name = " ".join(f"setting_{i}=value" for i in range(9))
    axes[0, 0].plot([0, 1], [0, 1], label=name)
    plotting.legend(figure, below=True)
    figure.canvas.draw()
    (legend,) = figure.legends
    (text,) = legend.get_texts()
    assert text.get_text().split() == name.split()
    frame = legend.get_window_extent()
    assert frame.x0 >= 0 and frame.x1 <= figure.bbox.width
    assert axes[0, 0].get_window_extent().y0 >= frame.y1


@pytest.mark.parametrize("below", [False, True])
def test_the_legend_names_everything_once_and_outside_the_axes(below):
    figure, axes = plotting.new_figure((10, 4), 2)
    names = [f"a curve with a rather long name, {i}" for i in range(7)]
    for panel in axes[0]:
        for name in names:
            panel.plot([0, 1], [0, 1], label=name)
    plotting.legend(figure, below=below)
    figure.canvas.draw()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == names
    frame = legend.get_window_extent()
    assert frame.x0 >= 0 and frame.x1 <= figure.bbox.width
    for panel in axes[0]:
        extent = panel.get_window_extent()
        assert extent.y0 >= frame.y1 if below else extent.x1 <= frame.x0
