"""Tests a grid's cells, runs, pictures and folder. `test_sweep_table.py` tests its tables."""

import pytest

from tfquant.evaluation import EvaluationError, sweep

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
def test_an_invalid_grid_is_rejected(text, lmbdas, message):
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
def test_invalid_values_that_follow_lmbda_are_rejected(follow, message):
    with pytest.raises(EvaluationError, match=message):
        sweep.Grid.parse("plan=aun,mix", ["0.01", "0.02"], follow)


def test_each_seed_is_a_run_and_the_bases_seed_keeps_its_folder(tmp_path):
    one = sweep.Grid.parse("plan=aun", ["0.01"], base=["--seed=1", "--N=4", "--seed=3"])
    many = sweep.Grid.parse("plan=aun", ["0.01"], seeds=["1", "3"], base=["--seed=3"])
    (before,), (first, third) = one.runs(), many.runs()
    assert (before.flags, str(before)) == ({"plan": "aun"}, "plan=aun, lmbda=0.01")
    assert third.flags == {"plan": "aun", "seed": "3"}
    assert third.folder(tmp_path) == before.folder(tmp_path) == tmp_path / "plan=aun/lmbda=0.01"
    assert first.folder(tmp_path) == tmp_path / "plan=aun/lmbda=0.01/seed=1"
    assert str(first) == "plan=aun, lmbda=0.01, seed=1"
    # Without a seed in the base it is the default of train.py, 1.
    places = [run.below for run in sweep.Grid.parse("", ["0.01"], seeds=["1", "2"]).runs()]
    assert places == [(), ("seed=2",)]


@pytest.mark.parametrize("seeds", [["1", "1"], ["1", "01"], ["1", "a"], ["1.5"], [""]])
def test_seeds_must_be_distinct_integers(seeds):
    with pytest.raises(EvaluationError, match="--seeds takes distinct numbers"):
        sweep.Grid.parse("", ["0.01"], seeds=seeds)


def test_a_seed_cannot_also_be_in_the_grid():
    with pytest.raises(EvaluationError, match="--grid: seed is set by the sweep itself"):
        sweep.Grid.parse("seed=1,2", ["0.01"], seeds=["1", "2"])


def test_an_annealed_plan_is_trained_with_each_temperature_to_choose_from(tmp_path):
    grid = sweep.Grid.parse("plan=mix,sua_ste", ["0.01"], alphas=["4", "12.0", "8"])
    mix, *annealed = grid.runs()
    assert (mix.alpha, mix.flags, mix.below) == ("", {"plan": "mix"}, ())
    assert [run.flags["alpha_max"] for run in annealed] == ["4", "12.0", "8"]
    # 12 is the default of train.py, so its run may exist.
    assert [run.below for run in annealed] == [("alpha_max=4",), (), ("alpha_max=8",)]
    assert str(annealed[0]) == "plan=sua_ste, lmbda=0.01, alpha_max=4"


@pytest.mark.parametrize(
    "base,text,count",
    [
        ([], "", 2),  # sua_ste
        (["--plan=aun"], "", 1),
        (["--plan=aun"], "plan=sra", 2),
        (["--plan=aun", "--rate_branch=sua:expected"], "", 2),
        (["--plan=aun", "--plan=sua_pge"], "", 2),
        ([], "plan=nonsense", 1),
    ],
)
def test_base_and_cell_determine_if_a_plan_is_annealed(base, text, count):
    assert len(sweep.Grid.parse(text, ["0.01"], alphas=["4", "8"], base=base).runs()) == count


def test_seeds_and_temperatures_combine(tmp_path):
    grid = sweep.Grid.parse("", ["0.01"], "", ["1", "2"], ["12", "4"])
    places = [run.below for run in grid.runs()]
    assert places == [(), ("alpha_max=4",), ("seed=2",), ("seed=2", "alpha_max=4")]
    with pytest.raises(EvaluationError, match="--follow: alpha_max is set by the sweep itself"):
        sweep.Grid.parse("", ["0.01"], "alpha_max=4", alphas=["4", "8"])
    with pytest.raises(EvaluationError, match="--choose_alpha takes distinct numbers"):
        sweep.Grid.parse("", ["0.01"], alphas=["4", "4.0"])


def test_a_folder_keeps_values_that_follow_lmbda_and_accepts_another_lmbda(tmp_path):
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
    with pytest.raises(
        ValueError, match=r"contains another sweep \(differs in images\); use a new"
    ):
        sweep.claim(tmp_path, {**asked, "images": "tecnick"})


