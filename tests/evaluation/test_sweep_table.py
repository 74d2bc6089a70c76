"""Tests the tables of a sweep with the files of its runs, without training or measurement."""

import csv
import dataclasses
import json

import pytest

from tfquant.evaluation import curves, sweep, sweep_table
from tfquant.training.experiment import Experiment

LMBDAS = ("0.0067", "0.025")
GRID = sweep.Grid.parse("plan=aun,mix; joint_sigma_bound=1e-6,0.11", LMBDAS)
KODAK = sweep.Pictures.parse("kodak=unused")
BOTH = sweep.Pictures.parse("kodak=unused;tecnick=unused")


class Sweep:
    """Folder of a sweep with the files of its runs."""

    def __init__(self, folder):
        self.folder = folder

    def run(self, cell, lmbda, below=""):
        return self.folder / sweep.name(cell) / f"lmbda={lmbda}" / below

    def measured(self, cell, lmbda, below="", report="report", **means):
        """Writes a report: stage=(bpp, psnr), or stage_qQ=(bpp, psnr, quality)."""
        models = [
            {"name": name, "images": [{"name": "a", "bpp": bpp, "psnr": psnr}], "quality": quality}
            for name, (bpp, psnr, *rest) in means.items()
            for quality in (rest or [None])
        ]
        self._write(self.run(cell, lmbda, below) / report / "report.json", {"models": models})

    def curves(self, cell, factor=1.0, **more):
        """Writes a curve with `factor` times the bits of the reference, after both stages."""
        for lmbda, bpp, psnr in zip(LMBDAS, (0.4, 0.8), (30.0, 33.0)):
            point = (bpp * factor, psnr)
            self.measured(cell, lmbda, joint=point, post=point, **more)

    def trained(self, cell, lmbda, joint, surrogate, post, below="", **fields):
        """Writes the files of a training: the costs of both stages, experiments and exports."""
        run = self.run(cell, lmbda, below)
        records = [{"stage": "joint", "J": 9.9}, {"stage": "joint", "J": joint}]
        records[-1]["surrogate_J"] = surrogate
        self._write(run / "joint" / "history.json", records)
        self._write(run / "post" / "history.json", [{"stage": "post", "J": post}])
        experiment = Experiment(lmbda=float(lmbda), stages=("joint",), **fields)
        post_stage = dataclasses.replace(experiment, stages=("post",), init_from="joint")
        for stage, each in (("joint", experiment), ("post", post_stage)):
            record = {"version": "0", "experiment": dataclasses.asdict(each)}
            self._write(run / stage / "experiment.json", record)
            self._write(run / stage / "export" / "tfquant.json", {})

    def _write(self, path, value):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))

    def summarize(self, grid=GRID, pictures=KODAK, anchors=None, failed=()):
        """Returns (table.md, rows of table.csv, rows of runs.csv)."""
        text = sweep_table.summarize(self.folder, grid, pictures, anchors or {}, "akima", failed)
        assert text == (self.folder / "table.md").read_text()
        return text, *(self._rows(name) for name in ("table.csv", "runs.csv"))

    def _rows(self, name):
        with open(self.folder / name, newline="") as file:
            return list(csv.DictReader(file))


@pytest.fixture(name="made")
def _made(tmp_path):
    return Sweep(tmp_path)


def lines_of(text):
    """Returns the rows of all tables of a Markdown text as lists of cells."""
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows]


def test_a_curve_with_a_tenth_less_rate_has_a_bd_rate_of_minus_ten_percent(made):
    first, *_, last = GRID.cells()
    for cell, factor in ((first, 1.0), (last, 0.9)):
        made.measured(cell, "0.0067", joint=(0.4, 30.0), post=(0.4 * factor, 30.0))
        made.measured(cell, "0.025", joint=(0.8, 33.0), post=(0.8 * factor, 33.0))
    text, rows, runs = made.summarize()
    assert len(rows) == 4 and rows[0]["plan"] == "aun"
    assert float(rows[3]["bd_rate_joint"]) == pytest.approx(0.0, abs=1e-6)
    assert float(rows[3]["bd_rate_post"]) == pytest.approx(-10.0, abs=1e-6)
    assert (rows[0]["bpp_post_0.025"], rows[0]["psnr_post_0.025"]) == ("0.8", "33.0")
    assert rows[1]["bd_rate_joint"] == "" and "images" not in rows[0]
    assert len(runs) == 8
    assert (runs[7]["plan"], runs[7]["lmbda"]) == ("mix", "0.025")
    assert float(runs[7]["bpp_post_kodak"]) == pytest.approx(0.72)
    lines = lines_of(text)
    assert ["mix", "0.11", "0.0", "-", "-10.0", "-"] in lines
    assert ["aun", "0.11", "-", "-", "-", "-"] in lines
    assert ["mix", "0.11", "0.0067", "-", "-", "-", "0.4000, 30.00", "0.3600, 30.00"] in lines
    assert (made.folder / "rd.png").stat().st_size > 10_000


