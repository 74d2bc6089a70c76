"""Tests what a sweep rejects before its first run. No program is started."""

import json

import numpy as np
import pytest
import tensorflow as tf

from tfquant import models
from tfquant.commands import sweep, sweep_checks
from tfquant.data import images
from tfquant.evaluation import EvaluationError
from tfquant.evaluation.sweep import Grid, Pictures

BASE = "--codec=ms_hyper_zero\n--N=8\n--M=12\n--joint_steps=20\n--post_steps=10\n--epoch_steps=10\n"


@pytest.fixture(name="start")
def _start(tmp_path, monkeypatch, program):
    """Returns `start(*arguments, base=BASE)`: the code and the error of a sweep.

    The sweep ends before its first run. The code is then 0.
    """
    monkeypatch.chdir(tmp_path)

    def start(*arguments, base=BASE):
        (tmp_path / "base.flags").write_text(base)
        begun = []
        monkeypatch.setattr(sweep, "do", lambda run, prepared: begun.append(prepared))
        monkeypatch.setattr(sweep.sweep_table, "summarize", lambda *_: "")
        code, start.out, err = program("sweep", "--base=base.flags", "--out=out", *arguments)
        assert bool(begun) == (code == 0)
        start.prepared = begun[0] if begun else None
        return code, err

    return start


def pictures(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        images.write_image(str(folder / name), np.zeros([8, 8, 3], np.uint8))


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "0", "", "a", "0.01,0.01", ".01,1e-2"])
def test_an_impossible_lmbda_is_named(start, text):
    code, err = start(f"--lmbda={text}")
    assert (code, err) == (
        1, f"sweep.py: --lmbda takes distinct values above 0, such as 0.0067,0.025; got {text!r}\n"
    )  # fmt: skip


@pytest.mark.parametrize("text", ["nan", "inf", "-4,8", "0", "a,4", "4,4.0", "8,8e0"])
def test_an_impossible_temperature_is_named(start, text):
    code, err = start(f"--choose_alpha={text}")
    assert code == 1 and err.startswith("sweep.py: --choose_alpha takes distinct numbers above 0")
    assert err.count("\n") == 1 and repr(text) in err


