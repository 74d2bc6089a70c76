"""A run's history: one record per epoch, also after interruptions; and stages that end early."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tfquant.exchange import Rounding, Surrogates
from tfquant.legacy_keras import keras
from tfquant.training import history, run
from tfquant.training.checkpoint import RunCheckpoint
from tfquant.training.experiment import Experiment
from tfquant.training.trained import build
from tfquant.training.trainer import Trainer

EXPERIMENT = Experiment(
    codec="factorized", codec_options={"N": 4, "M": 6}, lmbda=0.01, batch_size=2, crop=64,
    stages=("qr_soft", "qr_predictive"), qr_soft_steps=4, qr_predictive_steps=4,
    rectifier_width=4, rectifier_depth=0,
)  # fmt: skip


SLOW_FIXTURES = {"interruption"}
pytestmark = pytest.mark.usefixtures("eagerly")


@pytest.fixture(scope="module", name="images")
def _images(make_photograph):
    return np.stack([make_photograph(64, 64, seed) for seed in range(20)])


@pytest.fixture(scope="module", name="train")
def _train(images, eagerly):
    """Returns `train(folder, experiment, patience, others, epoch_steps, seed)`, which trains and
    returns the trainer.
    """

    def batches(first):
        data = {"image": images, "index": np.arange(len(images))}
        return tf.data.Dataset.from_tensor_slices(data).skip(first).batch(2, drop_remainder=True)

    def train(
        folder, experiment=EXPERIMENT, patience=0, others=lambda *_: (), epoch_steps=2, seed=0
    ):
        keras.utils.set_random_seed(seed)
        trainer = Trainer(build(experiment, "float32"), experiment)
        validation = batches(0).take(1)
        run.run_stages(
            RunCheckpoint(str(folder), trainer), training_data=batches, validation_data=validation,
            epoch_steps=epoch_steps, verbose=0,
            callbacks=lambda stage, earlier: [
                history.Recording(str(folder), earlier, validation), *others(stage, earlier)
            ],
            is_over=history.patience(str(folder), patience),
        )  # fmt: skip
        return trainer

    return train


class Oracle(keras.callbacks.Callback):
    """Measures the contents of the records independently of the trainer."""

    def __init__(self, found, images):
        super().__init__()
        self.found, self.x = found, images[:2].astype(np.float32) / 255

    def measure(self):
        trainer, indices = self.model, np.arange(2)
        surrogates = Surrogates(trainer.stage.plan, trainer.alpha(), EXPERIMENT.seed, indices)
        *_, surrogate = self.pass_through(surrogates)
        y, y_hat, y_bar, x_hat, rounding = self.pass_through(Rounding())
        errors = np.mean((self.x - np.clip(x_hat, 0, 1)) ** 2, axis=(1, 2, 3))
        left = 1 - np.sum((y - y_bar) ** 2) / np.sum((y - y_hat) ** 2)
        self.found.append(
            {
                **rounding,
                **{f"surrogate_{symbol}": value for symbol, value in surrogate.items()},
                "psnr": np.mean(-10 * np.log10(errors)),
                "error_reduction": 100 * left,
            }  # fmt: skip
        )

    def pass_through(self, exchange):
        codec = self.model.codec
        y = codec.analyze(self.x)
        y_hat = codec.transmit(y, exchange)
        y_bar = codec.rectifier(y_hat)
        x_hat = codec.g_s(y_bar if self.model.stage.rectified else y_hat)
        R = float(tf.reduce_sum(exchange.bits["y"])) / (2 * 64 * 64)
        D = 255**2 * np.mean((self.x - x_hat) ** 2)
        return y, y_hat, y_bar, x_hat, {"R": R, "D": D, "J": R + 0.01 * D}

    def on_train_begin(self, logs=None):
        self.measure()

    def on_epoch_end(self, epoch, logs=None):
        self.measure()


@pytest.fixture(scope="module", name="whole")
def _whole(tmp_path_factory, train, images):
    """Returns (folder, trainer, the Oracle's measurements) of an uninterrupted run."""
    folder, found = tmp_path_factory.mktemp("whole"), []
    return folder, train(folder, others=lambda *_: [Oracle(found, images)]), found


@pytest.mark.slow
def test_records_contain_the_results_of_rounding_after_every_epoch_and_before_the_first(whole):
    folder, _, found = whole
    records = history.read(str(folder))
    places = [(r["stage"], r["step"], r["run_step"]) for r in records]
    soft = [("qr_soft", step, step) for step in (0, 2, 4)]
    assert places == [*soft, *(("qr_predictive", step, 4 + step) for step in (0, 2, 4))]
    assert len(found) == len(records)
    for record, expected in zip(records, found):
        for name, value in expected.items():
            assert record[name] == pytest.approx(value, rel=2e-4, abs=1e-3), name
    assert records[0]["error_reduction"] == 0.0 != records[1]["error_reduction"]
    # The soft stage trains on noise, the predictive one on actual rounding.
    soft, predictive = records[:3], records[3:]
    assert all(abs(r["surrogate_J"] - r["J"]) > 1e-3 for r in soft)
    assert all(r["surrogate_J"] == pytest.approx(r["J"], rel=1e-6) for r in predictive)
    # No bit changes while the encoder is frozen.
    assert len({record["R"] for record in records[3:]}) == 1


def assert_ends_as(folder, trainer, expected_folder, expected):
    """Compares weights and histories of two runs."""
    ours, theirs = (history.read(str(path)) for path in (folder, expected_folder))
    assert [r["run_step"] for r in ours] == [r["run_step"] for r in theirs]
    for one, other in zip(ours, theirs):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
    for one, other in zip(trainer.codec.get_weights(), expected.codec.get_weights()):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_killed_run_has_the_weights_and_the_history_of_an_uninterrupted_one(
    tmp_path, train, whole, interruption
):
    """The new process starts from other random weights."""

    def stop(current, earlier_steps):
        return [interruption(1)] if current.name == "qr_predictive" else []

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, others=stop)
    assert_ends_as(tmp_path, train(tmp_path, seed=1), *whole[:2])


