"""Tests models with one rate that get gains without training, and sets of them."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest

from tfquant import cli
from tfquant.coding import container
from tfquant.export import model_set, packed, quality, registry
from tfquant.export.manifest_file import MANIFEST, Manifest, ModelError, read_manifest
from tfquant.export.model_file import ExportedModel
from tfquant.export.rebuilding import rebuilt
from tfquant.layers import rectifier
from tfquant.legacy_keras import keras
from tfquant.training.experiment import Experiment
from tfquant.training.trained import build_as_decoded


def experiment(lmbda, **settings):
    return Experiment(
        codec="ms_hyper_zero", codec_options={"N": 8, "M": 12}, lmbda=lmbda, **settings
    )


@pytest.fixture(scope="module", name="single")
def _single(tmp_path_factory):
    """`single(lmbda)`: a packed export of one rate, with a rectifier for the lower lmbda."""
    made = {}

    def single(lmbda):
        if lmbda not in made:
            keras.utils.set_random_seed(len(made))  # models of their own
            settings = {}
            if lmbda < 0.005:
                settings = {"stages": ("qr_predictive",), "init_from": "a run",
                            "rectifier_width": 8, "rectifier_depth": 1}  # fmt: skip
            asked = experiment(lmbda, **settings)
            codec = build_as_decoded(asked, "float32")
            path = tmp_path_factory.mktemp("packed") / f"{lmbda}"
            packed.pack_codec(codec, asked, str(path), 1 / 128)
            made[lmbda] = path
        return made[lmbda]

    return single


@pytest.fixture(scope="module", name="wide")
def _wide(single, tmp_path_factory):
    """`wide(lmbda)`: that export with gains."""
    made = {}

    def wide(lmbda):
        if lmbda not in made:
            made[lmbda] = tmp_path_factory.mktemp("wide") / f"{lmbda}"
            packed.widen(str(single(lmbda)), str(made[lmbda]))
        return made[lmbda]

    return wide


def stored_quality(data):
    return container.read_header(io.BytesIO(data)).quality


@pytest.mark.slow
@pytest.mark.parametrize("lmbda", [0.0036, 0.0072])
def test_at_its_own_lmbda_a_widened_model_is_the_model(single, wide, lmbda, make_photograph):
    before, after = ExportedModel.load(single(lmbda)), ExportedModel.load(wide(lmbda))
    assert after.fingerprint == before.fingerprint
    picture = make_photograph(70, 90)
    old, new = before.compress(picture), after.compress(picture, quality.of_lmbda(lmbda))
    parsed = [container.Bitstream.from_bytes(data) for data in (old, new)]
    assert parsed[0].streams == parsed[1].streams
    base = round(256 * quality.of_lmbda(lmbda)) / 256
    assert stored_quality(new) == after.qualities.base == base
    np.testing.assert_array_equal(after.decompress(new), before.decompress(old))
    np.testing.assert_array_equal(after.decompress(old), before.decompress(old))
    assert after.compress(picture) == new


def test_the_gain_is_the_root_of_the_change_of_lmbda(wide):
    codec = rebuilt(wide(0.0072), read_manifest(wide(0.0072))).codec
    qualities = read_manifest(wide(0.0072)).qualities
    for octaves in (-2, -0.7, 0, 1, 2):
        level = qualities.level(qualities.base + 15 * octaves)
        gain = codec.gain.factors(np.array([level], np.float32))
        np.testing.assert_allclose(gain, math.sqrt(2.0**octaves), rtol=1e-5)
        back = codec.inverse_gain.factors(np.array([level], np.float32))
        np.testing.assert_allclose(gain * back, 1, rtol=1e-5)


def test_a_rectifier_stays(wide):
    codec = rebuilt(wide(0.0036), read_manifest(wide(0.0036))).codec
    assert isinstance(codec.rectifier, rectifier.QuantizationRectifier)


def test_the_weights_keep_their_encoding(single, wide):
    sizes = [sum(p.stat().st_size for p in path(0.0072).iterdir()) for path in (single, wide)]
    assert sizes[1] - sizes[0] < 3000  # two gains of 5x12 numbers


def test_other_models_are_refused(wide, single, tmp_path):
    with pytest.raises(ModelError, match="a model with a range of rates takes no further gains"):
        packed.widen(str(wide(0.0072)), str(tmp_path / "a"))
    old = tmp_path / "old"
    old.mkdir()
    fields = json.loads((single(0.0072) / MANIFEST).read_text())
    (old / MANIFEST).write_text(json.dumps({**fields, "format": 2}))
    with pytest.raises(ModelError, match="a model with files of version 1 takes no further gains"):
        packed.widen(str(old), str(tmp_path / "b"))
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


def test_a_scale_is_divided_around_the_base_qualities():
    def manifests(*bases):
        for base in bases:
            ends = [quality.to_lmbda(base + difference) for difference in (-30, 30)]
            asked = {"lmbda": quality.to_lmbda(base), "lmbda_range": ends}
            yield Manifest("codec", f"of {base}", asked, "0")

    found = model_set.divided(manifests(38, 66, 10))
    expected = {"of 10": (1 / 256, 18.4), "of 38": (18.4, 46.4), "of 66": (46.4, 96)}
    assert list(found) == list(expected)
    np.testing.assert_allclose(list(found.values()), list(expected.values()))
    assert model_set.divided(manifests(38)) == {"of 38": (8, 68)}
    found = model_set.divided(manifests(0, 95))
    np.testing.assert_allclose(found["of 0"] + found["of 95"], (1 / 256, 28.5, 65, 100), atol=0.01)


@pytest.mark.slow
def test_a_continuous_set_has_every_quality(single, tmp_path, monkeypatch, capsys,
                                            make_photograph):  # fmt: skip
    monkeypatch.setenv(registry.VARIABLE, str(tmp_path / "models"))
    exports = [str(single(lmbda)) for lmbda in (0.0072, 0.0036)]
    assert cli.main(["models", "--add", *exports, "--name=both", "--continuous"]) == 0
    added = registry.find("both")
    low, high = added.members
    bases = [quality.of_lmbda(lmbda) for lmbda in (0.0036, 0.0072)]
    between = bases[0] + 0.3 * (bases[1] - bases[0])
    ends = (1 / 256, between, between, bases[1] + 30)
    assert (low.low, low.high, high.low, high.high) == pytest.approx(ends, abs=0.06)
    picture = make_photograph(70, 90)
    for asked in (13.0, 33.3, 50.0):
        data = added.compress(picture, asked)
        assert stored_quality(data) == round(256 * asked) / 256
        expected = added.evaluate(picture, asked)["image"]
        np.testing.assert_array_equal(added.decompress(data), expected)
    assert cli.main(["models", "--continuous"]) == 2
    assert "name them with --add" in capsys.readouterr().err
