"""`tfquant demo`: runs the pretrained models on sample pictures, then two short trainings.

    tfquant demo --out=runs/demo

It takes under 5 minutes on two cores. The folder then has:

    originals/                      the sample pictures
    comparison.md, comparison.png   the models beside JPEG and WebP files of about the same size
    files/                          the .tfq files
    gap.png                         the train-test gap of two quantization plans
    aun/, sua_ste/                  the two runs, with their TensorBoard logs

The first part needs no training. The second part trains a small codec on generated pictures with
two plans. It shows the difference between the cost `R + lmbda D` under the surrogate and under
rounding. The trained codecs are not good ones.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfquant import files, startup
from tfquant.commands import outputs
from tfquant.commands.outcome import CommandError
from tfquant.names import first_few

if TYPE_CHECKING:
    from tfquant.training.experiment import Experiment

PLANS = ("aun", "sua_ste")
_ORIGINALS, _FILES, _TABLE, _FIGURE = "originals", "files", "comparison.md", "comparison.png"
_GAPS = "gap.png"
_VIEW = "view.html"  # the Makefile puts this page beside the demo
_STEPS, _EPOCH = 500, 50
_PLAN_NAMES = {"aun": "additive noise", "sua_ste": "stochastic uniform annealing"}
_SHOWN_QUALITIES = 1  # the lowest one, at which the differences are visible


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "--out", default=os.path.join("runs", "demo"), metavar="DIR",
        help="folder to write (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--steps", type=int, default=_STEPS, metavar="N",
        help=f"training steps of each plan, a multiple of {_EPOCH}; 0 skips the training"
        " (default: %(default)s)",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> None:
    """Runs both parts.

    Raises:
      CommandError: the number of steps is invalid, or the folder contains something else.
      ModelError: the models cannot be loaded.
      OSError: the folder cannot be written.
    """
    if arguments.steps < 0 or arguments.steps % _EPOCH:
        raise CommandError(f"--steps must be a multiple of {_EPOCH}, or 0; got {arguments.steps}")
    out = Path(files.expanded(arguments.out))
    outputs.make_folder(str(out))
    check_folder(out)
    start = time.monotonic()
    startup.import_tensorflow()
    if arguments.steps:
        check_runs(out, arguments.steps)
    compare(out)
    if arguments.steps:
        train(out, arguments.steps)
    shown = files.shown(out)
    print(f"\nThe demo took {time.monotonic() - start:.0f} s. Its files are in {shown}.")
    print(
        "Next: tfquant compress YOUR_PICTURE.jpg makes a file of your own,"
        " tfquant models lists the models."
    )


def check_folder(out: Path) -> None:
    """Checks that a folder is empty, or contains only files of an earlier demo and hidden files.

    Raises:
      CommandError: it contains something else.
    """
    known = {_ORIGINALS, _FILES, _TABLE, _FIGURE, _GAPS, _VIEW, *PLANS}
    names = (path.name for path in out.iterdir() if path.name not in known)
    others = sorted(name for name in names if not files.is_hidden(name))
    if others:
        shown = first_few([files.shown(name) for name in others], 3)
        raise CommandError(
            f"{files.shown(out)}: contains other files ({shown}); name a new folder with --out"
        )


def check_runs(out: Path, steps: int) -> None:
    """Checks that the runs in a folder, if there are any, are those of an earlier demo.

    Raises:
      CommandError: a folder contains another run, or a run with another number of steps.
    """
    from tfquant.training import folder

    for plan in PLANS:
        run_dir = out / plan
        if not run_dir.exists() or (run_dir.is_dir() and not any(run_dir.iterdir())):
            continue
        advice = "remove it, or name a new folder with --out"
        try:
            there = folder.read_experiment(str(run_dir))
        except (OSError, ValueError) as error:
            raise CommandError(f"{files.one_line(error)}; {advice}") from None
        if there != _experiment(plan, steps):
            raise CommandError(
                f"{files.shown(run_dir)}: contains another run, or one with another number of"
                f" steps; {advice}"
            )


def _experiment(plan: str, steps: int) -> Experiment:
    """Returns the experiment of a plan's run."""
    from tfquant.training.experiment import Experiment

    return Experiment(
        codec="ms_hyper_zero", codec_options={"N": 24, "M": 32}, plan=plan, stages=("joint",),
        joint_steps=steps, joint_learning_rate=1e-3, crop=128, validation_images=16,
    )  # fmt: skip


