"""Trains and measures a grid of experiments: one table of BD-rates, joint and post, and a plot.

    python sweep.py --base=configs/recipes/small.flags --grid='plan=aun,mix,sua_ste' \
      --lmbda=0.0067,0.025 --train_images=PHOTOGRAPHS --images=KODAK --out=sweeps/plans

Every cell is `train.py` with the base flagfile and the cell's flags, first its stage `joint`, then
`post` from there, then `eval.py`. Stopped at any moment, the same command goes on. A cell that
fails is named, with its last line, and left out of the table.

Six rates, the widths of each, two sets of pictures, three seeds, and a temperature for each rate:

    python sweep.py --base=configs/paper_ms_hyper_zero.flags --grid='plan=aun,mix,sua_ste' \
      --lmbda=0.0018,0.0035,0.0067,0.013,0.025,0.0483 \
      --follow='N=128,128,128,128,192,192;M=192,192,192,192,320,320' --choose_alpha=4,8,12 \
      --seeds=1,2,3 --images='kodak=KODAK;tecnick=TECNICK' \
      --anchor='kodak=BPG_KODAK.csv;tecnick=BPG_TECNICK.csv' --train_images=FLICKER2W \
      --out=sweeps/ms_hyper_zero
"""

from __future__ import annotations

import concurrent.futures
import os
import subprocess
import sys
from pathlib import Path

from tfquant import stack

stack.prepare("sweep.py")

from absl import app, flags

from tfquant import files
from tfquant.evaluation import EvaluationError, curves, report, sweep, sweep_table
from tfquant.export import model_file

_HERE = Path(__file__).resolve().parent

FLAGS = flags.FLAGS
flags.DEFINE_string("base", None, "Flagfile of train.py that all cells share.", required=True)
flags.DEFINE_string(
    "grid", "", "flag=value,value;flag=value,value: flags of train.py; every combination is a cell."
)
flags.DEFINE_string(
    "follow", "",
    "flag=value,value;flag=value,value: flags of train.py with a value for each of --lmbda, such as"
    " N=128,192;M=192,320.",
)  # fmt: skip
flags.DEFINE_list("lmbda", ["0.0067", "0.025"], "Weights of the distortion: a curve's points.")
flags.DEFINE_list(
    "seeds",
    [],
    "Values of --seed: every run once for each, and means with intervals in the table. Seeds may be"
    " added later. Empty: that of --base.",
)
flags.DEFINE_list(
    "choose_alpha",
    [],
    "Values of --alpha_max, such as 4,8,12. Every run of an annealed plan is trained through both"
    " stages with each; the lowest J on the validation pictures after post-training counts. Values"
    " may be added later.",
)
flags.DEFINE_string("train_images", "", "As train.py takes it.")
flags.DEFINE_string(
    "images", "sample",
    "Pictures to measure on, as eval.py takes them. Several sets: kodak=KODAK;tecnick=TECNICK. A"
    " table has each of them and the average of their BD-rates. Sets may be added later.",
)  # fmt: skip
flags.DEFINE_string("out", None, "Folder of the sweep; made if it is not there.", required=True)
flags.DEFINE_string(
    "anchor", None,
    "CSV of published points to compare with, as eval.py takes it. For several sets of pictures:"
    " kodak=CSV;tecnick=CSV.",
)  # fmt: skip
flags.DEFINE_string("anchor_codec", "BPG 4:4:4", "The codec to take from --anchor.")
flags.DEFINE_enum("bd_rate_method", "akima", list(curves.METHODS), "Interpolation for BD-rates.")
flags.DEFINE_integer(
    "jobs", 1, "Cells at a time, each on its share of the cores.", lower_bound=1
)  # fmt: skip


class CellFailed(Exception):
    """A program that a cell ran ended with an error; the message is its last line."""


