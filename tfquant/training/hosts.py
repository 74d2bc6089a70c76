"""The hosts that train one codec together.

TensorFlow's TF_CONFIG lists them, on each of them:

    {"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}

Every host runs the same program with the same flags. A step's batch is the same as on one process
with the same `--batch_size`: every host draws its share of the same examples, and gradients, losses
and metrics are summed over all hosts. All hosts therefore make the same decisions without
communicating them.

The chief (a task of that type, or else worker 0) owns the run's folder and is the only host that
writes there. Every other host works in a temporary copy of the files from which a run resumes. It
then executes the same operations as the chief. This is necessary because TensorFlow's sums over
hosts wait forever if one host does not take part.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import json
import os
import tempfile
import zlib
from collections.abc import Iterator
from typing import Any, Callable

import tensorflow as tf
from absl import logging

from tfquant import files
from tfquant.training import folder, history

_TYPES = ("chief", "worker")  # in the order of their ranks


class HostLost(RuntimeError):
    """Error: another host ended before training did."""


@dataclasses.dataclass(frozen=True)
class Host:
    """This host and the number of hosts that train.

    Attributes:
      rank: index of this host; 0 is the chief.
      count: number of hosts.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def from_environment(cls) -> Host:
        """Reads TF_CONFIG. Returns a single host if it is not set.

        Raises:
          ValueError: TF_CONFIG does not have the form that TensorFlow defines.
        """
        text = os.environ.get("TF_CONFIG", "")
        if not text:
            return cls()
        try:
            config = json.loads(text)
            ranks = [(kind, i) for kind in _TYPES
                     for i in range(len(config["cluster"].get(kind, ())))]  # fmt: skip
            task = config["task"]["type"], int(config["task"]["index"])
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                'TF_CONFIG must be {"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type":'
                f' "worker", "index": 0}}}}; got {" ".join(text.split())}'
                f" ({type(error).__name__}: {error})"
            ) from None
        if task not in ranks:
            known = ", ".join(f"{kind} {i}" for kind, i in ranks)
            raise ValueError(
                f"TF_CONFIG: task {task[0]} {task[1]} is not in the cluster, which has: {known}"
            )
        return cls(ranks.index(task), len(ranks))

    @property
    def is_chief(self) -> bool:
        """True if this host owns the run's folder."""
        return self.rank == 0

    def strategy(self) -> tf.distribute.Strategy:
        """Returns the strategy over all hosts and their GPUs.

        On one host, it covers all GPUs or, without GPUs, all logical CPUs. With several hosts, call
        it before any other TensorFlow function. It waits for all hosts.
        """
        if self.count > 1:
            logging.info("Host %d of %d: waiting for the other hosts", self.rank, self.count)
            return tf.distribute.MultiWorkerMirroredStrategy()
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        if len(devices) > 1:
            return tf.distribute.MirroredStrategy([device.name for device in devices])
        return tf.distribute.get_strategy()

    @contextlib.contextmanager
    def folder(self, run_dir: str) -> Iterator[str]:
        """Yields the folder to work in: the run's for the chief, otherwise a temporary copy."""
        if self.is_chief:
            yield run_dir
            return
        with tempfile.TemporaryDirectory(prefix="tfquant-") as own:
            for name in (folder.EXPERIMENT, history.FILE, f"{folder.CHECKPOINTS}/*"):
                for source in files.matches(tf.io.gfile.join(_literal(run_dir), name)):
                    target = os.path.join(own, os.path.dirname(name), os.path.basename(source))
                    os.makedirs(os.path.dirname(target), exist_ok=True)
                    with files.as_oserror(source):
                        tf.io.gfile.copy(source, target)
            try:
                yield own
            except (ValueError, RuntimeError, OSError) as error:  # messages must name the run
                error.args = tuple(
                    part.replace(own, run_dir) if isinstance(part, str) else part
                    for part in error.args
                )
                raise

    def check_agreement(self, strategy: tf.distribute.Strategy, facts: dict[str, Any]) -> None:
        """Checks that all hosts have the same facts.

        Args:
          strategy: the strategy over all hosts.
          facts: name -> value on this host; values are compared as text.

        Raises:
          ValueError: a fact differs between hosts. The error is raised on all of them.
        """
        if self.count == 1:
            return
        digests = [[zlib.crc32(str(value).encode()) for value in facts.values()]]

        @tf.function
        def all_digests() -> tf.Tensor:
            here = strategy.run(lambda: tf.constant(digests, tf.int64))
            return strategy.gather(here, axis=0)

        found = all_digests().numpy()  # [devices, facts]
        differing = [fact for fact, values in zip(facts, found.T) if len(set(values)) > 1]
        if differing:
            raise ValueError(
                f"the hosts do not have the same {' and '.join(differing)}: start all of them with"
                " the same flags and the same files"
            )

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Wraps operations that the hosts execute together.

        Raises:
          HostLost: another host is gone.
        """
        try:
            yield
        except (
            tf.errors.AbortedError,
            tf.errors.DeadlineExceededError,
            tf.errors.InternalError,
            tf.errors.UnavailableError,
        ) as error:
            if self.count == 1 or "ollective" not in error.message:
                raise
            raise HostLost(
                f"host {self.rank} of {self.count}: another host is gone; start the same command on"
                " all hosts to resume from the last checkpoint"
            ) from error


def _literal(path: str) -> str:
    """Returns a glob that means a local path itself."""
    return glob.escape(path) if files.is_local(path) else path


def identity(checkpoint: str | None) -> tuple | None:
    """Returns an identity of a checkpoint: (name, CRC-32 of its index), or None for None.

    The index contains the checksum of every tensor.
    """
    if checkpoint is None:
        return None
    return os.path.basename(checkpoint), zlib.crc32(files.read(f"{checkpoint}.index"))


def shares(
    strategy: tf.distribute.Strategy,
    batch_size: int,
    draw: Callable[[int, int], tf.data.Dataset],
) -> tf.data.Dataset:
    """Returns the batches of a strategy; each host draws its own share of them.

    Args:
      strategy: the strategy.
      batch_size: B, the global batch size, a multiple of the number of devices.
      draw: `(offset, size)` -> batches with `size` examples of every global batch, starting at
        `offset`.
    """

    def of_host(context: tf.distribute.InputContext) -> tf.data.Dataset:
        size = batch_size // context.num_input_pipelines
        dataset = draw(context.input_pipeline_id * size, size)
        of_device = context.get_per_replica_batch_size(batch_size)
        return dataset if of_device == size else dataset.rebatch(of_device, drop_remainder=True)

    return strategy.distribute_datasets_from_function(of_host)
