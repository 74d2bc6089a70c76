"""A codec with a rectifier: its bits and files are the same as without."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tfquant import models
from tfquant.codec import GROUPS
from tfquant.exchange import Rounding
from tfquant.export.codec_module import CodecModule
from tfquant.export.manifest_file import Manifest
from tfquant.export.model_file import ExportedModel
from tfquant.legacy_keras import keras
from tfquant.training import folder, losses
from tfquant.training.checkpoint import RunCheckpoint
from tfquant.training.experiment import Experiment
from tfquant.training.trained import build, load_run
from tfquant.training.trainer import Trainer

EXPERIMENT = Experiment(
    codec="ms_hyper_zero", codec_options={"N": 8, "M": 12}, lmbda=0.02,
    stages=("joint", "qr_soft", "qr_predictive"), joint_steps=4, qr_soft_steps=4,
    qr_predictive_steps=4, qr_soft_schedule="constant", qr_predictive_schedule="constant",
    rectifier_width=8, rectifier_depth=1, qr_weight=0.5, batch_size=2, crop=64,
)  # fmt: skip
SOFT, PREDICTIVE = EXPERIMENT.all_stages()[1:]


def plain(name="ms_hyper_zero"):
    """A codec whose latents have a range of a few bins."""
    keras.utils.set_random_seed(0)
    return models.build(name, N=8, M=12)


@pytest.mark.slow
def test_an_experiment_determines_the_start_of_the_transforms():
    """Checks that the papers' start changes no other weight."""
    built = {}
    for start in ("klt", "glorot"):
        keras.utils.set_random_seed(0)
        codec = build(dataclasses.replace(EXPERIMENT, start=start), "float32")
        built[start] = {n: p.get_weights() for n, p in codec.parts().items() if n != "rectifier"}
    for name, weights in built["klt"].items():
        alike = all(map(np.array_equal, weights, built["glorot"][name]))
        assert alike == (name not in ("g_a", "g_s")), name


@pytest.fixture(scope="module", name="pictures")
def _pictures(make_photograph):
    """Returns uint8 [4, 64, 64, 3]."""
    return np.stack([make_photograph(64, 64, seed) for seed in range(4)])


@pytest.fixture(name="batch")
def _batch(pictures):
    return {"image": tf.constant(pictures[:2]), "index": tf.constant([5, 6], tf.int64)}


def rectified(codec, *sizes):
    """Returns `codec` with a rectifier."""
    codec.add_rectifier(*sizes)
    return codec


def begun(stage, **changes):
    """Returns a trainer at the beginning of a stage."""
    trainer = Trainer(rectified(plain(), 8, 1), dataclasses.replace(EXPERIMENT, **changes))
    trainer.begin(next(s for s in trainer.experiment.all_stages() if s.name == stage.name))
    return trainer


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_adding_a_rectifier_does_not_change_the_results(precision, pictures):
    codec = models.build("ms_hyper_zero", precision, N=8, M=12)
    x = tf.constant(pictures[:1], tf.float32) / 255
    before, after = Rounding(), Rounding()
    expected = codec(x, before)
    np.testing.assert_array_equal(rectified(codec)(x, after), expected)
    for name in ("y", "z"):
        np.testing.assert_array_equal(after.bits[name], before.bits[name])
    assert keras.mixed_precision.global_policy().name == "float32"


def loaded(codec):
    """Returns the codec's exported functions, without writing an export."""
    module = CodecModule(codec)
    return ExportedModel(Manifest(codec.name, module.fingerprint(), {}, "0"), module)


@pytest.fixture(name="eagerly")
def _eagerly(eager_functions):
    """Runs functions eagerly, because tracing takes longer."""
    with eager_functions():
        yield


@pytest.mark.slow
def test_files_are_interchangeable_between_a_codec_and_its_rectified_one(
    make_photograph, stir, eagerly
):
    """Uses actual bytes, from which the rectified decoder makes another picture. Conformance
    tests cover every codec.
    """
    other = rectified(plain("scale_hyperprior"), 8, 1)
    stir(other.rectifier)
    rectifier = other.rectifier
    one, other = loaded(plain("scale_hyperprior")), loaded(other)
    picture = make_photograph(70, 90)
    file = one.compress(picture)
    assert other.compress(picture) == file
    evaluated = [model.evaluate(picture) for model in (one, other)]
    for model, expected in zip((one, other), evaluated):
        np.testing.assert_array_equal(model.decompress(file), expected["image"])
    assert np.any(evaluated[0]["image"] != evaluated[1]["image"])
    assert evaluated[0]["bits"] == evaluated[1]["bits"]
    for key in ("y", "y_hat"):
        np.testing.assert_array_equal(evaluated[0][key], evaluated[1][key])
    np.testing.assert_array_equal(evaluated[0]["y_bar"], evaluated[0]["y_hat"])
    y_bar = rectifier(evaluated[1]["y_hat"])
    np.testing.assert_allclose(evaluated[1]["y_bar"], y_bar, rtol=1e-4, atol=1e-5)


