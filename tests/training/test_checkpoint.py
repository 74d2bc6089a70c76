"""Checkpoints: everything is restored, and corrupt ones are skipped."""

import dataclasses
import os

import numpy as np
import pytest
import tensorflow as tf

from tfquant import models
from tfquant.legacy_keras import keras
from tfquant.training import folder as folders
from tfquant.training.checkpoint import RunCheckpoint, newest_readable, start_from
from tfquant.training.experiment import Experiment
from tfquant.training.trainer import Trainer

EXPERIMENT = Experiment(
    codec="factorized", codec_options={"N": 4, "M": 6}, plan="mix", batch_size=2, crop=64,
    joint_steps=8, post_steps=4,
)  # fmt: skip


def new_trainer(seed=0, stage=0):
    keras.utils.set_random_seed(seed)
    trainer = Trainer(models.build("factorized", N=4, M=6), EXPERIMENT)
    trainer.begin(EXPERIMENT.all_stages()[stage])
    return trainer


def step(trainer, seed):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    trainer.train_step(
        {"image": tf.constant(image), "index": tf.constant([2 * seed, 2 * seed + 1], tf.int64)}
    )


def state(trainer):
    counters = [trainer.stage_step, trainer.skipped, trainer.skipped_in_a_row]
    return [v.numpy() for v in [*trainer.codec.variables, *trainer.optimizer.variables, *counters]]


def assert_same(a, b):
    for x, y in zip(a, b):
        np.testing.assert_array_equal(x, y)
    assert len(a) == len(b)


@pytest.fixture(scope="module", name="run")
def _run(tmp_path_factory):
    """A run with three joint checkpoints and one of post-training: its folder, and the states."""
    folder = tmp_path_factory.mktemp("run")
    trainer, states = new_trainer(), {}
    checkpoint = RunCheckpoint(str(folder), trainer)
    assert checkpoint.stage_index() is None
    for number in (1, 2, 3):
        step(trainer, number)
        trainer.skipped.assign(5)
        checkpoint.save(0, number)
        states[number] = state(trainer)
    trainer.begin(EXPERIMENT.all_stages()[1])
    step(trainer, 4)
    checkpoint.save(1, 4)
    states[4] = state(trainer)
    return folder, states


@pytest.fixture(name="copy")
def _copy(run, tmp_path):
    """A copy of the run's folder that tests may damage, and the states."""
    folder, states = run
    for path in (folder / "checkpoints").iterdir():
        target = tmp_path / "checkpoints" / path.name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes())
    return tmp_path, states


def resumed(folder):
    """Returns (index of the stage, state) that a new process finds; None for a new run."""
    trainer = new_trainer(seed=1)
    checkpoint = RunCheckpoint(str(folder), trainer)
    index = checkpoint.stage_index()
    trainer.begin(EXPERIMENT.all_stages()[index])
    checkpoint.restore()
    return index, state(trainer)


def test_weights_optimizer_counters_and_stage_are_restored_bit_for_bit(copy):
    folder, states = copy
    index, found = resumed(folder)
    assert index == 1
    assert_same(found, states[4])


@pytest.mark.slow
def test_a_resumed_run_takes_the_next_step(run, tmp_path):
    """Checks that equal states give equal next steps, so nothing random is stored elsewhere."""
    trainer = new_trainer()
    for number in (1, 2):
        step(trainer, number)
    RunCheckpoint(str(tmp_path), trainer).save(0, 2)
    step(trainer, 3)
    other = new_trainer(seed=1)
    RunCheckpoint(str(tmp_path), other).restore()
    step(other, 3)
    assert_same(state(other), state(trainer))


def test_three_checkpoints_are_kept(run):
    folder, _ = run
    names = {path.name for path in (folder / "checkpoints").glob("*.index")}
    assert names == {"ckpt-2.index", "ckpt-3.index", "ckpt-4.index"}


