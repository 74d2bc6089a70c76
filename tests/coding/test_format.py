"""`docs/format.md` is complete: a reader that was written from it decodes every codec's files.

`format_reader.py` is this reader. It uses no code of tfquant.
"""

from __future__ import annotations

import dataclasses
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tfquant
from tests.coding import format_reader
from tfquant import exact, models
from tfquant.coding import container, pmf, range_coder, table_file
from tfquant.exchange import Rounding, Writing
from tfquant.export import weight_file
from tfquant.export.model_file import ExportedModel
from tfquant.layers import transforms
from tfquant.legacy_keras import keras

FINGERPRINT = "0123456789abcdef"
# Label -> codec, its options, and bits for which the last latent gets a further stream.
CASES = {
    "factorized": ("factorized", {}, 500),
    "scale_hyperprior": ("scale_hyperprior", {}, 2000),
    "ms_hyper": ("ms_hyper", {}, 1500),
    "ms_hyper mixture": ("ms_hyper", {"family": "mixture"}, 3000),
    "ms_hyper_zero": ("ms_hyper_zero", {}, 1000),
    "ms_hyper_zero laplacian": ("ms_hyper_zero", {"family": "laplacian"}, 10**6),
    "ms_hyper_zero mixture": ("ms_hyper_zero", {"family": "mixture"}, 10**6),
    "ms_context": ("ms_context", {}, 1000),
    "cheng_anchor": ("cheng_anchor", {"family": "gaussian"}, 1000),
    "cheng_attn": ("cheng_attn", {}, 1000),
    "charm": ("charm", {"M": 14, "slices": 7}, 1000),
    "charm_zero": ("charm_zero", {"M": 14, "slices": 7}, 1000),
    "elic_sm_zero": ("elic_sm_zero", {"M": 24}, 1000),
    "elic_zero": ("elic_zero", {"M": 24}, 1000),
}
HEIGHT, WIDTH = 60, 100
SLOW = ("ms_context", "cheng_anchor", "cheng_attn")  # these get a narrower picture


def stirred(name: str, options: dict, is_exact: bool = True):
    """Returns a codec whose parameters differ between elements and are not 0.

    Its transforms are small, because the meaning of a file's bits does not depend on them. They are
    replaced as in a model of reduced precision, so they are the last ones of the codec's parts.
    """
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    options = {"M": 12, **options}
    codec = models.CODECS[name](N=8, **options)
    codec.g_a = transforms.analysis("plain", 4, options["M"])
    codec.g_s = transforms.synthesis("plain", 4, options["M"])
    codec(tf.zeros([1, 64, 64, 3]), Rounding())
    for part in codec.group("entropy").values():
        for variable in part.variables:
            if "bias:" in variable.name or "medians" in variable.name:
                variable.assign(0.3 * rng.standard_normal(variable.shape))
            elif "kernel" in variable.name or "taps" in variable.name:
                variable.assign(1.7 * variable)
    if is_exact:
        exact.become_exact(codec, [rng.integers(0, 256, (64, 64, 3), np.uint8)])
    return codec


def written(codec, bits: int, monkeypatch, version: int = 2):
    """Returns a file of random latents with a few large elements, y_hat, and the tables."""
    monkeypatch.setattr(range_coder, "BITS_PER_STREAM", bits)
    tables = {model.name: model.coding_table() for model in codec.entropy_models}
    width = 60 if codec.name in SLOW else WIDTH
    shape = codec.latent_shapes(HEIGHT, width)["y"].numpy()
    y = 4 * np.random.default_rng(1).standard_t(2, shape).astype(np.float32)
    y.reshape(-1)[::89] *= 300
    exchange = Writing(tables)
    y_hat = codec.transmit(tf.constant(y), exchange)
    content = b"".join(each.numpy().astype("<i4").tobytes() for each in exchange.symbols)
    file = container.Bitstream(
        codec.name, FINGERPRINT, HEIGHT, width, zlib.crc32(content),
        tuple(exchange.streams().numpy()), version=version,
    )  # fmt: skip
    return file.to_bytes(), y_hat.numpy()[0], tables


def packed(codec, options: dict, tables: dict, folder: Path, **experiment):
    """Writes the files of a packed model that the page describes. Returns the reader's model."""
    recorded = {"codec_options": {"N": 8, "M": 12, **options}, "distortion": "mse", **experiment}
    manifest = {"codec": codec.name, "fingerprint": FINGERPRINT, "experiment": recorded}
    (folder / "tfquant.json").write_text(json.dumps(manifest))
    (folder / "tables.npz").write_bytes(table_file.dump(tables))
    named = [(variable.name, variable.numpy()) for variable in codec.variables]
    (folder / "weights.tfqw").write_bytes(weight_file.dump(named))
    if exact.is_exact(codec):
        (folder / "integers.npz").write_bytes(exact.dump(codec))
    return format_reader.Model(folder)