def do(run: sweep.Run, pictures) -> None:
    """Trains both stages and measures them on each set; does nothing that was done before."""
    folder = run.folder(Path(FLAGS.out))
    for stage in sweep.STAGES:
        model_dir = folder / stage
        if (model_dir / model_file.FOLDER / model_file.MANIFEST).exists():
            continue
        first = [] if stage == sweep.STAGES[0] else [f"--init_from={folder / sweep.STAGES[0]}"]
        _run(
            "train.py", f"--flagfile={FLAGS.base}", *(f"--{k}={v}" for k, v in run.flags.items()),
            f"--lmbda={run.lmbda}", f"--stages={stage}", f"--model_dir={model_dir}",
            f"--train_images={FLAGS.train_images}", "--progress=line", *first,
            log=folder / "log.txt",
        )  # fmt: skip
    for each in pictures:
        if not (folder / each.folder / report.JSON).exists():
            _run(
                "eval.py", f"--model_dir={','.join(str(folder / s) for s in sweep.STAGES)}",
                f"--images={each.images}", f"--report_dir={folder / each.folder}",
                "--conventional=", "--noreconstructions", log=folder / "log.txt",
            )  # fmt: skip


def _run(script: str, *arguments: str, log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ)
    if FLAGS.jobs > 1:
        cores = max(1, len(os.sched_getaffinity(0)) // FLAGS.jobs)
        environment.setdefault("TF_NUM_INTRAOP_THREADS", str(cores))
    with open(log, "a", encoding="utf-8") as file:
        done = subprocess.run(
            [sys.executable, str(_HERE / script), *arguments],
            stdout=file, stderr=subprocess.STDOUT, env=environment, check=False,
        )  # fmt: skip
    if done.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = [line.strip() for line in lines if not line.startswith("Pass --help")][-1:]
        raise CellFailed(f"{' '.join(last)} (all of it: {log})")


def read_anchors(pictures) -> dict:
    """Name of a set of pictures -> the curve of --anchor on it; empty without --anchor.

    Raises:
      EvaluationError: --anchor lacks a set or names another, or cannot be read.
    """
    if not FLAGS.anchor:
        return {}
    names = [each.name for each in pictures]
    paths = {each.name: each.images for each in sweep.Pictures.parse(FLAGS.anchor)}
    if len(names) == len(paths) == 1:
        paths = dict(zip(names, paths.values()))
    if set(paths) != set(names):
        raise EvaluationError(
            f"--anchor: expected a CSV for each set of pictures, {', '.join(names)};"
            f" got {FLAGS.anchor!r}"
        )
    return {
        title: curves.read_published(Path(path), FLAGS.anchor_codec)
        for title, path in paths.items()
    }


def prepare() -> tuple:
    """(grid, sets of pictures, anchors); the folder belongs to them from here on.

    Raises:
      EvaluationError, OSError: a flag is wrong, or names what cannot be read.
      ValueError: the folder is another sweep's.
    """
    files.check_local_folder("--out", FLAGS.out)
    text = Path(FLAGS.base).read_text(encoding="utf-8")
    base = FLAGS.read_flags_from_files([f"--flagfile={FLAGS.base}"])
    grid = sweep.Grid.parse(
        FLAGS.grid, FLAGS.lmbda, FLAGS.follow, FLAGS.seeds, FLAGS.choose_alpha, base
    )
    pictures = sweep.Pictures.parse(FLAGS.images)
    anchors = read_anchors(pictures)
    first, *others = pictures
    sweep.claim(
        Path(FLAGS.out),
        {"base": text, "train_images": FLAGS.train_images,
         "images": first.images},
        {"follow": {lmbda: grid.followed(lmbda) for lmbda in grid.lmbdas},
         "more images": {each.name: each.images for each in others}},
    )  # fmt: skip
    return grid, pictures, anchors


def main(argv) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; everything is a --flag")
    try:
        grid, pictures, anchors = prepare()
    except (ValueError, OSError, flags.Error) as error:
        sys.exit(f"sweep.py: {error}")
    runs = grid.runs()
    print(f"{len(runs)} runs of two stages each", flush=True)
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(FLAGS.jobs) as pool:
        pending = {pool.submit(do, run, pictures): run for run in runs}
        for number, future in enumerate(concurrent.futures.as_completed(pending), start=1):
            outcome = "done"
            try:
                future.result()
            except CellFailed as error:
                failed += 1
                outcome = f"FAILED: {error}"
            print(f"[{number}/{len(runs)}] {pending[future]}: {outcome}", flush=True)
    text = sweep_table.summarize(Path(FLAGS.out), grid, pictures, anchors, FLAGS.bd_rate_method)
    print(f"\n{text}\nTables and plots: {FLAGS.out}")
    if failed:
        sys.exit(f"sweep.py: {failed} of {len(runs)} runs failed; the same command tries again")


if __name__ == "__main__":
    app.run(main)
