"""The sweep as a user runs it: on a tiny grid, and with substitutes for train.py and eval.py."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tfquant.commands import sweep
from tfquant.data import images

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.slow

BASE = """
--codec=factorized
--N=4
--M=6
--joint_steps=2
--post_steps=1
--epoch_steps=2
--batch_size=2
--crop=64
--validation_images=2
"""


def test_an_out_that_is_no_folder_of_this_machine_is_refused(tmp_path, program):
    for out in (f"file://{tmp_path}/out", ""):
        code, _, err = program("sweep", "--base=unused", f"--out={out}")
        message = f"sweep.py: --out must name a folder of this machine; got {out!r}\n"
        assert (code, err) == (1, message)


SWEEP = """
import sys
from tfquant.commands import sweep
from tfquant.commands.program import run_program
sweep.PROGRAMS = {name: (sys.executable, f"{name}.py") for name in ("train", "eval")}
run_program("sweep")
"""

# J is lowest for alpha_max 8, and increases by 0.25 per seed.
TRAIN = """
import json, pathlib, sys
words = [a.lstrip("-").partition("=") for a in sys.argv[1:]]
flags = {name: value for name, _, value in words}
folder = pathlib.Path(flags["model_dir"])
folder.mkdir(parents=True)
alpha, seed = float(flags.get("alpha_max", 12)), int(flags.get("seed", 1))
if flags.get("plan") == "aun" and flags.get("seed"):
    sys.exit("train.py: no such plan")
if flags["stages"] == "post":
    assert pathlib.Path(flags["init_from"], "history.json").exists()
J = 2 + abs(alpha - 8) / 8 + seed / 4
record = {"stage": flags["stages"], "J": J, "surrogate_J": J - 1}
(folder / "history.json").write_text(json.dumps([record]))
(folder / "flags.json").write_text(json.dumps(flags))
(folder / "export").mkdir()
(folder / "export" / "tfquant.json").write_text("{}")
"""

# Pictures cost 0.1 bpp for each unit of alpha_max.
EVAL = """
import json, pathlib, sys
flags = dict(a.lstrip("-").split("=", 1) for a in sys.argv[1:] if "=" in a)
models = []
for folder in map(pathlib.Path, flags["model_dir"].split(",")):
    trained = json.loads((folder / "flags.json").read_text())
    psnr = {"0.01": 30.0, "0.02": 33.0}[trained["lmbda"]]
    bpp = float(trained.get("alpha_max", 12)) * psnr / 300
    image = {"name": "a", "bpp": bpp, "psnr": psnr}
    models.append({"name": folder.name, "images": [image]})