@pytest.mark.parametrize(
    "arguments,message",
    [
        (["--grid=plan=mix,nonsense"], "--grid: flag --plan=nonsense: "),
        (["--grid=joint_sigma_bound=0.11,nan"], "--grid: joint_sigma_bound must be a positive"),
        (["--grid=clip_norm=0,-1"], "--grid: clip_norm must be a number of at least 0; got -1"),
        (["--grid=clip_norm=0,inf"], "--grid: clip_norm must be"),
        (["--grid=M=12,many"], "--grid: flag --M=many: "),
        (["--grid=width=3"], "--grid: 'width' is not a flag of train.py"),
        (["--grid=jobs=3"], "--grid: 'jobs' is not a flag of train.py"),
        (["--grid=rate_branch=aun:nothing"], "--grid: "),
        (["--grid=crop=100"], "--grid: crop must be a multiple of 64; got 100"),
        (["--grid=epoch_steps=7"], "--grid: stage 'joint' has 20 steps, which is not a multiple"),
        (["--grid=post_steps=0"], "--grid: nothing to train: post_steps=0"),
        (["--grid=lmbda_range=.0018,.0483"], "--grid: lmbda_range takes two positive numbers"),
        (["--grid=slices=2"], "--grid: ms_hyper_zero has no option 'slices'; known: "),
        (["--grid=codec=charm;slices=5,3"], "--grid: slices must divide M: got 5 slices of 12"),
        (["--grid=plan=mix,mix"], "--grid: plan takes distinct values"),
        (["--grid=clip_norm=.5,0.5"], "--grid: clip_norm takes distinct values"),
        (["--grid=hyper_aun=true,1"], "--grid: the runs hyper_aun=true, lmbda=0.0067 and hyper_au"),
        (["--grid=flagfile=a,b"], "--grid: a: No such file or directory"),
        (["--follow=flagfile=a,b"], "--follow: a: No such file or directory"),
        (["--grid=explore_qr=true"], "--grid: explore_qr is set by the sweep itself"),
        (
            ["--grid=codec=scale_hyperprior,ms_hyper;plan=aun;mean_gradient=expected"],
            "--grid: mean_gradient 'expected' needs a Gaussian or a Laplacian",
        ),
        (["--follow=N=8,0"], "--follow: flag --N=0: "),
        (["--follow=crop=64,65"], "--follow: crop must be a multiple of 64; got 65"),
        (["--follow=nothing=1,2"], "--follow: 'nothing' is not a flag of train.py"),
        (["--choose_alpha=4,0.5"], "--choose_alpha: alpha_max must not be below alpha_min=1.0"),
        (["--seeds=1,-1"], "--seeds: seed must be a number of at least 0; got -1"),
        (["--seeds=1,4294967296"], "--seeds: seed must be below 4294967296"),
        (["--anchor_codec=BPG 4:2:0"], "--anchor_codec: expected --anchor with the file to read"),
        (["--images=nowhere"], "--images: nowhere: no such file or folder"),
        (["--images=kodak=sample;b=nowhere"], "--images: nowhere: no such file or folder"),
        (["--train_images=nowhere"], "--train_images: nowhere: no such file or folder"),
        (["--train_images=records:nowhere"], "--train_images: "),
        (["--anchor=;"], "--anchor: expected NAME=IMAGES"),
    ],
)
def test_a_value_that_would_fail_in_a_run_is_one_line_that_names_the_flag(
    start, tmp_path, arguments, message
):
    code, err = start(*arguments)
    assert code == 1 and err.startswith(f"sweep.py: {message}") and err.count("\n") == 1, err
    assert not (tmp_path / "out").exists()


def test_flagfiles_of_a_grid_are_read_once(start, tmp_path):
    """Tests that checks and runs have the flags of the files, and that those of the sweep win."""
    (tmp_path / "a.flags").write_text("--plan=aun\n--nohyper_aun\n--lmbda=9\n--stages=post\n")
    (tmp_path / "b.flags").write_text("--flagfile=c.flags\n--train_images=nowhere\n--seed=7\n")
    (tmp_path / "c.flags").write_text("--plan=sua_ste\n--alpha_max=8\n--jit_compile\n")
    grid = ["--grid=flagfile=a.flags,b.flags;N=4", "--lmbda=0.01"]
    assert start(*grid) == (0, "")
    first, second = start.prepared.grid.runs()
    assert (str(first), first.lmbda) == ("flagfile=a.flags+N=4, lmbda=0.01", "0.01")
    assert first.flags == {"plan": "aun", "hyper_aun": "false", "N": "4"}
    assert second.flags == {
        "plan": "sua_ste", "alpha_max": "8.0", "jit_compile": "true", "seed": "7", "N": "4",
    }  # fmt: skip
    assert start(*grid, "--choose_alpha=8,16", "--seeds=1") == (0, "")
    first, *others = start.prepared.grid.runs()
    assert [run.flags["alpha_max"] for run in others] == ["8", "16"]
    assert {run.flags["seed"] for run in others} == {"1"} and "alpha_max" not in first.flags
    # The seed and the temperature of the file keep the folder without them.
    assert [run.below for run in others] == [("seed=1",), ("seed=1", "alpha_max=16")]


@pytest.mark.parametrize(
    "text,message",
    [
        ("--plan=nonsense\n", "--grid: flag --plan=nonsense: "),
        ("--crop=100\n", "--grid: crop must be a multiple of 64; got 100"),
        ("--width=3\n", "--grid: 'width' is not a flag of train.py"),
        ("--explore_qr\n", "--grid: a sweep cannot search for a weight"),
        ("--lmbda_range=.0018,.0483\n", "--grid: a.flags has lmbda_range, which must be in --ba"),
        ("plan\n", "--grid: a.flags: expected a line --flag=value"),
    ],
)
def test_a_wrong_flagfile_of_a_grid_is_named(start, tmp_path, text, message):
    (tmp_path / "a.flags").write_text(text)
    code, err = start("--grid=flagfile=a.flags")
    assert code == 1 and err.startswith(f"sweep.py: {message}") and err.count("\n") == 1, err