def test_a_curve_with_little_overlap_has_a_note_instead_of_a_bd_rate(made):
    first, second, *_ = GRID.cells()
    made.measured(first, "0.0067", joint=(0.4, 30.0))
    made.measured(first, "0.025", joint=(0.8, 33.0))
    made.measured(second, "0.0067", joint=(0.9, 32.98))
    made.measured(second, "0.025", joint=(1.6, 36.0))
    text, rows, _ = made.summarize()
    lines = lines_of(text)
    assert ["aun", "1e-6", "0.0", "-", "-", "-"] in lines
    assert ["aun", "0.11", "-", "-", "-", "-"] in lines
    (line,) = [line for line in text.splitlines() if line.startswith("- ")]
    assert "joint_sigma_bound=0.11, joint and" in line and "overlap by 0.020 dB" in line
    assert [row["bd_rate_joint"] for row in rows][1:] == ["", "", ""]


def test_a_given_anchor_replaces_the_first_cell(made):
    made.curves(GRID.cells()[0])
    points = (curves.Point(0.8, psnr=30.0), curves.Point(1.6, psnr=33.0))
    anchors = {"kodak": curves.Curve("BPG", "published", points)}
    text, *_ = made.summarize(anchors=anchors)
    assert ["aun", "1e-6", "-50.0", "-", "-50.0", "-"] in lines_of(text)
    assert "against BPG;" in text and "ours are not" not in text


def test_several_sets_have_a_row_each_and_one_of_their_average(made):
    first, _, third, fourth = GRID.cells()
    for cell, kodak, tecnick in ((first, 1, 1), (third, 0.9, 0.7), (fourth, 0.8, None)):
        made.curves(cell, kodak)
        if tecnick:
            made.curves(cell, tecnick, report="report_tecnick")
    text, rows, runs = made.summarize(pictures=BOTH)
    rates = {
        (row["plan"], row["joint_sigma_bound"], row["images"]): row["bd_rate_post"] for row in rows
    }
    assert len(rows) == len(rates) == 12
    for images, expected in (("kodak", -10), ("tecnick", -30), ("average", -20)):
        assert float(rates["mix", "1e-6", images]) == pytest.approx(expected)
    # An average of fewer sets would not be comparable.
    assert float(rates["mix", "0.11", "kodak"]) == pytest.approx(-20)
    assert rates["mix", "0.11", "tecnick"] == rates["mix", "0.11", "average"] == ""
    assert float(runs[4]["bpp_post_tecnick"]) == pytest.approx(0.28)
    assert ["mix", "1e-6", "average", "-20.0", "-", "-20.0", "-"] in lines_of(text)
    assert {path.name for path in made.folder.glob("*.png")} == {"rd.png", "rd_tecnick.png"}


def test_costs_are_those_of_the_last_epoch_of_each_stage(made):
    grid = sweep.Grid.parse("plan=mix", LMBDAS, "N=4,8")
    (cell,) = grid.cells()
    made.trained(cell, "0.025", joint=1.5, surrogate=1.25, post=1.4375, plan="mix")
    text, _, runs = made.summarize(grid)
    assert runs[0]["J_joint"] == "" and runs[0]["N"] == "4"
    costs = [runs[1][key] for key in ("J_joint", "surrogate_J_joint", "J_post")]
    assert costs == ["1.5", "1.25", "1.4375"]
    assert ["mix", "0.025", "8", "1.5000", "1.2500", "1.4375", "-, -", "-, -"] in lines_of(text)


