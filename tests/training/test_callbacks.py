"""Event files of an interrupted and resumed run, compared with NumPy."""

import functools
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from tfquant import models
from tfquant.exchange import Rounding, Surrogates
from tfquant.legacy_keras import keras
from tfquant.training import callbacks, gradient_risk, run
from tfquant.training.checkpoint import RunCheckpoint
from tfquant.training.experiment import Experiment
from tfquant.training.trainer import Trainer

SLOW_FIXTURES = {"finished"}

EXPERIMENT = Experiment(
    codec="ms_hyper_zero", codec_options={"N": 4, "M": 6, "family": "laplacian"},
    plan="aun", lmbda=0.01, joint_steps=8, post_steps=4, batch_size=2, crop=64,
)  # fmt: skip
EPOCH, WINDOW = 4, 3


class Stopped(Exception):
    pass


class Oracle(keras.callbacks.Callback):
    """Records the values that the logs must contain, by the step of the run."""

    def __init__(self, seen, images, earlier_steps, stop_at):
        super().__init__()
        self.seen, self.images, self.earlier_steps = seen, images, earlier_steps
        self.stop_at = stop_at

    def step(self):
        return self.earlier_steps + int(self.model.stage_step)

    def on_train_batch_end(self, batch, logs=None):
        self.seen["train"][self.step()] = batch + 1, dict(logs)

    def on_epoch_end(self, epoch, logs=None):
        trainer, index = self.model, tf.range(len(self.images), dtype=tf.int64)
        x = self.images.astype(np.float32) / 255
        rounding = Rounding()
        plan, seed = trainer.stage.plan, EXPERIMENT.seed
        surrogates = Surrogates(plan, trainer.alpha(), seed, index)
        x_hat = trainer.codec(x, rounding).numpy()
        x_tilde = trainer.codec(x, surrogates).numpy()
        values = {}
        for suffix, exchange, image in (("", rounding, x_hat), ("_tilde", surrogates, x_tilde)):
            bits = sum(float(np.sum(b, dtype=np.float64)) for b in exchange.bits.values())
            R, D = bits / x[..., 0].size, np.mean((255.0 * (x - image)) ** 2)
            values.update({f"R{suffix}": R, f"D{suffix}": D, f"J{suffix}": R + 0.01 * D})
        errors = np.mean((x - np.clip(x_hat, 0, 1)) ** 2, axis=(1, 2, 3))
        values["psnr"] = np.mean(-10 * np.log10(errors))
        self.seen["validation"][self.step()] = values
        y, z = (rounding.latents[name].numpy() for name in "yz")
        raw = rounding.params["y"][0].numpy()
        mu, log_sigma = raw[..., :6], raw[..., 6:]
        bound = trainer.stage.sigma_bound
        self.seen["latents"][self.step()] = {
            "y": y,
            "z": z,
            "y_hat_minus_mu": np.round(y - mu),
            "z_hat_minus_mu": np.round(z - trainer.codec.z_model.medians.numpy()),
            "log10_sigma": np.log10(np.maximum(np.exp(log_sigma), bound)),
        }
        self.seen["x_hat"] = x_hat

    def on_epoch_begin(self, epoch, logs=None):
        if self.step() == self.stop_at:  # the previous epoch has been saved
            raise Stopped


