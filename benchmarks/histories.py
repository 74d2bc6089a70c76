"""Compares the validation curves of several runs in a table, a CSV and a plot.

    python benchmarks/histories.py --runs=runs/a,runs/b --out=FOLDER

Reads each run's `history.json` (J and PSNR under actual rounding, one entry per epoch). The other
runs are compared with the first one, at every step that both have.
"""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

from absl import app, flags

from tfquant import plotting
from tfquant.training import history

_RUNS = flags.DEFINE_list("runs", None, "Folders of training runs.", required=True)
_OUT = flags.DEFINE_string("out", None, "Folder for curves.csv and curves.png.", required=True)


def read(run: str) -> dict:
    """Returns step of the run -> record. Ends the program if there is no history."""
    records = {r["run_step"]: r for r in history.read(run)}
    if not records:
        sys.exit(f"histories.py: {run!r} has no {history.FILE}; expected a run of train.py")
    return records


def main(argv) -> None:
    del argv
    names = [os.path.basename(os.path.normpath(run)) for run in _RUNS.value]
    runs = [read(run) for run in _RUNS.value]
    steps = sorted(set.intersection(*(set(run) for run in runs)))
    if not steps:
        sys.exit("histories.py: the runs have no common step; train them with one --epoch_steps")
    out = Path(_OUT.value)
    out.mkdir(parents=True, exist_ok=True)
    with open(out / "curves.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["step", *(f"{q}_{name}" for q in ("J", "psnr") for name in names)])
        for step in steps:
            values = [f"{run[step][q]:.5g}" for q in ("J", "psnr") for run in runs]
            writer.writerow([step, *values])
    for name, run in zip(names[1:], runs[1:]):
        apart = {step: run[step]["J"] / runs[0][step]["J"] - 1.0 for step in steps}
        worst = max(apart, key=lambda step: abs(apart[step]))
        print(
            f"J of {name} relative to {names[0]}: {apart[steps[-1]]:+.2%} at step {steps[-1]},"
            f" at most {apart[worst]:+.2%} (step {worst})"
        )
    figure, axes = plotting.new_figure((9.0, 4.2), 2)
    for panel, (key, label) in zip(axes[0], (("J", "J = R + lmbda D"), ("psnr", "PSNR [dB]"))):
        for place, (name, run) in enumerate(zip(names, runs)):
            panel.plot(steps, [run[s][key] for s in steps], **plotting.series(place), label=name)
        panel.set(xlabel="step", ylabel=f"{label}, validation crops")
    plotting.legend(figure, below=True)
    figure.savefig(out / "curves.png")


if __name__ == "__main__":
    app.run(main)