@pytest.mark.parametrize(
    "base,message",
    [
        ("--plan=nonsense\n", "--base: flag --plan=nonsense: "),
        ("--clip_norm=nan\n", "--base: clip_norm must be a number of at least 0; got nan"),
        ("--grid=plan=mix\n", "--base: 'grid' is not a flag of train.py"),
        ("--explore_qr\n", "--base: a sweep cannot search for a weight"),
        ("--flagfile=missing.flags\n", "--base: missing.flags: No such file or directory"),
        ("--train_images=nowhere\n", "--train_images: nowhere: no such file or folder"),
        ("--post_steps=0\n", "--base: nothing to train: post_steps=0"),
        ("--lmbda_range=.0483,.0018\n--lmbda=1\n", "--base: lmbda_range takes two positive"),
    ],
)
def test_a_wrong_base_is_named(start, base, message):
    code, err = start(base=BASE + base)
    assert code == 1 and err.startswith(f"sweep.py: {message}") and err.count("\n") == 1, err


def test_values_that_are_possible_only_together_are_accepted(start):
    """Tests that a run is checked as a whole: alpha_min 20 is above the default of alpha_max."""
    assert start("--grid=alpha_min=20;alpha_max=30,40") == (0, "")
    assert start("--grid=alpha_min=20;alpha_max=10,40")[1].startswith("sweep.py: --grid: alpha_max")


def test_a_codec_of_the_user_is_not_built_before_the_first_run(start, monkeypatch):
    """Tests a constructor that needs eager execution, with a known and an unknown option."""

    class Own(models.CODECS["scale_hyperprior"]):
        def __init__(self, N: int = 4, M: int = 6):
            super().__init__(N, M)
            self.scale = tf.ones([]).numpy()

    monkeypatch.setitem(models.CODECS, "own", Own)
    assert start("--grid=codec=own") == (0, "")
    code, err = start("--grid=codec=own;slices=2")
    assert code == 1 and err.startswith("sweep.py: --grid: own has no option 'slices'; known: N, M")


