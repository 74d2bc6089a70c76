"""Tests the quality for a given size, with sizes that are any function of the quality."""

from __future__ import annotations

import math
import types

import numpy as np
import pytest

import tfquant
from tfquant import cli
from tfquant.coding.container import Bitstream
from tfquant.commands.choosing import Aim, Compressor
from tfquant.data import images
from tfquant.export import fitting, registry
from tfquant.export.manifest_file import Manifest
from tfquant.export.model_set import Member, ModelSet

ONE_RATE = Manifest("codec", "0" * 16, {}, "0")


class Sizes:
    """Set of one model whose files have sizes given by a function of the quality."""

    def __init__(self, size_of, low=0.0, high=100.0):
        self.size_of, self.member = size_of, Member("path", low, high, (), ONE_RATE)
        self.asked = []

    @property
    def members(self):
        return (self.member,)

    def load(self, member):
        return self

    def compress(self, image, quality, max_pixels):
        self.asked.append(quality)
        return bytes(round(self.size_of(quality)))


@pytest.mark.parametrize("wanted", [1100, 5000, 33333, 250000])
@pytest.mark.parametrize(
    "size_of",
    [
        lambda q: 1000 * math.exp(q / 15),
        lambda q: 1000 * 1.5 ** (q / 100) + 9e5 * (q / 100) ** 6,
        lambda q: 500 + 1e6 / (1 + math.exp((60 - q) / 8)),
    ],
)
def test_a_model_of_any_rate_comes_within_2_percent(size_of, wanted):
    models = Sizes(size_of)
    fitted = fitting.compress_to(models, None, wanted)
    assert 0.98 * wanted <= len(fitted.data) <= 1.02 * wanted
    assert fitted.fits and fitted.trials == len(models.asked) <= 12
    assert len(fitted.data) == round(size_of(fitted.quality))


@pytest.mark.parametrize("wanted, quality", [(10, 20.0), (10**7, 80.0)])
def test_outside_its_range_a_model_gives_its_nearest_quality(wanted, quality):
    fitted = fitting.compress_to(Sizes(lambda q: 1000 * math.exp(q / 15), 20, 80), None, wanted)
    assert fitted.quality == quality and not fitted.fits


class Steps(Sizes):
    """Set of models with one rate, one for each size."""

    def __init__(self, *sizes):
        super().__init__(None)
        self.sizes = dict(enumerate(sizes))
        self.models = tuple(Member(str(q), q, q, (), ONE_RATE) for q in self.sizes)

    @property
    def members(self):
        return self.models

    def compress(self, image, quality, max_pixels):
        self.asked.append(quality)
        return bytes(self.sizes[quality])


@pytest.mark.parametrize("wanted", [1, 101, 950, 1100, 3000, 4000, 10**6])
def test_models_of_one_rate_give_the_nearest_of_their_sizes(wanted):
    sizes = (100, 1000, 5000)
    fitted = fitting.compress_to(Steps(*sizes), None, wanted)
    assert len(fitted.data) == min(sizes, key=lambda size: abs(math.log(size / wanted)))
    assert fitted.trials <= 3


@pytest.mark.slow
def test_the_pretrained_set_meets_every_size_between_its_ends(make_photograph):
    models, picture = tfquant.load("default"), make_photograph(128, 160)
    ends = [len(models.compress(picture, end)) for end in (0, 100)]
    # Some of these sizes lie between those of two models.
    for wanted in np.geomspace(1.05 * ends[0], 0.95 * ends[1], 8).astype(int):
        fitted = fitting.compress_to(models, picture, int(wanted))
        assert fitted.fits and abs(len(fitted.data) / wanted - 1) <= 0.02
        assert models.decompress(fitted.data).shape == picture.shape
    beyond = fitting.compress_to(models, picture, 100 * ends[1])
    assert len(beyond.data) == ends[1] and not beyond.fits


