"""What the files of every codec on the list of `conftest.py` keep: picture, bits, any size."""

import numpy as np
import pytest
import tensorflow as tf

from tfquant.export import CodecModule


@pytest.fixture(scope="module", name="fitted")
def _fitted(build):
    """`fitted(label, picture)`: an untrained codec after joint training's bound. Where `h_s` alone
    says how y is distributed, that is with the means and spreads of the picture's latents."""

    def make(label, picture):
        codec = build(label)
        for model in codec.entropy_models:
            model.set_sigma_bound(1e-6)
        if set(codec.group("entropy")) != {"z_model", "y_model", "h_s"}:
            return codec
        y = codec.analyze(tf.constant(picture[None], tf.float32) / 255)
        mean, spread = (f(y, (0, 1, 2)).numpy() for f in (tf.reduce_mean, tf.math.reduce_std))
        outputs = codec.y_model.outputs
        copies = max(1, outputs // 3)  # of every parameter, in a mixture
        chunks = {"w": 0 * mean, "mu": mean, "s": np.log(spread + 0.05)}
        order = {1: ["s"], 2: ["mu", "s"], 9: ["w", "mu", "s"]}[outputs]
        bias = np.concatenate([np.repeat(chunks[c], copies) for c in order])
        codec.h_s.layers[-1].bias.assign(bias)
        return codec

    return make


@pytest.fixture(scope="module", name="module")
def _module(label, fitted, make_photograph):
    return CodecModule(fitted(label, make_photograph(192, 256)))


@pytest.mark.parametrize("size", [(1, 1), (17, 33), (64, 64), (100, 37), (192, 256)])
def test_the_decoded_picture_is_the_evaluated_one_bit_for_bit(module, make_photograph, size):
    picture = make_photograph(*size)
    coded, evaluated = module.encode(picture), module.evaluate(picture)
    decoded = module.decode(coded["streams"], *size, coded["symbols_crc"])
    assert decoded["image"].shape == (*size, 3)
    np.testing.assert_array_equal(decoded["image"], evaluated["image"])
    assert float(coded["bits"]) == float(evaluated["bits"])


def test_the_payload_is_the_models_bits(module, make_photograph):
    """Within 0.5 %, plus 8 bytes a stream."""
    coded = module.encode(make_photograph(192, 256))
    streams, bits = coded["streams"].numpy(), float(coded["bits"])
    assert abs(8 * sum(map(len, streams)) - bits) <= 0.005 * bits + 64 * len(streams)


# One of each way through the elements, and of each kind of coding table.
KINDS = ("factorized", "ms_hyper", "ms_hyper_zero mixture", "ms_context", "charm", "elic_sm_zero")


def test_saved_models_decode_in_a_process_that_knows_only_tensorflow(
    tmp_path, fitted, make_photograph, fresh_python
):
    picture = make_photograph(70, 90)
    for label in KINDS:
        module, folder = CodecModule(fitted(label, picture)), str(tmp_path / label)
        tf.saved_model.save(module, folder)
        coded = module.encode(picture)
        np.savez(
            folder + "/expected.npz",
            image=module.evaluate(picture)["image"],
            streams=np.array(coded["streams"].numpy().tolist(), object),
            symbols_crc=coded["symbols_crc"],
        )
    out = fresh_python(
        """
        import sys
        import numpy as np, tensorflow as tf, tensorflow_compression
        for folder in sys.argv[1:]:
            model = tf.saved_model.load(folder)
            expected = np.load(folder + "/expected.npz", allow_pickle=True)
            streams = tf.constant(list(expected["streams"]))
            size = tf.constant(70), tf.constant(90)
            image = model.decode(streams, *size, tf.constant(expected["symbols_crc"]))["image"]
            print(np.array_equal(image, expected["image"]))
        print(any(name.startswith(("tfquant", "models")) for name in sys.modules))
        """,
        *(str(tmp_path / label) for label in KINDS),
    )
    assert out.split()[-len(KINDS) - 1 :] == ["True"] * len(KINDS) + ["False"]


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


def test_the_fingerprint_covers_what_the_bits_mean_and_no_more(fitted, make_photograph):
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