def test_only_the_decoder_has_the_rectifier():
    codec = plain()
    before = {group: codec.group(group) for group in GROUPS}
    codec.add_rectifier()
    for group in ("encoder", "entropy"):
        assert codec.group(group) == before[group]
    assert codec.group("decoder") == {**before["decoder"], "rectifier": codec.rectifier}


def reached(trainer, term, batch):
    """Returns the names of the parts that get a gradient from a loss term."""
    with tf.GradientTape() as tape:
        value = losses.TERMS[term](trainer._surrogate_outcome(batch))
    parts = trainer.codec.parts()
    gradients = tape.gradient(value, {n: p.trainable_variables for n, p in parts.items()})
    return {n for n, gs in gradients.items() if any(g is not None and np.any(g) for g in gs)}


@pytest.mark.slow
def test_gradients_reach_the_right_parts_in_the_soft_stage(batch, stir):
    """Checks that `g_s` decodes y_hat, and that the feature term's gradient passes through y."""
    trainer = begun(SOFT)
    stir(trainer.codec.rectifier)
    assert reached(trainer, "mse", batch) == {"g_a", "g_s"}
    assert reached(trainer, "bpp", batch) == {"g_a", "h_a", "h_s", "z_model"}
    assert reached(trainer, "feature_l2", batch) == {"g_a", "rectifier"}


@pytest.mark.slow
def test_the_feature_gradient_can_be_stopped_at_y(batch, stir):
    trainer = begun(SOFT, qr_stop_gradient=True)
    stir(trainer.codec.rectifier)
    assert reached(trainer, "feature_l2", batch) == {"rectifier"}
    assert reached(trainer, "mse", batch) == {"g_a", "g_s"}


@pytest.mark.slow
def test_gradients_reach_the_right_parts_in_the_predictive_stage(batch, stir):
    trainer = begun(PREDICTIVE)
    stir(trainer.codec.rectifier)
    assert reached(trainer, "mse", batch) == {"g_s", "rectifier"}
    assert reached(trainer, "feature_l2", batch) == {"rectifier"}
    names = {"g_s", "rectifier"}
    expected = {id(v) for n in names for v in trainer.codec.parts()[n].trainable_variables}
    assert {id(v) for v in trainer.trained_variables()} == expected


@pytest.mark.slow
def test_the_soft_stage_trains_everything(batch):
    trainer = begun(SOFT)
    parts = trainer.codec.parts()
    before = {n: [w.numpy() for w in part.trainable_variables] for n, part in parts.items()}
    for _ in range(2):  # initially, the zeros of the rectifier's last layer hide the others
        trainer.train_step(batch)
    for name, part in parts.items():
        for old, new in zip(before[name], part.trainable_variables):
            assert np.any(old != new), (name, new.name)


@pytest.mark.slow
@pytest.mark.parametrize("bound", [0.11, 1e-6])
def test_the_predictive_stage_changes_no_encoder_or_entropy_weight_and_no_bit(
    bound, batch, make_photograph
):
    """Compares every weight of both groups, including medians and sigma's bound, and a file's
    bytes.
    """
    picture = make_photograph(70, 90)
    trainer = begun(PREDICTIVE)
    codec = trainer.codec
    codec.y_model.set_sigma_bound(bound)
    trainer.begin(PREDICTIVE)

    def kept():
        parts = {**codec.group("encoder"), **codec.group("entropy")}
        weights = [w.numpy() for part in parts.values() for w in part.weights]
        module = CodecModule(codec)
        tf.config.run_functions_eagerly(True)  # once each: tracing takes longer
        try:
            coded = module.encode(picture)
        finally:
            tf.config.run_functions_eagerly(False)
        return [*weights, coded["streams"].numpy(), coded["bits"].numpy(), module.fingerprint()]

    before, decoder = kept(), [w.numpy() for w in codec.g_s.weights]
    for _ in range(3):
        trainer.train_step(batch)
    after = kept()
    assert len(before) == len(after) > 10
    for old, new in zip(before, after):
        np.testing.assert_array_equal(old, new)
    assert codec.y_model.sigma_bound.numpy() == np.float32(bound)
    assert all(np.any(old != new) for old, new in zip(decoder, codec.g_s.weights))


