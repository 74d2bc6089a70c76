"""Reproduces a oneDNN defect in TensorFlow: the gradient of a strided 1x1 convolution.

    python benchmarks/onednn_strided_gradient.py
    TF_ENABLE_ONEDNN_OPTS=0 python benchmarks/onednn_strided_gradient.py

The operation is `Conv2DBackpropFilter` with a 1x1 filter and strides of 2. oneDNN runs
`jit_1x1:avx512_core, backward_weights` (as `ONEDNN_VERBOSE=1` shows), which writes outside its
memory if the input has fewer than 16 channels. The values are right. The process ends later, when
the corrupt heap is used. With 16 channels or more, the defect did not occur.

Each attempt is a child process with one number of input channels. It calls the operation fifty
times and compares with NumPy. The script prints one line: "reproduced" with the signal or the
number of wrong values, or "not reproduced". It ends within a minute. It needs only TensorFlow and
NumPy. It sets one intra-op thread itself; the defect also occurs with two threads.

TensorFlow 2.14 to 2.22.0rc0 on x86-64 Linux are affected. Results of three runs of this script with
each of these versions, on an AMD EPYC (family 25, model 17, AVX-512) with two shared cores:

    2.14.1 (oneDNN 3.2.1)   reproduced 3 times at 8 channels, SIGABRT (a corrupt heap) or SIGSEGV
    2.17.1 (oneDNN 3.4.1)   reproduced 3 times at 8 channels, SIGSEGV or SIGABRT
    2.21.0                  reproduced 3 times at 8 or 3 channels, SIGSEGV or SIGABRT

With `TF_ENABLE_ONEDNN_OPTS=0`, TensorFlow's own kernel runs, and no version reproduced the defect.
The gradient with respect to the input, `Conv2DBackpropInput`, did not reproduce it either.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

BATCH, SIDE, OUTPUTS, CALLS = 4, 64, 8, 50
# The number of channels that ends the process depends on the version, because it depends on the
# heap.
CHANNELS, SECONDS = (8, 3, 1, 15), 13


def child(channels: int) -> None:
    """Prints the number of wrong gradients."""
    import numpy as np
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    print("version", tf.__version__, flush=True)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH, SIDE, SIDE, channels)).astype(np.float32)
    upstream = rng.normal(size=(BATCH, SIDE // 2, SIDE // 2, OUTPUTS)).astype(np.float32)
    expected = np.einsum("bhwi,bhwo->io", x[:, ::2, ::2], upstream)
    x, upstream = tf.constant(x), tf.constant(upstream)
    wrong = 0
    for _ in range(CALLS):
        found = tf.raw_ops.Conv2DBackpropFilter(
            input=x, filter_sizes=[1, 1, channels, OUTPUTS], out_backprop=upstream,
            strides=[1, 2, 2, 1], padding="SAME",
        )  # fmt: skip
        wrong += not np.allclose(found[0, 0], expected, rtol=1e-3, atol=1e-2)
    print("wrong", wrong, flush=True)


def main() -> None:
    version = "?"
    for channels in CHANNELS:
        environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ}
        try:
            done = subprocess.run(
                [sys.executable, __file__, str(channels)], env=environment, timeout=SECONDS,
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            continue  # may be a corrupt heap, but also a busy machine
        said = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
        version = said.get("version", version)
        where = f"TensorFlow {version}, {channels} channels"
        if done.returncode < 0:
            name = signal.Signals(-done.returncode).name
            print(f"reproduced with {where}: the process ended with {name}")
            return
        if done.returncode:
            sys.exit(f"the attempt itself failed with exit code {done.returncode}")
        if int(said["wrong"]):
            print(f"reproduced with {where}: {said['wrong']} of {CALLS} gradients are wrong")
            return
    print(f"not reproduced with TensorFlow {version} at any of {CHANNELS} channels")


if __name__ == "__main__":
    child(int(sys.argv[1])) if sys.argv[1:] else main()
