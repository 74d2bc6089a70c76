"""Terminal output: a bar that fits, a validation line below it, images per second."""

import os
import types

import pytest
import tensorflow as tf

from tfquant.training import progress
from tfquant.training.experiment import Experiment
from tfquant.training.progress import ProgressBar, Throughput

EXPERIMENT = Experiment(batch_size=2)


@pytest.mark.parametrize("columns", [70, 80, 120])
def test_the_bar_fits_the_terminal_and_validation_has_its_own_line(columns, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    size = os.terminal_size((columns, 24))
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_, **__: size)
    bar = ProgressBar(EXPERIMENT.all_stages()[0], earlier_steps=8)
    bar.set_model(
        types.SimpleNamespace(metrics=[], experiment=EXPERIMENT, stage_step=tf.Variable(1000))
    )
    bar.set_params({"verbose": 1, "epochs": 2, "steps": 1000})
    bar.on_epoch_begin(0)
    logs = dict(
        loss=12.34567, bpp=0.51234, mse=1234.5678, bpp_y=0.5, bpp_z=0.01, skipped=0,
        images_per_s=1234.5678,
    )  # fmt: skip
    for batch in range(1000):
        bar.on_train_batch_end(batch, logs)
    for name, value in {"bpp": 0.5, "mse": 100.0, "loss": 1.5}.items():
        logs.update({f"val_{name}": value, f"val_surrogate_{name}": 1.1 * value})
    bar.on_epoch_end(0, {**logs, "val_psnr": 28.129})
    first, *drawn, last = capsys.readouterr().out.rstrip("\n").replace("\b", "").split("\n")
    assert first == "Epoch 1/2"
    redrawn = [line.rstrip() for line in "\n".join(drawn).split("\r") if line]
    assert max(map(len, redrawn)) <= columns
    assert redrawn[-1].startswith("1000/1000 [==========] - ")
    shown = [name for name in ("loss", "images/s", "bpp", "mse") if f"{name}: " in redrawn[-1]]
    assert len(shown) == {70: 1, 80: 2, 120: 4}[columns]
    assert last == (
        "joint, step 1008: psnr 28.13 dB, R 0.5, D 100, J 1.17;"
        " surrogate - rounding: R +0.05, D +10, J +0.117"
    )


def test_skipped_steps_show_in_the_bar(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    size = os.terminal_size((80, 24))
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_, **__: size)
    bar = ProgressBar(EXPERIMENT.all_stages()[0], earlier_steps=0)
    bar.set_model(
        types.SimpleNamespace(metrics=[], experiment=EXPERIMENT, stage_step=tf.Variable(3))
    )
    bar.set_params({"verbose": 1, "epochs": 1, "steps": 10})
    bar.on_epoch_begin(0)
    bar.on_train_batch_end(0, {"loss": 1.0, "bpp": 1.0, "skipped": 2, "images_per_s": 5.0})
    assert "skipped: 2.0000" in capsys.readouterr().out


def test_images_per_second_exclude_validation_and_the_first_step(monkeypatch):
    """Uses a clock that advances 10 s for the first step and for validation, and 0.5 s per other
    step.
    """
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    throughput, shown = Throughput(), []
    throughput.set_model(types.SimpleNamespace(experiment=EXPERIMENT))
    for epoch, seconds in enumerate([(10.0, 0.5, 0.5), (0.5, 0.5, 0.5)]):
        throughput.on_epoch_begin(epoch)
        for batch, elapsed in enumerate(seconds):
            now[0] += elapsed
            logs = {}
            throughput.on_train_batch_end(batch, logs)
            shown.append(logs["images_per_s"])
        now[0] += 10.0
        logs = {}
        throughput.on_epoch_end(epoch, logs)
        assert logs["images_per_s"] == shown[-1]
    assert shown == pytest.approx([0.2, 4, 4, 4, 4, 4])
