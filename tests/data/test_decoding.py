"""Tests depth, polarity, pages and orientation with files written byte by byte."""

from __future__ import annotations

import base64
import importlib.util
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfquant.data import finding, images
from tfquant.data.images import ImageError

_SPEC = importlib.util.spec_from_file_location("tiffs", Path(__file__).parent / "tiffs.py")
tiffs = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(tiffs)


def ramp(white, width=13, height=3):
    """Returns integers from 0 to `white`, [height, width]."""
    return np.linspace(0, white, width * height).round().astype(np.int64).reshape(height, width)


def grey(values):
    return np.repeat(np.asarray(values)[..., None], 3, -1)


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [4, 8, 12, 16])
def test_every_depth_of_grey_goes_from_black_to_white(tmp_path, bits, order, deflate):
    white = 2**bits - 1
    page = tiffs.page(ramp(white), bits, deflate=deflate, order=order)
    path = tiffs.write(tmp_path / "a.tif", page, order=order)
    expected = grey(ramp(white) * 255 / white)
    np.testing.assert_allclose(images.read_image(path), expected, atol=0.5001)


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("bits", [4, 8, 12, 16])
@pytest.mark.parametrize("order", ["<", ">"])
def test_white_is_zero_gives_no_negative(tmp_path, bits, order, deflate):
    white = 2**bits - 1
    page = tiffs.page(white - ramp(white), bits, photometric=0, order=order, deflate=deflate)
    path = tiffs.write(tmp_path / "a.tif", page, order=order)
    expected = grey(ramp(white) * 255 / white)
    np.testing.assert_allclose(images.read_image(path), expected, atol=0.5001)


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16])
def test_colours_in_separate_planes_keep_their_values(tmp_path, bits, order, deflate):
    samples = np.random.default_rng(0).integers(0, 2**bits, (3, 5, 7))
    data, entries = tiffs.planes(samples, bits, order=order)
    if deflate:
        third = len(data) // 3
        strips = [zlib.compress(data[i : i + third]) for i in range(0, len(data), third)]
        # Data of equal length: a decoder stops at the end of the stream.
        data = b"".join(strip.ljust(max(map(len, strips)), b"\0") for strip in strips)
        entries[259] = (tiffs.SHORT, 8)
    path = tiffs.write(tmp_path / "a.tif", (data, entries), order=order)
    expected = np.moveaxis(samples >> (bits - 8), 0, -1)
    np.testing.assert_array_equal(images.read_image(path), expected)