def test_a_difference_from_the_initial_run_is_logged(copy, caplog):
    folder, states = copy
    folders.prepare(str(folder), EXPERIMENT)
    ours = dataclasses.replace(
        EXPERIMENT, init_from=str(folder), lmbda=0.02, plan="sua_ste", hyper_aun=True, seed=7
    )
    codec = new_trainer(seed=1).codec
    start_from(codec, ours, newest_readable(str(folder)))
    assert_same([v.numpy() for v in codec.variables], states[4][: len(codec.variables)])
    said = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert said == [
        f"{folder} was trained with {words}"
        for words in (
            "lmbda=0.0067, but this run uses 0.02",
            "plan='mix', but this run uses 'sua_ste'",
            "hyper_aun=False, but this run uses True",
        )
    ]


@pytest.mark.parametrize(
    "stages,change,warned",
    [
        (("joint",), {"alpha_max": 8.0, "plan": "mix"}, []),  # neither plan is annealed
        (("joint",), {"joint_sigma_bound": 0.2}, ["joint_sigma_bound"]),
        (("post",), {"joint_sigma_bound": 0.2, "plan": "aun"}, []),  # joint training is over
        (("post",), {"post_sigma_bound": 0.2, "lmbda": 0.02}, ["lmbda", "post_sigma_bound"]),
        (("joint",), {"clip_norm": 0.0, "joint_learning_rate": 1e-5}, []),
    ],
)
def test_only_a_difference_in_what_both_runs_minimize_is_logged(
    copy, caplog, stages, change, warned
):
    folder, _ = copy
    folders.prepare(str(folder), EXPERIMENT)
    ours = dataclasses.replace(EXPERIMENT, init_from=str(folder), stages=stages, **change)
    record = start_from(new_trainer(seed=1).codec, ours, newest_readable(str(folder)))
    said = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert [line.partition(" with ")[2].partition("=")[0] for line in said] == warned
    assert record["experiment"]["plan"] == EXPERIMENT.plan