def test_a_run_killed_after_a_record_ends_its_stages_as_early_as_an_uninterrupted_one(
    tmp_path, train, interruption
):
    """Nothing is learned, so patience ends every stage after two epochs."""
    slow = {f"{s}_learning_rate": 1e-12 for s in ("qr_soft", "qr_predictive")}
    steps = {"qr_soft_steps": 3, "qr_predictive_steps": 3}
    experiment = dataclasses.replace(EXPERIMENT, **steps, **slow)

    def stop(current, earlier_steps):
        return [interruption(2, after_record=True)] if current.name == "qr_soft" else []

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    expected = train(whole, experiment, 1, epoch_steps=1)
    with pytest.raises(KeyboardInterrupt):
        train(killed, experiment, 1, stop, epoch_steps=1)
    resumed = train(killed, experiment, 1, epoch_steps=1, seed=1)
    assert_ends_as(killed, resumed, whole, expected)
    records = history.read(str(killed))
    assert [r["step"] for r in records if r["stage"] == "qr_soft"] == [0, 1, 2]


@pytest.mark.parametrize(
    "losses,epochs,expected",
    [
        ([3, 3, 3], 0, [False, False, False]),
        ([3, 2, 1], 1, [False, False, False]),
        ([3, 2, 2], 1, [False, False, True]),
        ([1, 3, 2, 4], 3, [False, False, False, True]),
        ([2, 3, 1, 4, 5], 2, [False, False, False, False, True]),
    ],
)
def test_patience_ends_a_stage_whose_loss_has_not_decreased(tmp_path, losses, epochs, expected):
    stage = EXPERIMENT.all_stages()[0]
    records = [{"stage": "qr_soft", "step": i, "loss": v} for i, v in enumerate([0, *losses])]
    records += [{"stage": "qr_predictive", "step": 1, "loss": 0.0}]
    history.folder.write_json(str(tmp_path / history.FILE), records)
    is_over = history.patience(str(tmp_path), epochs)
    assert [is_over(stage, step) for step in range(1, len(losses) + 1)] == expected


def test_a_history_that_cannot_be_read_is_one_line_that_names_it(tmp_path):
    path = tmp_path / history.FILE
    path.write_text("")
    with pytest.raises(ValueError, match=f"^cannot read {path}: Expecting value"):
        history.read(str(tmp_path))
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError, match=f"Is a directory: '{path}'"):
        history.read(str(tmp_path))
