"""One training step: the weights that it changes, and those that it never changes.

Steps run eagerly unless a test needs compilation: tracing one takes longer than running twenty.
"""

import numpy as np
import pytest
import tensorflow as tf

from tfquant import models
from tfquant.exchange import Rounding
from tfquant.legacy_keras import keras
from tfquant.ops import random
from tfquant.training import losses
from tfquant.training.experiment import Experiment
from tfquant.training.trainer import Trainer

BATCH, CROP = 4, 64


def experiment(**changes):
    settings = {
        "codec_options": {"N": 8, "M": 12},
        "plan": "mix",
        "batch_size": BATCH,
        "crop": CROP,
        "joint_steps": 40,
        "post_steps": 20,
        "joint_schedule": "constant",
        "post_schedule": "constant",
    }
    return Experiment(**{**settings, **changes})


@pytest.fixture(scope="module", name="fresh_codec")
def _fresh_codec():
    """`fresh_codec()`: the same untrained codec at every call."""
    keras.utils.set_random_seed(0)
    codec = models.build("ms_hyper_zero", N=8, M=12)
    weights = codec.get_weights()

    def fresh():
        for part in codec.parts().values():
            part.trainable = True
        codec.set_weights(weights)
        return codec

    return fresh


@pytest.fixture(name="trainer")
def _trainer(fresh_codec):
    trainer = Trainer(fresh_codec(), experiment())
    trainer.begin(trainer.experiment.all_stages()[0])
    return trainer


@pytest.fixture(scope="module", name="images")
def _images(make_photograph):
    """Returns uint8 [8, 64, 64, 3]."""
    return np.stack([make_photograph(CROP, CROP, seed) for seed in range(8)])


def batch(images, places, dtype=tf.uint8):
    image = tf.constant(images[list(places)], dtype)
    return {"image": image, "index": tf.constant(list(places), tf.int64)}


def state(trainer):
    """Returns every weight and optimizer slot by name, except medians, which follow the density."""
    values = {v.name: v.numpy() for v in trainer.optimizer.variables}
    for i, weight in enumerate(trainer.codec.variables):
        if "medians" not in weight.name:
            values[f"{i} {weight.name}"] = weight.numpy()
    return values


def medians(trainer):
    return trainer.codec.z_model.medians.numpy()


def same(a, b):
    assert a.keys() == b.keys()
    return all(np.array_equal(a[name], b[name]) for name in a)


def test_an_expected_gradient_to_a_mean_needs_a_mean():
    codec = models.build("scale_hyperprior", N=4, M=6)
    wrong = experiment(codec="scale_hyperprior", plan="aun", mean_gradient="expected")
    with pytest.raises(
        ValueError, match="needs a Gaussian or a Laplacian with a mean; scale_hyper"
    ):
        Trainer(codec, wrong)


