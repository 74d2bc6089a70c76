r"""Trains and measures a grid of experiments. Makes a table of BD-rates (joint, post) and a plot.

    python sweep.py --base=configs/recipes/small.flags --grid='plan=aun,mix,sua_ste' \
      --lmbda=0.0067,0.025 --train_images=PHOTOGRAPHS --images=KODAK --out=sweeps/plans

Every cell runs `train.py` with the flags of the base flagfile and of the cell: first the stage
`joint`, then `post`, which starts from it. `eval.py` follows. The flags of all runs and the
pictures are checked before the first run. After an interruption, run the same command again to
resume. A run that fails is reported with the last line of its output, and its results are `failed`
in the tables.

This example uses six rates, a width for each, two sets of pictures, three seeds, and a temperature
for each rate:

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
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from absl import app, flags

from tfquant import files
from tfquant.commands import anchor_flags, flagfiles, sweep_checks
from tfquant.commands.outcome import one_line
from tfquant.commands.program import LEFT_OUT, Flag, define, end, expand_paths, program_name
from tfquant.data import background
from tfquant.evaluation import EvaluationError, curves, report, sweep, sweep_table
from tfquant.training.experiment import Experiment

_FLAGS = (
    Flag("base", str, None, "Flagfile of train.py for all cells.", required=True),
    Flag(
        "grid", str, "",
        "flag=value,value;flag=value,value: flags of train.py. Every combination is a cell."
        " flagfile=FILE,FILE compares flagfiles; the sweep replaces their lmbda and train_images.",
    ),
    Flag(
        "follow", str, "",
        "flag=value,value;flag=value,value: flags of train.py with one value for each value of"
        " --lmbda, such as N=128,192;M=192,320.",
    ),
    Flag(
        "lmbda", list, ["0.0067", "0.025"],
        "Weights of the distortion: the points of a curve. If --base has lmbda_range, a model is a"
        " whole curve, and there is one lmbda, by default that of --base.",
    ),
    Flag(
        "seeds", list, [],
        "Values of --seed: every run is trained once for each, and the table has means and"
        " intervals. Seeds may be added later. Empty: the seed of --base.",
    ),
    Flag(
        "choose_alpha", list, [],
        "Values of --alpha_max, such as 4,8,12. Every run of an annealed plan is trained through"
        " both stages with each value. The value with the lowest J on the validation pictures after"
        " post-training is used. Values may be added later.",
    ),
    Flag(
        "train_images", str, "", "Training pictures, as in train.py. Empty: those of --base.",
    ),
    Flag(
        "images", str, "sample",
        "Pictures for the measurement, as in eval.py. Several sets: kodak=KODAK;tecnick=TECNICK. A"
        " table then has each set and the average of their BD-rates. Sets may be added later.",
    ),
    Flag(
        "background", str, "",
        f"A colour, for train.py and eval.py: {background.HELP}. Empty: that of --base.",
    ),
    Flag("out", str, None, "Folder of the sweep; created if it does not exist.", required=True),
    Flag(
        "anchor", str, None,
        "CSV of published points for comparison, as in eval.py. For several sets of pictures:"
        " kodak=CSV;tecnick=CSV.",
    ),
    anchor_flags.CODEC,
    Flag("bd_rate_method", tuple(curves.METHODS), "akima", "Interpolation for BD-rates."),
    Flag(
        "jobs", int, 1,
        "Number of cells to run at a time, each on its share of the cores.", least=1,
    ),
)  # fmt: skip


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of `sweep.py`."""
    define(values, _FLAGS)


# Maps a program that a cell runs to its command.
PROGRAMS = {name: (sys.executable, "-m", "tfquant.cli", name) for name in ("train", "eval")}


class CellFailed(Exception):
    """Error: a program that a cell ran has failed. The message is the last line of its output."""


class Prepared(NamedTuple):
    """A sweep whose flags are valid.

    Attributes:
      grid: its grid.
      pictures: the sets of pictures of the measurement.
      anchors: map from the name of a set to the curve of --anchor.
      arguments: arguments of train.py that all runs have. Included flagfiles are expanded, so that
        a change of them during the sweep has no effect.
      background: value of `--background` of train.py and eval.py, or "".
    """

    grid: sweep.Grid
    pictures: Sequence[sweep.Pictures]
    anchors: dict[str, curves.Curve]
    arguments: Sequence[str]
    background: str