PAPER = {
    "codec": "charm_zero", "clip_norm": 0.0, "joint_steps": 1_125_000, "post_steps": 250_000,
    "joint_learning_rate": 1e-4, "post_learning_rate": 1e-4, "joint_schedule": "paper_joint",
    "post_schedule": "paper_post",
}  # fmt: skip
SIX = ("0.0018", "0.0035", "0.0067", "0.013", "0.025", "0.0483")


def test_the_papers_numbers_are_listed_with_those_of_its_methods(made):
    grids = [sweep.Grid.parse("plan=mix,uq_s,sga", lmbdas) for lmbdas in (SIX[:4], SIX)]
    for cell in grids[1].cells():
        for lmbda in SIX:
            made.trained(cell, lmbda, 1, 1, 1, **PAPER, **cell)
    text, *_ = made.summarize(grids[0])
    # A table that does not name its pictures, and has the four low rates.
    assert ["mix", "-", "-19.23 (V)", "-", "-19.96 (V)"] in lines_of(text)
    text, rows, _ = made.summarize(grids[1])
    lines = lines_of(text)
    assert ["mix", "-", "-18.36 (X)", "-", "-18.92 (X)"] in lines
    assert ["uq_s", "-", "-12.47 (X)", "-", "-16.16 (X)"] in lines
    assert ["sga", "-", "-", "-", "-"] in lines
    assert rows[1]["paper_post"] == "-16.16 (X)" and "ours are not" in text
    text, *_ = made.summarize(grids[1], BOTH)
    lines = lines_of(text)
    assert ["mix", "tecnick", "-", "-19.19 (X)", "-", "-19.51 (X)"] in lines
    assert ["mix", "kodak", "-", "-18.36 (X)", "-", "-18.92 (X)"] in lines
    assert ["mix", "average", "-", "-18.77 (X)", "-", "-19.22 (X)"] in lines


@pytest.mark.parametrize(
    "changes,lmbdas,images,fields",
    [
        ({"clip_norm": 1.0}, SIX, "kodak=unused", "clip_norm"),
        ({"codec_options": {"slices": 5}}, SIX, "kodak=unused", "slices"),
        ({}, SIX[1:], "kodak=unused", "lmbda"),
        ({}, SIX, "clic=unused", "images"),
        ({"clip_norm": 1.0, "batch_size": 4, "crop": 128, "joint_steps": 9}, SIX, "kodak=unused",
         "clip_norm, joint_steps, batch_size and 1 more"),
    ],
)  # fmt: skip
def test_a_cell_with_another_setting_than_the_papers_names_it(
    made, changes, lmbdas, images, fields
):
    grid = sweep.Grid.parse("plan=uq_s", lmbdas)
    (cell,) = grid.cells()
    for lmbda in lmbdas:
        made.trained(cell, lmbda, 1, 1, 1, plan="uq_s", **{**PAPER, **changes})
    text, rows, _ = made.summarize(grid, sweep.Pictures.parse(images))
    expected = f"not the paper's setting: {fields}"
    assert (rows[0]["paper_joint"], rows[0]["paper_post"]) == (expected, expected)
    assert ["uq_s", "-", expected, "-", expected] in lines_of(text)


def test_an_average_of_other_pictures_is_not_the_papers(made):
    grid = sweep.Grid.parse("plan=uq_s", SIX)
    (cell,) = grid.cells()
    for lmbda in SIX:
        made.trained(cell, lmbda, 1, 1, 1, plan="uq_s", **PAPER)
    _, rows, _ = made.summarize(grid, sweep.Pictures.parse("kodak=a;clic=b"))
    assert [row["paper_post"] for row in rows] == [
        "-16.16 (X)", "not the paper's setting: images", "not the paper's setting: images",
    ]  # fmt: skip


def test_a_single_set_may_have_the_name_of_the_average(made):
    grid = sweep.Grid.parse("plan=uq_s", SIX)
    (cell,) = grid.cells()
    for lmbda in SIX:
        made.trained(cell, lmbda, 1, 1, 1, plan="uq_s", **PAPER)
    _, rows, _ = made.summarize(grid, sweep.Pictures.parse("/data/average"), failed=grid.runs())
    assert rows[0]["paper_post"] == "not the paper's setting: images"
    assert rows[0]["bpp_post_0.025"] == "failed"


