"""The hosts that train one codec together.

TensorFlow's TF_CONFIG names them, on each of them:

    {"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}

Every host runs the same program with the same flags. A step's batch is that of one process with the
same `--batch_size`: every host draws its share of the very same examples, and gradients, losses and
metrics are summed over all. So the hosts take the same decisions, and nobody has to be told any.

The chief (a task of that type, or else worker 0) keeps the run's folder, and alone writes there.
Another host works in a temporary copy of what a run goes on from, so that all do the same: what
TensorFlow sums over hosts, all of them must ask for, or those who do wait forever.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import tempfile
import zlib
from typing import Callable

import tensorflow as tf
from absl import logging

from tfquant import files
from tfquant.training import folder, history

_TYPES = ("chief", "worker")  # in the order of their ranks


class HostLost(RuntimeError):
    """Another host ended before training did."""


@dataclasses.dataclass(frozen=True)
class Host:
    """This host among those that train.

    Attributes:
      rank: its place, 0 is the chief.
      count: hosts in all.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def from_environment(cls) -> Host:
        """As TF_CONFIG says; one host where it is not set.

        Raises:
          ValueError: TF_CONFIG is not what TensorFlow defines.
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
                f"TF_CONFIG: this task is {task[0]} {task[1]}; in the cluster: {known}"
            )
        return cls(ranks.index(task), len(ranks))

    @property
    def is_chief(self) -> bool:
        return self.rank == 0

    def strategy(self) -> tf.distribute.Strategy:
        """Over all hosts and their GPUs; on one host over all GPUs, or all logical CPUs.

        Many hosts: to be called before TensorFlow does anything else, and waits for all of them.
        """
        if self.count > 1:
            logging.info("Host %d of %d: waiting for all", self.rank, self.count)
            return tf.distribute.MultiWorkerMirroredStrategy()
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        if len(devices) > 1:
            return tf.distribute.MirroredStrategy([device.name for device in devices])
        return tf.distribute.get_strategy()

    @contextlib.contextmanager
    def folder(self, run_dir: str):
        """Gives the folder to work in: the run's for the chief, else a copy, removed at the end."""
        if self.is_chief:
            yield run_dir
            return
        with tempfile.TemporaryDirectory(prefix="tfquant-") as own:
            for name in (folder.EXPERIMENT, history.FILE, f"{folder.CHECKPOINTS}/*"):
                for source in files.matches(tf.io.gfile.join(run_dir, name)):
                    target = os.path.join(own, os.path.dirname(name), os.path.basename(source))
                    os.makedirs(os.path.dirname(target), exist_ok=True)
                    with files.as_oserror(source):
                        tf.io.gfile.copy(source, target)
            try:
                yield own
            except (ValueError, RuntimeError, OSError) as error:  # a folder's name means the run's
                error.args = tuple(
                    part.replace(own, run_dir) if isinstance(part, str) else part
                    for part in error.args
                )
                raise

    def check_agreement(self, strategy: tf.distribute.Strategy, facts: dict) -> None:
        """Compares what the hosts found.

        Args:
          strategy: theirs.
          facts: what -> what it is here, compared as text.

        Raises:
          ValueError: it is not the same on all hosts; on all of them.
        """
        if self.count == 1:
            return
        digests = [[zlib.crc32(str(value).encode()) for value in facts.values()]]

        @tf.function
        def all_digests():
            here = strategy.run(lambda: tf.constant(digests, tf.int64))
            return strategy.gather(here, axis=0)

        found = all_digests().numpy()  # [devices, facts]
        differing = [fact for fact, values in zip(facts, found.T) if len(set(values)) > 1]
        if differing:
            raise ValueError(
                f"the hosts do not have the same {' and '.join(differing)}: all need the same flags"
                " and the same files"
            )

    @contextlib.contextmanager
    def together(self):
        """For what the hosts do together.

        Raises:
          HostLost: another one is gone.
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
                " all of them to go on from the last checkpoint"
            ) from error


def identity(checkpoint: str | None) -> tuple | None:
    """What tells a checkpoint from others of its name: (name, CRC-32 of its index).

    The index holds the checksum of every tensor.
    """
    if checkpoint is None:
        return None
    return os.path.basename(checkpoint), zlib.crc32(files.read(f"{checkpoint}.index"))


def shares(
    strategy: tf.distribute.Strategy,
    batch_size: int,
    draw: Callable[[int, int], tf.data.Dataset],
) -> tf.data.Dataset:
    """The batches of a strategy, of which each host draws its own share.

    Args:
      strategy: the strategy.
      batch_size: B, the global batch, a multiple of the devices.
      draw: `(offset, size)` -> batches that hold, of every global batch, the `size` examples from
        `offset` on.
    """

    def of_host(context: tf.distribute.InputContext) -> tf.data.Dataset:
        size = batch_size // context.num_input_pipelines
        dataset = draw(context.input_pipeline_id * size, size)
        of_device = context.get_per_replica_batch_size(batch_size)
        return dataset if of_device == size else dataset.rebatch(of_device, drop_remainder=True)

    return strategy.distribute_datasets_from_function(of_host)
