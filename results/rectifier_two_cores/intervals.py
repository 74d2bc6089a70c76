"""Prints each gain with its interval over pictures, from the reports beside this file.

    PYTHONPATH=. python results/rectifier_two_cores/intervals.py

from the checkout. Intervals are Student's 95 % over the 24 Kodak pictures. A gain in MS-SSIM is
the mean of the gains in dB of the pictures. `README.md` has the gain of the mean MS-SSIM instead.
"""

from __future__ import annotations

import csv
from pathlib import Path

from tfquant.evaluation.estimate import Estimate

FOLDER = Path(__file__).parent
KINDS = {"c": "b", "a": "b", "b": ""}  # a run's letter -> that of the run it is compared with


def read() -> dict:
    """Returns run -> picture -> its row of a report."""
    runs = {}
    for report in ("control_over_baseline", "over_control"):
        with open(FOLDER / report / "report.csv", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["image"].isdigit():
                    runs.setdefault(row["setting"], {})[row["image"]] = row
    return runs


def gain(run: dict, other: dict, name: str) -> str:
    """Returns the mean gain over another run and its interval, in dB."""
    assert run.keys() == other.keys()
    return Estimate.of([float(run[k][name]) - float(other[k][name]) for k in run]).text(3)


def main() -> None:
    runs = read()
    print("| run | over | PSNR [dB] | MS-SSIM [dB] |")
    print("|---|---|---:|---:|")
    for name, run in runs.items():
        stem, _, letter = name.rpartition("_")
        if letter not in KINDS:
            continue
        others = [f"{stem}_{KINDS[letter]}".rstrip("_")] + [stem] * (letter == "c")
        for other in others:
            cells = (gain(run, runs[other], metric) for metric in ("psnr", "ms_ssim_db"))
            print(f"| `{name}` | `{other}` | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
