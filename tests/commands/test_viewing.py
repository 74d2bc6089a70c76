"""Tests that one bad picture does not cost the page of `tfquant view`."""

from __future__ import annotations

import types

import numpy as np
import pytest
from PIL import Image

from tfquant.commands import choosing


@pytest.fixture(name="view")
def _view(tfquant, pixel_model, monkeypatch):
    """`view(*arguments)`: runs `tfquant view` with a model without loss."""
    models = types.SimpleNamespace(
        name="pixels",
        description="",
        samples=lambda: [50.0],
        compress=lambda image, quality: pixel_model[0].compress(image),
        decompress=pixel_model[0].decompress,
        rate_map=lambda image, quality: np.zeros(image.shape[:2], np.float32),
    )
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

    (pictures / "good.png").unlink()
    code, _, err = view(pictures, f"--out={page}", "--overwrite")
    assert code == 1 and err.splitlines()[-1] == "tfquant: none of 2 pictures can be compared"
    assert page.read_text(encoding="utf-8") == text
