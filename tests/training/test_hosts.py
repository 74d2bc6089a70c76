"""Several hosts: the share that each draws, the host that writes, and two processes on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfquant import cli, models
from tfquant.data import crops, sources
from tfquant.data.images import write_image
from tfquant.export import writing
from tfquant.export.manifest_file import read_manifest
from tfquant.training import checkpoint, folder, history
from tfquant.training.checkpoint import RunCheckpoint, newest_readable
from tfquant.training.hosts import Host, identity, shares
from tfquant.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]
SLOW_FIXTURES = {"start"}


# TF_CONFIG


def host(monkeypatch, config):
    monkeypatch.setenv("TF_CONFIG", config if isinstance(config, str) else json.dumps(config))
    return Host.from_environment()


def cluster(kind, index, **tasks):
    return {"cluster": tasks, "task": {"type": kind, "index": index}}


def test_the_chief_is_the_task_of_that_type_or_else_the_first_worker(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert Host.from_environment() == Host(0, 1)
    assert host(monkeypatch, cluster("worker", 0, worker=["a:1", "b:1"])) == Host(0, 2)
    assert host(monkeypatch, cluster("worker", "1", worker=["a:1", "b:1"])) == Host(1, 2)
    both = {"chief": ["c:1"], "worker": ["a:1", "b:1"]}
    assert host(monkeypatch, cluster("chief", 0, **both)) == Host(0, 3)
    assert host(monkeypatch, cluster("worker", 0, **both)) == Host(1, 3)
    assert [Host(rank, 2).is_chief for rank in range(2)] == [True, False]


@pytest.mark.parametrize(
    "config,message",
    [
        ("{\n", "^TF_CONFIG must be .*; got { "),
        ("[]", "^TF_CONFIG must be "),
        ({"cluster": {"worker": ["a:1"]}}, "KeyError: 'task'"),
        (cluster("worker", "x", worker=["a:1"]), "invalid literal"),
        (cluster("worker", 2, worker=["a:1", "b:1"]),
         "^TF_CONFIG: task worker 2 is not in the cluster, which has: worker 0, worker 1$"),
        (cluster("worker", -1, worker=["a:1"]), "worker -1 is not in the cluster"),
        (cluster("ps", 0, worker=["a:1"], ps=["b:1"]), "ps 0 is not in the cluster, .*: worker 0$"),
    ],
)  # fmt: skip
def test_a_bad_cluster_is_refused_in_one_line(monkeypatch, config, message):
    with pytest.raises(ValueError, match=message) as refusal:
        host(monkeypatch, config)
    assert "\n" not in str(refusal.value)


# What a host draws


class Workers:
    """A substitute for a strategy over several hosts, which requests the share of one of them."""

    def __init__(self, rank, count, devices):
        self.context = tf.distribute.InputContext(count, rank, count * devices)

    def distribute_datasets_from_function(self, of_host):
        return of_host(self.context)


@pytest.mark.parametrize("count,devices", [(1, 1), (1, 3), (2, 1), (3, 2), (6, 1)])
def test_the_hosts_draw_the_same_batches_as_one_process(make_photograph, count, devices):
    class Pictures(sources.ImageSource):
        pictures = [make_photograph(40, 50, seed) for seed in range(3)]

        def __len__(self):
            return len(self.pictures)

        def __getitem__(self, i):
            return self.pictures[i]

    options = {"seed": 3, "crop": 16, "downscale": (0.6, 0.95)}
    whole = crops.training_crops(Pictures(), batch_size=6, first_example=12, **options).take(4)

    def drawn(rank):
        def draw(offset, size):
            return crops.training_crops(
                Pictures(), batch_size=size, first_example=12 + offset, stride=6, **options
            )

        batches = shares(Workers(rank, count, devices), 6, draw).take(4 * devices)
        assert {len(batch["index"]) for batch in batches} == {6 // (count * devices)}
        return list(batches.unbatch().batch(6 // count).as_numpy_iterator())

    steps = zip(whole.as_numpy_iterator(), *map(drawn, range(count)))
    for expected, *parts in steps:
        for key, value in expected.items():
            np.testing.assert_array_equal(np.concatenate([part[key] for part in parts]), value)


# Where a host writes


def test_another_host_works_in_a_temporary_copy_and_names_the_runs_folder(tmp_path):
    kept = {"experiment.json": "e", "history.json": "h", "checkpoints/ckpt-1.index": "c"}
    for name, text in {**kept, "logs/events": "l", "export/saved_model.pb": "m"}.items():
        folder.write_json(str(tmp_path / name), text)
    before = sorted(tmp_path.rglob("*"))
    with Host(0, 2).folder(str(tmp_path)) as own:
        assert own == str(tmp_path)
    with pytest.raises(ValueError) as error, Host(1, 2).folder(str(tmp_path)) as own:
        copied = {str(p.relative_to(own)) for p in Path(own).rglob("*") if p.is_file()}
        assert copied == set(kept)
        (Path(own) / "checkpoints" / "ckpt-2.index").write_text("new")
        raise ValueError(f"{own} contains another experiment")
    assert str(error.value) == f"{tmp_path} contains another experiment"
    assert not os.path.exists(own)
    assert sorted(tmp_path.rglob("*")) == before


# What hosts agree on


class Gathered:
    """A substitute for a strategy over two hosts, of which the other one sends its digests."""

    def __init__(self, theirs):
        self.theirs = theirs

    def run(self, function):
        return function()

    def gather(self, value, axis):
        assert axis == 0
        return tf.concat([value, tf.constant([self.theirs], tf.int64)], axis)


def test_differences_between_hosts_are_reported():
    facts = {"flags": "f", "newest checkpoint": "ckpt-5"}
    same = [zlib.crc32(b"f"), zlib.crc32(b"ckpt-5")]
    Host(0, 2).check_agreement(Gathered(same), facts)
    Host(0, 1).check_agreement(Gathered([0, 0]), facts)
    with pytest.raises(ValueError, match="do not have the same newest checkpoint: start all"):
        Host(0, 2).check_agreement(Gathered([same[0], zlib.crc32(b"None")]), facts)
    with pytest.raises(ValueError, match="the same flags and newest checkpoint: start all"):
        Host(1, 2).check_agreement(Gathered([1, 2]), facts)


def test_checkpoints_of_one_name_are_distinguished_by_their_content(tmp_path):
    def written(run, value):
        return tf.train.Checkpoint(w=tf.Variable(value)).write(str(tmp_path / run / "ckpt-5"))

    first, same, other = written("a", 1.0), written("b", 1.0), written("c", 2.0)
    index = Path(f"{first}.index").read_bytes()
    assert identity(first) == identity(same) == ("ckpt-5", zlib.crc32(index))
    assert identity(other) != identity(first)
    assert identity(None) is None


# Two hosts

FLAGS = [
    "--codec=factorized", "--N=8", "--M=8", "--plan=aun", "--crop=64", "--batch_size=4",
    "--stages=joint", "--joint_steps=60", "--epoch_steps=10", "--validation_images=4",
    "--progress=silent",
]  # fmt: skip

# `train.py` whose export has no stock flavour, which takes less time.
SMALL = f"""
import runpy, sys
sys.path.append({str(ROOT / "tests")!r})
import quick_exports
quick_exports.use_small(eagerly=False)
runpy.run_path("train.py", run_name="__main__")
"""


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture(name="start")
def _start(tmp_path):
    """`start(name, arguments, hosts=1)`: starts one Python per host; all are killed at the end."""
    processes = []

    def launch(name, arguments, hosts):
        addresses = [f"127.0.0.1:{port}" for port in free_ports(hosts)]
        started = []
        for rank in range(hosts):
            temporary = tmp_path / f"{name}-{rank}"
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            environment = {**os.environ, "TMPDIR": str(temporary), "CUDA_VISIBLE_DEVICES": ""}
            if hosts > 1:
                environment["TF_CONFIG"] = json.dumps(cluster("worker", rank, worker=addresses))
            with open(tmp_path / f"{name}-{rank}.log", "w") as log:
                process = subprocess.Popen(
                    [sys.executable, *arguments], cwd=ROOT, env=environment, stdout=log, stderr=log
                )
            process.log = tmp_path / f"{name}-{rank}.log"
            started.append(process)
        processes.extend(started)
        return started

    def start(name, arguments, hosts=1):
        started = launch(name, arguments, hosts)
        if hosts > 1 and lost_a_port(started):
            started = launch(name, arguments, hosts)
        return started

    try:
        yield start
    finally:
        for process in processes:
            process.kill()
            process.wait()


def logs(processes):
    return [process.log.read_text() for process in processes]


def lost_a_port(processes):
    """Waits until all processes resume from a checkpoint or one ends.

    Returns true if another program has taken its port: a free port is not reserved between
    `free_ports` and TensorFlow. In this case, all processes are killed.
    """
    while True:
        ended = any(process.poll() is not None for process in processes)
        said = logs(processes)
        if ended and any("Address already in use" in log for log in said):
            for process in processes:
                process.kill()
                process.wait()
            return True
        if ended or all("Resumed from" in log for log in said):
            return False
        time.sleep(0.02)


def wait_for(path, processes):
    while not path.exists():
        ended = [process.poll() is not None for process in processes]
        assert path.exists() or not any(ended), logs(processes)
        time.sleep(0.02)


def assert_done(processes):
    """Asserts that all processes end within an hour without an error."""
    end = time.monotonic() + 3600
    while True:
        codes = [process.poll() for process in processes]
        assert not any(codes) and time.monotonic() < end, logs(processes)
        if None not in codes:
            return
        time.sleep(0.1)


def tensors(run_dir):
    reader = tf.train.load_checkpoint(newest_readable(str(run_dir)))
    names = reader.get_variable_to_shape_map()
    return {n: reader.get_tensor(n) for n in names if n.endswith("VARIABLE_VALUE")}


def test_two_hosts_resume_a_run_survive_a_kill_and_match_one_process(
    tmp_path, make_photograph, start, program, monkeypatch
):
    """Compares one process, which is this one, with two hosts that resume from its first
    checkpoint.

    One of the hosts is killed by `kill -9`, and both start again. The losses differ by at most
    1e-4, because sums over hosts have another order of summation. Pictures and runs have names that
    only `tf.io.gfile` can open (see `tests/test_files.py`).
    """
    (tmp_path / "pictures").mkdir()
    for seed in range(5):
        write_image(tmp_path / "pictures" / f"{seed}.png", make_photograph(80, 96, seed))
    there = f"file://{tmp_path}"
    assert cli.main(["records", f"{there}/pictures", f"{there}/set", "--shards=2"]) == 0
    one, two = tmp_path / "one", tmp_path / "two"
    train = ["train.py", *FLAGS, f"--train_images=records:{there}/set"]

    monkeypatch.setattr(checkpoint, "_KEPT", 6)
    monkeypatch.setattr(writing, "export_run", lambda run_dir: (run_dir, "nothing"))
    code, _, said = program("train", *train[1:], f"--model_dir={there}/one")
    assert code == 0, said
    (two / "checkpoints").mkdir(parents=True)
    for name in ("experiment.json", "*/checkpoint", "*/ckpt-10.*"):
        for path in one.glob(name):
            shutil.copy(path, two / path.relative_to(one))
    expected = history.read(str(one))
    folder.write_json(str(two / history.FILE), expected[:1])

    killed = start("killed", [*train, f"--model_dir={there}/two"], hosts=2)
    wait_for(two / "checkpoints" / "ckpt-20.index", killed)
    os.kill(killed[1].pid, signal.SIGKILL)
    assert killed[0].wait(timeout=3600) == 1
    said = killed[0].log.read_text().splitlines()
    gone = "train.py: host 0 of 2: another host is gone; start the same"
    assert any(line.startswith(gone) for line in said)
    assert not (two / "export").exists()

    train[:1] = ["-c", SMALL]
    again = start("again", [*train, f"--model_dir={there}/two"], hosts=2)
    assert_done(again)
    assert "Resumed from" in again[0].log.read_text()
    assert not list((tmp_path / "again-1").glob("tfquant-*"))  # its temporary folder is removed
    files = {p.name for p in two.iterdir()}
    assert files == {"experiment.json", "history.json", "checkpoints", "logs", "export"}
    assert read_manifest(f"{there}/two/export").codec == "factorized"
    assert len(list((two / "logs").iterdir())) == 2  # two starts of the chief
    assert {p.name.rstrip("-01") for p in tmp_path.iterdir() if p.is_dir()} == {
        "pictures", "set", "one", "two", "killed", "again"
    }  # fmt: skip

    found = history.read(str(two))
    assert (
        [r["run_step"] for r in found]
        == [r["run_step"] for r in expected]
        == list(range(10, 61, 10))
    )
    for name in ("loss", "R", "D", "J", "psnr"):
        curves = [[record[name] for record in records] for records in (found, expected)]
        np.testing.assert_allclose(*curves, rtol=1e-4, err_msg=name)
    assert tensors(one).keys() == tensors(two).keys()

    # One process can read everything that two hosts wrote.
    experiment = folder.read_experiment(str(two))
    trainer = Trainer(models.build("factorized", N=8, M=8), experiment)
    trainer.begin(experiment.all_stages()[0])
    RunCheckpoint(str(two), trainer).restore()
    assert trainer.stage_step.numpy() == trainer.optimizer.iterations.numpy() == 60
    assert trainer.skipped.numpy() == 0