def cut_in_half(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.slow
@pytest.mark.parametrize("damage", [cut_in_half, flip_a_bit, lambda path: path.unlink()])
@pytest.mark.parametrize("suffix", ["index", "data-00000-of-00001"])
def test_a_corrupt_checkpoint_is_named_and_the_previous_one_is_used(copy, suffix, damage, caplog):
    """Includes a previous checkpoint of the previous stage."""
    folder, states = copy
    damage(folder / "checkpoints" / f"ckpt-4.{suffix}")
    index, found = resumed(folder)
    assert index == 0
    assert_same(found, states[3])
    assert "ckpt-4 is corrupt" in caplog.text and "trying the previous" in caplog.text


@pytest.mark.slow
def test_several_corrupt_checkpoints_are_skipped(copy):
    folder, states = copy
    for number in (3, 4):
        cut_in_half(folder / "checkpoints" / f"ckpt-{number}.data-00000-of-00001")
    index, found = resumed(folder)
    assert index == 0
    assert_same(found, states[2])


@pytest.mark.parametrize("suffix", ["index", "data-00000-of-00001"])
def test_a_checkpoint_that_cannot_be_opened_is_not_skipped(copy, suffix):
    """Another time it may be: to go on from the one before would write over it."""
    folder, _ = copy
    folder = folder.rename(folder.with_name(f"{suffix}[1]"))  # no pattern
    path = folder / "checkpoints" / f"ckpt-4.{suffix}"
    path.unlink()
    path.symlink_to(path)  # even root's `open` fails
    with pytest.raises(OSError, match=f"^.*ckpt-4.{suffix}: [^\n]*$"):
        newest_readable(str(folder))


@pytest.mark.parametrize("name", ["run\udce9", "run [1]"])
def test_the_checkpoints_of_a_run_of_any_name_are_found(copy, tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / "checkpoints").rename(tmp_path / name / "checkpoints")
    run = os.path.join(tmp_path, name)
    assert newest_readable(run) == os.path.join(run, "checkpoints", "ckpt-4")
    index = tmp_path / name / "checkpoints" / "ckpt-4.index"
    index.write_bytes(index.read_bytes()[:20])
    assert newest_readable(run) == os.path.join(run, "checkpoints", "ckpt-3")


def test_a_run_without_a_readable_checkpoint_does_not_start_over(copy):
    folder, _ = copy
    for path in (folder / "checkpoints").glob("*.data*"):
        cut_in_half(path)
    with pytest.raises(ValueError, match="all 3 checkpoints in .*checkpoints are corrupt"):
        RunCheckpoint(str(folder), new_trainer())


def test_another_codecs_checkpoint_is_refused_in_one_line(run):
    folder, _ = run
    trainer = Trainer(models.build("factorized", N=4, M=8), EXPERIMENT)
    trainer.begin(EXPERIMENT.all_stages()[1])
    with pytest.raises(ValueError, match="ckpt-4 does not fit the codec factorized: [^\n]*$"):
        RunCheckpoint(str(folder), trainer).restore()


def test_checkpoints_that_cannot_be_listed_or_written_do_not_start_a_new_run(tmp_path):
    """A file stands where their folder should be."""
    trainer = new_trainer()
    checkpoint = RunCheckpoint(str(tmp_path), trainer)
    (tmp_path / "checkpoints").write_text("kept")
    with pytest.raises(OSError, match="^.*/checkpoints: Could not find directory [^\n]*$"):
        RunCheckpoint(str(tmp_path), trainer)
    with pytest.raises(OSError, match="^.*/checkpoints: cannot save; [^\n]*$"):
        checkpoint.save(0, 1)
    assert (tmp_path / "checkpoints").read_text() == "kept"


@pytest.mark.slow
def test_a_checkpoint_that_does_not_fit_the_disk_keeps_the_previous_one(copy, full_disk):
    folder, states = copy
    trainer = new_trainer(seed=1, stage=1)
    checkpoint = RunCheckpoint(str(folder), trainer)
    checkpoint.restore()
    message = "^.*/checkpoints: cannot save; [^\n]*$"
    with full_disk(1000), pytest.raises(OSError, match=message):
        checkpoint.save(1, 5)
    index, found = resumed(folder)
    assert index == 1
    assert_same(found, states[4])
    checkpoint.save(1, 5)
    assert newest_readable(str(folder)).endswith("ckpt-5")


@pytest.mark.slow
def test_a_resumed_run_overwrites_a_corrupt_checkpoint(copy):
    folder, states = copy
    cut_in_half(folder / "checkpoints" / "ckpt-4.data-00000-of-00001")
    trainer = new_trainer(seed=1)
    checkpoint = RunCheckpoint(str(folder), trainer)
    checkpoint.restore()
    trainer.begin(EXPERIMENT.all_stages()[1])
    step(trainer, 4)
    checkpoint.save(1, 4)
    index, found = resumed(folder)
    assert index == 1
    assert_same(found, states[4])


@pytest.mark.slow
def test_the_scale_of_a_float16_loss_is_kept(tmp_path):
    def begun():
        float16 = dataclasses.replace(EXPERIMENT, precision="float16")
        trainer = Trainer(models.build("factorized", N=4, M=6), float16)
        trainer.begin(float16.all_stages()[0])
        return trainer

    trainer = begun()
    assert trainer.optimizer.loss_scale.numpy() == 2.0**15
    weights = trainer.trained_variables()
    for loss in (np.inf, 1.0):
        trainer.optimizer.step(tf.constant(loss), [tf.zeros_like(w) for w in weights], weights)
    RunCheckpoint(str(tmp_path), trainer).save(0, 1)
    trainer = begun()
    RunCheckpoint(str(tmp_path), trainer).restore()
    assert trainer.optimizer.loss_scale.numpy() == 2.0**14
    assert trainer.optimizer._good_steps.numpy() == 1