@pytest.mark.slow
def test_the_rounded_terms_are_those_of_a_decoder_in_both_stages(batch, stir):
    """Compares with NumPy from the codec's parts: soft decodes y_hat, predictive y_bar."""
    for stage in (SOFT, PREDICTIVE):
        trainer = begun(stage)
        codec = trainer.codec
        stir(codec.rectifier)
        trainer.reset_metrics()
        values = {k: float(v) for k, v in trainer.test_step(batch).items()}
        x, exchange = tf.cast(batch["image"], tf.float32) / 255, Rounding()
        y = codec.analyze(x)
        y_hat = codec.transmit(y, exchange)
        y_bar = codec.rectifier(y_hat)
        decoded = {"qr_soft": y_hat, "qr_predictive": y_bar}[stage.name]
        rate = sum(np.sum(b, dtype=np.float64) for b in exchange.bits.values()) / (2 * 64 * 64)
        mse = 255**2 * np.mean((x - codec.g_s(decoded)) ** 2, dtype=np.float64)
        left = np.mean((y - y_bar) ** 2, dtype=np.float64)
        error = np.mean((y - y_hat) ** 2, dtype=np.float64)
        expected = {"bpp": rate, "mse": mse, "quantization_error": error, "rectified_error": left,
                    "feature_l2": left}  # fmt: skip
        loss = {"qr_soft": rate, "qr_predictive": 0.0}[stage.name] + 0.02 * mse + 0.5 * left
        for name, value in {**expected, "loss": loss}.items():
            np.testing.assert_allclose(values[name], value, rtol=2e-4, err_msg=name)
        # Under the stage's own surrogates: noise, or actual rounding.
        assert (abs(values["surrogate_mse"] - mse) < 1e-4 * mse) == (stage is PREDICTIVE)


@pytest.fixture(scope="module", name="control")
def _control():
    return plain()


@pytest.mark.parametrize("distance", losses.FEATURE_DISTANCES)
def test_no_feature_distance_reaches_the_control_without_rectifier(distance, batch, control):
    """Guards against a distance from the rounded latent, which would affect the encoder."""
    changes = {"rectifier_width": 0, "qr_distance": distance, "qr_weight": 100.0}
    trainer = Trainer(control, dataclasses.replace(EXPERIMENT, **changes))
    trainer.begin(trainer.experiment.all_stages()[1])
    outcome = trainer._surrogate_outcome(batch)
    values = trainer._terms(outcome)
    expected = losses.rate(outcome) + EXPERIMENT.lmbda * losses.mse(outcome)
    assert float(values["loss"]) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("index,name", list(enumerate(EXPERIMENT.stages)))
def test_a_stopped_run_decodes_as_its_stage_does(index, name, tmp_path, pictures, caplog, stir):
    """Checks that the decoder does not use a rectifier that only the soft stage has trained."""
    folder.prepare(str(tmp_path), EXPERIMENT)
    trainer = begun(EXPERIMENT.all_stages()[index])
    stir(trainer.codec.rectifier)
    RunCheckpoint(str(tmp_path), trainer).save(index, 4)
    experiment, codec, _ = load_run(str(tmp_path))
    assert experiment.stages == EXPERIMENT.stages[: index + 1]
    x = tf.constant(pictures[:1], tf.float32) / 255
    expected = trainer.outcome(x, Rounding())
    np.testing.assert_allclose(codec(x, Rounding()), expected.x_hat, rtol=1e-5, atol=1e-6)
    assert np.any(np.abs(expected.y_bar - expected.y_hat) > 1e-3)
    left_out = f"has reached stage {name}, which decodes without the rectifier" in caplog.text
    assert left_out == (name != "qr_predictive")


@pytest.mark.slow
def test_earlier_stages_do_not_train_the_rectifier(batch):
    """Checks that joint training is the same with and without a later rectifier."""
    outcomes = []
    for codec in (plain(), rectified(plain(), 8, 1)):
        trainer = Trainer(codec, EXPERIMENT)
        trainer.begin(EXPERIMENT.all_stages()[0])
        for _ in range(2):
            trainer.train_step(batch)
        parts = {n: p for n, p in codec.parts().items() if n != "rectifier"}
        outcomes.append([w.numpy() for p in parts.values() for w in p.weights])
    for one, other in zip(*outcomes):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)
    assert not np.any(trainer.codec.rectifier.last.kernel)