def compare(out: Path) -> None:
    """Compresses the sample pictures with the pretrained models.

    Writes the files, a table and a figure to `out`, and prints the table.
    """
    from tfquant.evaluation import comparison, pictures, same_size
    from tfquant.export import registry

    models = registry.find(registry.DEFAULT)
    print(
        f"The pretrained models ({models.name}) on sample pictures. The files of WebP and JPEG have"
        " about the\nsame size. A size that differs by more than"
        f" {100 * same_size.TOLERANCE:g} % is followed by the difference. PSNR is in dB.\n",
        flush=True,
    )
    found = pictures.find_pictures(pictures.SAMPLE, out / _ORIGINALS).pictures
    compared = [
        comparison.compare(models, quality, picture.name, picture.read(), ["webp", "jpeg"])
        for picture in found
        for quality in models.samples()
    ]
    (out / _FILES).mkdir(exist_ok=True)
    for each in compared:
        name = f"{each.name}_quality_{each.quality:.0f}.tfq"
        (out / _FILES / name).write_bytes(each.versions[0].data)
    text = comparison.table(compared)
    (out / _TABLE).write_text(text + "\n", encoding="utf-8")
    print(text)
    shown = sorted({each.quality for each in compared})[:_SHOWN_QUALITIES]
    comparison.draw([c for c in compared if c.quality in shown], str(out / _FIGURE))
    print(f"\nThe pictures side by side: {files.shown(out / _FIGURE)}", flush=True)


def train(out: Path, steps: int) -> None:
    """Trains a small codec with each plan, and draws the gaps.

    Raises:
      CommandError: a run cannot be trained.
    """
    from tfquant.commands.train import Settings, train_stages
    from tfquant.training import history
    from tfquant.training.hosts import Host
    from tfquant.training.run import TrainingDiverged

    print(
        "\nRounding has no useful gradient, so training replaces it by a surrogate. Two"
        f" quantization plans, {steps} steps each, on generated pictures:"
    )
    records = {}
    for plan in PLANS:
        print(f"\n{plan}: {_PLAN_NAMES[plan]}", flush=True)
        run_dir = files.utf8_folder(str(out / plan))
        settings = Settings(epoch_steps=_EPOCH, progress="bar")
        try:
            train_stages(_experiment(plan, steps), run_dir, settings, Host())
        except (ValueError, TrainingDiverged) as error:
            raise CommandError(error) from None
        records[plan] = history.read(run_dir)
    draw_gaps(records, out / _GAPS)
    print()
    for plan, rows in records.items():
        last = rows[-1]
        gap = 100 * (last["surrogate_J"] / last["J"] - 1)
        print(
            f"{plan}: the cost is {last['surrogate_J']:.3f} under the surrogate and"
            f" {last['J']:.3f} under rounding: a gap of {gap:+.1f} %"
        )
    print(f"\nThe gaps of the two plans: {files.shown(out / _GAPS)}")


def draw_gaps(records: Mapping[str, list[dict[str, Any]]], path: Path) -> None:
    """Writes a PNG with a panel for each plan: the cost in training and under rounding.

    Args:
      records: plan -> records of the run's history, see `tfquant/training/history.py`.
      path: path of the PNG.
    """
    from tfquant import plotting

    figure, axes = plotting.new_figure((5.2 * len(records), 4.2), len(records), sharey=True)
    for panel, (plan, rows) in zip(axes[0], records.items()):
        steps = [row["step"] for row in rows]
        trained, tested = ([row[key] for row in rows] for key in ("surrogate_J", "J"))
        colour = plotting.plan(plan)["color"]
        panel.plot(steps, tested, ".-", color=colour, label="rounding (test)")
        panel.plot(steps, trained, ".--", color=colour, label="surrogate (training)")
        panel.fill_between(steps, trained, tested, color=colour, alpha=0.2, linewidth=0)
        gap = 100 * (trained[-1] / tested[-1] - 1)
        panel.set_title(f"{plan}: {_PLAN_NAMES.get(plan, plan)}\ngap at the end: {gap:+.1f} %")
        panel.set(xlabel="training step")
        panel.legend(frameon=False)
    axes[0][0].set(ylabel="cost J = R + lmbda D [bits per pixel]")
    lowest = min(
        row[key] for rows in records.values() for row in rows for key in ("J", "surrogate_J")
    )
    # The costs of the first epochs are much higher than the later ones.
    later = [row[key] for rows in records.values() for row in rows[len(rows) // 5 :]
             for key in ("J", "surrogate_J")]  # fmt: skip
    axes[0][0].set_ylim(0.95 * lowest, 1.05 * max(later))
    figure.savefig(path)
