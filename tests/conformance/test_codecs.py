"""Properties of every codec on the list of `conftest.py` in training. `test_files.py` tests
files.
"""

import numpy as np
import pytest
import tensorflow as tf

from tfquant import models
from tfquant.exchange import Rounding, Surrogates
from tfquant.legacy_keras import keras
from tfquant.quantization.plans import PLANS
from tfquant.training import losses
from tfquant.training.experiment import Experiment
from tfquant.training.trainer import Trainer

LMBDA = 0.0067


def test_every_registered_codec_is_on_the_list(listed):
    assert listed == set(models.CODECS)


@pytest.fixture(scope="module", name="codec")
def _codec(label, build):
    return build(label)


@pytest.fixture(scope="module", name="x")
def _x(make_photograph):
    images = np.stack([make_photograph(64, 64, seed) for seed in range(2)])
    return tf.constant(images, tf.float32) / 255


def surrogates(plan):
    return Surrogates(PLANS[plan], tf.constant(4.0), 1, tf.constant([5, 6], tf.int64))


def gradients(codec, x, plan, variables):
    """Returns gradients of the loss for a plan: [(name, gradient)]."""
    exchange = surrogates(plan)
    with tf.GradientTape() as tape:
        outcome = losses.Outcome(x, codec(x, exchange), exchange)
        loss = losses.rate(outcome) + LMBDA * losses.mse(outcome)
    assert np.isfinite(loss)
    return list(zip((v.name for v in variables), tape.gradient(loss, variables)))


def assert_useful(gradients):
    for name, gradient in gradients:
        assert gradient is not None, f"{name}: no gradient"
        assert np.all(np.isfinite(gradient)), f"{name}: not finite"
        assert np.any(gradient), f"{name}: zero"


# One codec for each kind of networks, because making a graph takes seconds. The other codecs have
# the same layers with another entropy family or quantizer: `ms_context` has those of `ms_hyper`.
# `test_files.py` checks the coding graphs. This test comes first, because a defect of oneDNN would
# end the process in the tests below.
@pytest.mark.slow
@pytest.mark.parametrize(
    "label",
    [
        "factorized", "scale_hyperprior", "ms_hyper_zero mixture", "ms_context", "charm",
        "elic_sm_zero", "cheng_attn",
    ],
    indirect=True,
)  # fmt: skip
def test_a_graph_computes_what_eager_execution_does(codec, x, onednn):
    """Also checks that the graph contains no pattern of `tests/onednn_patterns.py`.

    A training step has no further convolution or matrix product, except for the medians' step,
    which `entropy/test_models.py` checks.
    """

    def both(x):
        trained, rounded = surrogates("sua_ste"), Rounding()
        with tf.GradientTape() as tape:
            x_tilde = codec(x, trained)
            outcome = losses.Outcome(x, x_tilde, trained)
            loss = losses.rate(outcome) + LMBDA * losses.mse(outcome)
        x_hat = codec(x, rounded)
        bits = [exchange.bits_per_image() for exchange in (trained, rounded)]
        return [x_tilde, x_hat, *bits, *tape.gradient(loss, codec.trainable_variables)]

    graph, defects = onednn.run(both, x)
    for expected, found in zip(both(x), graph):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.max(np.abs(expected)))
    assert not defects


def test_every_weight_gets_a_finite_gradient(codec, x):
    assert_useful(gradients(codec, x, "mix", codec.trainable_variables))


def test_every_weight_gets_a_finite_gradient_with_pge(codec, x, traced):
    assert_useful(gradients(codec, x, "sua_pge", codec.trainable_variables))


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("label", ["factorized", "ms_hyper_zero"], indirect=True)
def test_every_plan_trains_every_weight(codec, x, plan):
    assert_useful(gradients(codec, x, plan, codec.trainable_variables))


@pytest.fixture(name="post_trainer")
def _post_trainer(codec):
    """A trainer that has begun post-training. The next test gets an unchanged codec."""
    joint, post = Experiment().all_stages()
    trainer = Trainer(codec, Experiment())
    trainer.begin(post)
    yield trainer
    trainer.begin(joint)


def test_post_training_trains_exactly_the_decoders_weights(codec, x, post_trainer, traced):
    """Checks that with rounding and a bound of 1e-6, every gradient is finite."""
    variables = post_trainer.trained_variables()
    frozen = {id(v) for part in codec.group("encoder").values() for v in part.variables}
    assert frozen.isdisjoint(map(id, variables))
    assert {id(v) for v in codec.g_s.trainable_variables} <= {id(v) for v in variables}
    assert_useful(gradients(codec, x, "round", variables))


