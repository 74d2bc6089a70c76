"""Prints the tables of README.md from `kodak_model_bits.csv`.

    PYTHONPATH=. python results/gpu_first_runs/table.py

from the checkout. Intervals are Student's 95 % over the 24 pictures.
"""

from __future__ import annotations

import csv
import statistics
from pathlib import Path

from tfquant.evaluation.estimate import Estimate

CSV = Path(__file__).with_name("kodak_model_bits.csv")
COMPARED = (("mix", "aun"), ("sua_ste", "aun"), ("sua_ste", "mix"))


def read() -> dict:
    """Returns (plan, lmbda, stage) -> list of one dict per picture, with J and the surrogate's."""
    runs = {}
    with open(CSV, encoding="utf-8") as file:
        for row in csv.DictReader(file):
            key = (row.pop("plan"), row.pop("lmbda"), row.pop("stage"))
            picture = {name: float(value) for name, value in row.items()}
            weight = float(key[1])
            picture["J"] = picture["bpp"] + weight * picture["mse"]
            surrogate = picture["surrogate_bpp"] + weight * picture["surrogate_mse"]
            picture["gap"] = surrogate - picture["J"]
            runs.setdefault(key, []).append(picture)
    return runs


def differences(first: list, second: list, name: str) -> list:
    """Returns the differences of two runs for each picture."""
    pairs = zip(first, second)
    assert all(a["kodak"] == b["kodak"] for a, b in zip(first, second))
    return [a[name] - b[name] for a, b in pairs]


def main() -> None:
    runs = read()
    print("| plan | lmbda | joint steps | stage | bpp | PSNR | J | surrogate's J - J |")
    print("|---|---:|---:|---|---:|---:|---:|---:|")
    for (plan, lmbda, stage), pictures in runs.items():
        mean = {key: statistics.fmean(p[key] for p in pictures) for key in pictures[0]}
        gap = ""
        if stage == "joint":
            gap = Estimate.of([p["gap"] for p in pictures]).text(4)
        print(
            f"| `{plan}` | {lmbda} | {mean['joint_steps']:,.0f} | {stage} | {mean['bpp']:.4f} |"
            f" {mean['psnr']:.2f} dB | {mean['J']:.4f} | {gap} |"
        )
    print("\n| lmbda 0.0018 | difference of J, joint | difference of J, post |")
    print("|---|---:|---:|")
    for first, second in COMPARED:
        cells = []
        for stage in ("joint", "post"):
            a, b = runs[first, "0.0018", stage], runs[second, "0.0018", stage]
            change = 100 * (sum(p["J"] for p in a) / sum(p["J"] for p in b) - 1)
            estimate = Estimate.of(differences(a, b, "J"))
            cells.append(f"{estimate.text(4)} ({change:+.1f} %)")
        print(f"| `{first}` less `{second}` | {' | '.join(cells)} |")
    print("\n| post less joint | lmbda | J | PSNR |")
    print("|---|---:|---:|---:|")
    for plan, lmbda, stage in runs:
        if stage == "post":
            pair = runs[plan, lmbda, "post"], runs[plan, lmbda, "joint"]
            cost, quality = (Estimate.of(differences(*pair, name)) for name in ("J", "psnr"))
            print(f"| `{plan}` | {lmbda} | {cost.text(4)} | {quality.text(3)} dB |")


if __name__ == "__main__":
    main()
