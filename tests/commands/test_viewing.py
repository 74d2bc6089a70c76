"""Tests that one bad picture does not cost the page of `tfquant view`."""

from __future__ import annotations

import base64
import io
import re
import sys
import types

import numpy as np
import pytest
from PIL import Image

from tfquant.commands import choosing
from tfquant.export.manifest_file import ModelError


@pytest.fixture(name="models")
def _models(pixel_model):
    """A set with a model without loss."""
    return types.SimpleNamespace(
        name="pixels",
        description="",
        samples=lambda: [50.0],
        compress=lambda image, quality: pixel_model[0].compress(image),
        decompress=pixel_model[0].decompress,
        rate_map=lambda image, quality: np.zeros(image.shape[:2], np.float32),
    )


@pytest.fixture(name="view")
def _view(tfquant, models, monkeypatch):
    """`view(*arguments)`: runs `tfquant view` with this model."""
    monkeypatch.setattr(choosing, "find_set", lambda name: models)
    return lambda *arguments: tfquant("view", *arguments)


@pytest.mark.slow
def test_bad_pictures_are_named_and_the_page_has_the_others(tmp_path, view):
    pictures, page = tmp_path / "pictures", tmp_path / "view.html"
    pictures.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(noise).save(pictures / "good.png")
    (pictures / "broken.png").write_bytes((pictures / "good.png").read_bytes()[:200])
    Image.new("RGB", (16400, 1)).save(pictures / "wide.png")
    code, out, err = view(pictures, f"--out={page}")
    assert code == 1 and out.startswith(f"{page}: 1 pictures, ")
    broken, wide, last = err.splitlines()
    assert broken.startswith(f"tfquant: {pictures / 'broken.png'}: unreadable: ")
    reason = "WebP cannot encode it: 16400x1 pixels, more than 16383 a side"
    assert wide == f"tfquant: {pictures / 'wide.png'}: {reason}"
    assert last == "tfquant: 2 of 3 pictures are not in the page"
    text = page.read_text(encoding="utf-8")
    assert "good" in text and "broken" not in text
    assert f"<li>Not in this page: wide: {reason}.</li>" in text
    assert "<li>Not in this page: 1 files that cannot be read.</li>" in text

    (pictures / "good.png").unlink()
    code, _, err = view(pictures, f"--out={page}", "--overwrite")
    assert code == 1 and err.splitlines()[-1] == "tfquant: none of 2 pictures can be compared"
    assert page.read_text(encoding="utf-8") == text


@pytest.fixture(name="picture")
def _picture(tmp_path):
    """The path of a picture."""
    path = tmp_path / "picture.png"
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(noise).save(path)
    return path


@pytest.mark.parametrize("name", ["-", "/dev/stdout"])
def test_a_page_on_standard_output_is_only_the_page(view, picture, monkeypatch, name):
    stream = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", stream)
    code, _, err = view(picture, f"--out={name}")
    page = stream.buffer.getvalue().decode()
    assert code == 0 and page.startswith("<!DOCTYPE html>") and page.endswith("</html>\n")
    assert err == f"-: 1 pictures, {len(page) / 1e6:.1f} MB; open it in a browser\n"


def test_a_transparent_picture_needs_a_background(tmp_path, view):
    picture, page = tmp_path / "clear.png", tmp_path / "view.html"
    Image.new("RGBA", (20, 30), (10, 20, 30, 0)).save(picture)
    code, _, err = view(picture, f"--out={page}")
    assert code == 1 and "--background" in err and not page.exists()
    assert view(picture, f"--out={page}", "--background=#405060")[0] == 0
    assert pixel_of(page) == (0x40, 0x50, 0x60)


def test_the_page_of_a_picture_file_can_be_chosen(tmp_path, view):
    picture, page = tmp_path / "pages.tif", tmp_path / "view.html"
    pages = [Image.new("RGB", (20, 30), (value, 0, 0)) for value in (50, 100)]
    pages[0].save(picture, save_all=True, append_images=pages[1:])
    code, out, _ = view(picture, f"--out={page}")
    assert code == 0 and pixel_of(page) == (50, 0, 0)
    assert out.splitlines()[1].startswith("pages: ")  # which page it is
    assert view(picture, f"--out={page}", "--overwrite", "--page=2")[0] == 0
    assert pixel_of(page) == (100, 0, 0)
    code, _, err = view(picture, f"--out={page}", "--overwrite", "--page=3")
    assert code == 1 and str(picture) in err.splitlines()[0]


def pixel_of(page):
    """Returns the first pixel of the original of a page's first picture."""
    source = re.search(r'"original": "data:image/[a-z]*;base64,([^"]*)"', page.read_text())[1]
    return Image.open(io.BytesIO(base64.b64decode(source))).convert("RGB").getpixel((0, 0))


def test_pictures_with_equal_names_in_two_folders_stay_apart(tmp_path, view, picture):
    page = tmp_path / "view.html"
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.png").write_bytes(picture.read_bytes())
    assert view(f"{tmp_path / 'a'},{tmp_path / 'b'}", f"--out={page}")[0] == 0
    assert re.findall('{"name": "([^"]*)"', page.read_text()) == ["a__same", "b__same"]


def test_a_picture_that_the_model_rejects_costs_only_itself(tmp_path, view, models, picture):
    compress = models.compress

    def rejecting(image, quality):
        if image.shape[:2] == (20, 30):
            raise ModelError("20x30 pixels are too many")
        return compress(image, quality)

    models.compress = rejecting
    Image.new("RGB", (40, 50)).save(tmp_path / "second.png")
    page = tmp_path / "view.html"
    code, _, err = view(tmp_path, f"--out={page}")
    assert code == 1
    first, last = err.splitlines()
    assert first == f"tfquant: {picture}: 20x30 pixels are too many"
    assert last == "tfquant: 1 of 2 pictures are not in the page"
    assert "<li>Not in this page: picture: 20x30 pixels are too many.</li>" in page.read_text()


def test_a_corrupt_model_is_an_error_before_the_first_picture(tmp_path, view, models, picture):
    def corrupt(image, quality):
        raise ModelError("corrupt")

    models.compress = corrupt
    code, _, err = view(tmp_path, f"--out={tmp_path / 'view.html'}")
    assert (code, err) == (1, "tfquant: corrupt\n")


@pytest.mark.slow
def test_sample_leaves_only_the_page(tmp_path, view):
    assert view("sample", f"--out={tmp_path / 'view.html'}")[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["view.html"]