def do(run: sweep.Run, prepared: Prepared) -> bool:
    """Trains both stages and measures them on each set of pictures. Skips what is already done.

    A stage that was exported before its end is continued, and its reports are made again.

    Returns:
      True if a program skipped pictures that it could not read.

    Raises:
      CellFailed: a program has failed, or the second stage started from a first stage that was
        exported before its end.
    """
    folder = run.folder(Path(flags.FLAGS.out))
    joint, post = (folder / stage for stage in sweep.STAGES)
    if sweep.is_exported(joint) and not sweep.has_ended(joint) and post.exists():
        raise CellFailed(
            f"{post} started from a model that was exported before the end of its training; remove"
            " this folder to continue"
        )
    behind = [f"--background={prepared.background}"] if prepared.background else []
    skipped = []
    for stage in sweep.STAGES:
        model_dir = folder / stage
        if sweep.has_ended(model_dir):
            continue
        for outdated in folder.glob(f"{sweep.REPORT}*/{report.JSON}"):
            shutil.rmtree(outdated.parent)
        first = [] if model_dir == joint else [f"--init_from={joint}"]
        skipped += [_run(
            "train", *prepared.arguments, *(f"--{k}={v}" for k, v in run.flags.items()),
            f"--lmbda={run.lmbda}", f"--stages={stage}", f"--model_dir={model_dir}",
            "--progress=line", *first, log=folder / "log.txt",
        )]  # fmt: skip
    for each in prepared.pictures:
        if each.report(folder) is None:
            skipped += [_run(
                "eval", f"--model_dir={','.join(str(folder / s) for s in sweep.STAGES)}",
                f"--images={each.images}", f"--report_dir={folder / each.folder}",
                "--conventional=", "--noreconstructions", *behind, log=folder / "log.txt",
            )]  # fmt: skip
    return any(skipped)


