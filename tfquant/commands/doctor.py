"""`tfquant doctor`: the software and hardware of this machine, and what works with it.

Prints one line each for Python, TensorFlow, the coder, the GPU, oneDNN, what works and what does
not work.
"""

from __future__ import annotations

import os
import platform
from typing import NamedTuple

from tfquant import stack

_WITH_ANY_CODER = (
    "training", "evaluation", "compress", "decompress", "export", "stock SavedModel"
)  # fmt: skip
_FULL = "full SavedModel with the coder in its graph"
_PIP_GPU = "pip install 'tfquant[gpu]' installs CUDA"


class Report(NamedTuple):
    """The findings of `examine`.

    Attributes:
      lines: (subject, text) pairs, in the order to print.
      healthy: true if the commands work.
    """

    lines: list
    healthy: bool

    def __str__(self) -> str:
        return "\n".join(f"{subject:<12} {text}" for subject, text in self.lines)


def examine() -> Report:
    """Examines the installed packages and, if they are compatible, the hardware that TensorFlow
    finds.
    """
    lines = [("python", f"{platform.python_version()}, {stack.platform_name()}")]
    problem = stack.problem()
    if problem is None:
        try:
            stack.import_tensorflow()
            lines.append(("tensorflow", _packages()))
            coder = stack.coder()
        except stack.StackError as error:
            problem = str(error).replace(" (see: tfquant doctor)", "")
    if problem is not None:
        lines += [("problem", problem), ("works", "info"), ("broken", "every other command")]
        return Report(lines, healthy=False)
    works, broken = list(_WITH_ANY_CODER), []
    if coder.kind == stack.OPERATIONS:
        lines.append(("coder", f"operations of {coder.source}"))
        works.append(_FULL)
    else:
        lines.append(("coder", f"portable, in Python: {coder.source}"))
        broken.append(f"{_FULL}: it needs the coder's operations")
    board = _tensorboard_problem()
    (broken if board else works).append(board or "TensorBoard")
    lines += [
        ("gpu", _gpu()),
        ("onednn", _onednn()),
        ("works", ", ".join(works)),
        ("broken", "; ".join(broken) or "nothing"),
    ]
    return Report(lines, healthy=True)


def _packages() -> str:
    others = ("tf-keras", "tensorflow-probability", "numpy")
    found = [f"{package} {stack.version(package)}" for package in others if stack.version(package)]
    return ", ".join([str(stack.tensorflow_version()), *found])


def _tensorboard_problem() -> str | None:
    """Returns the reason why TensorBoard does not start, or None if it does."""
    board, setuptools = stack.version("tensorboard"), stack.version("setuptools")
    if board is None:
        return "TensorBoard is not installed: pip install tensorboard"
    if stack.numbers(board) < (2, 20) and (
        setuptools is None or stack.numbers(setuptools) >= (81,)
    ):
        found = f"setuptools {setuptools}" if setuptools else "no setuptools"
        return f"TensorBoard {board} needs setuptools 80 or older, found {found}: " + (
            "pip install 'setuptools<81'"
        )
    return None


def _gpu() -> str:
    import tensorflow as tf

    devices = tf.config.list_physical_devices("GPU")
    if devices:
        names = [tf.config.experimental.get_device_details(d).get("device_name", d.name)
                 for d in devices]  # fmt: skip
        return f"{len(devices)}: {', '.join(names)}"
    cuda = tf.sysconfig.get_build_info().get("cuda_version")
    built = f"this TensorFlow is built for CUDA {cuda} and finds no GPU" if cuda else (
        "this TensorFlow is built for CPUs")  # fmt: skip
    installs_cuda = stack.platform_name() == "Linux x86_64" and (
        stack.numbers(tf.__version__) >= (2, 17)
    )
    return f"none: {built}" + (f" ({_PIP_GPU})" if installs_cuda else "")


def _onednn() -> str:
    from tensorflow.python.util import _pywrap_util_port

    if not _pywrap_util_port.IsMklEnabled():
        setting = os.environ.get("TF_ENABLE_ONEDNN_OPTS")
        return f"off: TF_ENABLE_ONEDNN_OPTS={setting}" if setting else "off"
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA")
    limited = f", limited to {limit} by ONEDNN_MAX_CPU_ISA" if limit else ""
    extensions = stack.processor_extensions()
    processor = f"; the processor has {', '.join(extensions)}" if extensions else ""
    return f"on{limited}{processor}"