@pytest.mark.slow
def test_bfloat16_stays_within_the_networks(label, codec, x, build, traced):
    """Checks that latents, likelihoods and weights are float32 and stay finite after a step."""
    exact, codec = codec, build(label, "bfloat16")
    codec.set_weights(exact.get_weights())
    exchange = surrogates("sua_ste")
    assert codec(x, exchange).dtype == tf.float32
    assert codec.g_s.layers[0].compute_dtype == "bfloat16"
    y = exact.analyze(x)
    error = np.sqrt(np.mean((exchange.latents["y"] - y) ** 2))
    assert 0 < error < 0.05 * np.std(y)
    for name, bits in exchange.bits.items():
        latent = exchange.latents[name]
        assert bits.dtype == exchange.received[name].dtype == latent.dtype == tf.float32
        # Also not rounded to bfloat16 in between.
        assert np.mean(latent != tf.cast(tf.cast(latent, tf.bfloat16), tf.float32)) > 0.9
        assert all(p.dtype == tf.float32 for p in exchange.params[name])
    trainer = Trainer(codec, Experiment(precision="bfloat16", joint_schedule="constant"))
    trainer.begin(trainer.experiment.all_stages()[0])
    before = codec.get_weights()
    trainer.train_step({"image": 255 * x, "index": tf.constant([5, 6], tf.int64)})
    assert trainer.skipped.numpy() == 0
    for weight in codec.weights:
        assert weight.dtype == tf.float32 and np.all(np.isfinite(weight)), weight.name
    assert all(np.any(w != b) for w, b in zip(codec.trainable_variables, before) if b.ndim == 4)


# Parameters of CompressAI's models at these widths. The densities differ: theirs has hidden widths
# (3, 3, 3, 3) and three learned quantiles, 61 parameters per channel. Ours has (3, 3, 3), as in the
# papers, 43 parameters, and its median is not a trained weight. The scale hyperprior's h_a ends
# without a bias, as in its authors' implementation.
@pytest.mark.parametrize(
    "name,N,M,published,density_channels,missing_biases",
    [
        ("factorized", 128, 192, 2_998_147, 192, 0),
        ("scale_hyperprior", 128, 192, 5_075_843, 128, 128),
        ("scale_hyperprior", 192, 320, 11_816_323, 192, 192),
        ("ms_hyper", 128, 192, 7_028_003, 128, 0),
        ("ms_hyper_zero", 128, 192, 7_028_003, 128, 0),
    ],
)
def test_parameters_are_as_many_as_published(
    name, N, M, published, density_channels, missing_biases
):
    codec = models.build(name, N=N, M=M)
    count = sum(v.shape.num_elements() for v in codec.trainable_variables)
    assert count == published + (43 - 61) * density_channels - missing_biases


@pytest.mark.parametrize(
    "name,options,message",
    [
        ("ms_hyperr", {}, "unknown codec 'ms_hyperr'; known: factorized, scale_hyperprior"),
        ("ms_hyper", {"precision": "int8"}, "unknown precision 'int8'; known: float32, bfloat16"),
        ("factorized", {"family": "mixture"}, "factorized has no option 'family'; known: N, M"),
        ("ms_hyper", {"family": "cauchy"}, "unknown entropy family 'cauchy'; known: scale_gau"),
        ("ms_hyper", {"g_a": "big"}, "unknown transform 'big'; known: plain, res, res_attn"),
    ],
)
def test_an_invalid_codec_is_rejected_with_the_possible_values(name, options, message):
    with pytest.raises(ValueError, match=message):
        models.build(name, **options)
    assert keras.mixed_precision.global_policy().name == "float32"


def test_two_devices_take_the_step_that_one_takes(fresh_python):
    """Tests a codec with a serial context and one with groups. test_reproducible tests a simple one
    further.
    """
    labels = ("ms_context", "charm_zero")
    script = """
    import sys
    import numpy as np
    import tensorflow as tf
    sys.path.insert(0, "tests/conformance")
    import conftest
    from tfquant import models
    from tfquant.legacy_keras import keras
    from tfquant.training.experiment import Experiment
    from tfquant.training.trainer import Trainer

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)

    def losses(strategy, name, options):
        keras.utils.set_random_seed(0)
        experiment = Experiment(batch_size=2, crop=64, joint_schedule="constant")
        with strategy.scope():
            codec = models.build(name, **{**conftest.WIDTHS, **options})
            trainer = Trainer(codec, experiment)
        trainer.begin(experiment.all_stages()[0])
        each = 2 // strategy.num_replicas_in_sync

        def batch(context):
            mine = slice(context.replica_id_in_sync_group * each, None)
            mine = slice(mine.start, mine.start + each)
            return {"image": images[mine], "index": np.arange(2)[mine]}

        values = strategy.experimental_distribute_values_from_function(batch)
        for _ in range(2):  # the second with weights that the first one moved
            strategy.run(trainer.train_step, (values,))
        return float(trainer._means["loss"].result())

    one = tf.distribute.OneDeviceStrategy("CPU:0")
    two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    for label in sys.argv[1:]:
        print("loss", *(losses(strategy, *conftest.CODECS[label]) for strategy in (one, two)))
    """
    out = fresh_python(script, *labels)
    pairs = [line.split()[1:] for line in out.splitlines() if line.startswith("loss")]
    assert len(pairs) == len(labels)
    for label, (one, two) in zip(labels, pairs):
        assert float(two) == pytest.approx(float(one), rel=3e-4), label