@pytest.mark.parametrize("white", [255, 65535])
def test_a_colour_map_of_eight_bits_is_not_black(tmp_path, white):
    colours = np.random.default_rng(0).integers(0, 256, (3, 256))
    data, entries = tiffs.page(ramp(255, 16, 16), photometric=3)
    entries[320] = (tiffs.SHORT, tuple(int(v) for v in (colours * (white // 255)).ravel()))
    path = tiffs.write(tmp_path / "a.tif", (data, entries))
    expected = colours.T[ramp(255, 16, 16)]
    np.testing.assert_array_equal(images.read_image(path), expected)


# RGB with 12 bits, 4x4: two black columns, then two white ones. Encoded by OpenJPEG.
JPEG2000_OF_12_BITS = (
    "AAAADGpQICANCocKAAAAFGZ0eXBqcDIgAAAAAGpwMiAAAAAtanAyaAAAABZpaGRyAAAABAAAAAQAAwsHAAAAAAAP"
    "Y29scgEAAAAAABAAAACnanAyY/9P/1EALwAAAAAABAAAAAQAAAAAAAAAAAAAAAQAAAAEAAAAAAAAAAAAAwsBAQsB"
    "AQsBAf9SAAwAAAABAQAEBAAB/1wABEBg/2QAJQABQ3JlYXRlZCBieSBPcGVuSlBFRyB2ZXJzaW9uIDIuNS40/5AA"
    "CgAAAAAALwAB/5Pf4HART4X939nr1OAakeDXVwnW+tpdW0uraXVtLq2ngID/2Q=="
)


def test_jpeg2000_of_more_than_8_bits_never_reads_white_as_black(tmp_path):
    (tmp_path / "a.jp2").write_bytes(base64.b64decode(JPEG2000_OF_12_BITS))
    with pytest.raises(ImageError, match="a.jp2: is JPEG 2000 with 12 bits per sample"):
        images.read_image(tmp_path / "a.jp2")
    colours = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    values = ramp(65535).astype(np.uint16)
    for name, bare in (("b.jp2", False), ("b.j2k", True)):
        Image.fromarray(colours).save(tmp_path / name, no_jp2=bare)
        np.testing.assert_array_equal(images.read_image(tmp_path / name), colours)
        Image.fromarray(values).save(tmp_path / name, no_jp2=bare)
        expected = grey(values * (255 / 65535))
        np.testing.assert_allclose(images.read_image(tmp_path / name), expected, atol=0.51)


@pytest.mark.parametrize(
    ("bits", "sample_format", "words"),
    [
        (8, 2, "8-bit signed integers"),
        (16, 2, "16-bit signed integers"),
        (32, 1, "32-bit integers"),
        (32, 2, "32-bit signed integers"),
        (32, 3, "32-bit floating point"),
    ],
)
def test_samples_without_black_and_white_are_rejected_with_their_type(
    tmp_path, bits, sample_format, words
):
    page = tiffs.page(ramp(100), bits, sample_format=sample_format)
    path = tiffs.write(tmp_path / "a.tif", page)
    with pytest.raises(ImageError, match=f"a.tif: samples are {words}, .*convert the picture"):
        images.read_image(path)


def test_the_line_of_an_unread_tiff_names_the_type_of_its_samples(tmp_path):
    page = tiffs.planes(np.zeros((3, 4, 5)), 16, sample_format=2)
    path = tiffs.write(tmp_path / "a.tif", page)
    with pytest.raises(ImageError, match=r"\(16,16,16 bits signed integers, photometric 2, "):
        images.read_image(path)
    path.write_bytes(b"MM\0+\0\x08\0\0" + bytes(56))
    with pytest.raises(ImageError, match=r"Pillow does not read \(BigTIFF, big endian\)$"):
        images.read_image(path)


@pytest.mark.parametrize("bits", [10, 14])
def test_a_depth_that_pillow_cannot_unpack_is_rejected_in_one_line(tmp_path, bits):
    path = tiffs.write(tmp_path / "a.tif", tiffs.page(ramp(2**bits - 1), bits))
    message = (
        f"a.tif: a TIFF file of a kind that Pillow does not read \\({bits} bits, photometric 1"
    )
    with pytest.raises(ImageError, match=message):
        images.read_image(path)


def test_wide_grey_maps_scale_by_their_own_maximum(tmp_path):
    for white in (1, 100, 1023, 4095):
        code = "u1" if white < 256 else ">u2"
        path = tmp_path / "a.pgm"
        path.write_bytes(b"P5 13 3 %d\n" % white + ramp(white).astype(code).tobytes())
        expected = grey(ramp(white) * 255 / white)
        np.testing.assert_allclose(images.read_image(path), expected, atol=0.51)


def flat(value, width=16, height=8):
    return np.full((height, width), value)


def test_the_used_page_is_reported_and_can_be_chosen(tmp_path):
    path = tiffs.write(tmp_path / "a.tif", *(tiffs.page(flat(v)) for v in (10, 20, 30)))
    first = images.read(path)
    assert first.notes == ("page 1 of 3 is used",) and first.pixels[0, 0, 0] == 10
    for page in (1, 2, 3):
        assert images.read_image(path, page=page)[0, 0, 0] == 10 * page
    for page in (0, 4):
        with pytest.raises(ImageError, match=rf"a.tif: has 3 page\(s\): there is no page {page}"):
            images.read_image(path, page=page)


def test_frames_of_other_formats_are_pages(tmp_path):
    frames = [Image.fromarray(flat(v).astype(np.uint8)) for v in (0, 255)]
    for name, options in {"a.gif": {}, "a.webp": {"lossless": True}, "a.png": {}}.items():
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        assert images.read(tmp_path / name).notes == ("page 1 of 2 is used",)
        assert images.read_image(tmp_path / name, page=2)[0, 0].tolist() == [255] * 3


@pytest.mark.parametrize("tag", [{"t254": 1}, {"t254": 4}, {"t255": 2}, {}])
def test_a_thumbnail_or_mask_before_the_picture_is_skipped(tmp_path, tag):
    pages = tiffs.page(flat(10), **tag), tiffs.page(flat(20, 160, 80)), tiffs.page(flat(30, 8, 4))
    decoded = images.read(tiffs.write(tmp_path / "a.tif", *pages))
    assert decoded.pixels.shape == (80, 160, 3) and decoded.pixels[0, 0, 0] == 20
    assert decoded.notes == ("page 2 of 3 is used, as page 1 is a thumbnail or a mask",)


def test_a_smaller_first_page_of_another_shape_is_not_a_thumbnail(tmp_path):
    pages = tiffs.page(flat(10, 16, 8)), tiffs.page(flat(20, 160, 120))
    assert images.read_image(tiffs.write(tmp_path / "a.tif", *pages)).shape == (8, 16, 3)


def test_the_preview_of_a_raw_file_is_not_used_as_the_picture(tmp_path):
    dng = tiffs.write(tmp_path / "a.tif", tiffs.page(flat(10), t50706=1))
    with pytest.raises(ImageError, match="a.tif: is a camera's raw file"):
        images.read_image(dng)
    nef = tiffs.write(tmp_path / "b.tif", tiffs.page(flat(10), t254=1, t330=8))
    with pytest.raises(ImageError, match="b.tif: holds a thumbnail outside its SubIFDs"):
        images.read_image(nef)
    assert images.read_image(nef, page=1)[0, 0, 0] == 10
    # A picture with a mark is read if the file has no other picture.
    alone = tiffs.write(tmp_path / "c.tif", tiffs.page(flat(10), t254=1))
    assert images.read_image(alone)[0, 0, 0] == 10


def exif_with(orientation, *entries, order="<"):
    """Returns EXIF data of IFD0: the orientation and more entries (tag, type, count, value
    bytes).
    """
    entries = sorted([(0x0112, 3, 1, struct.pack(f"{order}HH", orientation, 0)), *entries])
    body = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(entries))
    for tag, kind, count, value in entries:
        body += struct.pack(f"{order}HHI", tag, kind, count) + value
    return b"Exif\0\0" + body + bytes(4)


ODD_ENTRIES = {
    "value out of the data": (0x010F, 2, 50, struct.pack("<I", 9999)),
    "huge count": (0x010E, 5, 2**31, struct.pack("<I", 8)),
    "unknown type": (0x0110, 77, 1, b"\1\2\3\4"),
    "broken GPS": (0x8825, 4, 1, struct.pack("<I", 5)),
    "broken EXIF": (0x8769, 2, 3, b"ab\0\0"),
    "rational zero": (0x011A, 5, 1, struct.pack("<I", 4)),
    "byte as text": (0x0005, 2, 2, b"\xff\0\0\0"),
}
TURNS = {2: np.fliplr, 3: lambda p: np.rot90(p, 2), 4: np.flipud, 6: lambda p: np.rot90(p, 3),
         5: lambda p: p.transpose(1, 0, 2), 7: lambda p: np.rot90(p, 2).transpose(1, 0, 2),
         8: np.rot90}  # fmt: skip


@pytest.mark.parametrize("odd", ODD_ENTRIES)
@pytest.mark.parametrize("extension", ["png", "webp"])
def test_orientation_is_applied_with_any_other_exif_data(tmp_path, odd, extension):
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    path = tmp_path / f"a.{extension}"
    options = {"lossless": True, "exact": True} if extension == "webp" else {}
    for orientation, turn in TURNS.items():
        exif = exif_with(orientation, ODD_ENTRIES[odd])
        Image.fromarray(picture).save(path, exif=exif, **options)
        np.testing.assert_array_equal(images.read_image(path), turn(picture))


def test_orientation_is_read_in_both_byte_orders_and_of_any_type(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    others = [(4, struct.pack("<I", 6)), (1, b"\6\0\0\0"), (2, b"6\0\0\0")]
    short = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    typed = [
        exif_with(6).replace(short, struct.pack("<HHI", 0x0112, kind, 1) + value)
        for kind, value in others
    ]
    for exif in (exif_with(6, order=">"), *typed):
        Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
        np.testing.assert_array_equal(images.read_image(tmp_path / "a.png"), np.rot90(picture, 3))


@pytest.mark.parametrize("deflate", [False, True])
def test_a_tiff_is_rotated_only_once(tmp_path, deflate):
    values = np.arange(35).reshape(5, 7)
    pages = [tiffs.page(values, deflate=deflate, t274=6), tiffs.page(values + 100, t274=8)]
    one = tiffs.write(tmp_path / "a.tif", pages[0])
    two = tiffs.write(tmp_path / "b.tif", *pages)
    upright = grey(np.rot90(values, 3))
    np.testing.assert_array_equal(images.read_image(one), upright)
    np.testing.assert_array_equal(images.read_image(two), upright)
    np.testing.assert_array_equal(images.read_image(two, page=2), grey(np.rot90(values + 100)))
    assert images.sides(one) == (5, 7)


def test_messages_of_libtiff_become_notes_of_the_picture(tmp_path, capfd):
    data, entries = tiffs.page(flat(7), deflate=True)
    broken = tiffs.write(tmp_path / "a.tif", (data[:6] + b"\xff" * 4 + data[10:], entries))
    with pytest.raises(ImageError, match=r"a.tif: unreadable: .*\(.*libtiff: .*\)$"):
        images.read_image(broken)
    assert capfd.readouterr().err == ""


def test_a_corrupt_picture_is_closed_and_is_no_message_of_the_next(tmp_path):
    import gc

    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[:60])
    Image.new("RGB", (4, 4)).save(tmp_path / "b.png")
    gc.collect()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with pytest.raises(ImageError):
            images.read_image(tmp_path / "a.png")
        gc.collect()
    assert not [str(each.message) for each in said]
    assert images.read(tmp_path / "b.png").notes == ()


def test_lines_of_a_log_are_not_messages_of_a_picture(capfd):
    from tfquant.data import messages

    with messages.collected() as said, messages.native():
        os.write(2, b"W1127 23:09:59 file.py:1] skipped\nZIPDecode: Decoding error\n")
    assert said == ["libtiff: ZIPDecode: Decoding error"]
    assert capfd.readouterr().err == "W1127 23:09:59 file.py:1] skipped\n"


def test_warnings_of_pillow_become_notes_of_their_own_picture(tmp_path, capfd, recwarn):
    for name in ("a", "b"):  # the second time as well as the first
        exif = exif_with(1, (0x010F, 2, 50, struct.pack("<I", 9999)))
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.png", exif=exif)
        (note,) = images.read(tmp_path / f"{name}.png").notes
        # Messages of Pillow 11 and Pillow 13.
        assert note in ("Truncated File Read", "Tag data larger than file. Skipping tag 271")
    assert capfd.readouterr().err == "" and not recwarn.list
    Image.new("RGB", (4, 4)).save(tmp_path / "c.png")
    assert images.read(tmp_path / "c.png").notes == ()


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt"])
def test_a_png_with_much_text_is_read(tmp_path, kind, place):
    text = b"x" * (3 << 20)
    body = {
        b"tEXt": b"Comment\0" + text * 23,
        b"zTXt": b"Comment\0\0" + zlib.compress(text),
        b"iTXt": b"Comment\0\1\0\0\0" + zlib.compress(text),
    }[kind]
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(picture).save(path, exif=exif_with(6))
    data = path.read_bytes()
    at = 33 if place == "before" else len(data) - 12  # behind IHDR, before IEND
    path.write_bytes(data[:at] + chunk + data[at:])
    np.testing.assert_array_equal(images.read_image(path), np.rot90(picture, 3))


def test_heic_is_read_with_the_package_and_explained_without_it(tmp_path, monkeypatch):
    heif = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    (tmp_path / "a.heic").write_bytes(heif + bytes(100))
    monkeypatch.setattr(images.decoding, "_heif", lambda: ())
    with pytest.raises(ImageError, match="a.heic: HEIC, which needs the package pillow-heif"):
        images.read_image(tmp_path / "a.heic")
    monkeypatch.undo()
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    smooth = np.linspace(0, 255, 64 * 48).reshape(48, 64).astype(np.uint8)
    Image.fromarray(grey(smooth)).save(tmp_path / "b.heic", quality=95)
    np.testing.assert_allclose(images.read_image(tmp_path / "b.heic"), grey(smooth), atol=8)
    assert finding.search(str(tmp_path)).paths == [str(tmp_path / n) for n in ("a.heic", "b.heic")]


def test_an_empty_file_and_a_broken_link_have_their_own_messages(tmp_path):
    (tmp_path / "a.png").touch()
    (tmp_path / "b.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(ImageError, match="a.png: an empty file"):
        images.read_image(tmp_path / "a.png")
    with pytest.raises(ImageError, match="b.png: a link to a missing file"):
        images.read_image(tmp_path / "b.png")