@pytest.mark.slow
def test_the_command_reports_the_difference_from_the_size(make_photograph, tmp_path, capsys):
    picture, file = tmp_path / "in.png", tmp_path / "out.tfq"
    images.write_image(picture, make_photograph(64, 80))
    assert cli.main(["compress", str(picture), str(file), "--target_size=7"]) == 0
    assert "7 bytes were asked for; the nearest size" in capsys.readouterr().out
    bpp = 8 * file.stat().st_size / (64 * 80)
    command = ["compress", "--overwrite", str(picture), str(file), f"--target_bpp={bpp:.4f}"]
    assert cli.main(command) == 0
    assert "asked for" not in capsys.readouterr().out
    assert 8 * file.stat().st_size / (64 * 80) == pytest.approx(bpp)


@pytest.mark.parametrize(
    "options", [["--target_size=0"], ["--target_bpp=-1"], ["--target_bpp=nan"],
                ["--target_size=100", "--quality=5"], ["--target_size=100", "--target_bpp=1"]],
)  # fmt: skip
def test_wrong_targets_are_usage_errors(options, capsys):
    assert cli.main(["compress", "in.png", "out.tfq", *options]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_each_picture_of_a_folder_gets_the_size(make_photograph, tmp_path, capsys):
    shapes = {"a": (64, 80), "b": (96, 96)}
    (tmp_path / "in").mkdir()
    for name, shape in shapes.items():
        images.write_image(tmp_path / "in" / f"{name}.png", make_photograph(*shape))

    def compress(*options):
        code = cli.main(["compress", str(tmp_path / "in"), str(tmp_path / "out"), *options])
        sizes = {name: (tmp_path / "out" / f"{name}.tfq").stat().st_size for name in shapes}
        return code, sizes, capsys.readouterr()

    code, sizes, _ = compress("--target_bpp=1")
    assert code == 0
    for name, (height, width) in shapes.items():
        assert 8 * sizes[name] / (height * width) == pytest.approx(1, rel=0.02)
    code, again, said = compress("--target_bpp=1")
    assert (code, again) == (0, sizes) and "2 existed already" in said.out
    code, again, said = compress("--target_bpp=2")
    assert (code, again) == (1, sizes)
    assert f"a.tfq: not replaced: it has {sizes['a']} bytes, not about 1280" in said.err
    code, again, said = compress("--target_size=7", "--overwrite")  # cannot be reached
    assert code == 0 and "a.png: 7 bytes were asked for; the nearest size" in said.out
    assert compress("--target_size=7")[:2] == (0, again)
    code, _, said = compress("--quality=5")
    assert code == 1 and "it has quality 0" in said.err


class OneRates(ModelSet):
    """Models with one rate, at qualities 20, 50 and 80, whose files have 100, 200 and 400 bytes."""

    SIZES = {20.0: 100, 50.0: 200, 80.0: 400}

    def __init__(self):
        members = [
            Member(str(q), q, q, (), Manifest("codec", f"{q:016.0f}", {}, "0")) for q in self.SIZES
        ]
        super().__init__("rates", "", members, {})

    def load(self, member):
        compress = lambda image, quality, max_pixels: bytes(self.SIZES[member.low])  # noqa: E731
        return types.SimpleNamespace(compress=compress)


@pytest.mark.parametrize("wanted", [1, 120, 150, 300, 10**6, 1e30])
def test_a_file_of_models_with_one_rate_is_recognized(monkeypatch, wanted):
    monkeypatch.setattr(registry, "find", lambda name: OneRates())
    compressor, image = Compressor("rates", Aim(size=wanted)), np.zeros((8, 8, 3), np.uint8)
    made = len(compressor.compress(image, None).data)
    for member, size in zip(OneRates().members, OneRates.SIZES.values()):
        file = Bitstream("codec", member.manifest.fingerprint, 8, 8, 0, (b"",))
        difference = compressor.difference(file, size, lambda: image, None)
        assert (difference == "") == (size == made), (size, made, difference)


def test_a_file_of_another_member_of_the_set_is_named(monkeypatch):
    monkeypatch.setattr(registry, "find", lambda name: OneRates())
    file = Bitstream("codec", OneRates().members[0].manifest.fingerprint, 8, 8, 0, (b"",))
    difference = Compressor("rates", Aim(quality=50.0)).difference(file, 100, None, None)
    assert difference == "the model 20.0 made it, with quality 20"


def test_a_size_of_zero_is_rejected():
    with pytest.raises(ValueError, match="at least 1 byte"):
        fitting.compress_to(Sizes(lambda q: 1000), None, 0)