@pytest.fixture(scope="module")
def finished(tmp_path_factory, eagerly):
    """A run of two stages, interrupted after the first epoch: its folder, and the Oracle's
    records.
    """
    directory = str(tmp_path_factory.mktemp("run"))
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (8, 8, 8, 3)).repeat(8, 1).repeat(8, 2).astype(np.uint8)
    validation = tf.data.Dataset.from_tensor_slices(
        {"image": pictures[:2], "index": np.arange(2, dtype=np.int64)}
    ).batch(2)
    seen = {"train": {}, "validation": {}, "latents": {}, "images": pictures[:2]}

    def training(first):
        index = tf.data.Dataset.range(first, first + 1000)
        return index.map(lambda i: {"image": tf.gather(pictures, i % 8), "index": i}).batch(2)

    def train(stop_at, measures_risk):
        keras.utils.set_random_seed(0)
        codec = models.build(EXPERIMENT.codec, **EXPERIMENT.codec_options)
        ours = callbacks.for_stage(directory, validation, measures_risk)
        run.run_stages(
            RunCheckpoint(directory, Trainer(codec, EXPERIMENT)), training_data=training,
            validation_data=validation, epoch_steps=EPOCH, verbose=0,
            callbacks=lambda stage, earlier: [
                *ours(stage, earlier), Oracle(seen, pictures[:2], earlier, stop_at)
            ],
        )  # fmt: skip

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks, "_WINDOW", WINDOW)
        few = functools.partial(gradient_risk.gradient_risk, draws=2, elements=1)
        patch.setattr(gradient_risk, "gradient_risk", few)
        with pytest.raises(Stopped):
            train(stop_at=EPOCH, measures_risk=False)
        train(stop_at=None, measures_risk=True)
    return directory, seen


def test_logs_that_cannot_be_written_give_one_line(tmp_path):
    (tmp_path / "logs").write_text("a file")
    log = callbacks._Log(str(tmp_path / "logs"))
    with pytest.raises(OSError, match=f"^{tmp_path}/logs: Not a directory$"), log.writing(0):
        pass


def test_logs_that_fill_the_disk_give_one_line(tmp_path, full_disk):
    """Checks that errors are raised at the end of the context, which flushes the logs."""
    log = callbacks._Log(str(tmp_path))
    message = f"^{tmp_path}: [^\n]*$"
    with full_disk(6000), pytest.raises(OSError, match=message), log.writing(0):
        tf.summary.write("large", tf.zeros([2000]))


@pytest.fixture(scope="module")
def events(finished):
    everything = {"tensors": 0}
    return EventAccumulator(finished[0] + "/logs", size_guidance=everything).Reload()


def points(events, tag):
    """Returns step -> value of a scalar."""
    return {e.step: float(tf.make_ndarray(e.tensor_proto)) for e in events.Tensors(tag)}


def test_training_points_are_means_over_the_steps_between_them(finished, events):
    seen = finished[1]["train"]
    for name in ("loss", "bpp", "mse", "bpp_y", "bpp_z"):
        expected = {}
        for step, (batch, logs) in seen.items():
            if batch == WINDOW:
                expected[step] = logs[name]
            elif batch == EPOCH:
                expected[step] = EPOCH * logs[name] - WINDOW * seen[step - 1][1][name]
        found = points(events, f"train/{name}")
        assert list(found) == [3, 4, 7, 8, 11, 12]
        for step, value in expected.items():
            assert found[step] == pytest.approx(value, rel=1e-4), (name, step)


def test_schedules_and_speed_are_those_of_the_steps_stage(finished, events):
    joint, post = EXPERIMENT.all_stages()
    found = points(events, "train/learning_rate")
    # Step 7 starts after 6 finished ones.
    assert found[7] == pytest.approx(float(joint.learning_rate(6)))
    assert found[11] == pytest.approx(float(post.learning_rate(11 - 8 - 1)))
    assert points(events, "train/alpha")[3] == pytest.approx(float(joint.alpha(3)))
    assert set(points(events, "train/skipped").values()) == {0.0}
    assert all(value > 0 for value in points(events, "train/images_per_s").values())


