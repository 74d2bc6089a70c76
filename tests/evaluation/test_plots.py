"""Tests the styles of curves: plans as in all figures, codecs by their position."""

from __future__ import annotations

from matplotlib import colors

from tfquant import plotting
from tfquant.evaluation import plots
from tfquant.evaluation.curves import Curve, Point

POINTS = (Point(0.2, psnr=30.0), Point(0.4, psnr=33.0))


def drawn(*names_and_plans):
    made = [Curve(name, "model", POINTS, plan) for name, plan in names_and_plans]
    return plots.model_looks(made)


def test_a_plan_has_the_same_style_as_in_the_analyses():
    found = drawn(("a", "aun"), ("b", "mix"), ("c", "sua_ste"))
    for name, method in {"a": "aun", "b": "mix", "c": "sua"}.items():
        for key, value in plotting.method(method, markers=True).items():
            if key in ("linestyle", "marker"):
                assert found[name][key] == value
            if key == "color":
                assert colors.to_hex(found[name][key]).upper() == value
        assert found[name]["label"] == name


def test_several_curves_of_a_plan_share_its_dash_and_go_from_pale_to_full():
    found = drawn(("joint", "mix"), ("other", "aun"), ("post", "mix"))
    joint, post = found["joint"], found["post"]
    assert joint["linestyle"] == post["linestyle"] == plotting.method("mix")["linestyle"]
    assert joint["marker"] != post["marker"]
    assert sum(joint["color"]) > sum(post["color"])


def test_codecs_of_one_plan_or_of_unknown_ones_have_styles_by_position():
    for plans in (("sua_ste", "sua_ste"), ("", "mix")):
        first, second = drawn(*zip("ab", plans)).values()
        assert first["color"] == plotting.BLUE and second["color"] == plotting.VERMILION
    assert drawn(("a", "sua_ste"))["a"]["marker"] == plotting.METHODS["sua"][3]


def test_a_conventional_codec_has_the_same_style_in_every_plot(tmp_path):
    webp, jpeg = (Curve(name, "conventional", POINTS) for name in ("WebP", "JPEG 4:2:0"))
    model = Curve("a", "model", POINTS, "mix")
    alone, beside = plots.other_looks([webp]), plots.other_looks([jpeg, model, webp])
    assert alone["WebP"] == beside["WebP"] != beside["JPEG 4:2:0"]
    red, green, blue = alone["WebP"]["color"]
    assert red == green == blue  # colours are the models'
    plots.plot_rd([model, webp, Curve("BPG", "published", POINTS)], tmp_path / "rd.png", "all")
    assert (tmp_path / "rd.png").stat().st_size > 10_000
