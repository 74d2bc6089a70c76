"""One model for a range of rates: gains, the level of each example, and the loss."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf

from tfquant import models
from tfquant.exchange import Rounding
from tfquant.export.quality import range_of
from tfquant.layers.gain import Gain
from tfquant.legacy_keras import keras
from tfquant.training import checkpoint, folder, losses
from tfquant.training.checkpoint import RunCheckpoint
from tfquant.training.experiment import Experiment
from tfquant.training.gradient_risk import gradient_risk
from tfquant.training.trained import build, load_run
from tfquant.training.trainer import Trainer

LOW, HIGH = 0.002, 0.032
EXPERIMENT = Experiment(
    codec="ms_hyper_zero", codec_options={"N": 8, "M": 12}, lmbda=0.008, lmbda_range=(LOW, HIGH),
    quality_levels=5, joint_schedule="constant", post_schedule="constant",
    joint_steps=4, post_steps=4, batch_size=4, crop=64, validation_images=4,
)  # fmt: skip


@pytest.fixture(scope="module", name="pictures")
def _pictures(make_photograph):
    """Returns uint8 [4, 64, 64, 3]."""
    return np.stack([make_photograph(64, 64, seed) for seed in range(4)])


@pytest.fixture(name="batch")
def _batch(pictures):
    index = tf.constant([5, 6, 7, 8], tf.int64)
    return {"image": tf.constant(pictures), "index": index}


def codec(experiment=EXPERIMENT):
    keras.utils.set_random_seed(0)
    return build(experiment, "float32")


def test_factors_are_interpolated_on_a_logarithmic_scale_and_held_beyond_the_ends():
    gain = Gain([1.0, 4.0, 8.0])
    y = np.ones([5, 2, 3, 6], np.float32)
    quality = [0.0, 0.25, 0.5, 1.0, 7.0]
    expected = np.interp(np.clip(quality, 0, 1), [0, 0.5, 1], np.log([1, 4, 8]))
    found = gain(y, tf.constant(quality))
    np.testing.assert_allclose(found, np.exp(expected)[:, None, None, None] * y, rtol=1e-6)
    with pytest.raises(ValueError, match="two or more positive factors; got"):
        Gain([1.0])


def test_a_new_codec_halves_its_step_where_lmbda_is_four_times_as_large():
    made = codec()
    factors = made.gain.factors(tf.constant([0.0, 0.5, 1.0]))
    lmbdas = np.array([LOW, 0.008, HIGH])
    np.testing.assert_allclose(factors[:, 0], np.sqrt(lmbdas / 0.008), rtol=1e-5)
    both = factors * made.inverse_gain.factors(tf.constant([0.0, 0.5, 1.0]))
    np.testing.assert_allclose(both, np.ones_like(both), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["factorized", "ms_hyper_zero", "cheng_anchor", "elic_sm_zero"])
def test_any_codec_with_gains_of_one_is_the_codec_without(name, pictures):
    keras.utils.set_random_seed(0)
    made = models.build(name, N=12, M=12 if name == "cheng_anchor" else 24)
    x, before, after = tf.constant(pictures[:1], tf.float32) / 255, Rounding(), Rounding()
    expected = made(x, before)
    made.add_gains([1.0, 1.0])
    np.testing.assert_array_equal(made(x, after, tf.constant([0.3])), expected)
    np.testing.assert_array_equal(after.bits["y"], before.bits["y"])


def test_a_quality_belongs_to_codecs_with_gains(pictures):
    x = tf.constant(pictures[:1], tf.float32) / 255
    with pytest.raises(ValueError, match="ms_hyper_zero has gains: it needs a quality"):
        codec()(x)
    plain = models.build("ms_hyper_zero", N=8, M=12)
    with pytest.raises(ValueError, match="ms_hyper_zero has no gains: it takes no quality"):
        plain(x, quality=tf.constant([0.5]))


@pytest.mark.slow
def test_more_quality_takes_more_bits_and_gives_a_smaller_error_of_the_latent(pictures):
    made = codec()
    x = tf.constant(pictures, tf.float32) / 255
    bits, errors = [], []
    for quality in (0.0, 0.4, 0.8, 1.0):
        exchange, level = Rounding(), tf.fill([4], quality)
        made(x, exchange, level)
        bits.append(exchange.bits_per_image().numpy())
        step = 1 / made.gain.factors(level)[:, None, None, :]
        error = (exchange.received["y"] - exchange.latents["y"]) * step
        errors.append(float(tf.reduce_mean(error**2)))
    assert np.all(np.diff(bits, axis=0) > 0)
    assert np.all(np.diff(errors) < 0)


def test_the_gains_belong_to_encoder_and_decoder_and_not_to_the_entropy_model():
    made = codec()
    assert "gain" in made.group("encoder") and "inverse_gain" in made.group("decoder")
    assert not {"gain", "inverse_gain"} & set(made.group("entropy"))


@pytest.mark.slow
def test_the_loss_weights_every_picture_by_its_own_lmbda(batch):
    """Compares with NumPy. The levels depend on the indices, but not on the batch."""
    trainer = Trainer(codec(), EXPERIMENT)
    trainer.begin(EXPERIMENT.all_stages()[1])
    quality = trainer.quality(batch["index"]).numpy()
    assert np.all((quality >= 0) & (quality < 1)) and len(set(quality)) == 4
    np.testing.assert_array_equal(trainer.quality(batch["index"][1:3]), quality[1:3])
    lmbdas = LOW * (HIGH / LOW) ** quality
    values = {k: float(v) for k, v in trainer.test_step(batch).items()}
    x, exchange = tf.cast(batch["image"], tf.float32) / 255, Rounding()
    x_hat = trainer.codec(x, exchange, tf.constant(quality)).numpy()
    errors = 255**2 * np.mean((x.numpy() - x_hat) ** 2, axis=(1, 2, 3), dtype=np.float64)
    rates = exchange.bits_per_image().numpy() / 64**2
    np.testing.assert_allclose(values["mse"], errors.mean(), rtol=1e-4)
    np.testing.assert_allclose(values["loss"], np.mean(rates + lmbdas * errors), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("plan", ["sua_ste", "mix", "sga"])
def test_a_step_trains_the_gains_with_any_plan(plan, batch):
    experiment = dataclasses.replace(EXPERIMENT, plan=plan, distortion="mse")
    trainer = Trainer(codec(experiment), experiment)
    trainer.begin(experiment.all_stages()[0])
    parts = (trainer.codec.gain, trainer.codec.inverse_gain)
    before = [part.log_factors.numpy() for part in parts]
    trainer.train_step(batch)
    for old, part in zip(before, parts):
        assert np.all(np.isfinite(part.log_factors)) and np.any(old != part.log_factors.numpy())


@pytest.mark.slow
def test_the_encoders_gain_is_frozen_after_joint_training(batch):
    trainer = Trainer(codec(), EXPERIMENT)
    trainer.begin(EXPERIMENT.all_stages()[1])
    gain, inverse = trainer.codec.gain.log_factors, trainer.codec.inverse_gain.log_factors
    before, inverse_before = gain.numpy(), inverse.numpy()
    trainer.train_step(batch)
    np.testing.assert_array_equal(gain, before)
    assert np.any(inverse.numpy() != inverse_before)


@pytest.mark.slow
def test_a_run_starts_from_one_of_a_single_rate_and_is_loaded_with_its_gains(tmp_path, batch):
    single = dataclasses.replace(EXPERIMENT, lmbda_range=())
    trainer = Trainer(codec(single), single)
    trainer.begin(single.all_stages()[0])
    folder.prepare(str(tmp_path / "single"), single)
    RunCheckpoint(str(tmp_path / "single"), trainer).save(0, 1)
    experiment = dataclasses.replace(EXPERIMENT, init_from=str(tmp_path / "single"))
    keras.utils.set_random_seed(7)
    made = build(experiment, "float32")
    checkpoint.start_from(made, experiment, checkpoint.newest_readable(experiment.init_from))
    np.testing.assert_array_equal(made.g_a.get_weights()[0], trainer.codec.g_a.get_weights()[0])
    made.gain.log_factors.assign_add(tf.ones_like(made.gain.log_factors))
    trainer = Trainer(made, experiment)
    trainer.begin(experiment.all_stages()[0])
    folder.prepare(str(tmp_path / "range"), experiment)
    RunCheckpoint(str(tmp_path / "range"), trainer).save(0, 1)
    loaded = load_run(str(tmp_path / "range")).codec
    np.testing.assert_array_equal(loaded.gain.log_factors, made.gain.log_factors)


@pytest.mark.slow
def test_gradient_risk_is_measured_at_a_quality(batch):
    made = codec()
    x = tf.cast(batch["image"][:1, :32, :32], tf.float32) / 255

    def measured(quality):
        return gradient_risk(
            made, EXPERIMENT.joint_plan(), tf.constant(4.0), x,
            distortion=losses.mse, lmbda=EXPERIMENT.lmbda_at(quality), quality=quality,
            draws=2, elements=1,
        )  # fmt: skip

    low, high = measured(0.1), measured(0.9)
    assert np.isfinite(float(low["rate_variance"]))
    assert float(low["rate_gradient"]) != float(high["rate_gradient"])


@pytest.mark.parametrize("wrong", [(0.1,), (0.2, 0.1), (0.0, 1.0), (1.0, float("inf"))])
def test_a_range_is_two_rising_positive_numbers(wrong):
    with pytest.raises(ValueError, match="lmbda_range takes two positive numbers, the smaller"):
        Experiment(lmbda_range=wrong)


@pytest.mark.parametrize(
    "lmbdas, distortion",
    [((1e-6, 1e-5), "mse"), ((1.0, 5.0), "mse"), ((0.0067, 0.00670001), "mse"),
     ((0.002, 0.032), "ms_ssim")],
)  # fmt: skip
def test_a_range_without_several_qualities_is_refused(lmbdas, distortion):
    with pytest.raises(ValueError, match="several qualities from 0 to 100, which are lmbdas from"):
        Experiment(lmbda_range=lmbdas, distortion=distortion)


@pytest.mark.parametrize("lmbdas", [(1e-6, 0.0018), (0.05, 5.0), (1e-5, 10.0), (0.0067, 0.007)])
def test_a_range_may_go_beyond_the_qualities(lmbdas):
    assert Experiment(lmbda_range=lmbdas).lmbda_range == lmbdas


@pytest.mark.parametrize("lmbdas", [(1.0, 50.0), (1e-7, 1e-6)])
def test_a_range_for_a_distortion_of_ones_own_may_be_anywhere(lmbdas, monkeypatch):
    monkeypatch.setitem(losses.DISTORTIONS, "mae", None)
    asked = Experiment(lmbda_range=lmbdas, distortion="mae", lmbda=math.sqrt(lmbdas[0] * lmbdas[1]))
    found = range_of(vars(asked))
    assert (found.level(found.low), found.level(found.high)) == (pytest.approx(0, abs=1e-4), 1)
    assert found.level(found.base) == pytest.approx(0.5, abs=1e-4)  # a file has steps of 1/256
    on_the_scale = dataclasses.replace(asked, lmbda_range=(0.0018, 0.0144))
    found = range_of(vars(on_the_scale))
    assert (found.low, found.high) == pytest.approx((10, 55), abs=0.01)


def test_the_number_of_levels_has_a_lower_limit():
    for levels in (1, 0):
        with pytest.raises(ValueError, match=f"quality_levels must be .*; got {levels}$"):
            dataclasses.replace(EXPERIMENT, quality_levels=levels)


def test_a_run_with_more_levels_than_flags_may_ask_for_is_read(tmp_path):
    many = dataclasses.replace(EXPERIMENT, quality_levels=128)
    folder.prepare(str(tmp_path), many)
    assert folder.read_experiment(str(tmp_path)) == many and len(many.gains()) == 128


def test_gains_of_another_number_of_levels_are_refused_in_one_line(tmp_path):
    start = str(tmp_path / "run")
    folder.prepare(start, EXPERIMENT)
    asked = dataclasses.replace(EXPERIMENT, init_from=start, quality_levels=4)
    with pytest.raises(ValueError) as info:
        checkpoint.start_from(codec(asked), asked, "a checkpoint")
    assert str(info.value) == (
        f"{start} trained 5 levels of gains; this run has 4: give it quality_levels=5"
    )