def test_one_unknown_run_leaves_the_paper_out(made):
    grid = sweep.Grid.parse("plan=uq_s", SIX, seeds=["1", "2"])
    (cell,) = grid.cells()
    for lmbda in SIX:
        for below in ("", "seed=2"):
            made.trained(cell, lmbda, 1, 1, 1, below, plan="uq_s", **PAPER)
    assert made.summarize(grid)[1][0]["paper_post"] == "-16.16 (X)"
    (made.run(cell, SIX[2], "seed=2") / "joint" / "experiment.json").unlink()
    assert made.summarize(grid)[1][0]["paper_post"] == ""


def test_an_anchor_that_is_not_bpg_is_said_to_be_another(made):
    made.curves(GRID.cells()[0])
    points = (curves.Point(0.8, psnr=30.0), curves.Point(1.6, psnr=33.0))
    for name in ("VTM (published)", "BPG 4:4:4 (published)"):
        anchors = {"kodak": curves.Curve(name, "published", points)}
        text, *_ = made.summarize(anchors=anchors)
        assert ("ours are not" in text) == (name[0] == "V")


def test_runs_of_another_version_have_no_numbers_from_the_paper(made):
    cell = GRID.cells()[0]
    made.curves(cell)
    made.trained(cell, LMBDAS[0], 1, 1, 1)
    path = made.run(cell, LMBDAS[0]) / "joint" / "experiment.json"
    path.write_text(json.dumps({"version": "9", "experiment": {"of_tomorrow": 1}}))
    _, rows, _ = made.summarize()
    assert (rows[0]["paper_post"], float(rows[0]["bd_rate_post"])) == ("", pytest.approx(0))


def test_seeds_give_a_mean_with_its_interval_against_the_same_seed_of_the_anchor(made):
    """Uses three very different seeds of an anchor, and a cell that is 8, 10 and 12 % below
    them.
    """
    grid = sweep.Grid.parse("plan=aun,mix", LMBDAS, seeds=["1", "2", "3"])
    anchor, cell = grid.cells()
    for seed, scale, factor in (("", 1.0, 0.92), ("seed=2", 2.0, 0.90), ("seed=3", 0.5, 0.88)):
        made.curves(anchor, scale, below=seed)
        made.curves(cell, scale * factor, below=seed)
        made.trained(cell, "0.0067", 1.0, 0.5, 4 + scale, below=seed, codec="factorized")
    text, rows, runs = made.summarize(grid)
    half = 4.302653 * 2 / 3**0.5
    low, high = (float(rows[1][f"bd_rate_post_{end}"]) for end in ("low", "high"))
    assert (low, high) == (pytest.approx(-10 - half, 1e-5), pytest.approx(-10 + half, 1e-5))
    assert float(rows[1]["bd_rate_post"]) == pytest.approx(-10)
    assert rows[1]["bd_rate_post_seeds"] == "3"
    assert float(rows[1]["bpp_post_0.025"]) == pytest.approx(0.8 * (0.92 + 1.8 + 0.44) / 3)
    assert [run["seed"] for run in runs] == ["1", "2", "3"] * 4
    lines = lines_of(text)
    assert ["mix", "-10.0 [-15.0, -5.0]", "-", "-10.0 [-15.0, -5.0]", "-"] in lines
    (point,) = [line for line in lines if line[:2] == ["mix", "0.0067"]]
    assert point[4].startswith("5.1667 [") and point[2] == "1.0000 [1.0000, 1.0000]"
    assert "Seeds 1, 2, 3." in text and "Student's 95 %" in text


def test_a_missing_seed_is_counted(made):
    grid = sweep.Grid.parse("plan=aun,mix", LMBDAS, seeds=["1", "2"])
    anchor, cell = grid.cells()
    for seed in ("", "seed=2"):
        made.curves(anchor, below=seed)
    made.curves(cell, 0.9)
    made.measured(cell, LMBDAS[0], below="seed=2", post=(0.4, 30.0))
    text, rows, _ = made.summarize(grid)
    lines = lines_of(text)
    assert ["aun", "0.0 [0.0, 0.0]", "-", "0.0 [0.0, 0.0]", "-"] in lines
    assert ["mix", "-10.0 (1 of 2)", "-", "-10.0 (1 of 2)", "-"] in lines
    assert rows[1]["bd_rate_post_seeds"] == "1"
    assert "- seed 2: plan=mix, post: 1 point(s)" in text