def test_the_loss_is_rate_plus_weighted_distortion_under_rounding_and_surrogate(trainer, images):
    """Compares with NumPy, from a forward pass of the codec."""
    values = {k: float(v) for k, v in trainer.test_step(batch(images, range(4))).items()}
    x = images[:4].astype(np.float64) / 255
    exchange = Rounding()
    x_hat = trainer.codec(tf.constant(x, tf.float32), exchange).numpy().astype(np.float64)
    bits = sum(np.sum(b.numpy().astype(np.float64)) for b in exchange.bits.values())
    rate = bits / (4 * CROP * CROP)
    mse = 255**2 * np.mean((x - x_hat) ** 2)
    errors = np.mean((x - np.clip(x_hat, 0, 1)) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(values["bpp"], rate, rtol=1e-5)
    np.testing.assert_allclose(values["mse"], mse, rtol=1e-4)
    np.testing.assert_allclose(values["loss"], rate + 0.0067 * mse, rtol=1e-4)
    np.testing.assert_allclose(values["psnr"], np.mean(-10 * np.log10(errors)), rtol=1e-4)
    # Mixed: the distortion uses actual rounding, the rate does not.
    np.testing.assert_allclose(values["surrogate_mse"], mse, rtol=1e-4)
    assert abs(values["surrogate_bpp"] - rate) > 1e-3 * rate


@pytest.mark.slow
def test_training_lowers_the_loss(trainer, images):
    first = trainer.train_step(batch(images, range(4)))["loss"].numpy()
    for _ in range(11):
        trainer.reset_metrics()
        last = trainer.train_step(batch(images, range(4)))["loss"].numpy()
    assert last < 0.9 * first
    assert trainer.stage_step.numpy() == trainer.optimizer.iterations.numpy() == 12
    assert trainer.skipped.numpy() == 0


def infinite_loss(outcome):
    return tf.constant(np.inf) + 0.0 * tf.reduce_mean(tf.stop_gradient(outcome.x_hat))


def nan_gradient(outcome):
    """Returns a loss with a gradient of NaN: the slope of a root at zero times zero."""
    return tf.reduce_mean(tf.sqrt(0.0 * tf.square(outcome.x_hat)))


def overflowing_norm(outcome):
    """Returns a finite loss with finite gradients whose squares add up to infinity."""
    return 1e22 * tf.reduce_mean(outcome.x_hat)


@pytest.mark.slow
@pytest.mark.parametrize("distortion", [None, infinite_loss, nan_gradient, overflowing_norm])
def test_a_step_without_finite_loss_and_gradient_changes_nothing_and_is_counted(
    trainer, images, distortion, monkeypatch
):
    good = batch(images, range(4), tf.float32)
    trainer.train_step(good)
    before, usual = state(trainer), losses.TERMS["mse"]
    logs_before = {m.name: m.result().numpy() for m in trainer.metrics}
    bad = dict(good)
    if distortion is None:
        broken = images[:4].astype(np.float32)
        broken[2, 10, 10, 1] = np.nan
        bad["image"] = tf.constant(broken)
    else:
        monkeypatch.setitem(losses.TERMS, "mse", distortion)
        with tf.GradientTape() as tape:
            terms = trainer._terms(trainer._surrogate_outcome(good))
        gradients = tape.gradient(terms["loss"], trainer.trained_variables())
        finite = all(np.all(np.isfinite(g)) for g in gradients if g is not None)
        assert finite == (distortion is not nan_gradient)
        assert np.isfinite(terms["loss"]) == (distortion is not infinite_loss)
    for times in (1, 2):
        logs = trainer.train_step(bad)
        assert same(state(trainer), before)
        assert np.all(np.isfinite(medians(trainer)))
        counters = (trainer.skipped, trainer.skipped_in_a_row, trainer.stage_step)
        assert [c.numpy() for c in counters] == [times, times, 1 + times]
        assert trainer.optimizer.iterations.numpy() == 1
        assert logs["skipped"] == times
        for name, value in logs_before.items():
            np.testing.assert_array_equal(trainer._means[name].result(), value)

    monkeypatch.setitem(losses.TERMS, "mse", usual)
    trainer.train_step(good)
    assert not same(state(trainer), before)
    assert (trainer.skipped.numpy(), trainer.skipped_in_a_row.numpy()) == (2, 0)
    assert trainer.optimizer.iterations.numpy() == 2
    assert all(np.all(np.isfinite(value)) for value in state(trainer).values())


@pytest.mark.slow
def test_a_float16_step_moves_the_weights_as_a_float32_step_does(images):
    """Uses Adam's first step, which is the learning rate times the sign of a large gradient."""
    moves = []
    for precision in ("float32", "float16"):
        keras.utils.set_random_seed(0)
        codec = models.build("factorized", precision, N=8, M=12)
        trainer = Trainer(codec, experiment(codec="factorized", precision=precision))
        trainer.begin(trainer.experiment.all_stages()[0])
        before = [w.numpy() for w in trainer.trained_variables()]
        trainer.train_step(batch(images, range(4)))
        assert trainer.skipped.numpy() == 0
        after = [w.numpy() for w in trainer.trained_variables()]
        moves.append(np.concatenate([(a - b).ravel() for a, b in zip(after, before)]))
    rate = trainer.experiment.joint_learning_rate
    assert np.median(np.abs(moves[0])) > 0.9 * rate
    assert np.mean(np.abs(moves[1] - moves[0])) < 0.1 * rate


@pytest.mark.slow
def test_without_clipping_a_step_follows_the_whole_gradient_and_a_broken_one_is_skipped(
    fresh_codec, images
):
    """Uses the moments of Adam's first step, a tenth of the gradient, whose norm is far above 1."""
    trainer = Trainer(fresh_codec(), experiment(clip_norm=0.0))
    trainer.begin(trainer.experiment.all_stages()[0])
    good = batch(images, range(4), tf.float32)
    bad = {**good, "image": np.nan * good["image"]}
    before = state(trainer)
    trainer.train_step(bad)
    assert same(state(trainer), before) and trainer.skipped.numpy() == 1
    for model in trainer.codec.entropy_models:
        model.track_offset()  # as the step does before its gradient
    trainer.stage_step.assign(0)
    with tf.GradientTape() as tape:
        loss = trainer._terms(trainer._surrogate_outcome(good))["loss"]
    norm = tf.linalg.global_norm(tape.gradient(loss, trainer.trained_variables())).numpy()
    assert norm > 3
    trainer.train_step(good)
    moments = [v.numpy() for v in trainer.optimizer.variables if v.name.startswith("m/")]
    found = np.sqrt(sum(np.sum(np.square(m, dtype=np.float64)) for m in moments))
    assert found == pytest.approx(0.1 * norm, rel=0.05)


def test_medians_follow_the_density_for_any_batch(trainer, images):
    """Checks that a skipped step also tracks them: one Newton step, from the density only."""
    model = trainer.codec.z_model
    start = medians(trainer)
    model.track_offset()
    expected = medians(trainer)
    assert np.any(expected != start)
    model.medians.assign(start)
    bad = batch(images, range(4), tf.float32)
    bad["image"] *= np.nan
    trainer.train_step(bad)
    np.testing.assert_allclose(medians(trainer), expected, rtol=1e-6)


@pytest.mark.slow
def test_post_training_keeps_the_encoder_and_moves_the_decoder(trainer, images):
    """Compares with section 4: g_a, h_a and z's offsets are unchanged; g_s, h_s and the priors
    train.
    """
    codec = trainer.codec
    for _ in range(3):
        trainer.train_step(batch(images, range(4)))
    assert codec.y_model.sigma_bound.numpy() == np.float32(0.11)
    trainer.begin(trainer.experiment.all_stages()[1])
    assert codec.y_model.sigma_bound.numpy() == np.float32(1e-6)
    assert trainer.optimizer.iterations.numpy() == trainer.stage_step.numpy() == 0
    assert len(trainer.optimizer.variables) == 1 + 2 * len(trainer.trained_variables())
    moments = [v for v in trainer.optimizer.variables if v.shape.rank]
    assert moments and not any(np.any(v) for v in moments)

    trained = {id(v) for part in (codec.g_s, codec.h_s) for v in part.variables}
    trained |= {id(v) for v in codec.z_model.density.variables}
    assert {id(v) for v in trainer.trained_variables()} == trained
    before = [v.numpy() for v in codec.variables]
    for _ in range(2):
        trainer.train_step(batch(images, range(4)))
    for weight, value in zip(codec.variables, before):
        assert np.array_equal(weight, value) == (id(weight) not in trained), weight.name


def test_every_stage_resets_the_counters_and_the_joint_one_trains_all_parts(trainer, images):
    joint, post = trainer.experiment.all_stages()
    bad = batch(images, range(4), tf.float32)
    bad["image"] *= np.nan
    trainer.train_step(bad)
    trainer.begin(post)
    counters = (trainer.skipped, trainer.skipped_in_a_row, trainer.stage_step)
    assert [c.numpy() for c in counters] == [0, 0, 0]
    trainer.begin(joint)
    assert len(trainer.trained_variables()) == len(trainer.codec.trainable_variables)
    assert all(part.trainable for part in trainer.codec.parts().values())


def test_the_bound_switches_between_stages_without_a_new_trace(trainer, images):
    traces = []

    @tf.function(autograph=False)
    def bits(x):
        traces.append(1)
        exchange = Rounding()
        trainer.codec.transmit(trainer.codec.analyze(x), exchange)
        return tf.reduce_sum(exchange.bits["y"])

    final = trainer.codec.h_s.layers[-1]
    final.bias.assign(tf.where(tf.range(24) < 12, 0.0, -6.0))  # sigma is 0.0025
    x = tf.constant(images[:1], tf.float32) / 255
    joint = bits(x)
    trainer.begin(trainer.experiment.all_stages()[1])
    assert abs(bits(x) / joint - 1) > 0.01
    assert len(traces) == 1


def test_alpha_follows_the_steps_seen_and_the_learning_rate_those_taken(trainer, images):
    bad = batch(images, range(4), tf.float32)
    bad["image"] *= np.nan
    for data in (bad, bad, batch(images, range(4), tf.float32)):
        trainer.train_step(data)
    # alpha is linear from 1 to 12 over the first 400/450 of 40 steps.
    np.testing.assert_allclose(trainer.alpha(), 1 + 11 * 3 / 36, rtol=1e-4)
    assert trainer.optimizer.iterations.numpy() == 1


@pytest.mark.slow
def test_an_examples_noise_depends_only_on_its_place_in_the_run(fresh_codec, images):
    """Checks independence of the batch and of the position in it."""
    trainer = Trainer(fresh_codec(), experiment(plan="sua_pge"))
    trainer.begin(trainer.experiment.all_stages()[0])

    def surrogate(*places, offset=0):
        trainer.reset_metrics()
        data = batch(images, places)
        data["index"] += offset
        values = trainer.test_step(data)
        return np.array([values["surrogate_bpp"], values["surrogate_mse"]], np.float64)

    together = surrogate(0, 1, 2, 3)
    np.testing.assert_allclose(surrogate(3, 1, 0, 2), together, rtol=1e-5)
    apart = 0.25 * surrogate(2) + 0.75 * surrogate(3, 0, 1)
    np.testing.assert_allclose(apart, together, rtol=1e-5)
    # Two places may give nearly the same value by chance. Over many places, the relative standard
    # deviation is 4e-3 and 6e-4. Over eight places, the probability that it is below 1e-4 is less
    # than 1e-4.
    elsewhere = [surrogate(0, 1, 2, 3, offset=4 * n) for n in range(8)]
    assert np.all(np.std(elsewhere, axis=0) > 1e-4 * together)


@pytest.mark.slow
def test_noise_is_the_same_with_and_without_xla():
    seeds = random.example_seeds(7, "y", tf.constant([3, 2**40], tf.int64))
    for draw in (random.uniform, random.uniform_per_image):
        compiled = tf.function(draw, jit_compile=True)(seeds, [3, 5, 2])
        np.testing.assert_array_equal(compiled, draw(seeds, [3, 5, 2]))
    compiled = tf.function(random.logistic, jit_compile=True)(seeds, [3, 5, 2])
    np.testing.assert_allclose(compiled, random.logistic(seeds, [3, 5, 2]), rtol=1e-5, atol=1e-6)
