"""Estimates training on many accelerators with a model of a step: the tables of `docs/scaling.md`.

    python benchmarks/scaling.py [--codec=ms_hyper_zero --N=128 --M=192]

The model of a step of B examples on n accelerators, with b = B / n on each:

    step = max(input, compute + reduce)
    compute = b F / S                     F: operations of an example, forward and backward
    reduce = ring(n on a host, G) + ring(hosts, G),  ring(k, G) = 2 (k - 1) (G / k / W + latency)
    input = b C / cores                   C: seconds of one core to read, decode and crop an example

Nothing overlaps reduce: a step sums its gradients when it has all of them. F, G and C are measured
here, from the graph, the weights and the running pipeline. S, W, the latency and the cores describe
the machines and are given by flags.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import conditions
import measuring
import tensorflow as tf
from PIL import Image

from tfquant import models
from tfquant.data import crops, records, sources
from tfquant.data.dead_leaves import dead_leaves
from tfquant.training.experiment import Experiment


class Workload(NamedTuple):
    """Requirements of training.

    Attributes:
      flops: F, operations per example.
      gradient_bytes: G, bytes of the gradients.
      core_seconds: C, seconds of one core per example.
      input_bytes: stored bytes per example.
    """

    flops: float
    gradient_bytes: float
    core_seconds: float
    input_bytes: float


class Machine(NamedTuple):
    """Capacities of a machine, in operations/s, bytes/s and seconds."""

    flops: float
    link: float
    network: float
    latency: float
    per_host: int
    cores: float


class Step(NamedTuple):
    """Seconds of the parts of a step, and of the step."""

    compute: float
    reduce: float
    input: float

    @property
    def total(self) -> float:
        return max(self.input, self.compute + self.reduce)


def ring(count: int, size: float, bandwidth: float, latency: float) -> float:
    """Returns the seconds in which a ring of `count` members sums `size` bytes, in 2 (count - 1)
    turns.
    """
    return 2 * (count - 1) * (size / count / bandwidth + latency) if count > 1 else 0.0


def step(work: Workload, machine: Machine, accelerators: int, batch: float) -> Step:
    """Evaluates the model of a step; `batch` is the batch on each accelerator."""
    on_host = min(accelerators, machine.per_host)
    hosts = -(-accelerators // machine.per_host)
    size = work.gradient_bytes
    return Step(
        compute=batch * work.flops / machine.flops,
        reduce=ring(on_host, size, machine.link, machine.latency)
        + ring(hosts, size, machine.network, machine.latency),
        input=batch * work.core_seconds / machine.cores,
    )


def table(work: Workload, machine: Machine, counts: list, batch_of) -> str:
    """Returns a table with one row per number of accelerators; `batch_of(n)` is the batch on
    each.
    """
    lines = [
        "| accelerators | batch on each | global | compute [ms] | reduce [ms] | input [ms]"
        " | step [ms] | images/s | of ideal | input/host [MB/s] |",
        "|" + 10 * "---:|",
    ]
    alone = step(work, machine, 1, batch_of(1))
    for n in counts:
        batch = batch_of(n)
        s = step(work, machine, n, batch)
        rate = n * batch / s.total
        ideal = n * batch_of(1) / alone.total
        bytes_per_host = rate * work.input_bytes * min(n, machine.per_host) / n
        lines.append(
            f"| {n} | {batch:g} | {n * batch:g} | {1e3 * s.compute:.2f} | {1e3 * s.reduce:.2f}"
            f" | {1e3 * s.input:.2f} | {1e3 * s.total:.2f} | {rate:,.0f} | {rate / ideal:.0%}"
            f" | {bytes_per_host / 1e6:,.0f} |"
        )
    return "\n".join(lines)


def measure_step(codec: str, batch: int, crop: int, **widths) -> tuple:
    """Measures (operations of an example, gradient bytes, seconds of a step: the best of 5)."""
    experiment = Experiment(codec=codec, codec_options=widths, batch_size=batch, crop=crop)
    made = measuring.training_step(experiment)
    graph = made.compiled.get_concrete_function(made.batch).graph
    profiled = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    profiled["output"] = "none"
    # Counts convolutions and matrix products. Everything else is negligible on an accelerator.
    profiled["account_type_regexes"] = ["Conv2D.*", "MatMul"]
    operations = tf.compat.v1.profiler.profile(graph, options=profiled).total_float_ops
    size = sum(4 * v.shape.num_elements() for v in made.trainer.trained_variables())
    times = []
    for _ in range(6):
        start = time.perf_counter()
        made.run()
        times.append(time.perf_counter() - start)
    return operations / batch, size, min(times[1:])


def measure_input(batch: int, crop: int, *, count: int = 24, batches: int = 40) -> dict:
    """Measures kind -> (seconds of one core per example, its bytes), from JPEGs in TFRecord
    shards.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, f"{i}.jpg") for i in range(count)]
        for i, path in enumerate(paths):
            rows, columns = conditions.PICTURE
            picture = dead_leaves(i, max(rows, columns))[:rows, :columns]
            Image.fromarray(picture).save(path, quality=92)
        size = statistics.mean(map(os.path.getsize, paths))
        made = os.path.join(folder, "set")
        records.write(paths, made, 2, jobs=2, skip=print)
        found = {}
        for kind, cache_mib in (("decoded once, in memory", 2048), ("decoded every time", 0)):
            source = sources.open_source(f"records:{made}", 0, crop, cache_mib=cache_mib)
            options = {"seed": 0, "crop": crop, "batch_size": batch, "downscale": (0.6, 0.95)}
            stream = iter(crops.training_crops(source, **options))
            for _ in range(8):  # skips prefetched batches
                next(stream)
            start = time.process_time()
            for _ in range(batches):
                next(stream)
            spent = time.process_time() - start
            found[kind] = spent / (batches * batch), size if not cache_mib else 0.0
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--codec", choices=models.CODECS, default="ms_hyper_zero", help="the codec")
    add("--N", type=int, default=128, help="width of the transforms")
    add("--M", type=int, default=192, help="channels of the latent")
    add("--crop", type=int, default=256, help="side of the training crops")
    add("--batch", type=int, default=8, help="examples on each accelerator, first table")
    add("--global_batch", type=int, default=64, help="examples per step, second table")
    add("--accelerators", type=int, nargs="+", default=[1, 8, 64], help="numbers of accelerators")
    add("--per_host", type=int, default=8, help="accelerators per host")
    add("--tflops", type=float, default=40, help="S: 10^12 operations/s, sustained, of each one")
    add("--link", type=float, default=100, help="W between accelerators of a host, GB/s")
    add("--network", type=float, default=10, help="W between hosts, GB/s")
    add("--latency", type=float, default=30, help="latency of each message, microseconds")
    add("--cores", type=float, default=8, help="cores for the input of each accelerator")
    a = parser.parse_args()

    tf.get_logger().setLevel("ERROR")  # the profiler warns about deprecated parts of itself
    inputs = measure_input(a.batch, a.crop)
    flops, size, seconds = measure_step(a.codec, a.batch, a.crop, N=a.N, M=a.M)
    print(
        f"Measured, {a.codec}, N {a.N}, M {a.M}, crops of {a.crop}:\n\n"
        f"- F: {flops / 1e9:.1f} GFLOP per example, forward and backward (TensorFlow's profiler)\n"
        f"- G: {size / 1e6:.2f} MB of float32 gradients (the weights' sizes)"
    )
    for kind, (core, stored) in inputs.items():
        kept = f", {stored / 1e3:.0f} kB stored" if stored else ""
        print(f"- C, {kind}: {1e3 * core:.2f} ms of one core ({1 / core:.0f} images/s){kept}")
    print(
        f"- a step of {a.batch} on this machine's {os.cpu_count()} cores: {seconds:.2f} s at best,"
        f" {a.batch / seconds:.1f} images/s, {a.batch * flops / seconds / 1e9:.0f} GFLOP/s\n\n"
        f"Assumed: {a.tflops:g} TFLOP/s sustained by an accelerator, {a.link:g} GB/s on a host with"
        f" {a.per_host}, {a.network:g} GB/s between hosts, {a.latency:g} us per message,"
        f" {a.cores:g} cores for the input of each accelerator."
    )
    work = Workload(flops, size, *inputs["decoded every time"])
    machine = Machine(
        1e12 * a.tflops, 1e9 * a.link, 1e9 * a.network, 1e-6 * a.latency, a.per_host, a.cores
    )
    print(f"\n{a.batch} examples on each accelerator:\n")
    print(table(work, machine, a.accelerators, lambda n: a.batch))
    print(f"\n{a.global_batch} examples per step:\n")
    print(table(work, machine, a.accelerators, lambda n: a.global_batch / n))


if __name__ == "__main__":
    main()