def test_the_average_over_sets_has_an_interval_over_seeds(made):
    grid = sweep.Grid.parse("plan=aun,mix", LMBDAS, seeds=["1", "2"])
    anchor, cell = grid.cells()
    for seed, kodak, tecnick in (("", 0.9, 0.7), ("seed=2", 0.7, 0.5)):
        for report, factor in (("report", kodak), ("report_tecnick", tecnick)):
            made.curves(anchor, below=seed, report=report)
            made.curves(cell, factor, below=seed, report=report)
    text, *_ = made.summarize(grid, BOTH)
    average = "-30.0 [-40.0, -20.0]"
    assert ["mix", "average", average, "-", average, "-"] in lines_of(text)


def test_the_lowest_cost_after_both_stages_chooses_the_temperature_of_each_rate(made):
    """Tests that 8 is best at the low rate and 4 at the high one, unlike after joint training."""
    grid = sweep.Grid.parse("plan=mix,sua_ste", LMBDAS, alphas=["4", "8", "12"])
    mix, annealed = grid.cells()
    made.curves(mix)
    places = {"4": "alpha_max=4", "8": "alpha_max=8", "12": ""}
    costs = {"0.0067": (1.25, 1.125, float("nan")), "0.025": (2.0, 2.25, 2.5)}
    for lmbda, psnr in zip(LMBDAS, (30.0, 33.0)):
        for (alpha, below), post in zip(places.items(), costs[lmbda]):
            joint = 1 / int(alpha)
            made.trained(annealed, lmbda, joint, 1, post, below, alpha_max=float(alpha))
            point = (int(alpha) / 10, psnr)
            made.measured(annealed, lmbda, below, joint=point, post=point)
    text, rows, runs = made.summarize(grid)
    assert (rows[1]["bpp_post_0.0067"], rows[1]["bpp_post_0.025"]) == ("0.8", "0.4")
    chosen = [(run["lmbda"], run["alpha_max"]) for run in runs if run["chosen"] == "True"]
    assert chosen == [("0.0067", ""), ("0.025", ""), ("0.0067", "8"), ("0.025", "4")]
    assert len(runs) == 8
    lines = lines_of(text)
    assert ["mix", "0.025", "-", "-", "-", "-", "0.8000, 33.00", "0.8000, 33.00"] in lines
    assert ["sua_ste", "0.0067", "8", "0.1250", "1.0000", "1.1250", *["0.8000, 30.00"] * 2] in lines
    assert ["sua_ste", "0.0067", "1.2500", "**1.1250**", "nan"] in lines
    assert ["sua_ste", "0.025", "**2.0000**", "2.2500", "2.5000"] in lines


def test_the_temperature_is_chosen_for_each_seed_among_existing_runs(made):
    grid = sweep.Grid.parse("", LMBDAS[:1], "", ["1", "2"], ["4", "8"])
    (cell,) = grid.cells()
    made.trained(cell, LMBDAS[0], 1, 1, 3.0, "alpha_max=4")
    made.trained(cell, LMBDAS[0], 1, 1, 2.0, "alpha_max=8")
    made.trained(cell, LMBDAS[0], 1, 1, 5.0, "seed=2/alpha_max=4")
    text, _, runs = made.summarize(grid)
    assert [run["chosen"] for run in runs] == ["False", "True", "True", "False"]
    lines = lines_of(text)
    assert ["0.0067", "2", "**5.0000**", "-"] in lines
    assert [line for line in lines if line[:2] == ["0.0067", "8, 4"]]


FAILING = sweep.Grid.parse("plan=aun,mix", LMBDAS)