report = pathlib.Path(flags["report_dir"])
report.mkdir()
text = json.dumps({"models": models, "images": flags["images"]})
(report / "report.json").write_text(text)
"""


# The real train.py, without tracing.
TRAIN_QUICKLY = f"""
import sys
from tfquant.commands.program import run_program
sys.path.append({str(ROOT / "tests")!r})
import quick_exports
quick_exports.use_rebuilt()
run_program("train")
"""

EVAL_AS_IT_IS = """
from tfquant.commands.program import run_program
run_program("eval")
"""


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture(name="beside")
def _beside(tmp_path, monkeypatch, program):
    """Returns `beside(train, evaluate, base)`, which returns `run(*arguments, process=False)`.

    It runs sweep.py in a folder where train.py, eval.py and the base have these contents. Only
    train.py and eval.py are processes of their own, or sweep.py too.
    """
    programs = {name: (sys.executable, f"{name}.py") for name in ("train", "eval")}

    def run(*arguments, process=False):
        arguments = ["--base=base.flags", "--out=out", *arguments]
        if process:
            return subprocess.run(
                [sys.executable, "sweep.py", *arguments],
                cwd=tmp_path, capture_output=True, text=True, timeout=3600, check=False,
            )  # fmt: skip
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sweep, "PROGRAMS", programs)
        return Done(*program("sweep", *arguments))

    def beside(train, evaluate, base):
        (tmp_path / "sweep.py").write_text(SWEEP)
        (tmp_path / "train.py").write_text(train)
        (tmp_path / "eval.py").write_text(evaluate)
        (tmp_path / "base.flags").write_text(base)
        for folder in ("K", "T"):
            (tmp_path / folder).mkdir(exist_ok=True)
            images.write_image(str(tmp_path / folder / "a.png"), np.zeros([8, 8, 3], np.uint8))
        return run

    return beside


@pytest.fixture(name="beside_stand_ins")
def _beside_stand_ins(beside):
    """Returns `run(*arguments)`, which runs sweep.py with substitutes for train.py and eval.py."""
    return beside(TRAIN, EVAL, "--N=1\n--seed=2\n")


def test_a_tiny_grid_fills_its_tables(beside, tmp_path, make_photograph):
    run = beside(TRAIN_QUICKLY, EVAL_AS_IT_IS, BASE)
    pictures, out = tmp_path / "pictures", tmp_path / "out"
    pictures.mkdir()
    for seed in range(4):
        images.write_image(str(pictures / f"{seed}.png"), make_photograph(64, 64, seed))
    first = run("--grid=plan=mix;joint_sigma_bound=0.11", "--lmbda=0.01",
                f"--images={pictures / '0.png'}", f"--train_images={pictures}")  # fmt: skip
    assert first.returncode == 0, first.stdout + first.stderr
    assert "[1/1] plan=mix" in first.stdout and "FAILED" not in first.stdout
    with open(out / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["plan"] for row in rows] == ["mix"]
    assert all(float(row[f"bpp_{stage}_0.01"]) > 0 for row in rows for stage in ("joint", "post"))
    with open(out / "runs.csv", newline="") as file:
        (run,) = csv.DictReader(file)
    assert all(float(run[key]) > 0 for key in ("J_joint", "surrogate_J_joint", "J_post"))
    # Post-training trains on rounding.
    assert abs(float(run["surrogate_J_post"]) / float(run["J_post"]) - 1) < 1e-6


def test_everything_at_once_runs_and_goes_on_where_it_was_stopped(beside_stand_ins, tmp_path):
    out = tmp_path / "out"
    command = (
        "--grid=plan=mix,aun,sua_ste", "--lmbda=0.01,0.02", "--follow=N=4,8",
        "--images=kodak=K;tecnick=T", "--seeds=2,3", "--choose_alpha=4,8", "--jobs=2",
    )  # fmt: skip
    done = beside_stand_ins(*command, process=True)
    assert done.returncode == 1 and "sweep.py: 4 of 16 runs failed" in done.stderr, done.stderr
    assert "plan=sua_ste, lmbda=0.02, seed=3, alpha_max=4: done" in done.stdout
    assert "plan=aun, lmbda=0.01, seed=2: FAILED: train.py: no such plan" in done.stdout
    # The base's own seed has no folder. The default of alpha_max, 12, is not among the choices.
    run = out / "plan=sua_ste" / "lmbda=0.02"
    assert json.loads((run / "alpha_max=8/post/flags.json").read_text())["N"] == "8"
    assert json.loads((run / "seed=3/alpha_max=4/report/report.json").read_text())["images"] == "K"
    assert json.loads((run / "alpha_max=4/report_tecnick/report.json").read_text())["images"] == "T"
    with open(out / "runs.csv", newline="") as file:
        runs = [row for row in csv.DictReader(file) if row["plan"] == "sua_ste"]
    assert {(row["alpha_max"], row["chosen"]) for row in runs} == {("8", "True"), ("4", "False")}
    assert [float(row["J_post"]) for row in runs if row["lmbda"] == "0.01"] == [3, 2.5, 3.25, 2.75]
    with open(out / "table.csv", newline="") as file:
        rows = {(row["plan"], row["images"]): row for row in csv.DictReader(file)}
    # 8 instead of 12 at all rates is a third less.
    assert abs(float(rows["sua_ste", "average"]["bd_rate_post"]) + 100 / 3) < 1e-6
    logs = {path: path.read_text() for path in out.rglob("*.json")}
    again = beside_stand_ins(*command)
    assert again.returncode == 1 and "4 of 16 runs failed" in again.stderr
    assert logs == {path: path.read_text() for path in out.rglob("*.json")}


@pytest.mark.parametrize("where", ["flag", "base"])
def test_the_background_reaches_both_programs_and_skipped_pictures_the_status(
    beside, tmp_path, where
):
    record = 'text = json.dumps({"models": models, "background": flags["background"]})'
    measure = EVAL.replace(
        'text = json.dumps({"models": models, "images": flags["images"]})', record
    )
    left_out = "\nif flags['stages'] == 'post' and flags['lmbda'] == '0.02': sys.exit(3)\n"
    base = "--plan=aun\n" + ("--background=black\n" if where == "base" else "")
    run = beside("import sys\nsys.argv[1:] += open('base.flags').read().split()\n"
                 + TRAIN + left_out, measure, base)  # fmt: skip
    given = ["--background=1,2,3"] if where == "flag" else []
    done = run("--lmbda=0.01,0.02", "--images=K", *given)
    message = "sweep.py: 1 of 2 runs skipped pictures; their logs name them\n"
    assert (done.returncode, done.stderr) == (3, message)
    assert "lmbda=0.02: done, without the pictures that its log names" in done.stdout
    colour = "black" if where == "base" else "1,2,3"
    for lmbda in ("0.01", "0.02"):
        folder = tmp_path / "out" / "all" / f"lmbda={lmbda}"
        for stage in ("joint", "post"):
            assert json.loads((folder / stage / "flags.json").read_text())["background"] == colour
        assert json.loads((folder / "report/report.json").read_text())["background"] == colour
    assert run("--lmbda=0.01,0.02", "--images=K", "--background=2,3,4").returncode == 1
    done = run("--lmbda=0.01,0.02", "--images=K", "--background=pink")
    assert done.returncode == 1 and "'pink' is not a colour" in done.stderr


def test_an_anchor_belongs_to_one_set_of_pictures(beside_stand_ins, tmp_path):
    (tmp_path / "bpg.csv").write_text("metric,codec,bpp,value\nPSNR,BPG 4:4:4,0.5,30\n")
    done = beside_stand_ins("--images=kodak=K;tecnick=T", "--anchor=bpg.csv")
    assert done.returncode == 1 and not (tmp_path / "out").exists()
    expected = "sweep.py: --anchor: expected a CSV for each set of pictures, kodak, tecnick; got"
    assert done.stderr.startswith(expected)


# Post-training with alpha_max 8 at the higher rate ends after its first record.
FAIL_AFTER_A_RECORD = """
if (flags["stages"], flags["lmbda"], alpha) == ("post", "0.02", 8):
    (folder / "export" / "tfquant.json").unlink()
    sys.exit("train.py: diverged")
