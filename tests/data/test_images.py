"""Tests pictures of every kind, written by Pillow or byte by byte, and read as 8-bit RGB."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from tfquant.data import images
from tfquant.data.finding import search
from tfquant.data.images import ImageError, probe_image, read, read_image, write_image

GRAY, RGB, GRAY_ALPHA, RGB_ALPHA = 0, 2, 4, 6  # PNG's colour types.


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)


def png(path, samples, depth, colour_type, transparency=None):
    """Independent PNG writer for `samples: [H, W, C]` of `depth` 1 to 16 bits."""

    def chunk(kind, body):
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    height, width = samples.shape[:2]
    rows = samples.astype(">u2" if depth == 16 else "u1").reshape(height, -1)
    if depth < 8:
        rows = [np.packbits(np.unpackbits(row[:, None], axis=1)[:, -depth:]) for row in rows]
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    body = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    if transparency is not None:
        body += chunk(b"tRNS", np.asarray(transparency, ">u2").tobytes())
    body += chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)))
    path.write_bytes(body + chunk(b"IEND", b""))
    return path


def gray16():
    return np.linspace(0, 65535, 5 * 7).astype(np.uint16).reshape(5, 7, 1)


@pytest.mark.parametrize("extension", images.LOSSLESS)
def test_a_written_picture_is_read_back_bit_for_bit(tmp_path, picture, extension):
    path = tmp_path / f"a{extension}"
    write_image(path, picture)
    back = read_image(path)
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, picture)


def test_a_picture_of_one_pixel_is_read(tmp_path):
    write_image(tmp_path / "a.png", np.array([[[1, 2, 3]]], np.uint8))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), [[[1, 2, 3]]])


def test_grayscale_becomes_three_equal_channels(tmp_path, picture):
    Image.fromarray(picture[..., 0]).save(tmp_path / "a.png")
    expected = np.repeat(picture[..., :1], 3, axis=-1)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)


def test_one_bit_becomes_black_and_white(tmp_path):
    bits = np.eye(9, dtype=bool)
    Image.fromarray(bits).convert("1").save(tmp_path / "a.png")
    expected = np.repeat(np.where(bits, 255, 0)[..., None], 3, axis=-1)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)


def test_a_palette_is_looked_up(tmp_path):
    palette = np.random.default_rng(1).integers(0, 256, (4, 3), np.uint8)
    index = np.arange(20, dtype=np.uint8).reshape(4, 5) % 4
    indexed = Image.fromarray(index).convert("L")
    indexed.putpalette(palette.tobytes())
    indexed.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), palette[index])
    indexed.save(tmp_path / "b.png", transparency=2)
    with pytest.raises(ImageError, match="transparent"):
        read_image(tmp_path / "b.png")
    expected = palette[index].copy()
    expected[index == 2] = (10, 20, 30)
    np.testing.assert_array_equal(read_image(tmp_path / "b.png", (10, 20, 30)), expected)


def test_cmyk_becomes_rgb(tmp_path):
    ink = np.zeros((8, 8, 4), np.uint8)
    ink[..., 1:3] = 255  # Magenta and yellow make red.
    Image.fromarray(ink, "CMYK").save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[0, 0], [255, 0, 0])


@pytest.mark.parametrize("kind", ["png", "tif", "ppm"])
def test_sixteen_bit_gray_is_scaled_and_not_clipped(tmp_path, kind):
    gray, path = gray16(), tmp_path / f"a.{kind}"
    if kind == "png":
        png(path, gray, 16, GRAY)
    elif kind == "tif":
        Image.fromarray(gray[..., 0]).save(path)
    else:
        path.write_bytes(b"P5 7 5 65535\n" + gray.astype(">u2").tobytes())
    expected = np.repeat(np.floor(gray / 257 + 0.5), 3, axis=-1)  # 65535 = 255 * 257
    np.testing.assert_array_equal(read_image(path), expected)


def test_sixteen_bit_rgb_keeps_its_high_byte(tmp_path):
    wide = np.random.default_rng(2).integers(0, 65536, (4, 6, 3))
    np.testing.assert_array_equal(read_image(png(tmp_path / "a.png", wide, 16, RGB)), wide >> 8)


def test_samples_without_a_known_range_are_rejected(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "f.tif")
    Image.fromarray(np.full((4, 4), 70000, np.int32)).save(tmp_path / "i.tif")
    for name in "f.tif", "i.tif":
        with pytest.raises(ImageError, match="not 8 or 16 bit"):
            read_image(tmp_path / name)


def test_transparency_is_rejected_or_composited(tmp_path, picture):
    alpha = np.full((5, 7, 1), 255, np.uint8)
    alpha[0, 0], alpha[0, 1] = 0, 51  # 51 / 255 = 0.2
    path = png(tmp_path / "a.png", np.concatenate([picture, alpha], -1), 8, RGB_ALPHA)
    with pytest.raises(ImageError, match="a.png: has transparent pixels: name a background"):
        read_image(path)
    seen = read_image(path, background=(100, 0, 200))
    np.testing.assert_array_equal(seen[0, 0], (100, 0, 200))
    np.testing.assert_allclose(
        seen[0, 1], 0.2 * picture[0, 1] + 0.8 * np.array([100, 0, 200]), atol=0.51
    )
    np.testing.assert_array_equal(seen[1:], picture[1:])


@pytest.mark.parametrize("colour_type", [GRAY_ALPHA, RGB_ALPHA])
def test_opaque_alpha_is_dropped(tmp_path, picture, colour_type):
    channels = 1 if colour_type == GRAY_ALPHA else 3
    opaque = np.concatenate([picture[..., :channels], np.full((5, 7, 1), 255, np.uint8)], -1)
    expected = np.broadcast_to(picture[..., :channels], picture.shape)
    back = read_image(png(tmp_path / "a.png", opaque, 8, colour_type))
    np.testing.assert_array_equal(back, expected)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("colour_type", [GRAY, RGB])
def test_a_transparent_colour_key_is_transparency(tmp_path, depth, colour_type):
    channels = 1 if colour_type == GRAY else 3
    samples = np.random.default_rng(3).integers(0, 2**depth, (4, 6, channels))
    path = png(tmp_path / "a.png", samples, depth, colour_type, transparency=samples[1, 2])
    with pytest.raises(ImageError, match="transparent"):
        read_image(path)
    np.testing.assert_array_equal(read_image(path, (9, 8, 7))[1, 2], (9, 8, 7))
    unused = (samples[1, 2] + 2 ** (depth - 1)) % 2**depth  # Not the colour of any pixel.
    assert not (samples == unused).all(-1).any()
    assert read_image(png(path, samples, depth, colour_type, unused)).shape == (4, 6, 3)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_a_transparent_gray_of_few_bits_is_transparency(tmp_path, depth):
    samples = np.arange(16).reshape(2, 8, 1) % 2**depth
    for key in range(2**depth):
        path = png(tmp_path / "a.png", samples, depth, GRAY, transparency=(key,))
        read = read_image(path, (9, 8, 7))
        expected = np.where(samples == key, (9, 8, 7), samples * 255 // (2**depth - 1))
        np.testing.assert_array_equal(read, expected)


def test_an_invalid_background_is_rejected(tmp_path, picture):
    write_image(tmp_path / "a.png", picture)
    for background in ((1, 2), (0, 0, 256), 7):
        with pytest.raises(ImageError, match="three numbers from 0 to 255"):
            read_image(tmp_path / "a.png", background)


@pytest.mark.parametrize(("orientation", "turn"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_exif_orientation_turns_the_picture_upright(tmp_path, picture, orientation, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.rot90(picture, turn))


def test_every_truncated_file_is_rejected_with_its_name(tmp_path, picture):
    for extension in "png", "jpg":
        path = tmp_path / f"a.{extension}"
        Image.fromarray(np.tile(picture, (6, 6, 1))).save(path)
        whole = path.read_bytes()
        for length in range(0, int(0.9 * len(whole)), max(1, len(whole) // 40)):
            path.write_bytes(whole[:length])
            with pytest.raises(ImageError) as caught:
                read_image(path)
            assert str(path) in str(caught.value)
            assert "\n" not in str(caught.value)


def test_a_file_that_is_not_a_picture_is_named_with_the_reason(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "page.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    for name in "text.png", "page.png":
        with pytest.raises(ImageError, match=f"{name}: not a picture of a known format"):
            read_image(tmp_path / name)
    header = png(tmp_path / "bad.png", np.zeros((1, 1, 3)), 8, RGB).read_bytes()[:29]
    (tmp_path / "bad.png").write_bytes(header + b"no checksum")
    with pytest.raises(ImageError, match="bad.png: unreadable: the header is damaged or"):
        read_image(tmp_path / "bad.png")
    with pytest.raises(ImageError, match="gone.png: no such file"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(ImageError, match="a folder"):
        read_image(tmp_path)


def test_a_decompression_bomb_is_rejected_before_decoding(tmp_path):
    path = png(tmp_path / "a.png", np.zeros((1, 1, 3)), 8, RGB)
    body = bytearray(path.read_bytes())
    body[16:24] = struct.pack(">II", 60000, 60000)
    body[29:33] = struct.pack(">I", zlib.crc32(bytes(body[12:29])))
    path.write_bytes(body)
    with pytest.raises(ImageError, match="pixels, where Pillow suspects an attack"):
        read_image(path)


def with_sides(data, kind, width, height):
    """Changes the sides in the header of a file of 5x3 pixels. The pixels stay as they are."""
    if kind == "png":
        data = data[:16] + struct.pack(">II", width, height) + data[24:]
        return data[:29] + struct.pack(">I", zlib.crc32(data[12:29])) + data[33:]
    if kind == "tif":
        for tag, side, new in ((256, 5, width), (257, 3, height)):
            start = data.index(struct.pack("<H", tag), 8)
            assert data[start + 4 : start + 12] == struct.pack("<II", 1, side)
            data = data[: start + 2] + struct.pack("<HII", 4, 1, new) + data[start + 12 :]
        return data
    old, new = {
        "bmp": (struct.pack("<ii", 5, 3), struct.pack("<ii", width, height)),
        "gif": (struct.pack("<HH", 5, 3), struct.pack("<HH", width, height)),
        "jpg": (struct.pack(">HH", 3, 5), struct.pack(">HH", height, width)),
        "ppm": (b"5 3", b"%d %d" % (width, height)),
    }[kind]
    assert old in data
    return data.replace(old, new)


@pytest.mark.parametrize("kind", ["bmp", "gif", "jpg", "png", "ppm", "tif"])
def test_the_size_is_checked_before_pixels_are_decoded(tmp_path, kind):
    """The file lacks nearly all of its pixels, so decoding them would be another error."""
    seen, path = [], tmp_path / f"a.{kind}"

    def check(width, height):
        seen.append((width, height))
        raise ImageError("too large")

    Image.fromarray(np.zeros((3, 5, 3), np.uint8)).save(path)
    path.write_bytes(with_sides(path.read_bytes(), kind, 20_000, 30_000))
    with pytest.raises(ImageError) as caught:
        read(path, check=check)
    assert str(caught.value) == f"{path}: too large"
    assert seen == [(20_000, 30_000)]
    with pytest.raises(ImageError, match="more than 178956970 pixels, where Pillow suspects"):
        read(path)


def test_the_size_of_a_gif_is_checked_before_a_page_of_it_is_composed(tmp_path):
    path, seen = tmp_path / "a.gif", []
    pages = [Image.new("P", (5, 3), colour) for colour in (0, 1)]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    path.write_bytes(with_sides(path.read_bytes(), "gif", 40_000, 40_000))

    def check(width, height):
        seen.append(width * height)
        raise ImageError("too large")

    with pytest.raises(ImageError, match="too large"):
        read(path, page=2, check=check)
    assert seen == [40_000 * 40_000]
    assert images.sides(path, page=2) == (40_000, 40_000)


def test_a_check_of_the_size_replaces_the_limit_of_pillow(tmp_path, monkeypatch):
    path, pixels = tmp_path / "a.png", np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    write_image(path, pixels)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    np.testing.assert_array_equal(read(path, check=lambda width, height: None).pixels, pixels)
    assert images.sides(path) == (4, 5)
    probe_image(path)
    assert Image.MAX_IMAGE_PIXELS == 1
    with pytest.raises(ImageError, match="more than 2 pixels, where Pillow suspects an attack"):
        read(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    np.testing.assert_array_equal(read(path).pixels, pixels)


def test_a_lack_of_memory_is_not_called_a_damaged_file(tmp_path, picture, monkeypatch):
    def decode(*_):
        raise MemoryError

    file = tmp_path / "a.png"
    write_image(str(file), picture)
    monkeypatch.setattr("tfquant.data.decoding.decode", decode)
    with pytest.raises(ImageError) as info:
        read_image(str(file))
    assert str(info.value) == f"{file}: not enough memory to read the picture"
    assert isinstance(info.value, MemoryError)


def test_writing_rejects_lossy_formats_and_other_arrays(tmp_path, picture):
    with pytest.raises(ImageError, match=r"written as .png, .*, not '.jpg'"):
        write_image(tmp_path / "a.jpg", picture)
    with pytest.raises(ImageError, match=r"got float32 \[5, 7, 3\]"):
        write_image(tmp_path / "a.png", picture.astype(np.float32))
    with pytest.raises(ImageError, match="cannot be written: No such file"):
        write_image(tmp_path / "gone" / "a.png", picture)


@pytest.fixture
def tree(tmp_path):
    names = [
        "b.PNG",
        "a.jpg",
        "deep/er/c.Tiff",
        "deep/notes.txt",
        "deep/.hidden.png",
        "x,y [1]/d.png",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def found(tree, *specs):
    paths = search(",".join(os.path.join(tree, spec) for spec in specs)).paths
    return [os.path.relpath(path, tree) for path in paths]


def test_a_folder_is_searched_recursively_in_order(tree):
    assert found(tree, "") == ["a.jpg", "b.PNG", "deep/er/c.Tiff", "x,y [1]/d.png"]


def test_globs_and_lists_give_each_picture_once(tree):
    assert found(tree, "*.jpg") == ["a.jpg"]
    assert found(tree, "**/*.png") == ["x,y [1]/d.png"]
    assert found(tree, "dee*") == ["deep/er/c.Tiff"]
    assert found(tree, "*.PNG", "a.jpg", "deep/../a.jpg", "deep/*") == [
        "a.jpg",
        "b.PNG",
        "deep/er/c.Tiff",
    ]
    assert found(tree, "deep/notes.txt") == ["deep/notes.txt"]  # Asked for by name.


def test_a_name_that_exists_is_taken_literally(tree):
    assert found(tree, "x,y [1]") == ["x,y [1]/d.png"]


def test_a_part_without_pictures_is_named(tree):
    (tree / "empty").mkdir()
    for spec, message in {
        "*.bmp": "no pictures in this glob",
        "empty": "no pictures in this folder",
        "gone": "no such file or folder",
    }.items():
        with pytest.raises(ImageError, match=message) as caught:
            found(tree, "a.jpg", spec)
        assert str(tree / spec) in str(caught.value)
    with pytest.raises(ImageError, match="no pictures asked for"):
        search(" , ")


@pytest.mark.slow
def test_reading_pictures_needs_no_tensorflow():
    code = "import sys, tfquant.data.images; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