def test_a_failed_run_is_failed_in_every_table(made):
    """Tests that the J of a stage that was started and not ended, and a partial curve, do not
    count.
    """
    anchor, cell = FAILING.cells()
    made.curves(anchor)
    made.measured(cell, LMBDAS[0], joint=(0.36, 30.0), post=(0.36, 30.0))
    made.trained(cell, LMBDAS[1], 1.5, 1.25, 1.4375, plan="mix")
    failed = FAILING.runs()[3]
    assert (failed.cell, failed.lmbda) == (cell, LMBDAS[1])
    (made.run(cell, LMBDAS[1]) / "post" / "export" / "tfquant.json").unlink()
    text, rows, runs = made.summarize(FAILING, failed=[failed])
    lines = lines_of(text)
    assert ["mix", "failed", "-", "failed", "-"] in lines
    assert ["mix", "0.0067", "-", "-", "-", "0.3600, 30.00", "0.3600, 30.00"] in lines
    assert ["mix", "0.025", "1.5000", "1.2500", "failed", "failed", "failed"] in lines
    assert "- plan=mix, post: failed at lmbda 0.025" in text
    assert rows[1]["bd_rate_joint"] == rows[1]["bd_rate_post"] == "failed"
    assert (rows[1]["bpp_post_0.0067"], rows[1]["bpp_post_0.025"]) == ("0.36", "failed")
    costs = [runs[3][key] for key in ("J_joint", "J_post", "bpp_post_kodak")]
    assert costs == ["1.5", "failed", "failed"]


def test_a_failed_anchor_gives_no_bd_rate(made):
    anchor, cell = FAILING.cells()
    made.measured(anchor, LMBDAS[0], joint=(0.4, 30.0), post=(0.4, 30.0))
    made.curves(cell)
    text, rows, _ = made.summarize(FAILING, failed=[FAILING.runs()[1]])
    assert [row["bd_rate_post"] for row in rows] == ["failed", ""]
    assert "- plan=aun, joint: failed at lmbda 0.025" in text


def test_a_stage_that_ended_early_has_no_cost(made):
    grid = sweep.Grid.parse("plan=aun", LMBDAS[:1])
    (cell,) = grid.cells()
    made.trained(cell, LMBDAS[0], 1.5, 1.25, 1.4375, plan="aun", joint_steps=10, post_steps=4)
    path = made.run(cell, LMBDAS[0]) / "post" / "history.json"
    for step, expected in ((2, "failed"), (4, "1.4375")):
        path.write_text(json.dumps([{"stage": "post", "step": step, "J": 1.4375}]))
        _, _, (run,) = made.summarize(grid)
        assert (run["J_joint"], run["J_post"]) == ("1.5", expected)


def test_a_stage_without_export_has_no_cost(made):
    grid = sweep.Grid.parse("", LMBDAS[:1], alphas=["4", "8"])
    (cell,) = grid.cells()
    for alpha, post in ((4, 2.0), (8, 1.0)):
        made.trained(cell, LMBDAS[0], 1.5, 1.25, post, f"alpha_max={alpha}", alpha_max=float(alpha))
    assert [run["chosen"] for run in made.summarize(grid)[2]] == ["False", "True"]
    folder = made.run(cell, LMBDAS[0], "alpha_max=8")
    (folder / "post" / "export" / "tfquant.json").unlink()
    _, _, runs = made.summarize(grid)
    assert [run["chosen"] for run in runs] == ["True", "False"]
    assert [run["J_post"] for run in runs] == ["2.0", "failed"]


def test_a_failed_run_is_not_chosen_although_its_cost_is_the_lowest(made):
    grid = sweep.Grid.parse("", LMBDAS[:1], alphas=["4", "8"])
    (cell,) = grid.cells()
    made.trained(cell, LMBDAS[0], 1, 1, 2.0, "alpha_max=4")
    made.trained(cell, LMBDAS[0], 1, 1, 1.0, "alpha_max=8")
    four, eight = grid.runs()
    text, _, runs = made.summarize(grid, failed=[eight])
    assert [run["chosen"] for run in runs] == ["True", "False"]
    lines = lines_of(text)
    assert ["0.0067", "**2.0000**", "failed"] in lines
    assert [line[:2] for line in lines if len(line) > 4][2:] == [["0.0067", "4"]]
    text, _, runs = made.summarize(grid, failed=[four, eight])
    assert [run["chosen"] for run in runs] == ["False", "False"]
    assert ["0.0067", *["failed"] * 6] in lines_of(text)


