"""Tests exports of models for a range of rates: every quality, in every form of the model."""

from __future__ import annotations

import dataclasses
import io
import json
import re

import numpy as np
import pytest
import tensorflow as tf

from tfquant import cli
from tfquant.coding import container
from tfquant.data import images
from tfquant.evaluation import models as evaluated
from tfquant.evaluation import run
from tfquant.export import fitting, model_set, packed, quality, rebuilding, registry
from tfquant.export.manifest_file import MANIFEST, ModelError, read_manifest
from tfquant.export.model_file import ExportedModel
from tfquant.export.writing import export_codec
from tfquant.legacy_keras import keras
from tfquant.training.experiment import Experiment
from tfquant.training.trained import build_as_decoded

LOW, HIGH = 0.002, 0.032  # four octaves: 60 units of quality
EXPERIMENT = Experiment(
    codec="ms_hyper_zero", codec_options={"N": 8, "M": 12}, lmbda=0.008, lmbda_range=(LOW, HIGH),
    quality_levels=5,
)  # fmt: skip
RANGE = quality.range_of(dataclasses.asdict(EXPERIMENT))
SLOW_FIXTURES = {"path"}


@pytest.fixture(scope="module", name="codec")
def _codec():
    """A codec whose gains differ from channel to channel, and whose inverse gains are others."""
    keras.utils.set_random_seed(0)
    made = build_as_decoded(EXPERIMENT, "float32")
    rng = np.random.default_rng(0)
    for part in (made.gain, made.inverse_gain):
        (weight,) = part.get_weights()
        part.set_weights([weight + 0.1 * rng.normal(size=weight.shape).astype(np.float32)])
    return made


