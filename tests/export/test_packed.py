"""Tests that packed exports read the files of the original exports, and the reverse."""

import dataclasses
import json
import types

import numpy as np
import pytest
import tensorflow as tf

from tfquant import models
from tfquant.coding import container
from tfquant.export import (
    manifest_file,
    model_set,
    packed,
    quality,
    registry,
    weight_file,
)
from tfquant.export.codec_module import EagerModule
from tfquant.export.manifest_file import ModelError
from tfquant.export.model_file import ExportedModel
from tfquant.training.experiment import Experiment

EXPERIMENT = Experiment(codec="ms_hyper_zero", codec_options={"N": 8, "M": 12}, lmbda=0.0036)

SLOW_FIXTURES = {"export"}


def codec_with(seed):
    """Returns an untrained codec with weights that depend on the seed."""
    codec = models.build("ms_hyper_zero", N=8, M=12)
    rng = np.random.default_rng(seed)
    scales = (w * rng.normal(1, 0.01, w.shape) for w in codec.get_weights())
    codec.set_weights([w.astype(np.float32) for w in scales])
    return codec


@pytest.mark.parametrize(
    "name, side, used",
    [
        ("ms_hyper_zero", 256, "eager"), ("ms_hyper_zero", 2048, "graph"),
        ("ms_context", 100, "eager"), ("ms_context", 128, "graph"),
    ],
)  # fmt: skip
def test_a_graph_is_used_where_it_is_worth_its_tracing(monkeypatch, name, side, used):
    """Replaces the functions by their names."""
    for function in ("_encode", "_decode"):
        monkeypatch.setattr(EagerModule, function, lambda *_: "eager")
    module = EagerModule(models.build(name, N=4, M=4))
    graph = lambda *_: "graph"  # noqa: E731
    module._traced = types.SimpleNamespace(encode=graph, decode=graph)
    assert module.encode(tf.zeros([side, side, 3], tf.uint8)) == used
    assert module.decode(tf.constant([b""]), tf.constant(side), tf.constant(side)) == used


@pytest.fixture(scope="module", name="packed_export")
def _packed_export(export, tmp_path_factory):
    path = tmp_path_factory.mktemp("packed") / "model"
    packed.pack_export(str(export), str(path))
    return path


def test_either_reads_the_files_of_the_other(saved, packed_export, make_photograph, shared):
    picture = make_photograph(70, 90)
    small = ExportedModel.load(packed_export)
    assert small.fingerprint == saved.fingerprint
    assert small.manifest.max_pixels == saved.manifest.max_pixels == shared.max_pixels
    data = saved.compress(picture)
    decoded = saved.decompress(data)
    np.testing.assert_array_equal(small.decompress(data), decoded)
    np.testing.assert_array_equal(saved.decompress(small.compress(picture)),
                                  small.evaluate(picture)["image"])  # fmt: skip


def test_both_refuse_forged_files_with_the_same_words(saved, packed_export, make_photograph):
    """One computes with a graph and the other without; their errors differ inside TensorFlow."""
    small = ExportedModel.load(packed_export)
    file = container.Bitstream.from_bytes(saved.compress(make_photograph(70, 90)))
    forged = {
        "the file has fewer streams than": dataclasses.replace(file, streams=file.streams[:1]),
        "the decoded symbols differ from": dataclasses.replace(
            file, symbols_crc=file.symbols_crc ^ 1
        ),
    }
    for words, other in forged.items():
        messages = set()
        for model in (saved, small):
            with pytest.raises(container.SymbolsError) as info:
                model.decompress(other.to_bytes())
            messages.add(str(info.value))
        assert len(messages) == 1
        assert messages.pop().startswith(f"cannot be decoded: {words}")


def test_a_large_picture_goes_through_a_graph_to_the_same_file(packed_export, monkeypatch,
                                                               make_photograph):  # fmt: skip
    from tfquant.export import codec_module

    picture = make_photograph(64, 128)
    model = ExportedModel.load(packed_export)
    monkeypatch.setattr(model._functions._traced, "encode", None)  # it is not asked for
    data = model.compress(picture)
    other = ExportedModel.load(packed_export)
    monkeypatch.setattr(codec_module, "_LARGE_PICTURE", 64 * 128)
    assert other.compress(picture) == data
    np.testing.assert_array_equal(other.decompress(data), ExportedModel.load(packed_export)
                                  .decompress(data))  # fmt: skip


@pytest.mark.slow
def test_a_step_makes_a_model_of_its_own(tmp_path, make_photograph):
    codec = codec_with(2)
    exact = packed.pack_codec(codec, EXPERIMENT, str(tmp_path / "exact"))
    coarse = packed.pack_codec(codec, EXPERIMENT, str(tmp_path / "coarse"), 1 / 128)
    assert exact.fingerprint != coarse.fingerprint
    model = ExportedModel.load(tmp_path / "coarse")
    picture = make_photograph(64, 64)
    np.testing.assert_array_equal(model.decompress(model.compress(picture)),
                                  model.evaluate(picture)["image"])  # fmt: skip