def test_a_failed_seed_is_counted(made):
    grid = sweep.Grid.parse("plan=aun,mix", LMBDAS, seeds=["1", "2"])
    anchor, cell = grid.cells()
    for seed in ("", "seed=2"):
        made.curves(anchor, below=seed)
    made.curves(cell, 0.9)
    made.measured(cell, LMBDAS[0], below="seed=2", joint=(0.4, 30.0), post=(0.4, 30.0))
    (failed,) = [r for r in grid.runs() if (r.cell, r.lmbda, r.seed) == (cell, LMBDAS[1], "2")]
    text, *_ = made.summarize(grid, failed=[failed])
    rate = "-10.0 (1 of 2), others failed"
    assert ["mix", rate, "-", rate, "-"] in lines_of(text)
    assert ["mix", "0.025", *["failed"] * 3, *["0.7200, 33.00 (1 of 2)"] * 2] in lines_of(text)


def measure(made, cell, names, factor=1.0):
    """Writes reports whose means are over pictures with these names."""
    made.curves(cell, factor)
    for lmbda in LMBDAS:
        path = made.run(cell, lmbda) / "report" / "report.json"
        models = json.loads(path.read_text())["models"]
        for model in models:
            model["images"] = [{**model["images"][0], "name": name} for name in names]
        path.write_text(json.dumps({"models": models}))


def test_means_over_other_pictures_have_no_bd_rate(made):
    anchor, cell = FAILING.cells()
    measure(made, anchor, ["a", "b"])
    measure(made, cell, ["b", "a"], 0.9)
    _, rows, _ = made.summarize(FAILING)
    assert float(rows[1]["bd_rate_post"]) == pytest.approx(-10)
    measure(made, cell, ["a"], 0.9)
    text, rows, _ = made.summarize(FAILING)
    assert rows[1]["bd_rate_post"] == ""
    assert "plan=mix, post is a mean over 1 pictures, plan=aun, joint over others (2)" in text


def test_the_points_of_one_curve_are_means_over_the_same_pictures(made):
    anchor, cell = FAILING.cells()
    measure(made, anchor, ["a", "b"])
    measure(made, cell, ["a", "b"], 0.9)
    path = made.run(cell, LMBDAS[1]) / "report" / "report.json"
    report = json.loads(path.read_text())
    for model in report["models"]:
        model["images"] = model["images"][:1]
    path.write_text(json.dumps(report))
    text, rows, _ = made.summarize(FAILING)
    assert rows[1]["bd_rate_post"] == ""
    assert "- plan=mix, post: the points are means over other pictures (1, 2)" in text


def change(made, cell, lmbda, stage, name, **values):
    """Changes the measurement of a picture in the reports of a cell."""
    path = made.run(cell, lmbda) / "report" / "report.json"
    models = json.loads(path.read_text())["models"]
    for model in models:
        for image in model["images"]:
            if (model["name"], image["name"]) == (stage, name):
                image.update(values)
    path.write_text(json.dumps({"models": models}))


def test_a_picture_that_a_run_stores_without_loss_is_in_no_point(made):
    """Tests a picture that one model stores without loss: its bits count nowhere."""
    anchor, cell = FAILING.cells()
    measure(made, anchor, ["a", "b"])
    measure(made, cell, ["a", "b"], 0.9)
    for each in (anchor, cell):
        for lmbda in LMBDAS:
            for stage in ("joint", "post"):
                change(made, each, lmbda, stage, "b", bpp=9.0)
    change(made, cell, LMBDAS[1], "post", "b", psnr=None)
    text, rows, runs = made.summarize(FAILING)
    assert float(rows[1]["bd_rate_joint"]) == float(rows[1]["bd_rate_post"]) == pytest.approx(-10)
    rates = [float(run["bpp_joint_kodak"]) for run in runs]
    assert rates == pytest.approx([0.4, 0.8, 0.36, 0.72])
    (note,) = [line for line in text.splitlines() if line.startswith("- ")]
    assert note == (
        "- kodak: the means leave out 1 pictures that a run decodes without any error"
        " (b: plan=mix, lmbda=0.025)"
    )


