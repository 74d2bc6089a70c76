"""`tfquant demo`: runs the pretrained models on sample pictures, then two short trainings.

    tfquant demo --out=runs/demo

It takes under 5 minutes on two cores. The folder then has:

    originals/                      the sample pictures
    comparison.md, comparison.png   the models beside JPEG and WebP files of at least the same size
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
from typing import Any

from tfquant import files, startup
from tfquant.commands.outcome import CommandError

PLANS = ("aun", "sua_ste")
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
      CommandError: the number of steps is invalid.
      ModelError: the models cannot be loaded.
      OSError: the folder cannot be written.
    """
    if arguments.steps < 0 or arguments.steps % _EPOCH:
        raise CommandError(f"--steps must be a multiple of {_EPOCH}, or 0; got {arguments.steps}")
    out = Path(files.expanded(arguments.out))
    out.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    startup.import_tensorflow()
    compare(out)
    if arguments.steps:
        train(out, arguments.steps)
    print(f"\nThe demo took {time.monotonic() - start:.0f} s. Its files are in {out}.")
    print(
        "Next: tfquant compress YOUR_PICTURE.jpg makes a file of your own,"
        " tfquant models lists the models."
    )


def compare(out: Path) -> None:
    """Compresses the sample pictures with the pretrained models.

    Writes the files, a table and a figure to `out`, and prints the table.
    """
    from tfquant.evaluation import comparison, pictures
    from tfquant.export import registry

    models = registry.find(registry.DEFAULT)
    print(
        f"The pretrained models ({models.name}) on sample pictures. JPEG and WebP get at least the"
        " same number of bytes.\n",
        flush=True,
    )
    found = pictures.find_pictures(pictures.SAMPLE, out / "originals").pictures
    compared = [
        comparison.compare(models, quality, picture.name, picture.read(), ["webp", "jpeg"])
        for picture in found
        for quality in models.samples()
    ]
    (out / "files").mkdir(exist_ok=True)
    for each in compared:
        name = f"{each.name}_quality_{each.quality:.0f}.tfq"
        (out / "files" / name).write_bytes(each.versions[0].data)
    text = comparison.table(compared)
    (out / "comparison.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    shown = sorted({each.quality for each in compared})[:_SHOWN_QUALITIES]
    comparison.draw([c for c in compared if c.quality in shown], str(out / "comparison.png"))
    print(f"\nThe pictures side by side: {out / 'comparison.png'}", flush=True)


def train(out: Path, steps: int) -> None:
    """Trains a small codec with each plan, and draws the gaps."""
    from tfquant.commands.train import Settings, train_stages
    from tfquant.training import history
    from tfquant.training.experiment import Experiment
    from tfquant.training.hosts import Host

    print(
        "\nRounding has no useful gradient, so training replaces it by a surrogate. Two"
        f" quantization plans, {steps} steps each, on generated pictures:"
    )
    records = {}
    for plan in PLANS:
        print(f"\n{plan}: {_PLAN_NAMES[plan]}", flush=True)
        experiment = Experiment(
            codec="ms_hyper_zero", codec_options={"N": 24, "M": 32}, plan=plan, stages=("joint",),
            joint_steps=steps, joint_learning_rate=1e-3, crop=128, validation_images=16,
        )  # fmt: skip
        host = Host.from_environment()
        with host.together(), host.folder(str(out / plan)) as run_dir:
            train_stages(experiment, run_dir, Settings(epoch_steps=_EPOCH, progress="bar"), host)
        records[plan] = history.read(str(out / plan))
    draw_gaps(records, out / "gap.png")
    print()
    for plan, rows in records.items():
        last = rows[-1]
        gap = 100 * (last["surrogate_J"] / last["J"] - 1)
        print(
            f"{plan}: the cost is {last['surrogate_J']:.3f} under the surrogate and"
            f" {last['J']:.3f} under rounding: a gap of {gap:+.1f} %"
        )
    print(f"\nThe gaps of the two plans: {out / 'gap.png'}")


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
        panel.plot(steps, tested, color=colour, label="rounding (test)")
        panel.plot(steps, trained, color=colour, linestyle="--", label="surrogate (training)")
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
