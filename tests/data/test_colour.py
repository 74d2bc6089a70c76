"""Tests colours against Pillow's ImageCms and formulas of the standards."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from tfquant.data import images


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (12, 17, 3), np.uint8)


def profile_of(primaries, gamma, name, space=b"RGB "):
    """Returns an ICC profile of version 2 with a matrix and a gamma, or only a gamma for grey."""

    def fixed(*values):
        return b"".join(struct.pack(">i", round(v * 65536)) for v in values)

    def xyz(*values):
        return b"XYZ " + bytes(4) + fixed(*values)

    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    text = name.encode() + b"\0"
    description = b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78)
    tags = {b"desc": description, b"wtpt": xyz(0.9642, 1, 0.8249), b"cprt": b"text" + bytes(5)}
    if space == b"GRAY":
        tags[b"kTRC"] = curve
    else:
        for colour, column in zip((b"r", b"g", b"b"), primaries):
            tags[colour + b"XYZ"], tags[colour + b"TRC"] = xyz(*column), curve
    body, table, start = b"", b"", 128 + 4 + 12 * len(tags)
    for tag, data in tags.items():
        data += bytes(-len(data) % 4)
        table += tag + struct.pack(">II", start + len(body), len(data))
        body += data
    head = struct.pack(
        ">I4sI4s4s4s", start + len(body), b"lcms", 0x02400000, b"mntr", space, b"XYZ "
    )
    head += bytes(12) + b"acsp" + bytes(28) + fixed(0.9642, 1, 0.8249) + bytes(48)
    return head + struct.pack(">I", len(tags)) + table + body


# Columns of the matrices to the white of D50.
P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))


def by_littlecms(picture, icc):
    """Returns Pillow's own conversion of `picture`, the oracle."""
    source, target = ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(picture, source, target, outputMode="RGB")
    return np.asarray(converted)


@pytest.mark.parametrize(("primaries", "gamma"), [(P3, 2.2), (ADOBE, 2.19921875), (SRGB, 1.0)])
@pytest.mark.parametrize("extension", ["png", "tif", "webp"])
def test_a_profile_is_applied_and_reported(tmp_path, picture, primaries, gamma, extension):
    icc = profile_of(primaries, gamma, "Camera colours")
    options = {"lossless": True} if extension == "webp" else {}
    Image.fromarray(picture).save(tmp_path / f"a.{extension}", icc_profile=icc, **options)
    decoded = images.read(tmp_path / f"a.{extension}")
    expected = by_littlecms(Image.fromarray(picture), icc)
    np.testing.assert_array_equal(decoded.pixels, expected)
    assert np.abs(expected.astype(int) - picture).max() > 30
    assert decoded.notes == ("colours converted from 'Camera colours' to sRGB",)


def test_srgb_keeps_its_values_without_a_note(tmp_path, picture):
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(picture).save(tmp_path / "a.png", icc_profile=icc)
    decoded = images.read(tmp_path / "a.png")
    np.testing.assert_array_equal(decoded.pixels, picture)
    assert decoded.notes == ()


def test_grey_cmyk_palette_and_alpha_have_their_profiles_applied(tmp_path, picture):
    icc = profile_of(None, 1.0, "Linear grey", b"GRAY")
    grey = Image.fromarray(picture[..., 0])
    grey.save(tmp_path / "a.png", icc_profile=icc)
    expected = by_littlecms(grey, icc)
    np.testing.assert_array_equal(images.read_image(tmp_path / "a.png"), expected)

    icc = profile_of(P3, 2.2, "P3")
    palette = Image.fromarray(picture).quantize(16)
    palette.save(tmp_path / "b.png", icc_profile=icc)
    expected = by_littlecms(palette.convert("RGB"), icc)
    np.testing.assert_array_equal(images.read_image(tmp_path / "b.png"), expected)

    clear = Image.fromarray(np.dstack([picture, np.full((12, 17), 255, np.uint8)]))
    clear.putpixel((0, 0), (1, 2, 3, 0))
    clear.save(tmp_path / "c.png", icc_profile=icc)
    expected = by_littlecms(Image.fromarray(picture), icc)
    seen = images.read_image(tmp_path / "c.png", (9, 8, 7))
    np.testing.assert_array_equal(seen[0, 1:], expected[0, 1:])
    assert seen[0, 0].tolist() == [9, 8, 7]  # the background is sRGB already