def test_validation_and_gap_are_what_rounding_and_the_surrogates_give(finished, events):
    expected = finished[1]["validation"]
    assert list(expected) == [4, 8, 12]
    for name in expected[4]:
        found = points(events, f"validation/{name}")
        for step, values in expected.items():
            assert found[step] == pytest.approx(values[name], rel=1e-4), (name, step)
    for symbol in "RDJ":
        found = points(events, f"gap/{symbol}")
        assert list(found) == [4, 8]  # none while the encoder is frozen
        for step, value in found.items():
            values = expected[step]
            scale = 1e-4 * abs(values[symbol])
            gap = values[f"{symbol}_tilde"] - values[symbol]
            assert value == pytest.approx(gap, abs=float(scale))
    assert abs(points(events, "gap/R")[4]) > 0


def test_histograms_hold_every_element(finished, events):
    for step, latents in finished[1]["latents"].items():
        for name, values in latents.items():
            found = {e.step: e.tensor_proto for e in events.Tensors(f"latents/{name}")}[step]
            left, right, count = tf.make_ndarray(found).T
            assert count.sum() == values.size
            assert left[0] == pytest.approx(values.min(), abs=1e-3), (name, step)
            assert right[-1] == pytest.approx(values.max(), abs=1e-3), (name, step)
            below = np.sum(values < left[15] - 1e-4), np.sum(values < left[15] + 1e-4)
            assert below[0] <= count[:15].sum() <= below[1]


def test_pictures_are_original_and_reconstruction_side_by_side(finished, events):
    seen = finished[1]
    event = events.Tensors("pictures/original_and_reconstruction")[-1]
    width, height, *encoded = tf.make_ndarray(event.tensor_proto)
    assert (event.step, int(width), int(height), len(encoded)) == (12, 128, 64, 2)
    for png, original, x_hat in zip(encoded, seen["images"], seen["x_hat"]):
        picture = np.asarray(Image.open(io.BytesIO(png))).astype(int)
        np.testing.assert_array_equal(picture[:, :64], original)
        expected = 255 * np.clip(x_hat, 0, 1)
        np.testing.assert_array_equal(picture[:, 64:], np.rint(expected))


def test_gradient_risk_is_measured_on_request_while_the_encoder_trains(events):
    tags = [tag for tag in events.Tags()["tensors"] if tag.startswith("gradient/")]
    assert len(tags) == 12  # gradient, variance, bias and its error of rate, mean and distortion
    for tag in tags:
        assert list(points(events, tag)) == [8]  # requested only after the run was resumed
    assert points(events, "gradient/rate_variance")[8] > 0


def test_hyperparameters_describe_the_run_and_their_metrics_are_logged(events):
    def plugin_data(tag):
        content = events.SummaryMetadata(tag).plugin_data.content
        return plugin_data_pb2.HParamsPluginData.FromString(content)

    values = plugin_data("_hparams_/session_start_info").session_start_info.hparams
    assert values["plan"].string_value == "aun"
    assert values["rate_branch"].string_value == "aun:pathwise"
    assert (values["N"].number_value, values["lmbda"].number_value) == (4, 0.01)
    assert values["codec_options"].string_value == "family=laplacian"
    assert values["steps"].string_value == "joint 8, post 4"
    described = plugin_data("_hparams_/experiment").experiment
    assert {info.name for info in described.hparam_infos} == set(values)
    metrics = {info.name.tag for info in described.metric_infos}
    assert {"validation/J", "validation/R", "validation/psnr", "gap/J"} <= metrics
    assert metrics <= set(events.Tags()["tensors"])


def test_pictures_of_any_name_are_logged_as_printable_text(tmp_path):
    log = callbacks._Log(str(tmp_path))
    described = callbacks.Hyperparameters(log)
    model = keras.Model()
    model.experiment = Experiment(train_images="pictures\udce9 [1]")
    described.set_model(model)
    described.on_train_begin()
    (path,) = tmp_path.rglob("events*")
    assert b"pictures\\xe9 [1]" in path.read_bytes()


def test_every_curve_has_a_description(events):
    for tag in events.Tags()["tensors"]:
        if not tag.startswith("_hparams_") and "custom_scalars" not in tag:
            assert events.SummaryMetadata(tag).summary_description, tag