def test_folders_without_readable_pictures_are_named(start, tmp_path):
    pictures(tmp_path / "one", "a.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"no picture")
    for flag, folder, reason in (
        ("images", "empty", "no pictures in this folder"),
        ("images", "broken", "none of 1 pictures can be read"),
        ("train_images", "empty", "no pictures in this folder"),
        ("train_images", "broken", "none of 1 pictures can be read"),
        ("train_images", "one", "one picture alone cannot be split into training and validation"),
    ):
        code, err = start(f"--{flag}={folder}")
        lines = [line for line in err.splitlines() if line.startswith("sweep.py: ")]
        assert code == 1 and len(lines) == 1 and lines[0].startswith(f"sweep.py: --{flag}: ")
        assert reason in lines[0]
    assert start("--images=one") == (0, "")


def test_pictures_that_nothing_needs_any_more_may_be_gone(tmp_path):
    """Tests a sweep with one run that is trained and measured."""
    grid = Grid.parse("", ["0.01"])
    (run,), (kodak,) = grid.runs(), Pictures.parse("kodak=gone")
    for stage in ("joint", "post"):
        path = run.folder(tmp_path) / stage / "export" / "tfquant.json"
        path.parent.mkdir(parents=True)
        path.write_text("{}")
    with pytest.raises(EvaluationError, match="--images: gone: no such"):
        sweep_checks.check_pictures([run], [kodak], "gone", "", tmp_path)
    (run.folder(tmp_path) / "report").mkdir()
    (run.folder(tmp_path) / "report" / "report.json").write_text('{"models": []}')
    sweep_checks.check_pictures([run], [kodak], "gone", "", tmp_path)


def test_an_included_flagfile_may_not_change_and_comments_may(start, tmp_path):
    (tmp_path / "included.flags").write_text("--clip_norm=0.5\n")
    base = f"--flagfile={tmp_path}/included.flags\n--N=8\n--nohyper_aun\n"
    assert start(base=base) == (0, "")
    record = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert record["base"] == ["--N=8", "--clip_norm=0.5", "--nohyper_aun"]
    assert "--clip_norm=0.5" in start.prepared.arguments
    assert start(base=f"# a comment\n{base}") == (0, "")
    (tmp_path / "included.flags").write_text("--clip_norm=.50\n")
    assert start(base=base) == (0, "")
    (tmp_path / "included.flags").write_text("--clip_norm=1\n")
    code, err = start(base=base)
    assert code == 1 and "contains another sweep (differs in base)" in err


def test_a_folder_of_an_earlier_version_is_continued(start, tmp_path):
    """Tests a record with the base as text."""
    (tmp_path / "out").mkdir()
    record = {"base": f"# old\r\n{BASE}--lmbda=1\n", "train_images": "", "images": "sample"}
    for change, code in (("", 0), ("--clip_norm=2\n", 1)):
        text = json.dumps({**record, "base": record["base"] + change})
        (tmp_path / "out" / "sweep.json").write_text(text)
        assert start()[0] == code


def test_training_pictures_of_the_base_are_used(start, tmp_path):
    pictures(tmp_path / "photographs", "a.png", "b.png")
    pictures(tmp_path / "others", "a.png", "b.png")
    base = BASE + f"--train_images={tmp_path}/photographs\n"
    assert start(base=base) == (0, "")
    assert start.prepared.arguments[-1] == f"--train_images={tmp_path}/photographs"
    code, err = start(f"--train_images={tmp_path}/others", base=base)
    assert code == 1 and "differs in train_images" in err


def test_a_sweep_begun_without_the_pictures_of_its_base_goes_on_with_dead_leaves(start, tmp_path):
    """Tests a record of an earlier version, which ignored --train_images of --base."""
    pictures(tmp_path / "photographs", "a.png", "b.png")
    base = BASE + f"--train_images={tmp_path}/photographs\n"
    (tmp_path / "out").mkdir()
    record = {"base": base, "train_images": "", "images": "sample"}
    (tmp_path / "out" / "sweep.json").write_text(json.dumps(record))
    code, err = start(base=base)
    assert code == 1 and "differs in train_images" in err
    assert start("--train_images=dead_leaves", base=base) == (0, "")
    assert start.prepared.arguments[-1] == "--train_images=dead_leaves"


def test_a_range_of_rates_takes_one_lmbda(start):
    base = BASE + "--lmbda_range=.0018,.0483\n--lmbda=0.004\n"
    assert start(base=base) == (0, "")
    assert start.prepared.grid.lmbdas == ("0.004",)
    assert start("--lmbda=0.01", "--grid=plan=aun,mix", base=base) == (0, "")
    code, err = start("--lmbda=0.01,0.02", base=base)
    assert code == 1 and err.startswith("sweep.py: --lmbda takes one value if --base has lmbda_ran")


@pytest.mark.parametrize(
    "method,lmbda,note",
    [("cubic", ".01,.02,.03", True), ("cubic", ".01,.02,.03,.04", False), ("pchip", ".01", True)],
)
def test_too_few_points_for_an_interpolation_are_a_note(start, method, lmbda, note):
    assert start(f"--bd_rate_method={method}", f"--lmbda={lmbda}") == (0, "")
    needed = {"cubic": 4, "pchip": 2}[method]
    line = f"no BD-rates: {method} needs {needed} points of a curve, and --lmbda has "
    assert (line in start.out) == note


def test_flags_of_absl_are_allowed_in_a_base():
    assert sweep_checks.base_flags(["--verbosity=1", "--N=4", "--N=5"]) == ["--N=5"]