@pytest.fixture(scope="module", name="path")
def _path(codec, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "export"
    export_codec(codec, EXPERIMENT, str(path))
    return path


@pytest.fixture(scope="module", name="saved")
def _saved(path):
    """The model with its SavedModel, loaded once: loading takes seconds."""
    return ExportedModel.load(path)


@pytest.fixture(scope="module", name="packed_path")
def _packed_path(codec, tmp_path_factory):
    """The same model without a SavedModel, which takes much longer to write."""
    path = tmp_path_factory.mktemp("packed") / "export"
    packed.pack_codec(codec, EXPERIMENT, str(path))
    return path


@pytest.fixture(name="model")
def _model(packed_path):
    return ExportedModel.load(packed_path)


@pytest.fixture(scope="module", name="picture")
def _picture(make_photograph):
    return make_photograph(70, 90)


def header(data):
    return container.read_header(io.BytesIO(data))


def test_a_quality_selects_the_lmbda_that_the_level_was_trained_with():
    assert (RANGE.high - RANGE.low) == pytest.approx(60, abs=1 / 128)
    for each in (RANGE.low, 20.0, RANGE.base, 47.3, RANGE.high):
        expected = EXPERIMENT.lmbda_at(np.clip(RANGE.level(each), 0, 1))
        assert quality.to_lmbda(each) == pytest.approx(expected, rel=2e-4)  # half a step of 1/256
    assert quality.to_lmbda(10, "ms_ssim") == pytest.approx(0.0018 * 1270)


def test_a_range_beyond_the_scale_keeps_the_lmbda_of_each_quality():
    lmbdas = (1e-5, 10.0)
    beyond = quality.range_of({"lmbda_range": lmbdas})
    assert (beyond.low, beyond.high) == (1 / 256, 100)  # 0 stands for no quality in a file
    assert quality.range_of({"lmbda_range": lmbdas, "lmbda": 1e-9}).base == 0
    level = beyond.level(40.0)
    assert lmbdas[0] * (lmbdas[1] / lmbdas[0]) ** level == pytest.approx(quality.to_lmbda(40.0))


@pytest.mark.slow
def test_a_file_stores_the_nearest_quality_of_the_model(model, picture):
    for asked, stored in ((30, 30), (30.001, 30), (30.003, 30 + 1 / 256), (0, RANGE.low),
                          (100, RANGE.high), (None, RANGE.base)):  # fmt: skip
        assert header(model.compress(picture, asked)).quality == stored
    assert model.compress(picture, 30.001) == model.compress(picture, 30)
    for wrong in (-1, 101, float("nan")):
        with pytest.raises(ValueError, match="quality must be from 0 to 100; got"):
            model.compress(picture, wrong)


@pytest.mark.slow
def test_the_decoder_gives_the_picture_of_the_codec_at_the_level_of_the_file(model, codec, picture):
    x = tf.constant(picture[None], tf.float32) / 255
    for asked in (RANGE.low, 33.3, RANGE.high):
        data = model.compress(picture, asked)
        decoded = model.decompress(data)
        np.testing.assert_array_equal(decoded, model.evaluate(picture, asked)["image"])
        level = (header(data).quality - RANGE.start) / (RANGE.end - RANGE.start)
        x_hat = codec(x, quality=tf.constant([level], tf.float32))[0]
        expected = np.clip(np.round(255 * x_hat.numpy()), 0, 255)
        assert np.mean(decoded != expected) < 1e-3  # last bits of the float transforms


@pytest.mark.slow
def test_files_grow_and_errors_shrink_with_the_quality(model, make_photograph):
    for seed, size in enumerate([(64, 64), (70, 90), (33, 200)]):
        picture = make_photograph(*size, seed=seed)
        files = [model.compress(picture, q) for q in np.linspace(RANGE.low, RANGE.high, 7)]
        assert np.all(np.diff([len(data) for data in files]) > 0)


def test_the_rate_map_has_the_bits_of_its_quality(model, picture):
    for asked in (20.0, 60.0):
        bits = model.evaluate(picture, asked)["bits"]
        np.testing.assert_allclose(np.sum(model.rate_map(picture, asked)), bits, rtol=1e-5)


def forged(data, stored):
    """Returns the file with another quality, given in steps, and with a valid checksum."""
    parsed = container.Bitstream.from_bytes(data)
    return dataclasses.replace(parsed, quality=stored / 256 if stored else None).to_bytes()


def test_a_forged_quality_is_an_error(model, picture):
    data = model.compress(picture, 40)
    least, most = RANGE.steps
    for stored in (least - 1, most + 1, 65535):
        said = re.escape(f"header says quality {stored / 256:.6g}, files of this model have")
        with pytest.raises(container.FieldError, match=said):
            model.decompress(forged(data, stored))
    # The quality decides only the decoder's gains: the symbols are the same.
    without = model.decompress(forged(data, 0))
    np.testing.assert_array_equal(without, model.decompress(forged(data, round(256 * RANGE.base))))
    other = model.decompress(forged(data, most))
    assert other.shape == picture.shape and np.any(other != model.decompress(data))


def test_all_forms_of_the_model_make_the_same_files(path, saved, packed_path, picture):
    small = ExportedModel.load(packed_path)
    rebuilt = ExportedModel(saved.manifest, rebuilding.rebuilt(path, saved.manifest))
    assert saved.fingerprint == small.fingerprint
    for asked in (RANGE.low, 44.0):
        data = saved.compress(picture, asked)
        decoded = saved.decompress(data)
        for other in (small, rebuilt):
            assert other.compress(picture, asked) == data
            # Eager kernels and graphs may differ in the last bit of a sum.
            difference = other.decompress(data).astype(int) - decoded
            assert np.max(np.abs(difference)) <= 1 and np.mean(difference != 0) < 1e-3


def test_signatures_take_a_quality_for_each_picture(
    path, saved, make_photograph, operations_module
):
    del operations_module  # the full SavedModel needs the coder's operations
    full = saved._functions.signatures
    stock = tf.saved_model.load(str(path / "stock")).signatures
    pictures = np.stack([make_photograph(33, 48, seed) for seed in range(3)])
    asked = tf.constant([20.0, 41.7, 99.0])
    files = [saved.compress(*each) for each in zip(pictures, asked.numpy())]
    inputs = {"images": tf.constant(pictures), "quality": asked}
    assert list(full["compress"](**inputs)["tfq_bytes"].numpy()) == files
    one = full["compress_one"](image=tf.constant(pictures[1]), quality=asked[1])
    assert one["tfq_bytes"].numpy() == files[1]
    decoded = [saved.decompress(data) for data in files]
    found = full["decompress"](tfq_bytes=tf.constant(files))["images"]
    np.testing.assert_array_equal(found, decoded)

    y = stock["analyze"](**inputs)["y"]
    sides = {name: tf.fill([3], side) for name, side in (("height", 33), ("width", 48))}
    coded = full["encode_latent"](y=y, quality=asked, **sides)["tfq_bytes"]
    assert list(coded.numpy()) == files
    latent = full["decode_latent"](tfq_bytes=tf.constant(files))
    np.testing.assert_array_equal(latent["quality"], [header(data).quality for data in files])
    np.testing.assert_array_equal(stock["synthesize"](**latent)["images"], decoded)
    np.testing.assert_array_equal(stock["reconstruct"](**inputs)["images"], decoded)

    with pytest.raises(tf.errors.InvalidArgumentError, match="3 pictures and 2 qualities"):
        stock["analyze"](images=tf.constant(pictures), quality=asked[:2])
    with pytest.raises(tf.errors.InvalidArgumentError, match="quality must be from 0 to 100"):
        stock["analyze"](images=tf.constant(pictures), quality=asked + 2)
    wrong = forged(files[0], RANGE.steps[1] + 1)
    with pytest.raises(tf.errors.InvalidArgumentError, match="files of this model have"):
        full["decompress_one"](tfq_bytes=tf.constant(wrong))


def test_files_of_version_1_hold_no_quality(codec, tmp_path):
    with pytest.raises(ValueError, match="files of version 1 hold no quality"):
        export_codec(codec, EXPERIMENT, str(tmp_path / "old"), version=1)


def test_a_manifest_with_a_wrong_range_is_refused(packed_path, tmp_path):
    fields = json.loads((packed_path / MANIFEST).read_text())
    for wrong in ([-1, 2], "0.1", [0.1], 7):
        fields["experiment"]["lmbda_range"] = wrong
        (tmp_path / MANIFEST).write_text(json.dumps(fields))
        with pytest.raises(ModelError, match="no valid lmbda_range"):
            read_manifest(tmp_path)


@pytest.fixture(name="added")
def _added(packed_path, tmp_path, monkeypatch):
    """The model as one of the user's."""
    monkeypatch.setenv(registry.VARIABLE, str(tmp_path / "models"))
    return registry.add([str(packed_path)], "mine")


@pytest.mark.slow
def test_a_set_passes_the_quality_to_its_model(added, model, picture):
    (member,) = added.members
    assert (member.low, member.high) == pytest.approx((RANGE.low, RANGE.high), abs=0.06)
    assert len(added.samples()) == 5 and added.samples()[0] == RANGE.low
    for asked in (25.5, 99.0):
        data = added.compress(picture, asked)
        assert data == model.compress(picture, asked)
        expected = added.evaluate(picture, asked)["image"]
        np.testing.assert_array_equal(added.decompress(data), expected)
    assert added.compress(picture) == model.compress(picture, added.default_quality)
    assert added.default_quality == pytest.approx((RANGE.low + RANGE.high) / 2, abs=0.1)


@pytest.mark.slow
def test_a_size_is_met_within_two_percent(added, picture):
    sizes = [len(added.compress(picture, each)) for each in (RANGE.low, RANGE.high)]
    for wanted in np.geomspace(*sizes, 5)[1:-1].astype(int):
        fitted = fitting.compress_to(added, picture, int(wanted))
        assert fitted.fits and abs(len(fitted.data) / wanted - 1) <= 0.02
        assert header(fitted.data).quality == pytest.approx(fitted.quality, abs=1 / 256)


@pytest.mark.slow
def test_the_command_line_takes_and_shows_the_quality(added, picture, tmp_path, capsys):
    del added
    source, file = tmp_path / "in" / "a.png", tmp_path / "out" / "a.tfq"
    source.parent.mkdir()
    images.write_image(source, picture)
    folders = [str(source.parent), str(file.parent)]
    assert cli.main(["compress", "--model=mine", "--quality=30", *folders]) == 0
    first = file.read_bytes()
    assert cli.main(["compress", "--model=mine", "--quality=30.001", *folders]) == 0
    assert "1 existed already" in capsys.readouterr().out
    assert cli.main(["compress", "--model=mine", "--quality=50", *folders]) == 1
    assert "not replaced: it has quality 30; use --overwrite" in capsys.readouterr().err
    assert file.read_bytes() == first
    command = ["compress", "--model=mine", "--overwrite", "--quality=50", str(source), str(file)]
    assert cli.main(command) == 0
    assert "(mine, quality 50)" in capsys.readouterr().out
    assert cli.main(["info", str(file)]) == 0
    assert "quality      50\n" in capsys.readouterr().out
    assert cli.main(["models"]) == 0
    assert f"  {RANGE.low:.1f}-{RANGE.high:.1f}" in capsys.readouterr().out


@pytest.mark.slow
def test_an_evaluation_draws_one_curve_through_the_qualities(packed_path, picture, tmp_path):
    images.write_image(tmp_path / "a.png", picture)
    evaluation = run.Evaluation(
        (str(packed_path),), str(tmp_path / "a.png"), tmp_path / "report", qualities=(20, 40, 99.5)
    )
    result = run.run(evaluation, ExportedModel.load, lambda line: None)
    assert [row.quality for row in result.models] == [20, 40]  # the model has no 99.5
    lmbdas = [row.lmbda for row in result.models]
    np.testing.assert_allclose(lmbdas, [quality.to_lmbda(20), quality.to_lmbda(40)], rtol=1e-3)
    (curve,) = result.curves
    assert list(curve.models) == [row.name for row in result.models]
    model = ExportedModel.load(packed_path)
    for row in result.models:
        size = len(model.compress(picture, row.quality))
        assert row.mean.bpp == pytest.approx(8 * size / (70 * 90))
    report = (tmp_path / "report" / "report.md").read_text()
    assert all(name in report for name in curve.models) and curve.models[0].endswith("_q20")


def test_qualities_that_a_model_lacks_are_named(packed_path):
    (entry,) = evaluated.find_models([str(packed_path)])
    assert [each.quality for each in evaluated.at_qualities(entry)] == RANGE.samples()
    with pytest.raises(evaluated.EvaluationError, match="has qualities from .* got 99"):
        evaluated.at_qualities(entry, (99.0,))


def test_the_entry_of_a_set_has_both_ends(packed_path):
    ends = model_set.entry("q", read_manifest(packed_path))["quality"]
    assert ends == pytest.approx([RANGE.low, RANGE.high], abs=0.06)
