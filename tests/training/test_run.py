"""Runs: folders, epochs, resuming, and giving up."""

import dataclasses
import shutil

import numpy as np
import pytest
import tensorflow as tf

from tfquant import models
from tfquant.legacy_keras import keras
from tfquant.training import folder, run
from tfquant.training.checkpoint import RunCheckpoint, newest_readable, start_from
from tfquant.training.experiment import Experiment
from tfquant.training.trained import build, load_run
from tfquant.training.trainer import Trainer

EXPERIMENT = Experiment(
    codec="factorized", codec_options={"N": 4, "M": 6}, plan="sua_ste", batch_size=2, crop=64,
    joint_steps=4, post_steps=2,
)  # fmt: skip


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("eagerly")]


def images(count=16):
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (count, 8, 8, 3))
    return np.kron(coarse, np.ones((1, 8, 8, 1))).astype(np.float32)


def batches(first, broken=()):
    """Returns batches of 2, starting at an example; examples from `broken` on are NaN."""
    data = images()
    for place in broken:
        data[place] = np.nan
    dataset = tf.data.Dataset.from_tensor_slices({"image": data, "index": np.arange(len(data))})
    return dataset.skip(first).batch(2, drop_remainder=True)


def new_trainer(experiment, seed=0):
    keras.utils.set_random_seed(seed)
    return Trainer(models.build(experiment.codec, **experiment.codec_options), experiment)


def train(folder, experiment=EXPERIMENT, broken=(), epoch_steps=2, seed=0, **kwargs):
    trainer = new_trainer(experiment, seed)
    run.run_stages(
        RunCheckpoint(str(folder), trainer),
        training_data=lambda first: batches(first, broken),
        validation_data=batches(0).take(1),
        epoch_steps=epoch_steps,
        verbose=0,
        **kwargs,
    )
    return trainer


def checkpoints(folder):
    return sorted(path.stem for path in (folder / "checkpoints").glob("*.index"))


@pytest.fixture(scope="module", name="whole")
def _whole(tmp_path_factory, eagerly):
    """Returns (final weights, folder) of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    trainer = train(folder)
    assert trainer.stage.name == "post" and trainer.stage_step.numpy() == 2
    return trainer.codec.get_weights(), folder


@pytest.fixture(name="copy")
def _copy(tmp_path, whole):
    """A copy of the uninterrupted run's folder."""
    return shutil.copytree(whole[1], tmp_path / "copy")


def assert_ends_as(trainer, weights, stage="post"):
    assert trainer.stage.name == stage and trainer.stage_step.numpy() == 2
    for found, expected in zip(trainer.codec.get_weights(), weights):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("stage,step", [("joint", 1), ("joint", 3), ("post", 1)])
def test_an_interrupted_run_ends_like_an_uninterrupted_one(
    tmp_path, whole, interruption, stage, step
):
    """Interrupts before the first checkpoint, within an epoch, and within post-training.

    The new process starts from other random weights.
    """

    def stop(current, earlier_steps):
        return [interruption(step)] if current.name == stage else []

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, callbacks=stop)
    # Without a checkpoint, the weights are initialized from the seed again.
    seed = 0 if (stage, step) == ("joint", 1) else 1
    assert_ends_as(train(tmp_path, seed=seed), whole[0])


@pytest.mark.parametrize(
    "codec,options", [("charm_zero", {"M": 4, "slices": 2}), ("ms_context", {"M": 4})]
)
def test_codecs_with_a_context_resume_too(tmp_path, interruption, codec, options):
    """Compares all weights and all noise, for slices and for serial contexts."""
    experiment = dataclasses.replace(
        EXPERIMENT, codec=codec, codec_options={"N": 4, **options}, stages=("joint",), joint_steps=2
    )

    def stop(current, earlier_steps):
        return [interruption(2)]

    whole = train(tmp_path / "whole", experiment, epoch_steps=1)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "stopped", experiment, epoch_steps=1, callbacks=stop)
    assert checkpoints(tmp_path / "stopped") == ["ckpt-1"]
    resumed = train(tmp_path / "stopped", experiment, epoch_steps=1, seed=1)
    assert_ends_as(resumed, whole.codec.get_weights(), "joint")


def test_a_truncated_checkpoint_costs_an_epoch_but_not_the_result(copy, whole, caplog):
    """Damages the newest checkpoint, of post-training; the previous one is from the end of
    joint.
    """
    assert checkpoints(copy) == ["ckpt-2", "ckpt-4", "ckpt-6"]
    newest = copy / "checkpoints" / "ckpt-6.data-00000-of-00001"
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    assert_ends_as(train(copy, seed=1), whole[0])
    assert "ckpt-6 is corrupt" in caplog.text


def test_a_finished_run_is_not_changed(copy, whole):
    before = {p.name: p.read_bytes() for p in (copy / "checkpoints").iterdir()}
    trainer = train(copy, seed=1)
    assert_ends_as(trainer, whole[0])
    assert {p.name: p.read_bytes() for p in (copy / "checkpoints").iterdir()} == before