def test_every_codec_has_a_case():
    assert {name for name, _, _ in CASES.values()} == set(models.CODECS)


def test_the_escape_rows_of_the_page_are_those_of_the_coder():
    rows = np.array(format_reader.ESCAPE_ROWS)
    np.testing.assert_array_equal(rows, pmf.ESCAPE_CDFS)
    assert f"`{zlib.crc32(rows.astype('<i4').tobytes()):08X}`" in format_reader.PAGE.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("label", CASES)
def test_the_reader_of_the_page_decodes_every_codec(label, tmp_path, monkeypatch):
    name, options, bits = CASES[label]
    codec = stirred(name, options)
    data, y_hat, tables = written(codec, bits, monkeypatch)
    found = packed(codec, options, tables, tmp_path).read(data)
    # The mean of a mixture has real weights in the library. Only the pixels depend on it.
    tolerance = 1e-5 if label == "ms_hyper_zero mixture" else 0
    np.testing.assert_allclose(found.y_hat, y_hat, rtol=tolerance, atol=tolerance)
    assert found.escapes > 0
    several = name in ("factorized", "scale_hyperprior", "ms_hyper", "ms_hyper_zero")
    assert (len(found.header["streams"]) > 2) == (several and bits < 10**6)


@pytest.mark.slow
def test_the_reader_of_the_page_decodes_version_1(tmp_path, monkeypatch):
    """`factorized` has no networks, so its files of version 1 decode on every machine."""
    codec = stirred("factorized", {}, is_exact=False)
    data, y_hat, tables = written(codec, 10**6, monkeypatch, version=1)
    found = packed(codec, {}, tables, tmp_path).read(data)
    assert found.header["version"] == 1 and len(found.header["streams"]) == 1
    np.testing.assert_array_equal(found.y_hat, y_hat)


@pytest.mark.slow
def test_the_reader_of_the_page_scales_by_the_quality(tmp_path, monkeypatch):
    codec = stirred("ms_hyper", {})
    codec.add_gains([0.5, 1.0, 3.0])
    codec.add_rectifier(8, 1)
    data, y_hat, tables = written(codec, 10**6, monkeypatch)
    file = container.Bitstream.from_bytes(data)
    rates = {"lmbda": 0.0036, "lmbda_range": [0.0018, 0.0072]}  # qualities 10 to 40, base 25
    model = packed(codec, {}, tables, tmp_path, **rates)
    for quality, level in ((None, 0.5), (10.0, 0.0), (27.25, 0.575), (40.0, 1.0)):
        found = model.read(dataclasses.replace(file, quality=quality).to_bytes())
        np.testing.assert_array_equal(found.y_hat, y_hat)
        expected = codec.scale_back(tf.constant(y_hat[None]), tf.constant([level], tf.float32))
        np.testing.assert_allclose(found.scaled, expected.numpy()[0], rtol=1e-5)
    forged = dataclasses.replace(file, quality=40 + 1 / 256).to_bytes()
    with pytest.raises(AssertionError):
        model.read(forged)
    one_rate = packed(codec, {}, tables, tmp_path)
    assert np.array_equal(one_rate.read(data).scaled, y_hat)
    with pytest.raises(AssertionError):
        one_rate.read(forged)


@pytest.mark.slow
def test_the_reader_of_the_page_decodes_a_file_of_a_pretrained_model(make_photograph):
    folder = Path(tfquant.__file__).parent / "pretrained" / "photographs" / "q10"
    model = ExportedModel.load(str(folder))
    picture = make_photograph(70, 90)
    found = format_reader.Model(folder).read(model.compress(picture, 5.0))
    np.testing.assert_array_equal(found.y_hat, model.evaluate(picture, 5.0)["y_hat"][0])


@pytest.mark.slow
def test_the_reader_of_the_page_finds_damage(tmp_path, monkeypatch):
    codec = stirred("ms_hyper", {})
    data, _, tables = written(codec, 10**6, monkeypatch)
    model = packed(codec, {}, tables, tmp_path)
    for place in range(0, len(data), 7):
        damaged = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises((AssertionError, struct.error)):
            model.read(damaged)
    file = container.Bitstream.from_bytes(data)
    with pytest.raises(AssertionError):
        model.read(dataclasses.replace(file, symbols_crc=file.symbols_crc ^ 1).to_bytes())