def test_a_picture_with_an_unusable_profile_is_read_with_a_note(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "a.png", icc_profile=b"no profile" * 20)
    decoded = images.read(tmp_path / "a.png")
    np.testing.assert_array_equal(decoded.pixels, picture)
    assert len(decoded.notes) == 1 and "ICC profile not used" in decoded.notes[0]
    grey = profile_of(None, 1.0, "Linear grey", b"GRAY")
    Image.fromarray(picture).save(tmp_path / "b.png", icc_profile=grey)
    decoded = images.read(tmp_path / "b.png")
    np.testing.assert_array_equal(decoded.pixels, picture)
    (note,) = decoded.notes
    assert note == "ICC profile 'Linear grey' not used: it is for GRAY, the picture is RGB"


@pytest.mark.parametrize("parts", [[(1, 2)], [(1, 1), (1, 1)], [(0, 0)]])
def test_an_incomplete_profile_of_a_jpeg_is_reported(tmp_path, picture, parts):
    path, icc = tmp_path / "a.jpg", profile_of(P3, 2.2, "P3")
    Image.fromarray(picture).save(path)
    before, data = images.read_image(path), path.read_bytes()
    for number, count in parts:
        body = b"ICC_PROFILE\0" + bytes((number, count)) + icc
        data = data[:2] + b"\xff\xe2" + struct.pack(">H", len(body) + 2) + body + data[2:]
    path.write_bytes(data)
    decoded = images.read(path)
    np.testing.assert_array_equal(decoded.pixels, before)
    assert decoded.notes == ("ICC profile not used, colours taken as sRGB: it is incomplete",)


def test_a_png_with_a_large_profile_is_read_and_converted(tmp_path, picture):
    icc = profile_of(P3, 2.2, "Large P3")
    padded = icc + bytes(2 << 20)
    padded = struct.pack(">I", len(padded)) + padded[4:]
    path = tmp_path / "a.png"
    Image.fromarray(picture).save(path)
    body = b"large\0\0" + zlib.compress(padded)
    chunk = struct.pack(">I", len(body)) + b"iCCP" + body
    chunk += struct.pack(">I", zlib.crc32(b"iCCP" + body))
    data = path.read_bytes()
    path.write_bytes(data[:33] + chunk + data[33:])
    expected = by_littlecms(Image.fromarray(picture), icc)
    np.testing.assert_array_equal(images.read_image(path), expected)


def with_chunk(path, kind, body):
    """Inserts a chunk before the pixels of a PNG file."""
    data = path.read_bytes()
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    path.write_bytes(data[:33] + chunk + data[33:])


def test_gamma_and_primaries_of_a_png_are_applied(tmp_path):
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, -1)
    path = tmp_path / "a.png"
    Image.fromarray(ramp).save(path)
    with_chunk(path, b"gAMA", struct.pack(">I", 100000))
    light = ramp / 255
    srgb = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055) * 255
    np.testing.assert_allclose(images.read_image(path), srgb, atol=0.51)

    Image.fromarray(ramp).save(path)
    with_chunk(path, b"gAMA", struct.pack(">I", 45455))
    np.testing.assert_array_equal(images.read_image(path), ramp)

    colours = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    Image.fromarray(colours).save(path)
    corners = (31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)
    with_chunk(path, b"cHRM", struct.pack(">8I", *corners))
    with_chunk(path, b"gAMA", struct.pack(">I", round(100000 / 2.19921875)))
    # The same colour space, as an ICC profile.
    expected = by_littlecms(Image.fromarray(colours), profile_of(ADOBE, 2.19921875, "Adobe"))
    np.testing.assert_allclose(images.read_image(path).astype(int), expected, atol=3)


def test_adobe_rgb_marked_only_in_exif_is_converted(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    Image.fromarray(colours).save(tmp_path / "a.png", exif=exif.tobytes())
    decoded = images.read(tmp_path / "a.png")
    expected = by_littlecms(Image.fromarray(colours), profile_of(ADOBE, 2.19921875, "Adobe"))
    np.testing.assert_allclose(decoded.pixels.astype(int), expected, atol=3)
    assert decoded.notes == ("colours converted from Adobe RGB (EXIF) to sRGB",)
