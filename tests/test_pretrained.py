"""Tests the pretrained models: complete, small, and better than JPEG."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tfquant
from tfquant import cli
from tfquant.data import images
from tfquant.evaluation import pictures
from tfquant.export import registry

FOLDER = Path(tfquant.__file__).parent / "pretrained"
MOST_BYTES = 30_000_000


@pytest.fixture(scope="module", name="models")
def _models():
    return tfquant.load("default")


@pytest.fixture(scope="module", name="photograph_file")
def _photograph_file(tmp_path_factory):
    """Returns the path of a photograph that an installed package ships."""
    folder = tmp_path_factory.mktemp("sample")
    pictures.write_sample(folder)
    return folder / "hopper.png"


@pytest.fixture(autouse=True)
def _no_models_of_the_users(tmp_path, monkeypatch):
    monkeypatch.setenv(registry.VARIABLE, str(tmp_path / "models"))


def mse(a, b):
    return np.mean((a.astype(np.float64) - b) ** 2)


def test_all_models_fit_the_limit():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*")) < MOST_BYTES


def test_every_file_has_the_checksum_of_its_manifest(models):
    for member in models.members:
        names = {path.name for path in Path(member.path).iterdir()}
        assert names == {"tfquant.json", *member.manifest.files}
        for name, digest in member.manifest.files.items():
            assert hashlib.sha256((Path(member.path) / name).read_bytes()).hexdigest() == digest


@pytest.mark.slow
def test_files_grow_with_the_quality_and_beat_jpeg_of_their_size(models, photograph_file):
    picture = images.read_image(photograph_file)
    sizes, errors = [], []
    for quality in (0, *models.samples()):
        data = models.compress(picture, quality)
        decoded = models.decompress(data)
        np.testing.assert_array_equal(decoded, models.evaluate(picture, quality)["image"])
        sizes.append(len(data))
        errors.append(mse(picture, decoded))
    assert sizes == sorted(set(sizes)) and errors == sorted(set(errors), reverse=True)
    for size, error in zip(sizes, errors):
        # The smallest JPEG that has at least the size.
        for quality in range(1, 96):
            file = io.BytesIO()
            Image.fromarray(picture).save(file, "JPEG", quality=quality, optimize=True)
            if len(file.getvalue()) >= size:
                break
        assert error < mse(picture, np.asarray(Image.open(file)))


@pytest.mark.slow
def test_files_grow_where_one_model_takes_over_from_another(models, photograph_file):
    picture = images.read_image(photograph_file)
    for low, high in zip(models.members, models.members[1:]):
        assert low.high == high.low
        sizes = [len(models.compress(picture, low.high + step)) for step in (-0.5, 0, 0.5)]
        assert sizes == sorted(set(sizes))


def test_a_picture_of_one_pixel_comes_back(models):
    picture = np.full((1, 1, 3), 200, np.uint8)
    assert models.decompress(models.compress(picture)).shape == (1, 1, 3)


@pytest.mark.slow
def test_neither_command_needs_a_model(photograph_file, tmp_path, capsys):
    file, back = tmp_path / "h.tfq", tmp_path / "h.png"
    sizes = []
    for quality in ("10", "100"):
        arguments = ["compress", "--overwrite", "--quality", quality, photograph_file, file]
        assert cli.main([str(argument) for argument in arguments]) == 0
        assert "photographs, quality" in capsys.readouterr().out
        assert cli.main(["decompress", "--overwrite", str(file)]) == 0
        sizes.append(file.stat().st_size)
        decoded = images.read_image(back)
        assert mse(decoded, images.read_image(photograph_file)) < 200
    assert sizes[0] < sizes[1]


@pytest.mark.slow
def test_a_folder_of_files_of_several_models_is_decompressed(photograph_file, tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    for quality in (10, 60):
        arguments = ["compress", str(photograph_file), str(files / f"{quality}.tfq")]
        assert cli.main([*arguments, f"--quality={quality}"]) == 0
    assert cli.main(["decompress", str(files), str(tmp_path / "back")]) == 0
    original = images.read_image(photograph_file)
    errors = [mse(images.read_image(tmp_path / "back" / f"{q}.png"), original) for q in (10, 60)]
    assert errors[0] > errors[1]


@pytest.mark.slow
def test_a_file_of_no_installed_model_is_one_line(photograph_file, tmp_path, capsys):
    file = tmp_path / "h.tfq"
    assert cli.main(["compress", str(photograph_file), str(file)]) == 0
    content = bytearray(file.read_bytes())
    content[22] ^= 1  # the fingerprint
    import struct
    import zlib

    file.write_bytes(content[:-4] + struct.pack("<I", zlib.crc32(content[:-4])))
    capsys.readouterr()
    assert cli.main(["decompress", str(file)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "which is not installed" in error


def test_the_list_names_all_models_without_tensorflow(models, fresh_python):
    printed = fresh_python(
        """
        import sys
        from tfquant import cli
        assert cli.main(["models"]) == 0
        assert not {"tensorflow", "numpy"} & set(sys.modules)
        """
    )
    for member in models.members:
        assert member.manifest.fingerprint in printed
        assert f"{member.kodak[0]['psnr']:.2f} dB" in printed


@pytest.mark.slow
def test_the_command_adds_and_removes_an_export(models, capsys, tmp_path):
    export = models.members[0].path
    assert cli.main(["models", "--add", export, "--name=mine", "--description=a test"]) == 0
    assert cli.main(["models"]) == 0
    assert "mine: a test" in capsys.readouterr().out
    assert cli.main(["models", "--remove", "mine"]) == 0
    assert not (tmp_path / "models" / "mine").exists()
    assert cli.main(["models", "--remove", "mine"]) == 1
    assert "no model 'mine' was added here; added: none" in capsys.readouterr().err
