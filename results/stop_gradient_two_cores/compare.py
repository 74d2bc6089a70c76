"""The readings of the partial stop-gradient, trained and measured; the command of README.md.

    PYTHONPATH=. python results/stop_gradient_two_cores/compare.py runs/stop_gradient

from the checkout. Writes `trained.csv` and `measured.csv` beside the runs. Stopped, it goes on.
"""

from __future__ import annotations

import csv
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf
from absl import app, flags

import train
from tfquant.data import crops, sources
from tfquant.data.pixels import to_float
from tfquant.quantization.plans import QuantizationPlan
from tfquant.quantization.surrogates import Branch
from tfquant.training import history, losses
from tfquant.training.gradient_risk import gradient_risk
from tfquant.training.hosts import Host
from tfquant.training.trained import load_run

# Flags that all runs share beside configs/quickstart.flags. Clipping would hide the variance.
SHARED = [
    "--flagfile=configs/quickstart.flags", "--joint_steps=400", "--post_steps=100",
    "--epoch_steps=100", "--batch_size=4", "--validation_images=64", "--clip_norm=0",
    "--progress=silent",
]  # fmt: skip
# Plan, stop_gradient, mean_gradient.
RUNS = [
    ("sua_ste", "both", "sampled"),
    ("sua_ste", "distortion", "sampled"),
    ("sua_ste", "none", "sampled"),
    ("aun_ep", "both", "sampled"),
    ("aun_ep", "both", "expected"),
]
SEEDS = (1, 2)
# Rate, stop_gradient, mean_gradient, alpha.
MEASURED = [
    *(
        ("sua:expected", stop, "sampled", a)
        for a in (1.0, 4.0, 12.0)
        for stop in ("both", "distortion")
    ),
    ("aun:expected", "both", "sampled", 1.0),
    ("aun:expected", "both", "expected", 1.0),
]


def run_dir(directory: str, plan: str, stop: str, mean: str, seed: int) -> str:
    return os.path.join(directory, f"{plan}_{stop}_{mean}_{seed}")


def trained(directory: str) -> list:
    rows = []
    for seed in SEEDS:
        for plan, stop, mean in RUNS:
            there = run_dir(directory, plan, stop, mean, seed)
            flags.FLAGS.unparse_flags()
            flags.FLAGS([
                "train.py", *SHARED, f"--model_dir={there}", f"--plan={plan}", f"--seed={seed}",
                f"--stop_gradient={stop}", f"--mean_gradient={mean}",
            ])  # fmt: skip
            experiment = train.experiment_from_flags(flags.FLAGS)
            train.train(experiment, there, flags.FLAGS, Host.from_environment())
            records = history.read(there)
            row = {"plan": plan, "stop_gradient": stop, "mean_gradient": mean, "seed": seed}
            for stage in ("joint", "post"):
                last = [r for r in records if r["stage"] == stage][-1]
                row.update({f"{name} {stage}": round(last[name], 4) for name in ("R", "D", "J")})
            rows.append(row)
            print(row, flush=True)
    return rows


def measured(directory: str) -> list:
    """On the codec of the first run: the readings differ in nothing else."""
    experiment, codec, _ = load_run(run_dir(directory, *RUNS[0], SEEDS[0]))
    for model in codec.entropy_models:
        model.set_sigma_bound(experiment.joint_sigma_bound)
    _, source = sources.split(sources.open_source("", experiment.seed, experiment.crop))
    validation = crops.validation_crops(
        source, seed=experiment.seed, crop=64, count=4, downscale=()
    )
    x = to_float(tf.constant(validation["image"]))
    rows = []
    for rate, stop, mean, alpha in MEASURED:
        plan = QuantizationPlan(
            Branch.parse(rate), Branch("sua", "straight_through"),
            stop_gradient=stop, mean_gradient=mean,
        )  # fmt: skip
        found = tf.function(gradient_risk, autograph=False)(
            codec, plan, tf.constant(alpha), x,
            distortion=losses.mse, lmbda=experiment.lmbda, draws=64, elements=1,
        )  # fmt: skip
        row = {"rate": rate, "stop_gradient": stop, "to mu": mean, "alpha": alpha}
        names = [f"mean_{n}" for n in ("gradient", "variance", "bias", "bias_error")]
        row.update({name: f"{float(found[name]):.2g}" for name in ["rate_gradient", *names]})
        rows.append(row)
        print(row, flush=True)
    return rows


def main(argv) -> None:
    tf.get_logger().setLevel("ERROR")
    (directory,) = argv[1:] or ["runs/stop_gradient"]
    for name, make in (("trained", trained), ("measured", measured)):
        rows = make(directory)
        with open(os.path.join(directory, f"{name}.csv"), "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    app.run(main, argv=[sys.argv[0], "--model_dir=unused", *sys.argv[1:]])