def test_a_set_of_which_every_picture_is_stored_without_loss_has_rates_only(made):
    anchor, cell = FAILING.cells()
    measure(made, anchor, ["a"])
    measure(made, cell, ["a"], 0.5)
    change(made, cell, LMBDAS[1], "post", "a", psnr=None)
    text, rows, _ = made.summarize(FAILING)
    assert [rows[1][key] for key in ("bpp_post_0.025", "psnr_post_0.025", "bd_rate_post")] == [
        "0.4", "", "",
    ]  # fmt: skip


def test_the_rate_of_an_ms_ssim_curve_is_that_of_the_pictures_with_ms_ssim(made, monkeypatch):
    """Tests two pictures of which one is too small for MS-SSIM, and two seeds."""
    grid = sweep.Grid.parse("", LMBDAS[:1], seeds=["1", "2"])
    (cell,) = grid.cells()
    for below, ms_ssim, bpp in (("", 0.9, 0.5), ("seed=2", 0.99, 0.7)):
        made.curves(cell, below=below)
        path = made.run(cell, LMBDAS[0], below) / "report" / "report.json"
        models = json.loads(path.read_text())["models"]
        for model in models:
            large = {"name": "large", "bpp": bpp, "psnr": 30.0, "ms_ssim": ms_ssim}
            model["images"] = [large, {"name": "small", "bpp": 8.0, "psnr": 30.0}]
        path.write_text(json.dumps({"models": models}))
    drawn = []
    monkeypatch.setattr(sweep_table.plots, "plot_rd", lambda found, *_: drawn.extend(found))
    made.summarize(grid)
    assert len(drawn) == 2  # both stages
    for curve in drawn:
        assert curve.samples("ms_ssim_db").tolist() == [[pytest.approx(0.6), pytest.approx(15)]]
        assert curve.samples("psnr")[0, 0] == pytest.approx(4.3)


def test_a_published_anchor_is_compared_with_all_pictures_of_its_set_only(made):
    anchor, cell = FAILING.cells()
    measure(made, anchor, ["a", "b"])
    measure(made, cell, ["a"])
    points = (curves.Point(0.8, psnr=30.0), curves.Point(1.6, psnr=33.0))
    anchors = {"kodak": curves.Curve("BPG", "published", points)}
    text, rows, _ = made.summarize(FAILING, anchors=anchors)
    assert (float(rows[0]["bd_rate_post"]), rows[1]["bd_rate_post"]) == (-50.0, "")
    assert "plan=mix, post is a mean over 1 pictures, BPG over others (2)" in text


def test_a_model_for_a_range_of_rates_is_a_curve_of_its_qualities(made):
    """Tests one lmbda, with reports as of eval.py: a model for each quality.

    The report of an earlier version has two decimals of the quality in its names.
    """
    grid = sweep.Grid.parse("plan=aun,mix", ["0.0067"], base=["--lmbda_range=.0018,.0483"])
    anchor, cell = grid.cells()
    for each, factor, middle in ((anchor, 1.0, "45.61"), (cell, 0.9, "45.606")):
        points = {
            f"{stage}_q{shown}": (bpp * factor, psnr, q)
            for stage in ("joint", "post")
            for shown, q, bpp, psnr in (
                ("10", 10.0, 0.4, 30.0),
                (middle, 45.606, 0.8, 33.0),
                ("81.2", 81.2, 1.2, 35.0),
            )
        }
        made.measured(each, "0.0067", **points)
        made.trained(each, "0.0067", 1.5, 1.25, 1.4375, **each, lmbda_range=(0.0018, 0.0483))
    text, rows, runs = made.summarize(grid)
    assert float(rows[1]["bd_rate_post"]) == pytest.approx(-10)
    assert float(rows[1]["bpp_post_q45.61"]) == pytest.approx(0.72)
    assert float(runs[1]["psnr_joint_kodak_q81.2"]) == 35
    lines = lines_of(text)
    costs = ["1.5000", "1.2500", "1.4375"]
    assert ["mix", "0.0067", *costs, "10", *["0.3600, 30.00"] * 2] in lines
    assert ["mix", *[""] * 4, "81.2", *["1.0800, 35.00"] * 2] in lines