"""


def test_a_run_that_failed_is_neither_chosen_nor_measured(beside, tmp_path):
    run = beside(TRAIN + FAIL_AFTER_A_RECORD, EVAL, "--seed=1\n--plan=sua_ste\n")
    done = run("--lmbda=0.01,0.02", "--images=K", "--choose_alpha=4,8")
    assert done.returncode == 1 and "1 of 4 runs failed" in done.stderr
    with open(tmp_path / "out" / "runs.csv", newline="") as file:
        runs = {(row["lmbda"], row["alpha_max"]): row for row in csv.DictReader(file)}
    assert [key for key, row in runs.items() if row["chosen"] == "True"] == [
        ("0.01", "8"), ("0.02", "4"),
    ]  # fmt: skip
    failed = runs["0.02", "8"]
    assert (failed["J_joint"], failed["J_post"], failed["bpp_post_K"]) == (
        "2.25",
        "failed",
        "failed",
    )
    # Repeated with the failed candidate alone, its cell has no result.
    done = run("--lmbda=0.01,0.02", "--images=K", "--choose_alpha=8")
    assert done.returncode == 1
    (row,) = csv.DictReader((tmp_path / "out" / "table.csv").read_text().splitlines())
    assert (row["bd_rate_joint"], row["bd_rate_post"], row["bpp_post_0.02"]) == ("failed",) * 3


def test_other_spellings_of_its_numbers_train_nothing_again(beside, tmp_path):
    run = beside(TRAIN, EVAL, "--seed=1\n--plan=sua_ste\n")
    assert run("--lmbda=0.01,0.02", "--images=K", "--choose_alpha=4,8").returncode == 0
    files = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.json")}
    done = run("--lmbda=.01,2e-2", "--images=K", "--choose_alpha=4.0,8.", "--seeds=01")
    assert done.returncode == 0, done.stderr
    again = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.json")}
    assert again == files
    rows = csv.DictReader((tmp_path / "out" / "runs.csv").read_text().splitlines())
    assert all(row["bpp_post_K"] for row in rows)


# The run as a user exported it before its end: one of two steps.
UNFINISHED = """
import dataclasses
from tfquant.training.experiment import Experiment
record = {"experiment": dataclasses.asdict(Experiment(stages=("joint",), joint_steps=2))}
if flags["stages"] == "joint":
    (folder / "experiment.json").write_text(json.dumps(record))
    done = json.loads((folder / "history.json").read_text())
    done[0]["step"] = 2 if again else 1
    (folder / "history.json").write_text(json.dumps(done))