@pytest.mark.parametrize("name", [weight_file.NAME, "tables.npz"])
def test_changed_files_are_named(packed_export, tmp_path, name):
    for source in packed_export.iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=f"{name} has another SHA-256"):
        ExportedModel.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ModelError, match=name):
        ExportedModel.load(tmp_path)


def test_weights_of_another_width_are_named(packed_export, tmp_path):
    for source in packed_export.iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    manifest = json.loads((tmp_path / manifest_file.MANIFEST).read_text())
    manifest["experiment"]["codec_options"] = {"N": 8, "M": 16}
    (tmp_path / manifest_file.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match=r"has shape \(5, 5, 8, 12\)"):
        ExportedModel.load(tmp_path)


def test_the_stock_flavour_is_not_packed(export, tmp_path):
    with pytest.raises(ModelError, match="stock flavour"):
        packed.pack_export(str(export / "stock"), str(tmp_path / "packed"))


def test_added_exports_are_found_by_name_and_by_the_files_they_made(
    export, saved, user_folder, make_photograph
):
    data = saved.compress(make_photograph(64, 64))
    with pytest.raises(ModelError, match="which is not installed"):
        registry.of_file("ms_hyper_zero", saved.fingerprint)
    added = registry.add([str(export)])
    assert added.name == "mine" and added.path == str(user_folder / "mine")
    found, member = registry.of_file("ms_hyper_zero", saved.fingerprint)
    assert found.name == "mine"
    assert member.low == member.high == pytest.approx(25)  # twice the lmbda of quality 10
    np.testing.assert_array_equal(registry.find("mine").decompress(data), saved.decompress(data))
    assert "mine" in [each.name for each in registry.sets()]
    assert registry.remove("mine") == str(user_folder / "mine")
    assert "mine" not in [each.name for each in registry.sets()]


@pytest.mark.slow
def test_exports_of_several_rates_are_one_set(user_folder, tmp_path, make_photograph):
    for lmbda, seed in ((0.0483, 3), (0.0018, 4)):
        experiment = Experiment(codec="ms_hyper_zero", codec_options={"N": 8, "M": 12}, lmbda=lmbda)
        packed.pack_codec(codec_with(seed), experiment, str(tmp_path / f"{lmbda}"))
    added = registry.add([str(tmp_path / "0.0483"), str(tmp_path / "0.0018")], "both", "two rates")
    assert [round(member.low) for member in added.members] == [10, 81]
    assert added.description == "two rates"
    picture = make_photograph(64, 64)
    for asked, member in ((0, 0), (45, 0), (46, 1), (100, 1)):
        assert added.choose(asked) is added.members[member]
        data = added.compress(picture, asked)
        fingerprint = added.members[member].manifest.fingerprint
        assert data[22:30].hex() == fingerprint
        np.testing.assert_array_equal(
            added.decompress(data), added.evaluate(picture, asked)["image"]
        )


@pytest.mark.parametrize("name", ["default", "photographs", "a/b", "..", "", "two words", "-x"])
def test_names_that_cannot_be_or_are_taken_are_refused(export, user_folder, name):
    if name:
        with pytest.raises(ModelError, match="name"):
            registry.add([str(export)], name)
    with pytest.raises(ModelError, match="was added here"):
        registry.remove(name)
    assert not user_folder.exists()


def test_a_set_that_cannot_be_read_is_named_and_the_others_are_listed(user_folder):
    broken = user_folder / "broken"
    broken.mkdir(parents=True)
    (broken / model_set.MANIFEST).write_text('{"format": 2}')
    errors = []
    names = [each.name for each in registry.sets(errors.append)]
    assert names == ["photographs"]
    assert len(errors) == 1 and "format 2" in str(errors[0])
    with pytest.raises(ModelError, match="format 2"):
        registry.find("broken")


def test_an_unknown_name_lists_the_known_ones(user_folder):
    with pytest.raises(ModelError, match="no model 'portraits'; known: default, photographs"):
        registry.find("portraits")
    with pytest.raises(ModelError, match="no such folder"):
        registry.find("runs/portraits")


def test_a_quality_is_a_logarithm_of_lmbda():
    # The papers' lists for MSE and for MS-SSIM pair up.
    for mse, ms_ssim in ((0.0018, 2.4), (0.0067, 8.73), (0.025, 31.73), (0.0483, 60.5)):
        own = quality.of_lmbda(mse)
        assert quality.of_lmbda(2 * mse) == pytest.approx(own + 15)
        assert quality.of_lmbda(ms_ssim, "ms_ssim") == pytest.approx(own, abs=1.2)
    assert quality.of_lmbda(1e-9) == 0 and quality.of_lmbda(1e9) == 100
