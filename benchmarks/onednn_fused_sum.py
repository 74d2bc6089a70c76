"""Reproduces a oneDNN defect in TensorFlow: a convolution fused with a sum, in several threads.

    python benchmarks/onednn_fused_sum.py
    TF_ENABLE_ONEDNN_OPTS=0 python benchmarks/onednn_fused_sum.py

The graph is `x + bias_add(conv2d(x, kernel), bias)`. TensorFlow's optimizer converts it to one
operation, `_FusedConv2D` with BiasAdd and Add, which runs a oneDNN convolution with the
post-operation `sum`. The kernel object keeps the memory of the summand in a field, so two threads
that run the graph at the same time read and write each other's memory. A single thread computes the
right values.

Each attempt is a child process. It computes the right values without a fusion, runs the graph from
four Python threads at the same time, with pictures of different sizes, and compares. The script
prints one line: "reproduced" with the signal or the number of wrong values, or "not reproduced". It
ends within a minute. It needs only TensorFlow and NumPy. It sets four inter-op threads and one
intra-op thread itself.

TensorFlow 2.14 to 2.22.0rc0 on x86-64 Linux are affected. Results of five runs of this script with
each of these versions, on an AMD EPYC (family 25, model 17, AVX-512) with two shared cores:

    2.14.1   reproduced 5 times, SIGABRT (a corrupt heap) or SIGSEGV
    2.17.1   reproduced 5 times, SIGSEGV or SIGABRT
    2.21.0   reproduced 5 times, SIGSEGV or SIGABRT

With fewer calls (300 per thread), some processes ended normally with 2 or 3 of 1200 results wrong.
With `TF_ENABLE_ONEDNN_OPTS=0`, the optimizer does not fuse the sum, and no version reproduced the
defect.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

THREADS, CALLS, CHANNELS, SIDE = 4, 2000, 16, 32
ATTEMPTS, SECONDS = 4, 14


def child() -> None:
    """Prints the number of wrong results in all threads."""
    import numpy as np
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(THREADS)
    rng = np.random.default_rng(0)

    def normal(*shape):
        return tf.constant(rng.normal(size=shape), tf.float32)

    kernel, bias = normal(3, 3, CHANNELS, CHANNELS), normal(CHANNELS)

    @tf.function(input_signature=[tf.TensorSpec([1, None, None, CHANNELS])])
    def fused(x):
        return x + tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "SAME"), bias)

    pictures = [normal(1, SIDE + i, SIDE + i, CHANNELS) for i in range(THREADS)]
    expected = [
        x + tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "SAME"), bias) for x in pictures
    ]  # eager: three operations
    alone = [np.allclose(fused(x), e, atol=1e-3) for x, e in zip(pictures, expected)]
    print("version", tf.__version__, flush=True)
    assert all(alone), "one thread alone computes wrong values"
    wrong = [0] * THREADS

    def work(i):
        for _ in range(CALLS):
            wrong[i] += not np.allclose(fused(pictures[i]), expected[i], atol=1e-3)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("wrong", sum(wrong), flush=True)


def main() -> None:
    version = "?"
    for _ in range(ATTEMPTS):
        environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ}
        try:
            done = subprocess.run(
                [sys.executable, __file__, "child"], env=environment, timeout=SECONDS,
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            continue  # may be a corrupt heap, but also a busy machine
        said = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
        version = said.get("version", version)
        if done.returncode < 0:
            name = signal.Signals(-done.returncode).name
            print(f"reproduced with TensorFlow {version}: the process ended with {name}")
            return
        if done.returncode:
            sys.exit(f"the attempt itself failed with exit code {done.returncode}")
        if int(said["wrong"]):
            count = f"{said['wrong']} of {THREADS * CALLS}"
            print(f"reproduced with TensorFlow {version}: {count} results are wrong")
            return
    print(f"not reproduced with TensorFlow {version} in {ATTEMPTS} attempts")


if __name__ == "__main__":
    child() if sys.argv[1:] == ["child"] else main()
