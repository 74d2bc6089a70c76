"""Tests the registry of sets: names, fingerprints that several sets share, and corrupt sets."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil

import numpy as np
import pytest

import tfquant
from tfquant.coding import container
from tfquant.commands import choosing
from tfquant.data import images
from tfquant.export import model_set, packed, rebuilding, registry, weight_file
from tfquant.export.manifest_file import MANIFEST, Manifest, ModelError, read_manifest
from tfquant.export.model_file import ExportedModel
from tfquant.export.model_set import Member, ModelSet
from tfquant.legacy_keras import keras
from tfquant.training.experiment import Experiment
from tfquant.training.trained import build_as_decoded

pytestmark = pytest.mark.usefixtures("user_folder")


@pytest.fixture(scope="module", name="single")
def _single(tmp_path_factory):
    """`single(lmbda, seed=0, factor=1, **settings)`: a packed export of an untrained codec.

    Its latent y is multiplied by the factor.
    """
    made = {}

    def single(lmbda, seed=0, factor=1.0, **settings):
        key = lmbda, seed, factor, tuple(settings.items())
        if key not in made:
            keras.utils.set_random_seed(seed)
            asked = Experiment(
                codec="ms_hyper_zero", codec_options={"N": 8, "M": 12}, lmbda=lmbda, **settings
            )
            codec = build_as_decoded(asked, "float32")
            rng = np.random.default_rng([seed, round(1e6 * lmbda)])
            codec.set_weights(
                [w * rng.normal(1, 0.01, w.shape).astype(np.float32) for w in codec.get_weights()]
            )
            for weight in codec.g_a.weights[-2:]:  # kernel and bias of the last layer
                weight.assign(factor * weight)
            made[key] = tmp_path_factory.mktemp("packed") / f"{lmbda}"
            packed.pack_codec(codec, asked, str(made[key]))
        return str(made[key])

    return single


@pytest.fixture(name="graded")
def _graded(single, user_folder):
    """Registers the set `mine`: two models for ranges of rates.

    At the quality where the first ends and the second begins, the files of the second are larger.
    """
    return registry.add([single(0.0072), single(0.0288, factor=2.5)], "mine", continuous=True)


@pytest.fixture(scope="module", name="picture")
def _picture(make_photograph):
    return make_photograph(64, 64)


def wide_file(models, picture, quality, path):
    path.write_bytes(models.compress(picture, quality))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("names", [("aa", "zz"), ("zz", "aa")])
def test_a_file_is_decoded_by_the_set_that_has_its_quality(single, picture, tmp_path, tfq, names):
    plain, wide = names
    registry.add([single(0.0072)], plain)
    added = registry.add([single(0.0072)], wide, continuous=True)
    file = wide_file(added, picture, 50.0, tmp_path / "a.tfq")
    expected = added.decompress(file.read_bytes())
    assert tfq("decompress", file)[0] == 0
    np.testing.assert_array_equal(images.read_image(tmp_path / "a.png"), expected)
    files, back = tmp_path / "files", tmp_path / "back"
    files.mkdir()
    shutil.copy(file, files)
    (files / "plain.tfq").write_bytes(registry.find(plain).compress(picture))
    assert tfq("decompress", files, back)[0] == 0
    np.testing.assert_array_equal(images.read_image(back / "a.png"), expected)
    of_plain = registry.find(plain).decompress((files / "plain.tfq").read_bytes())
    np.testing.assert_array_equal(images.read_image(back / "plain.png"), of_plain)
    registry.remove(wide)
    code, _, err = tfq("decompress", file, tmp_path / "b.png")
    assert code == 1 and err.count("\n") == 1
    assert "header says quality 50, but this model has one rate" in err
    code, _, err = tfq("decompress", f"--model={plain}", file, tmp_path / "b.png")
    assert code == 1 and "header says quality 50, but" in err and err.count("\n") == 1


def test_a_member_that_has_the_files_quality_comes_first_in_a_set():
    one_rate = Manifest("codec", "0" * 16, {"lmbda": 0.0072}, "0")
    ranged = dataclasses.replace(one_rate, experiment={"lmbda_range": [0.0036, 0.0144]})
    members = [Member("one", 25, 25, (), one_rate), Member("range", 30, 40, (), ranged)]
    models = ModelSet("both", "", members, {})
    assert models.find("0" * 16, 31.5).path == "range"
    assert models.find("0" * 16).path == models.find("0" * 16, 90.0).path == "one"
    assert models.find("1" * 16, 31.5) is None


@pytest.mark.slow
def test_the_set_that_was_added_first_decodes_whatever_its_name(single, picture, tmp_path, tfq):
    """Two decoders for the same bits: the fingerprint does not cover the decoder."""
    first = single(0.0072)
    other = tmp_path / "other"
    manifest = read_manifest(first)
    module = rebuilding.rebuilt(first, manifest)
    g_s = module.codec.parts()["g_s"]
    g_s.set_weights([1.05 * weight for weight in g_s.get_weights()])
    weights = weight_file.dump(packed._named(module.weights))
    packed._write(module, packed._fields(manifest), str(other), weights)
    data = ExportedModel.load(first).compress(picture)
    pictures = [ExportedModel.load(path).decompress(data) for path in (first, other)]
    assert np.any(pictures[0] != pictures[1])
    file = tmp_path / "a.tfq"
    file.write_bytes(data)
    for order in ((0, 1), (1, 0)):
        for place, name in zip(order, ("zz", "aa")):
            code, out, _ = tfq("models", "--add", (first, other)[place], f"--name={name}")
            assert code == 0
            said = "aa: a model with the same fingerprint is in zz; decompress uses the one"
            assert (said in out) == (name == "aa")
        assert tfq("decompress", "--overwrite", file)[0] == 0
        np.testing.assert_array_equal(images.read_image(tmp_path / "a.png"), pictures[order[0]])
        for name in ("zz", "aa"):
            registry.remove(name)


def test_two_exports_of_one_fingerprint_are_no_set(single, tmp_path, user_folder, tfq):
    one, copy = single(0.0072), tmp_path / "copy"
    shutil.copytree(one, copy)
    for exports in ([one, copy], [one, one], [single(0.0036), copy, one]):
        code, out, err = tfq("models", "--add", *exports, "--name=mine")
        assert code == 1 and out == "" and err.count("\n") == 1
        assert "have one fingerprint" in err and str(exports[-1]) in err
        assert not user_folder.exists()


def test_a_folder_named_default_does_not_hide_the_default_models(single, tmp_path, monkeypatch):
    shutil.copytree(single(0.0072), tmp_path / "default")
    monkeypatch.chdir(tmp_path)
    for found in (registry.find("default"), choosing.find_set(None)):
        assert found.name == registry.PRETRAINED
    assert len(registry.find("./default").members) == 1


def test_a_set_and_a_folder_with_one_name_need_the_same_models(single, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(single(0.0072), "mine")
    registry.add([single(0.0072)], "mine")
    assert registry.find("mine").path != "mine"
    shutil.rmtree("mine")
    shutil.copytree(single(0.0036), "mine")
    with pytest.raises(ModelError, match="'mine' is a set of models, .* another model"):
        registry.find("mine")


def test_a_model_of_a_set_is_a_model_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("default/q38", "default/q38/", "photographs/q38", "default"):
        paths = argparse.Namespace(paths=[name, "photo.png"], model=None)
        choosing.split_paths(paths, "picture", "file", ".tfq")
        assert (paths.model, paths.picture, paths.file) == (name, "photo.png", "photo.tfq")


@pytest.mark.parametrize("name", ["x.partial", "default", "photographs", "a/b", "-x", ""])
def test_a_name_that_cannot_be_listed_is_refused(single, user_folder, name):
    with pytest.raises(ModelError):
        registry.add([single(0.0072)], name or "..")
    assert not user_folder.exists()


@pytest.mark.parametrize(
    "flags",
    [["--name=a"], ["--description=a"], ["--continuous"], ["--name=a", "--remove=b"],
     ["--add", "a", "--remove=b"], ["--description="]],
)  # fmt: skip
def test_flags_without_a_model_to_add_are_usage_errors(flags, tfq):
    code, out, err = tfq("models", *flags)
    assert code == 2 and out == "" and err.count("\n") == 1


def test_an_export_that_takes_no_gains_is_refused_before_anything_is_packed(
    single, user_folder, monkeypatch
):
    monkeypatch.setattr(packed, "widen", None)
    ranged = single(0.008, lmbda_range=(0.002, 0.032))
    with pytest.raises(ModelError, match="a range of rates takes no further gains"):
        registry.add([single(0.0072), ranged], "mine", continuous=True)
    assert not user_folder.exists()


def test_a_file_whose_quality_the_model_lacks_is_of_another_model(edited):
    edited(VALID)
    file = container.Bitstream("codec", "0" * 16, 8, 8, 0, (b"",), quality=25.0)
    compressor = choosing.Compressor("mine", choosing.Aim())
    found = compressor.difference(file, 100, None, None)
    assert found == "another model made it, codec 0000000000000000"
    file = dataclasses.replace(file, quality=None)
    assert compressor.difference(file, 100, None, None) == ""


@pytest.mark.slow
def test_models_that_no_quality_chooses_are_named(single, tfq):
    ranged = single(0.008, lmbda_range=(0.002, 0.032))
    code, out, _ = tfq("models", "--add", ranged, single(0.0072), "--name=mixed")
    assert code == 0
    unused = ExportedModel.load(single(0.0072)).fingerprint
    assert f"no quality chooses the model {unused} (40)" in out
    assert f"--model=mixed/{unused} does" in out and out.count("no quality chooses") == 1
    assert registry.find(f"mixed/{unused}").members[0].manifest.fingerprint == unused
    code, out, _ = tfq("models", "--add", single(0.0072), single(0.0072, 1), "--name=twins")
    assert code == 0 and out.count("no quality chooses the model") == 1
    code, out, _ = tfq("models", "--add", single(0.0072), single(0.0036), "--name=used")
    assert code == 0 and "no quality chooses" not in out


def members(*ends):
    manifests = [
        Manifest("codec", f"{number:016}", {"lmbda_range": [1e-5, 10.0]}, "0")
        for number in range(len(ends))
    ]
    return [Member(f"{m.fingerprint}", *e, (), m) for e, m in zip(ends, manifests)]


@pytest.mark.parametrize(
    "ends, unused",
    [
        ([(0, 50), (50, 100)], []),
        ([(10, 70), (25, 25)], [1]),
        ([(10, 70), (10, 10)], []),
        ([(10, 70), (70, 70)], [1]),
        ([(10, 40), (20, 60), (30, 50)], [2]),
        ([(25, 25), (25, 25), (90, 90)], [1]),
    ],
)
def test_a_member_is_unused_if_no_quality_chooses_it(ends, unused):
    models = ModelSet("set", "", members(*ends), {})
    assert [int(member.path) for member in models.unused()] == unused


def test_a_corrupt_set_is_named_where_its_files_are_decoded(single, picture, tmp_path, tfq,
                                                            user_folder):  # fmt: skip
    registry.add([single(0.0072)], "mine")
    file = tmp_path / "a.tfq"
    file.write_bytes(ExportedModel.load(single(0.0072)).compress(picture))
    (user_folder / "mine" / model_set.MANIFEST).write_text('{"format": 1')
    code, _, err = tfq("decompress", file)
    assert code == 1 and err.count("\n") == 1
    assert "in a set that cannot be read" in err and str(user_folder / "mine") in err


VALID = {"format": 1, "name": "mine", "members": [{"folder": "m", "quality": 25, "kodak": []}]}
ROW = {"quality": 25, "bpp": 0.2, "psnr": 30.0, "ms_ssim": 0.9}


def of_member(**changes):
    return {**VALID, "members": [{**VALID["members"][0], **changes}]}


@pytest.fixture(name="edited")
def _edited(user_folder):
    """`edited(content)`: a set of a one-rate model of quality 25, whose manifest has a content."""

    def edited(content):
        own = user_folder / "mine" / "m"
        own.mkdir(parents=True, exist_ok=True)
        fields = {"format": 3, "codec": "codec", "fingerprint": "0" * 16, "version": "0",
                  "experiment": {"lmbda": 0.0036}}  # fmt: skip
        (own / MANIFEST).write_text(json.dumps(fields))
        (own.parent / model_set.MANIFEST).write_text(json.dumps(content))

    return edited


def test_the_manifest_that_the_next_test_edits_is_valid(edited, tfq):
    edited(of_member(kodak=[ROW]))
    code, out, err = tfq("models")
    assert code == 0 and err == "" and "0.200 bpp, 30.00 dB, 0.9000" in out


@pytest.mark.parametrize(
    "content",
    [
        [], 7, None, {}, {**VALID, "format": 2}, {**VALID, "members": []},
        {**VALID, "members": {}}, {**VALID, "members": [3]}, {**VALID, "members": "m"},
        {**VALID, "default_quality": "high"}, {**VALID, "default_quality": 500},
        {**VALID, "default_quality": None}, {**VALID, "default_quality": float("nan")},
        {**VALID, "added": -1}, {**VALID, "added": "yesterday"}, {**VALID, "added": float("nan")},
        of_member(folder=3), of_member(folder="../mine/m"), of_member(folder=".."),
        of_member(folder=""), of_member(folder="none"),
        of_member(quality="high"), of_member(quality=None), of_member(quality=True),
        of_member(quality=[]), of_member(quality=[1]), of_member(quality=[1, 2, 3]),
        of_member(quality=[60, 20]), of_member(quality=[20, 60]), of_member(quality=500),
        of_member(quality=-1), of_member(quality=float("inf")),
        of_member(kodak=3), of_member(kodak=[3]), of_member(kodak=[{}]),
        of_member(kodak=[{**ROW, "bpp": "much"}]), of_member(kodak=[{**ROW, "psnr": None}]),
    ],
)  # fmt: skip
def test_a_set_that_was_edited_by_hand_costs_one_line(edited, user_folder, tfq, content):
    edited(content)
    code, out, err = tfq("models")
    assert code == 0 and "photographs (default)" in out
    assert err.count("\n") == 1 and str(user_folder / "mine") in err
    code, out, err = tfq("compress", "--model=mine", "none.png", "none.tfq")
    assert code == 1 and out == "" and err.count("\n") == 1 and str(user_folder / "mine") in err


def test_a_set_has_the_name_of_its_folder(edited, user_folder, tfq):
    edited({**VALID, "name": "photographs"})
    assert [each.name for each in registry.sets()] == ["photographs", "mine"]
    (user_folder / "mine").rename(user_folder / "renamed")
    assert registry.find("renamed").name == "renamed"
    (user_folder / "renamed").rename(user_folder / "photographs")
    hidden = str(user_folder / "photographs")
    assert [each.name for each in registry.sets()] == ["photographs", hidden]
    assert registry.find(hidden).members[0].low == 25
    assert len(registry.find("photographs").members) == 3


def test_a_set_and_a_folder_of_one_name_are_told_apart(edited, tmp_path, monkeypatch):
    edited(VALID)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tmp_path / "user models" / "mine" / "m", tmp_path / "mine")
    assert registry.find("mine").path == str(tmp_path / "user models" / "mine")
    assert registry.find("./mine").path == "./mine"
    (tmp_path / "photographs").mkdir()  # of pictures
    assert registry.find("photographs").name == "photographs"


def test_one_model_of_a_set_has_a_name(tmp_path, monkeypatch):
    found = registry.find("default/q38")
    assert found.name == "default/q38"
    assert found.members[0].manifest == registry.find("photographs").members[1].manifest
    assert isinstance(tfquant.load("photographs/q38"), ExportedModel)
    for wrong in ("default/q39", "default/", "default/q38/..", "none/q38", "default/.."):
        with pytest.raises(ModelError, match="no such folder|not an exported model"):
            registry.find(wrong)


def test_missing_pretrained_models_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "_PACKAGED", str(tmp_path / "none"))
    with pytest.raises(ModelError, match="pretrained models are missing.*install tfquant again"):
        registry.find("default")


def test_a_remote_folder_that_cannot_be_read_is_one_line(monkeypatch):
    def isdir(path):
        raise OSError("no\nnetwork")

    monkeypatch.setattr(registry.files, "isdir", isdir)
    with pytest.raises(ModelError, match="^gs://bucket/model: cannot be read: no network$"):
        tfquant.load("gs://bucket/model")


@pytest.mark.slow
def test_a_quality_that_the_models_lack_is_reported(single, picture, tmp_path, tfq):
    source, file = tmp_path / "a.png", tmp_path / "a.tfq"
    images.write_image(source, picture)
    export = single(0.0036)
    code, out, _ = tfq("compress", "--quality=80", export, source, file)
    assert code == 0 and f"quality 80 was asked for; the nearest quality of {export} is 25" in out
    code, out, _ = tfq("compress", "--overwrite", "--quality=25", export, source, file)
    assert code == 0 and "asked for" not in out
    code, out, _ = tfq("compress", "--overwrite", "--quality=100", source, file)
    assert "quality 100 was asked for; the nearest quality of photographs is 96.9" in out
    code, out, _ = tfq("compress", "--overwrite", "--quality=0", source, file)
    assert code == 0 and "asked for" not in out
    (tmp_path / "in").mkdir()
    for name in "abcde":
        shutil.copy(source, tmp_path / "in" / f"{name}.png")
    code, out, _ = tfq("compress", "--quality=80", export, tmp_path / "in", tmp_path / "out")
    assert code == 0 and out.count("was asked for") == 1 and "and 2 more: " in out


@pytest.mark.slow
def test_the_printed_model_and_quality_make_the_file_of_a_size_again(
    graded, make_photograph, tmp_path, tfq
):
    """Tests sizes between those of the two models at the quality where they meet."""
    source, file, again = (tmp_path / name for name in ("a.png", "a.tfq", "b.tfq"))
    picture = make_photograph(64, 80)
    images.write_image(source, picture)
    high = graded.members[0].high
    ends = len(graded.compress(picture, high)), len(graded.compress(picture, high + 0.1))
    assert ends[1] > 1.1 * ends[0]
    named = set()
    for share in (0.3, 0.7):
        size = round(ends[0] + share * (ends[1] - ends[0]))
        arguments = ["--model=mine", f"--target_size={size}", source, file]
        code, out, _ = tfq("compress", "--overwrite", *arguments)
        assert code == 0 and abs(file.stat().st_size / size - 1) <= 0.02
        model, _, quality = out.strip().rpartition("(")[2].rstrip(")").partition(", quality ")
        named.add(model)
        arguments = [f"--model={model}", f"--quality={quality}", source, again]
        assert tfq("compress", "--overwrite", *arguments)[0] == 0
        assert again.read_bytes() == file.read_bytes()
    assert named & {f"mine/{member.manifest.fingerprint}" for member in graded.members}


def test_the_name_of_a_set_before_a_picture_is_a_model(tmp_path, monkeypatch, tfq, picture):
    monkeypatch.chdir(tmp_path)
    images.write_image("photo.png", picture)
    before = (tmp_path / "photo.png").read_bytes()
    assert tfq("compress", "default", "photo.png")[0] == 0
    assert container.Bitstream.from_bytes((tmp_path / "photo.tfq").read_bytes()).width == 64
    for arguments in (["nobody", "photo.png"], ["photo.tfq", "photo.png", "--overwrite"],
                      ["default", "other.png", "photo.png", "--overwrite"]):  # fmt: skip
        code, _, err = tfq("compress", *arguments)
        assert code == 1 and "photo.png: exists already and is no .tfq file" in err
        assert "--overwrite" not in err
    code, _, err = tfq("decompress", "nobody", "photo.tfq")
    assert code == 1 and "a picture must be .png" in err and "--overwrite" not in err
    assert (tmp_path / "photo.png").read_bytes() == before


def test_a_wrong_model_is_refused_before_the_output_folder_exists(tmp_path, tfq, picture):
    (tmp_path / "in").mkdir()
    images.write_image(tmp_path / "in" / "a.png", picture)
    shutil.copy(tmp_path / "in" / "a.png", tmp_path / "in" / "a.tfq")
    for command in ("compress", "decompress"):
        code, _, err = tfq(command, "--model=nobody", tmp_path / "in", tmp_path / "out")
        assert code == 1 and "no model 'nobody'" in err and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_size_is_met_from_python(graded, make_photograph):
    picture = make_photograph(64, 80)
    first = graded.members[0].manifest.fingerprint
    for model in (tfquant.load("mine"), tfquant.load(f"mine/{first}")):
        middle = len(model.compress(picture, 40.0))
        for wanted in (middle + 30, middle - 50):
            assert abs(len(model.compress(picture, target_size=wanted)) / wanted - 1) <= 0.02
        bpp = 8 * middle / (64 * 80)
        data = model.compress(picture, target_bpp=bpp)
        assert abs(len(data) / middle - 1) <= 0.02
        assert model.decompress(data).shape == picture.shape
        with pytest.warns(UserWarning, match="7 bytes were asked for; the nearest size of .* dif"):
            least = model.compress(picture, target_size=7)
        assert least == model.compress(picture, 0.0)


@pytest.mark.parametrize(
    "wrong",
    [{"target_size": 0}, {"target_size": -5}, {"target_bpp": float("nan")},
     {"target_bpp": float("inf")}, {"target_size": 100, "target_bpp": 1},
     {"target_size": 100, "quality": 50}],
)  # fmt: skip
def test_wrong_targets_are_value_errors(wrong, picture):
    for model in (tfquant.load("default"), tfquant.load("default/q10")):
        with pytest.raises(ValueError, match="must be a positive number|give one of them"):
            model.compress(picture, **wrong)