def test_a_stage_without_steps_is_skipped(tmp_path):
    trainer = train(tmp_path, dataclasses.replace(EXPERIMENT, post_steps=0))
    assert trainer.stage.name == "joint"
    assert checkpoints(tmp_path) == ["ckpt-2", "ckpt-4"]


def test_too_many_bad_steps_in_a_row_end_the_run_and_leave_the_last_good_checkpoint(tmp_path):
    experiment = dataclasses.replace(EXPERIMENT, joint_steps=8)
    good = []

    class Keeping(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.model.stage_step.numpy() == 3:
                good.extend(w.numpy() for w in self.model.trained_variables())

    with pytest.raises(run.TrainingDiverged) as failure:
        train(tmp_path / "bad", experiment, broken=range(6, 16), max_skipped_in_a_row=3,
              callbacks=lambda *_: [Keeping()])  # fmt: skip
    message = str(failure.value)
    assert message.startswith("3 steps in a row had a non-finite loss or gradient")
    assert "at step 6 of stage 'joint'" in message
    assert f"{tmp_path / 'bad'}/checkpoints" in message
    assert f"`tfquant export {tmp_path / 'bad'}`" in message
    # Step 3 was the last good one. The epoch that ends with step 4 saves its weights, and the same
    # command ends in the same way.
    assert checkpoints(tmp_path / "bad") == ["ckpt-2", "ckpt-4"]
    kept = new_trainer(experiment, seed=1)
    kept.begin(experiment.all_stages()[0])
    RunCheckpoint(str(tmp_path / "bad"), kept).restore()
    assert (kept.skipped.numpy(), kept.skipped_in_a_row.numpy()) == (1, 1)
    for found, expected in zip(kept.trained_variables(), good):
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(run.TrainingDiverged, match="at step 6 of stage 'joint'"):
        train(tmp_path / "bad", experiment, broken=range(6, 16), max_skipped_in_a_row=3, seed=1)


def test_a_bad_last_step_costs_nothing_of_its_epoch(tmp_path):
    experiment = dataclasses.replace(EXPERIMENT, stages=("joint",))
    train(tmp_path, experiment, broken=[6, 7])
    assert checkpoints(tmp_path) == ["ckpt-2", "ckpt-4"]
    again = train(tmp_path, experiment, broken=[6, 7], seed=1)
    assert (again.stage_step.numpy(), again.skipped.numpy()) == (4, 1)


def test_broken_weights_are_not_saved(tmp_path, caplog):
    """Breaks the weights with a finite step, the third: no run could resume from them."""

    class Breaking(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.model.stage_step.numpy() == 3:
                weight = self.model.trained_variables()[0]
                weight.assign(weight * np.nan)

    experiment = dataclasses.replace(EXPERIMENT, stages=("joint",))
    train(tmp_path, experiment, callbacks=lambda *_: [Breaking()])
    assert checkpoints(tmp_path) == ["ckpt-2"]
    assert "Step 4 is not saved: its validation loss is not finite" in caplog.text


def test_single_bad_steps_are_counted_and_survived(tmp_path):
    experiment = dataclasses.replace(EXPERIMENT, stages=("joint",))
    trainer = train(tmp_path, experiment, broken=[0, 4], max_skipped_in_a_row=2)
    assert (trainer.skipped.numpy(), trainer.skipped_in_a_row.numpy()) == (2, 0)
    assert trainer.optimizer.iterations.numpy() == 2
    assert all(np.all(np.isfinite(w)) for w in trainer.codec.get_weights())


def test_a_stage_must_have_whole_epochs(tmp_path):
    joint, post = EXPERIMENT.all_stages()
    assert run.epoch_length(joint, 2) == 2
    assert run.epoch_length(post, 1000) == 2
    with pytest.raises(
        ValueError, match="'joint' has 4 steps, .* not a multiple of --epoch_steps=3"
    ):
        run.epoch_length(joint, 3)


def test_a_run_must_resume_at_the_end_of_an_epoch(tmp_path, interruption):
    def stop(current, earlier_steps):
        return [interruption(2)]

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, callbacks=stop, epoch_steps=1)
    assert checkpoints(tmp_path) == ["ckpt-1"]
    message = "'joint' is at step 1, .* --epoch_steps=2; to resume, use"
    with pytest.raises(ValueError, match=message):
        train(tmp_path, epoch_steps=2)


STP = dataclasses.replace(
    EXPERIMENT, codec="ms_hyper", plan="aun", rectifier_width=0, joint_steps=1, post_steps=1,
    qr_soft_steps=4, qr_predictive_steps=2, stages=("joint", "post", "qr_soft", "qr_predictive"),
)  # fmt: skip


def bound(trainer):
    return float(trainer.codec.y_model.sigma_bound)


@pytest.fixture
def idle_steps(monkeypatch):
    """Steps are counted, but neither train nor measure anything, which takes less time."""

    def train_step(trainer, batch):
        trainer.stage_step.assign_add(1)
        return {"loss": tf.zeros([])}

    monkeypatch.setattr(Trainer, "train_step", train_step)
    monkeypatch.setattr(Trainer, "test_step", lambda trainer, batch: {"loss": tf.zeros([])})


@pytest.mark.parametrize("stages,left", [(STP.stages, 1e-6), (("joint", *STP.stages[2:]), 0.11)])
@pytest.mark.parametrize("stage,step", [("qr_soft", 2), ("qr_soft", 4), ("qr_predictive", 1)])
def test_soft_to_predictive_training_lifts_the_bound_of_sigma_and_brings_it_back(
    tmp_path, interruption, idle_steps, stages, left, stage, step
):
    """Checks that the bound of post-training is restored if there was one, for any interruption."""
    experiment, seen = dataclasses.replace(STP, stages=stages), []

    class Watching(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append((self.model.stage.name, bound(self.model)))

    def both(*_):
        return [Watching(), interruption(step)]

    with pytest.raises(KeyboardInterrupt):
        # The interruption applies to one stage; the others have their own callbacks.
        train(tmp_path, experiment,
              callbacks=lambda s, _: both() if s.name == stage else [Watching()])  # fmt: skip
    trainer = train(tmp_path, experiment, callbacks=lambda *_: [Watching()])
    assert trainer.stage.name == "qr_predictive"
    assert bound(trainer) == np.float32(left)
    expected = {"joint": 0.11, "post": 1e-6, "qr_soft": 0.11, "qr_predictive": left}
    assert {name for name, _ in seen} == set(stages)
    for name, value in seen:
        assert value == np.float32(expected[name]), name


def test_a_bound_of_sigma_that_a_stage_sets_is_not_replaced_by_an_earlier_one():
    stages = ("joint", "qr_soft", "post", "qr_predictive")
    experiment = dataclasses.replace(STP, stages=stages)
    trainer, found = new_trainer(experiment), {}
    for stage in experiment.all_stages():
        trainer.begin(stage)
        found[stage.name] = bound(trainer)
    bounds = np.float32([0.11, 0.11, 1e-6, 1e-6])
    assert found == dict(zip(stages, bounds))


def test_soft_to_predictive_training_of_a_run_that_was_post_trained_ends_with_its_bound(tmp_path):
    first = dataclasses.replace(STP, stages=("joint", "post"))
    train(tmp_path / "first", first)
    folder.prepare(str(tmp_path / "first"), first)
    second = dataclasses.replace(STP, stages=STP.stages[2:], init_from=str(tmp_path / "first"))
    trainer = new_trainer(second)
    start_from(trainer.codec, second, newest_readable(second.init_from))
    assert bound(trainer) == np.float32(1e-6)
    soft, predictive = second.all_stages()
    trainer.begin(soft)
    assert bound(trainer) == np.float32(0.11)
    trainer.begin(predictive)
    assert bound(trainer) == np.float32(1e-6)


@pytest.mark.parametrize("stages,left", [
    (("joint", "post", "qr_soft"), 1e-6), (("joint", "qr_soft"), 0.11),
    (("joint", "qr_soft", "post"), 1e-6),
])  # fmt: skip
def test_a_codec_of_a_run_has_the_bound_of_sigma_before_the_soft_stage(
    tmp_path, idle_steps, stages, left
):
    """Checks a loaded run, a run that starts from it, and one that adds a rectifier to it."""
    experiment = dataclasses.replace(STP, stages=stages, joint_sigma_bound=0.11)
    train(tmp_path, experiment)
    folder.prepare(str(tmp_path), experiment)
    codec = load_run(str(tmp_path)).codec
    assert float(codec.y_model.sigma_bound) == np.float32(left)
    for width in (0, 4):
        second = dataclasses.replace(
            STP, stages=("qr_soft", "qr_predictive"), init_from=str(tmp_path),
            rectifier_width=width, joint_sigma_bound=0.2,
        )  # fmt: skip
        trainer = Trainer(build(second, "float32"), second)
        start_from(trainer.codec, second, newest_readable(second.init_from))
        found = [bound(trainer)]
        for stage in second.all_stages():
            trainer.begin(stage)
            found.append(bound(trainer))
        np.testing.assert_array_equal(found, np.float32([left, 0.2, left]))


def test_a_run_that_stops_in_the_soft_stage_is_loaded_with_the_bound_of_post_training(
    tmp_path, interruption, idle_steps
):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, STP, callbacks=lambda s, _: [interruption(3)] * (s.name == "qr_soft"))
    folder.prepare(str(tmp_path), STP)
    loaded = load_run(str(tmp_path))
    assert loaded.experiment.stages[-1] == "qr_soft"
    assert float(loaded.codec.y_model.sigma_bound) == np.float32(1e-6)
