"""Properties of the files of every codec on the list of `conftest.py`: picture, bits, any size."""

import contextlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tfquant import exact, models
from tfquant.coding import portable, range_coder
from tfquant.data.images import read_image
from tfquant.export.codec_module import CodecModule


@pytest.fixture(scope="module", name="fitted")
def _fitted(build):
    """`fitted(label, picture)`: an untrained codec with joint training's bound.

    If only `h_s` predicts the distribution of y, it predicts means and spreads of the picture's
    latents.
    """

    def make(label, picture):
        codec = build(label)
        for model in codec.entropy_models:
            model.set_sigma_bound(1e-6)
        if set(codec.group("entropy")) != {"z_model", "y_model", "h_s"}:
            return codec
        y = codec.analyze(tf.constant(picture[None], tf.float32) / 255)
        mean, spread = (f(y, (0, 1, 2)).numpy() for f in (tf.reduce_mean, tf.math.reduce_std))
        outputs = codec.y_model.outputs
        copies = max(1, outputs // 3)  # for every parameter, in a mixture
        chunks = {"w": 0 * mean, "mu": mean, "s": np.log(spread + 0.05)}
        order = {1: ["s"], 2: ["mu", "s"], 9: ["w", "mu", "s"]}[outputs]
        bias = np.concatenate([np.repeat(chunks[c], copies) for c in order])
        codec.h_s.layers[-1].bias.assign(bias)
        return codec

    return make


@pytest.fixture(scope="module", name="codec")
def _codec(label, fitted, make_photograph):
    """The codec as it is exported."""
    picture = make_photograph(192, 256)
    codec = fitted(label, picture)
    exact.become_exact(codec, [picture])
    return codec


def test_all_weights_between_latents_are_integers(codec):
    networks = [p for p in codec.group("entropy").values() if p not in codec.entropy_models]
    for weight in (w.numpy() for part in networks for w in part.trainable_variables):
        np.testing.assert_array_equal(weight, np.rint(weight))
    assert exact.real_weights(codec) == []


@pytest.fixture(scope="module", name="runs")
def _runs(codec, make_photograph, onednn, in_graphs):
    """The module, and the findings of `tests/onednn_patterns.py` in the coding graphs."""
    module, picture = CodecModule(codec), make_photograph(17, 33)
    if not in_graphs:
        return module, None
    coded, encoding = onednn.run(module.encode, picture)
    _, decoding = onednn.run(module.decode, coded["streams"], 17, 33, coded["symbols_crc"])
    _, evaluating = onednn.run(module.evaluate, picture)
    return module, [*encoding, *decoding, *evaluating]


@pytest.fixture(scope="module", name="module")
def _module(runs):
    return runs[0]


@pytest.fixture(name="eagerly")
def _eagerly(eager_functions):
    """Runs functions eagerly, for tests that would otherwise trace a graph for one call."""
    with eager_functions():
        yield


def test_no_coding_graph_contains_a_pattern_that_onednn_computes_wrongly(runs, traced):
    assert runs[1] == []


def test_decoded_latents_and_pictures_are_the_evaluated_ones_bit_for_bit(
    module, make_photograph, size
):
    """The payload is the model's bits, within 0.5 %, plus 8 bytes a stream."""
    picture = make_photograph(*size)
    coded, evaluated = module.encode(picture), module.evaluate(picture)
    decoded = module.decode(coded["streams"], *size, coded["symbols_crc"])
    assert decoded["image"].shape == (*size, 3)
    np.testing.assert_array_equal(decoded["image"], evaluated["image"])
    y_hat = module.read(coded["streams"], *size, coded["symbols_crc"])
    np.testing.assert_array_equal(y_hat, evaluated["y_hat"])
    assert float(coded["bits"]) == float(evaluated["bits"])
    streams, bits = coded["streams"].numpy(), float(coded["bits"])
    assert abs(8 * sum(map(len, streams)) - bits) <= 0.005 * bits + 64 * len(streams)


@pytest.fixture(scope="module", name="foreigner")
def _foreigner(operations_module):
    """`foreigner(folder)`: decodes with a saved model, in one process for all of them.

    The process knows only TensorFlow and its compression library. Returns its output.
    """
    program = (
        f"import {operations_module}"
        + """
import sys
import numpy as np, tensorflow as tf
for line in sys.stdin:
    folder = line.strip()
    coded = np.load(folder + "/coded.npz", allow_pickle=True)
    streams, size = tf.constant(list(coded["streams"])), map(tf.constant, coded["size"])
    model = tf.saved_model.load(folder)
    image = model.decode(streams, *size, tf.constant(coded["symbols_crc"]))["image"]
    np.save(folder + "/image.npy", image)
    ours = any(name.startswith(("tfquant", "models")) for name in sys.modules)
    print("with our modules" if ours else "decoded", flush=True)
"""
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", program], text=True, **pipes) as process:

        def ask(folder):
            process.stdin.write(f"{folder}\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        yield ask
        process.stdin.close()


def test_no_graph_that_codes_calls_python(module, traced, nodes_of, operations_module):
    """Tests that a SavedModel does not need this package. The portable coder calls Python."""
    for function in (module.encode, module.decode, module.evaluate):
        nodes = nodes_of(function.get_concrete_function().graph.as_graph_def())
        assert nodes and not {node.op for node in nodes if "PyFunc" in node.op}


# One of each way through the elements; `export/test_stock.py` has a codec with a hyperprior alone.
@pytest.mark.parametrize("label", ["charm", "elic_sm_zero", "cheng_attn"], indirect=True)
def test_saved_models_decode_in_a_process_that_knows_only_tensorflow(
    label, module, foreigner, tmp_path, make_photograph
):
    """Saves only `decode`, because saving and loading takes seconds for each function.

    `tests/export` and `tests/compatibility` save and load the others.
    """
    picture = make_photograph(70, 90)
    coded, expected = module.encode(picture), module.evaluate(picture)["image"]
    saved = tf.Module()
    saved.decode = module.decode
    saved.weights = list(module.variables)
    tf.saved_model.save(saved, str(tmp_path))
    np.savez(
        tmp_path / "coded.npz",
        streams=np.array(coded["streams"].numpy().tolist(), object),
        size=np.int32([70, 90]),
        symbols_crc=coded["symbols_crc"],
    )
    assert foreigner(tmp_path) == "decoded"
    np.testing.assert_array_equal(np.load(tmp_path / "image.npy"), expected)


WALKS = ["ms_hyper", "ms_hyper_zero mixture", "ms_context", "charm"]


@pytest.mark.parametrize("label", WALKS, indirect=True)
def test_the_portable_coder_writes_and_reads_the_same_files(
    label, codec, module, make_photograph, monkeypatch, operations_module, eager_functions
):
    """Tests all coding orders and all kinds of coding tables, and the portable coder in a graph."""
    picture, size = make_photograph(33, 70), (33, 70)
    coded, expected = module.encode(picture), module.evaluate(picture)["y_hat"]
    monkeypatch.setattr(range_coder, "_coder", lambda: portable)
    in_python = CodecModule(codec, module.tables)
    with contextlib.nullcontext() if label == "ms_hyper" else eager_functions():
        again = in_python.encode(picture)
        y_hat = in_python.read(coded["streams"], *size, coded["symbols_crc"])
    assert again["streams"].numpy().tolist() == coded["streams"].numpy().tolist()
    assert int(again["symbols_crc"]) == int(coded["symbols_crc"])
    np.testing.assert_array_equal(y_hat, expected)


# The tests below build codecs. This sets the seed, which drops the functions that the tests above
# have compiled.


@pytest.mark.slow
@pytest.mark.parametrize(
    "label,precision",
    [("ms_hyper", "bfloat16"), ("ms_hyper", "float16"), ("ms_context", "bfloat16")],
)
def test_transforms_in_half_precision_make_files_of_the_same_format(
    build, label, precision, make_photograph, eagerly
):
    """Decodes their files with the float32 model and vice versa.

    The latents are bit-equal, and the pictures are equal up to the precision. `test_cli.py` tests a
    graph in bfloat16.
    """
    picture, size = make_photograph(64, 80), (64, 80)
    codecs = [build(label, p, models.build_for_files) for p in ("float32", precision)]
    for part in ("g_a", "g_s"):
        layers = [getattr(codec, part) for codec in codecs]
        assert [layer.compute_dtype for layer in layers] == ["float32", precision]
        np.testing.assert_array_equal(*(layer.get_weights()[0] for layer in layers))
    exact.become_exact(codecs[0], [picture])
    exact.copy(*codecs)
    modules = [CodecModule(codec) for codec in codecs]
    assert modules[0].fingerprint() == modules[1].fingerprint()
    decoded = []
    for encoder in modules:
        coded, evaluated = encoder.encode(picture), encoder.evaluate(picture)
        file = (coded["streams"], *size, coded["symbols_crc"])
        for decoder in modules:
            image = decoder.decode(*file)["image"]
            decoded.append(image.numpy().astype(np.float32))
            np.testing.assert_array_equal(decoder.read(*file), evaluated["y_hat"])
            if decoder is encoder:
                np.testing.assert_array_equal(image, evaluated["image"])
    float32, read_in_half, *_ = decoded
    assert 0 < np.mean((float32 - read_in_half) ** 2) < 1.0  # of 255^2


# The rectifier stands behind the entropy model and before the synthesis: one label without a
# hyperprior, and one for each of three kinds of synthesis.
@pytest.mark.slow
@pytest.mark.parametrize(
    "label", ["factorized", "ms_hyper_zero", "res_attn to res", "elic_sm_zero"], indirect=True
)
def test_files_fit_a_rectified_model_of_the_same_encoder(
    codec, module, fitted, label, make_photograph, stir, eagerly
):
    """Checks that both encoders give the same bytes, and the decoders give different pictures.

    `export/test_stock.py` tests the graphs of a rectified codec.
    """
    picture, size = make_photograph(64, 80), (64, 80)
    rectified = fitted(label, make_photograph(192, 256))
    rectified.add_rectifier(8, 1)
    stir(rectified.rectifier)
    exact.copy(codec, rectified)
    other = CodecModule(rectified)
    assert other.fingerprint() == module.fingerprint()
    coded = module.encode(picture)
    np.testing.assert_array_equal(other.encode(picture)["streams"], coded["streams"])
    file = (coded["streams"], *size, coded["symbols_crc"])
    x_hat = codec.synthesize(rectified.rectifier(module.read(*file)), *size)[0]
    found = np.float32(other.decode(*file)["image"])
    np.testing.assert_allclose(found, np.clip(255 * x_hat, 0, 255), atol=0.51)
    assert np.any(found != module.decode(*file)["image"])


@pytest.mark.slow
@pytest.mark.parametrize("label", ["ms_hyper", "charm", "ms_hyper_zero"], indirect=True)
def test_properties_of_generated_pictures_hold_for_photographs(label, fitted, kodak_dir, eagerly):
    paths = sorted(kodak_dir.glob("*.png"))[2::8]
    crops = [read_image(path)[100:356, 100:484] for path in paths]
    module = CodecModule(fitted(label, crops[0]))
    for crop in crops:
        coded, evaluated = module.encode(crop), module.evaluate(crop)
        streams, bits = coded["streams"].numpy(), float(coded["bits"])
        assert abs(8 * sum(map(len, streams)) - bits) <= 0.005 * bits + 64 * len(streams)
        decoded = module.decode(streams, *crop.shape[:2], coded["symbols_crc"])
        np.testing.assert_array_equal(decoded["image"], evaluated["image"])


@pytest.mark.slow
@pytest.mark.parametrize("label", ["ms_hyper", "ms_hyper_zero mixture", "ms_context", "charm_zero"])
def test_files_of_version_1_are_made_with_real_arithmetic(
    fitted, label, make_photograph, eager_functions
):
    """Tests models that were exported for files of version 1, as in tfquant 0.2, one in graphs."""
    picture, size = make_photograph(64, 80), (64, 80)
    codec = fitted(label, picture)
    module = CodecModule(codec)
    with contextlib.nullcontext() if label == "ms_hyper" else eager_functions():
        coded, evaluated = module.encode(picture), module.evaluate(picture)
        y_hat = module.read(coded["streams"], *size, coded["symbols_crc"])
    np.testing.assert_array_equal(y_hat, evaluated["y_hat"])
    before, version = module.fingerprint(), module.version
    exact.become_exact(codec, [picture])
    assert (version, CodecModule(codec).version) == (1, 2)
    assert CodecModule(codec).fingerprint() != before


@pytest.mark.slow
@pytest.mark.parametrize("label", ["ms_context", "charm", "elic_sm_zero"], indirect=True)
def test_the_fingerprint_covers_every_network_of_the_entropy_model(build, label):
    codec = build(label)
    module = CodecModule(codec)
    before, parts = module.fingerprint(), codec.group("entropy")
    assert {"context", "z_model"} <= parts.keys()
    for name, part in parts.items():
        weight = part.weights[0]
        kept = weight.numpy()
        weight.assign(kept + 0.01)
        assert module.fingerprint() != before, name
        weight.assign(kept)
    assert module.fingerprint() == before


@pytest.mark.slow
def test_the_fingerprint_covers_only_what_the_bits_depend_on(fitted, make_photograph):
    codec = fitted("ms_hyper_zero", make_photograph(64, 64))
    before = CodecModule(codec).fingerprint()
    kernel = codec.g_s.layers[0].kernel
    kernel.assign(kernel * 1.5)
    assert CodecModule(codec).fingerprint() == before
    for weight in (codec.h_s.layers[0].kernel, codec.z_model.medians,
                   codec.z_model.density.trainable_variables[0]):  # fmt: skip
        kept = weight.numpy()
        weight.assign(kept + 0.01)
        assert CodecModule(codec).fingerprint() != before
        weight.assign(kept)
