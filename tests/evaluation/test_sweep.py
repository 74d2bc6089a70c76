"""A grid's cells and the table of their reports, without training; the program is in test_sweep."""

import csv
import json

import pytest

from tfquant.evaluation import EvaluationError, curves, sweep

GRID = sweep.Grid.parse("plan=aun,mix; joint_sigma_bound=1e-6,0.11", ["0.0067", "0.025"])


def test_every_combination_is_a_cell():
    names = [sweep.name(cell) for cell in GRID.cells()]
    assert names == [
        "plan=aun+joint_sigma_bound=1e-6",
        "plan=aun+joint_sigma_bound=0.11",
        "plan=mix+joint_sigma_bound=1e-6",
        "plan=mix+joint_sigma_bound=0.11",
    ]
    assert sweep.Grid.parse("", ["0.1"]).cells() == [{}]
    assert sweep.name({}) == "all"


@pytest.mark.parametrize(
    "text,lmbdas,message",
    [
        ("plan", ["1"], "expected flag=value,value;flag=value, each flag once"),
        ("plan=aun;plan=mix", ["1"], "each flag once"),
        ("plan=aun,aun", ["1"], "plan takes distinct values"),
        ("plan=", ["1"], "plan takes distinct values"),
        ("plan=aun", [], "lmbda takes distinct values"),
        ("stages=joint", ["1"], "stages is set by the sweep itself"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(text, lmbdas, message):
    with pytest.raises(EvaluationError, match=message):
        sweep.Grid.parse(text, lmbdas)


def test_flags_follow_lmbda_in_every_cell():
    grid = sweep.Grid.parse("plan=aun,mix", ["0.01", "0.02"], "N=4,8; M=6,6")
    assert [run.flags for run in grid.runs()] == [
        {"N": "4", "M": "6", "plan": "aun"},
        {"N": "8", "M": "6", "plan": "aun"},
        {"N": "4", "M": "6", "plan": "mix"},
        {"N": "8", "M": "6", "plan": "mix"},
    ]


@pytest.mark.parametrize(
    "follow,message",
    [
        ("N=4", "N takes a value for each of the 2 of --lmbda; got '4'"),
        ("N=4,", "N takes a value for each"),
        ("plan=aun,mix", "plan is in --grid as well"),
        ("stages=joint,post", "--follow: stages is set by the sweep itself"),
        ("N", "--follow: expected flag=value,value"),
    ],
)
def test_what_cannot_follow_lmbda_is_refused(follow, message):
    with pytest.raises(EvaluationError, match=message):
        sweep.Grid.parse("plan=aun,mix", ["0.01", "0.02"], follow)


def test_a_folder_keeps_what_follows_lmbda_and_takes_another_lmbda(tmp_path):
    asked = {"base": "--N=4"}
    sweep.claim(tmp_path, asked)  # as an earlier version left it: nothing follows
    sweep.claim(tmp_path, asked, {"follow": {"0.01": {}}})
    sweep.claim(tmp_path, asked, {"follow": {"0.02": {"N": "8"}}})
    sweep.claim(tmp_path, asked, {"follow": {"0.01": {}, "0.02": {"N": "8"}}})
    for changed in ({"0.01": {"N": "8"}}, {"0.01": {}, "0.02": {}}):
        with pytest.raises(ValueError, match=r"differs in follow"):
            sweep.claim(tmp_path, asked, {"follow": changed})


def test_a_folder_belongs_to_one_sweep(tmp_path):
    asked = {"base": "--N=4", "images": "kodak"}
    sweep.claim(tmp_path, asked)
    sweep.claim(tmp_path, dict(asked))
    with pytest.raises(ValueError, match=r"holds another sweep \(differs in images\); name a new"):
        sweep.claim(tmp_path, {**asked, "images": "tecnick"})


def measured(folder, cell, lmbda, **means):
    """Writes the report of a cell: stage=(bpp, psnr)."""
    path = folder / sweep.name(cell) / f"lmbda={lmbda}" / "report"
    path.mkdir(parents=True)
    models = [
        {"name": stage, "mean": {"bpp": bpp, "psnr": psnr}} for stage, (bpp, psnr) in means.items()
    ]
    (path / "report.json").write_text(json.dumps({"models": models}))


def test_a_curve_with_a_tenth_less_rate_has_a_bd_rate_of_minus_ten_percent(tmp_path):
    first, *_, last = GRID.cells()
    for cell, factor in ((first, 1.0), (last, 0.9)):
        measured(tmp_path, cell, "0.0067", joint=(0.4, 30.0), post=(0.4 * factor, 30.0))
        measured(tmp_path, cell, "0.025", joint=(0.8, 33.0), post=(0.8 * factor, 33.0))
    text = sweep.summarize(tmp_path, GRID, None, "akima")
    with open(tmp_path / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 and rows[0]["plan"] == "aun"
    assert float(rows[3]["bd_rate_joint"]) == pytest.approx(0.0, abs=1e-6)
    assert float(rows[3]["bd_rate_post"]) == pytest.approx(-10.0, abs=1e-6)
    assert rows[1]["bd_rate_joint"] == ""
    assert "| mix | 0.11 | 0.0 | -10.0 | 0.4000, 30.00 |" in text
    assert "| aun | 0.11 | - | - | -, - |" in text
    assert (tmp_path / "rd.png").stat().st_size > 10_000


def test_a_curve_that_hardly_overlaps_gets_no_bd_rate_but_a_line_that_says_so(tmp_path):
    first, second, *_ = GRID.cells()
    measured(tmp_path, first, "0.0067", joint=(0.4, 30.0))
    measured(tmp_path, first, "0.025", joint=(0.8, 33.0))
    measured(tmp_path, second, "0.0067", joint=(0.9, 32.98))
    measured(tmp_path, second, "0.025", joint=(1.6, 36.0))
    text = sweep.summarize(tmp_path, GRID, None, "akima")
    assert "| aun | 1e-6 | 0.0 | - |" in text and "| aun | 0.11 | - | - |" in text
    (line,) = [line for line in text.splitlines() if line.startswith("- ")]
    assert "joint_sigma_bound=0.11, joint and" in line and "overlap by 0.020 dB" in line
    with open(tmp_path / "table.csv", newline="") as file:
        assert [row["bd_rate_joint"] for row in csv.DictReader(file)][1:] == ["", "", ""]


def test_an_anchor_of_ones_own_replaces_the_first_cell(tmp_path):
    measured(tmp_path, GRID.cells()[0], "0.0067", joint=(0.4, 30.0), post=(0.4, 30.0))
    measured(tmp_path, GRID.cells()[0], "0.025", joint=(0.8, 33.0), post=(0.8, 33.0))
    points = ({"bpp": 0.8, "psnr": 30.0}, {"bpp": 1.6, "psnr": 33.0})
    text = sweep.summarize(tmp_path, GRID, curves.Curve("BPG", "published", points), "akima")
    assert "| aun | 1e-6 | -50.0 | -50.0 |" in text and "against BPG" in text