"""


def test_a_run_that_was_exported_before_its_end_is_continued_and_measured_again(beside, tmp_path):
    train = TRAIN.replace(
        "folder.mkdir(parents=True)", "again = folder.exists(); folder.mkdir(0o777, True, True)"
    ).replace('(folder / "export").mkdir()', '(folder / "export").mkdir(exist_ok=True)')
    run = beside(train + UNFINISHED, EVAL, "--plan=aun\n")
    out = tmp_path / "out" / "all" / "lmbda=0.01"
    assert run("--lmbda=0.01", "--images=K").returncode == 0
    (row,) = csv.DictReader((tmp_path / "out" / "runs.csv").read_text().splitlines())
    assert (row["J_joint"], row["J_post"]) == ("failed", "2.75")
    (out / "report" / "of_the_first_model").touch()
    done = run("--lmbda=0.01", "--images=K")
    assert done.returncode == 1
    assert "lmbda=0.01/post started from a model that was exported before the end" in done.stdout
    shutil.rmtree(out / "post")
    assert run("--lmbda=0.01", "--images=K").returncode == 0
    (row,) = csv.DictReader((tmp_path / "out" / "runs.csv").read_text().splitlines())
    assert (row["J_joint"], row["bpp_post_K"]) == ("2.75", "1.2")
    assert [path.name for path in (out / "report").iterdir()] == ["report.json"]
    written = (out / "report" / "report.json").stat().st_mtime_ns
    assert run("--lmbda=0.01", "--images=K").returncode == 0
    assert (out / "report" / "report.json").stat().st_mtime_ns == written


def test_a_program_that_cannot_start_fails_its_run_only(beside, tmp_path, monkeypatch):
    run = beside(TRAIN, EVAL, "--plan=aun\n")
    assert run("--lmbda=0.01", "--images=K").returncode == 0

    def gone(*_, **__):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(sweep.subprocess, "run", gone)
    done = run("--lmbda=0.01,0.02", "--images=K")
    assert done.returncode == 1 and "1 of 2 runs failed" in done.stderr
    assert "lmbda=0.02: FAILED: [Errno 12] Cannot allocate memory" in done.stdout
    (row,) = csv.DictReader((tmp_path / "out" / "table.csv").read_text().splitlines())
    assert (row["bpp_post_0.01"], row["bpp_post_0.02"]) == ("1.2", "failed")
