"""The sweep as a user runs it, on a tiny grid: trains, measures, tabulates, resumes."""

import csv
import subprocess
import sys
from pathlib import Path

from tfquant import images

ROOT = Path(__file__).resolve().parent.parent

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


def sweep(*arguments):
    return subprocess.run(
        [sys.executable, "sweep.py", *arguments], cwd=ROOT, capture_output=True, text=True,
        timeout=600, check=False,
    )  # fmt: skip


def test_a_tiny_grid_fills_its_table_and_goes_on_where_it_was_stopped(tmp_path, photograph):
    base, picture, out = tmp_path / "base.flags", tmp_path / "picture.png", tmp_path / "out"
    base.write_text(BASE)
    images.write_image(str(picture), photograph[:64, :64])
    command = (
        f"--base={base}", "--grid=plan=mix;joint_sigma_bound=0.11", "--lmbda=0.01",
        f"--images={picture}", f"--out={out}",
    )  # fmt: skip
    first = sweep(*command)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "[1/1] plan=mix" in first.stdout and "FAILED" not in first.stdout
    with open(out / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["plan"] for row in rows] == ["mix"]
    assert all(float(row[f"bpp_{stage}_0.01"]) > 0 for row in rows for stage in ("joint", "post"))
    logs = {path: path.read_text() for path in out.rglob("log.txt")}
    assert len(logs) == 1
    again = sweep(*command)
    assert again.returncode == 0 and "FAILED" not in again.stdout
    assert logs == {path: path.read_text() for path in out.rglob("log.txt")}  # nothing ran twice


def test_an_out_that_is_no_folder_of_this_machine_is_refused(tmp_path):
    for out in (f"file://{tmp_path}/out", ""):
        done = sweep("--base=unused", f"--out={out}")
        message = f"sweep.py: --out must name a folder of this machine; got {out!r}\n"
        assert (done.returncode, done.stderr) == (1, message)


def test_a_cell_that_cannot_be_trained_is_named_and_the_others_go_on(tmp_path):
    base = tmp_path / "base.flags"
    base.write_text(BASE + "--batch_size=3\n--joint_schedule=nonsense\n")
    done = sweep(f"--base={base}", "--lmbda=0.01", f"--out={tmp_path / 'out'}")
    assert done.returncode == 1
    assert "[1/1] all, lmbda=0.01: FAILED: " in done.stdout and "nonsense" in done.stdout
    assert "1 of 1 runs failed" in done.stderr