def _run(program: str, *arguments: str, log: Path) -> bool:
    """Runs a program. Returns true if it skipped pictures, which the log and the report name.

    Raises:
      CellFailed: it has failed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ)
    if flags.FLAGS.jobs > 1:
        cores = max(1, len(os.sched_getaffinity(0)) // flags.FLAGS.jobs)
        environment.setdefault("TF_NUM_INTRAOP_THREADS", str(cores))
    with open(log, "a", encoding="utf-8") as file:
        done = subprocess.run(
            [*PROGRAMS[program], *arguments],
            stdout=file, stderr=subprocess.STDOUT, env=environment, check=False,
        )  # fmt: skip
    if done.returncode not in (0, LEFT_OUT):
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = [line.strip() for line in lines if not line.startswith("Pass --help")][-1:]
        raise CellFailed(f"{' '.join(last)} (full log: {log})")
    return done.returncode == LEFT_OUT


def read_anchors(pictures: Sequence[sweep.Pictures]) -> dict[str, curves.Curve]:
    """Returns name of a set of pictures -> curve of --anchor on it; empty without --anchor.

    Raises:
      EvaluationError: --anchor lacks a set or has an unknown one, or cannot be read.
    """
    if not flags.FLAGS.anchor:
        return {}
    names = [each.name for each in pictures]
    paths = {each.name: each.images for each in sweep.Pictures.parse(flags.FLAGS.anchor, "anchor")}
    if len(names) == len(paths) == 1:
        paths = dict(zip(names, paths.values()))
    if set(paths) != set(names):
        raise EvaluationError(
            f"--anchor: expected a CSV for each set of pictures, {', '.join(names)};"
            f" got {flags.FLAGS.anchor!r}"
        )
    return {
        title: curves.read_published(Path(path), flags.FLAGS.anchor_codec)
        for title, path in paths.items()
    }


def _read_flagfile(option: str, path: str) -> list[str]:
    """Returns the flags in a flagfile that a flag of sweep.py names, with all included files.

    Raises:
      EvaluationError: the file is invalid or cannot be read.
    """
    try:
        return flagfiles.expanded([f"--flagfile={path}"])
    except flagfiles.FlagfileError as error:
        raise EvaluationError(f"--{option}: {str(error).removeprefix('--flagfile: ')}") from None


def prepare() -> Prepared:
    """Checks everything that can be checked before the first run, and records it as the owner of
    the folder.

    Raises:
      EvaluationError: a flag is wrong.
      OSError: a file of a flag cannot be read.
      ValueError: the folder belongs to another sweep.
    """
    values, folder = flags.FLAGS, Path(flags.FLAGS.out)
    files.check_local_folder("--out", values.out)
    anchor_flags.check(values)
    base = _read_flagfile("base", values.base)
    recorded = sweep_checks.base_flags(base)
    of_base = dict(flag.lstrip("-").partition("=")[::2] for flag in base)
    lmbdas = values.lmbda
    if of_base.get("lmbda_range") and not values["lmbda"].present:
        lmbdas = [of_base.get("lmbda", str(Experiment.lmbda))]
    grid = sweep.Grid.parse(
        values.grid, lmbdas, values.follow, values.seeds, values.choose_alpha, recorded,
        lambda option, path: sweep_checks.base_flags(_read_flagfile(option, path), option),
    )  # fmt: skip
    pictures = sweep.Pictures.parse(values.images)
    anchors = read_anchors(pictures)
    colour = values.background or of_base.get("background", "")
    if colour:
        try:
            background.parse(colour)
        except background.ColourError as error:
            raise EvaluationError(f"--background: {error}") from None
    train_images = values.train_images or of_base.get("train_images", "")
    arguments = [*base, f"--train_images={train_images}"]
    arguments += [f"--background={colour}"] if colour else []
    sweep_checks.check_runs(grid, arguments, folder)
    sweep_checks.check_pictures(grid.runs(), pictures, train_images, colour, folder)
    first, *others = pictures
    sweep.claim(
        folder,
        {"base": recorded, "train_images": train_images, "images": first.images,
         **({"background": colour} if values.background else {})},
        {"follow": {lmbda: grid.followed(lmbda) for lmbda in grid.lmbdas},
         "more images": {each.name: each.images for each in others}},
        lambda text: sweep_checks.base_flags(flagfiles.flags_in(text, values.base)),
    )  # fmt: skip
    return Prepared(grid, pictures, anchors, arguments, colour)


def main(argv: Sequence[str]) -> None:
    """Runs the command with the flags that `app.run` has parsed."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; use only --flags")
    expand_paths(flags.FLAGS, ("base", "out"))
    try:
        prepared = prepare()
    except (ValueError, OSError, flags.Error) as error:
        sys.exit(f"{program_name(argv)}: {one_line(error)}")
    runs = prepared.grid.runs()
    print(f"{len(runs)} runs of two stages each", flush=True)
    method, points = flags.FLAGS.bd_rate_method, len(prepared.grid.lmbdas)
    if points < curves.METHODS[method] and not prepared.grid.has_ranges:
        print(
            f"no BD-rates: {method} needs {curves.METHODS[method]} points of a curve, and --lmbda"
            f" has {points}; more can be added later",
            flush=True,
        )
    failed, incomplete = [], 0
    with concurrent.futures.ThreadPoolExecutor(flags.FLAGS.jobs) as pool:
        pending = {pool.submit(do, run, prepared): run for run in runs}
        for number, future in enumerate(concurrent.futures.as_completed(pending), start=1):
            outcome = "done"
            try:
                if future.result():
                    incomplete += 1
                    outcome = "done, without the pictures that its log names"
            except (CellFailed, OSError) as error:
                failed.append(pending[future])
                outcome = f"FAILED: {error}"
            print(f"[{number}/{len(runs)}] {pending[future]}: {outcome}", flush=True)
    text = sweep_table.summarize(
        Path(flags.FLAGS.out), prepared.grid, prepared.pictures, prepared.anchors,
        flags.FLAGS.bd_rate_method, failed,
    )  # fmt: skip
    print(f"\n{text}\nTables and plots: {flags.FLAGS.out}")
    if failed:
        outcome = f"{len(failed)} of {len(runs)} runs failed; run the same command to try again"
        sys.exit(f"{program_name(argv)}: {outcome}")
    if incomplete:
        message = f"{incomplete} of {len(runs)} runs skipped pictures; their logs name them"
        end(f"{program_name(argv)}: {message}", LEFT_OUT)
