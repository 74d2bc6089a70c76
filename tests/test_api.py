"""The public API, `import tfquant as tq`, as its users write it."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tfquant as tq
from tfquant.legacy_keras import keras


@pytest.fixture(scope="module", name="codec")
def _codec():
    keras.utils.set_random_seed(0)
    return tq.models.build("ms_hyper_zero", N=8, M=12)


@pytest.fixture(scope="module", name="x")
def _x(make_photograph):
    return np.stack([make_photograph(64, 96, seed) for seed in range(2)]).astype(np.float32) / 255


def test_every_public_name_can_be_used_and_is_listed():
    for name in tq.__all__:
        assert getattr(tq, name) is not None
        assert name in dir(tq)
    with pytest.raises(AttributeError, match="'tfquant' has no attribute 'trian'"):
        _ = tq.trian


def test_type_checkers_see_the_names_that_python_finds():
    """Compares with the imports for type checkers, a second list that must stay complete."""
    tree = ast.parse(Path(tq.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    modules = {name: module for name, module in tq._PUBLIC.items() if name not in tq._MODULES}
    assert seen == {**modules, **dict.fromkeys(tq._MODULES, "tfquant")}


def test_importing_the_package_and_its_version_does_not_import_tensorflow(fresh_python):
    code = "import sys, tfquant as tq; tq.__version__, dir(tq); print('tensorflow' in sys.modules)"
    assert fresh_python(code) == "False\n"


@pytest.mark.slow
def test_calling_a_codec_rounds_as_a_decoder_does(codec, x):
    expected = codec(x, tq.Rounding())
    np.testing.assert_array_equal(codec(x), expected)
    np.testing.assert_allclose(codec.predict(x, verbose=0), expected, atol=1e-5)


@pytest.mark.slow
def test_a_codecs_weights_can_be_saved_and_loaded(codec, x, tmp_path):
    codec.save_weights(str(tmp_path / "weights"))
    keras.utils.set_random_seed(1)
    other = tq.models.build("ms_hyper_zero", N=8, M=12)
    assert np.any(other(x) != codec(x))
    other.load_weights(str(tmp_path / "weights"))
    np.testing.assert_array_equal(other(x), codec(x))


@pytest.mark.slow
def test_a_codec_can_be_saved_and_loaded_as_a_keras_model(codec, x, tmp_path):
    codec.save(str(tmp_path / "codec.keras"))
    other = keras.models.load_model(str(tmp_path / "codec.keras"))
    np.testing.assert_allclose(other(x), codec(x), atol=1e-6)


@pytest.mark.parametrize("surrogate", ["sua_ste", "mix", "aun", "sga", "uq_i:straight_through"])
def test_a_quantizer_rounds_unless_it_trains(surrogate):
    y = np.random.default_rng(0).normal(0, 3, (2, 5, 7, 3)).astype(np.float32)
    quantizer = tq.Quantizer(surrogate, alpha=4.0)
    np.testing.assert_array_equal(quantizer(y), np.round(y))
    offset = np.float32(0.3)
    np.testing.assert_allclose(quantizer(y, offset), np.round(y - offset) + offset, rtol=1e-6)
    y_tilde = quantizer(y, training=True)
    assert np.abs(y_tilde - y).max() < 1.6
    if surrogate != "mix":
        assert np.any(y_tilde != quantizer(y, training=True))  # the noise is new at every call


def test_the_slope_of_a_quantizer_is_that_of_its_surrogate():
    """Checks that straight-through for SUA has the slope of the soft round, by finite
    differences.
    """
    alpha, step = 4.0, 1e-4
    y = np.linspace(-1.4, 1.4, 41, dtype=np.float64)

    def soft_round(v):
        r = v - np.floor(v) - 0.5
        return np.floor(v) + 0.5 + np.tanh(alpha * r) / (2 * np.tanh(alpha / 2))

    expected = (soft_round(y + step) - soft_round(y - step)) / (2 * step)
    x = tf.constant(y[None], tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(tq.Quantizer("sua_ste", alpha=alpha)(x, training=True))
    inside = np.abs(y - np.round(y)) > 1e-3  # the one-sided slopes at integers are equal, not exact
    np.testing.assert_allclose(tape.gradient(total, x)[0][inside], expected[inside], atol=2e-3)


@pytest.mark.slow
def test_a_quantizer_trains_in_a_users_own_model_and_survives_saving(tmp_path):
    """Trains an autoencoder of one number: afterwards, rounding loses at most half a step."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input([4])
    y = keras.layers.Dense(4)(inputs)
    quantizer = tq.Quantizer("aun", seed=1)
    model = keras.Model(inputs, keras.layers.Dense(4)(quantizer(y)))
    model.compile("adam", "mse")
    x = np.random.default_rng(0).normal(0, 8, (256, 4)).astype(np.float32)
    before, *_, after = model.fit(x, x, epochs=8, verbose=0).history["loss"]
    assert after < before
    quantizer.alpha.assign(9.0)
    model.save(str(tmp_path / "model.keras"))
    other = keras.models.load_model(str(tmp_path / "model.keras"))
    np.testing.assert_allclose(other.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5)
    loaded = next(layer for layer in other.layers if isinstance(layer, tq.Quantizer))
    assert float(loaded.alpha) == 9.0
    assert loaded.get_config()["surrogate"] == "aun"


def test_an_unknown_surrogate_or_temperature_is_refused():
    with pytest.raises(ValueError, match="unknown quantization plan 'sua'; known: aun, aun_ep"):
        tq.Quantizer("sua")
    with pytest.raises(ValueError, match="surrogate 'round' has no 'pathwise' gradient"):
        tq.Quantizer("round:pathwise")
    with pytest.raises(ValueError, match="alpha must be a positive number; got 0"):
        tq.Quantizer("sua_ste", alpha=0)