def test_a_folder_of_pictures_may_be_spelled_differently(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "link").symlink_to("pictures")
    asked = {"images": "sample", "train_images": f"{tmp_path}/pictures"}
    sweep.claim(tmp_path / "out", asked)
    first = (tmp_path / "out" / "sweep.json").read_text()
    for spelling in (f"{tmp_path}/pictures/", f"{tmp_path}/link", f"{tmp_path}/./pictures"):
        sweep.claim(tmp_path / "out", {**asked, "train_images": spelling})
        assert (tmp_path / "out" / "sweep.json").read_text() == first
    with pytest.raises(ValueError, match=r"differs in train_images"):
        sweep.claim(tmp_path / "out", {**asked, "train_images": str(tmp_path)})


def test_the_first_set_of_pictures_keeps_its_earlier_folder():
    assert sweep.Pictures.parse("~/kodak") == [sweep.Pictures("kodak", "~/kodak", "report")]
    first, second = sweep.Pictures.parse("kodak=~/a.png,~/b.png; tecnick=~/t/*.png")
    assert first == sweep.Pictures("kodak", "~/a.png,~/b.png", "report")
    assert second == sweep.Pictures("tecnick", "~/t/*.png", "report_tecnick")
    for images in ("/data/Average", "/data/average.png", "average=a"):
        (single,) = sweep.Pictures.parse(images)
        assert single.name.lower() == "average"
    # A name that is not a word is part of the path.
    assert sweep.Pictures.parse("~/a=b/*.png")[0].images == "~/a=b/*.png"


@pytest.mark.parametrize(
    "text,message",
    [
        ("", "expected NAME=IMAGES"),
        ("kodak=a;kodak=b", "the name 'kodak' is taken"),
        ("kodak=a;Kodak=b", "the name 'Kodak' is taken"),
        ("kodak=a;average=b", "the name 'average' is taken"),
        ("Average=a;kodak=b", "the name 'Average' is taken"),
        ("kodak=a;b/*.png", "several sets need names"),
    ],
)
def test_sets_of_pictures_without_distinct_names_are_rejected(text, message):
    with pytest.raises(EvaluationError, match=message):
        sweep.Pictures.parse(text)


def test_a_set_of_pictures_can_be_added_and_not_replaced(tmp_path):
    asked = {"images": "kodak"}
    sweep.claim(tmp_path, asked)
    sweep.claim(tmp_path, asked, {"more images": {"tecnick": "a"}})
    sweep.claim(tmp_path, asked, {"more images": {}})
    with pytest.raises(ValueError, match="differs in more images"):
        sweep.claim(tmp_path, asked, {"more images": {"tecnick": "b"}})


@pytest.mark.parametrize("spelling", [".0018", "0.00180", "1.8e-3", "18e-4"])
def test_a_run_is_found_in_any_spelling_of_its_numbers(tmp_path, spelling):
    there = sweep.Grid.parse("clip_norm=0.5;plan=mix", ["0.0018"], seeds=["2"]).runs()[0]
    there.folder(tmp_path).mkdir(parents=True)
    again = sweep.Grid.parse("clip_norm=.50;plan=mix", [spelling], seeds=["02"]).runs()[0]
    assert again.folder(tmp_path) == there.folder(tmp_path)
    other = sweep.Grid.parse("clip_norm=.50;plan=aun", [spelling]).runs()[0]
    assert not other.folder(tmp_path).exists()
    new = sweep.Grid.parse("clip_norm=.50;plan=mix", ["0.0019"]).runs()[0]
    assert new.folder(tmp_path).name == "lmbda=0.0019"


def test_values_that_follow_lmbda_are_kept_in_any_spelling(tmp_path):
    asked = {"base": "--N=4"}
    sweep.claim(tmp_path, asked, {"follow": {"0.01": {"N": "8"}}})
    sweep.claim(tmp_path, asked, {"follow": {".01": {"N": "8"}, "0.02": {"N": "9"}}})
    with pytest.raises(ValueError, match="differs in follow"):
        sweep.claim(tmp_path, asked, {"follow": {"1e-2": {"N": "16"}}})


@pytest.mark.parametrize("text", ["", '{"models": [', "[]", "{}", "\0"])
def test_a_report_that_was_not_written_to_its_end_is_none(tmp_path, text):
    (kodak,) = sweep.Pictures.parse("kodak=a")
    assert kodak.report(tmp_path) is None
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.json").write_text(text)
    assert kodak.report(tmp_path) is None
    (tmp_path / "report" / "report.json").write_text('{"models": []}')
    assert kodak.report(tmp_path) == {"models": []}
