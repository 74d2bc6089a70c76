"""Folders with typical problems: no file is lost, and no user's file is replaced."""

from __future__ import annotations

import dataclasses
import gc
import io
import os
import struct
import subprocess
import sys
import threading
import types
import zlib

import numpy as np
import pytest
from PIL import Image

from tfquant import startup
from tfquant.coding.container import Bitstream
from tfquant.commands import batch, choosing, guard
from tfquant.data import images
from tfquant.export import registry
from tfquant.export.manifest_file import ModelError
from tfquant.export.model_file import PictureMemoryError

PLAIN = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def save(path, colour=(1, 2, 3), size=(6, 4), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **options)
    return path


def tree(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def colours(folder):
    return sorted(tuple(images.read_image(folder / name)[0, 0]) for name in tree(folder))


def test_names_that_collide_give_a_file_each(tmp_path, tfquant):
    pictures, files, back = (tmp_path / name for name in ("pictures", "files", "back"))
    save(pictures / "photo.png", PLAIN["red"])
    save(pictures / "photo.bmp", PLAIN["green"])
    save(pictures / "photo.png.webp", PLAIN["blue"], lossless=True)
    code, out, _ = tfquant("compress", "m", pictures, files)
    assert code == 0 and "3 of 3 files made" in out
    assert tree(files) == ["photo.bmp.tfq", "photo.png.tfq", "photo.png.webp.tfq"]
    code, out, _ = tfquant("decompress", "m", files, back)
    assert code == 0 and "3 of 3 files made" in out
    assert colours(back) == sorted(PLAIN.values())


def test_a_file_that_stores_no_quality_is_compared_by_its_models_base_quality():
    """The default models have written such files before they had a range of qualities."""
    member = choosing.find_set(None).members[1]
    file = Bitstream("ms_hyper_zero", member.manifest.fingerprint, 4, 6, 0, (b"",))
    base = member.manifest.qualities.base
    for quality, difference in ((base, ""), (base + 2, f"it has quality {base:.4g}")):
        compressor = choosing.Compressor(None, choosing.Aim(quality))
        assert compressor.difference(file, 100, None, None) == difference


@pytest.mark.parametrize(
    "names",
    [
        ["a.png", "A.bmp"],
        ["a.png", "A.PNG", "a.Png"],
        ["Far/c.png", "far/C.png"],
        ["u\u0308.png", "\u00fc.png"],  # one letter in two of Unicode's forms
        ["a.png", "a.tfq/b.png"],
        ["a.png", "a.png.png", "a.png.png.png", "a.bmp"],
        ["a.png", "a.bmp", "a.bmp~2.png", "a.BMP"],
    ],
)
def test_no_two_targets_are_one_file_if_case_is_ignored(tmp_path, names):
    sources = [str(tmp_path / "in" / name) for name in names]
    tasks = batch.tasks(sources, str(tmp_path / "in"), str(tmp_path / "out"), ".tfq")
    assert [task.source for task in tasks] == sources
    import unicodedata

    def folded(path):
        return unicodedata.normalize("NFC", os.path.relpath(path, tmp_path)).lower()

    targets = [folded(task.target) for task in tasks]
    assert len(set(targets)) == len(names)
    parents = {os.path.dirname(target) for target in targets}
    assert not parents & set(targets)


def test_linked_folders_of_the_output_are_one_place(tmp_path):
    (tmp_path / "out" / "a").mkdir(parents=True)
    (tmp_path / "out" / "b").symlink_to("a")
    sources = [str(tmp_path / "in" / name) for name in ("a/x.png", "b/x.png")]
    tasks = batch.tasks(sources, str(tmp_path / "in"), str(tmp_path / "out"), ".tfq")
    assert len({os.path.realpath(task.target) for task in tasks}) == 2


def test_decompressing_next_to_the_originals_never_overwrites_one(tmp_path, tfquant):
    originals = {"a.png": PLAIN["red"], "b.png": PLAIN["green"]}
    for name, colour in originals.items():
        save(tmp_path / name, colour)
    before = {name: (tmp_path / name).read_bytes() for name in originals}
    assert tfquant("compress", "m", tmp_path, tmp_path)[0] == 0
    for more in ([], ["--overwrite"]):
        code, out, err = tfquant("decompress", "m", tmp_path, tmp_path, *more)
        assert code == 1 and "0 of 2 files made" in out and "--overwrite" not in out + err
        for name in originals:
            line = f"{tmp_path / name}: not replaced: it was not made by tfquant decompress"
            assert line in err
            assert (tmp_path / name).read_bytes() == before[name]


def test_a_decompressed_picture_is_recognized_and_kept(tmp_path, tfquant, pixel_model):
    pictures, files, back = (tmp_path / name for name in ("pictures", "files", "back"))
    save(pictures / "a.png", PLAIN["red"])
    save(pictures / "b.png", PLAIN["blue"])
    tfquant("compress", "m", pictures, files)
    assert tfquant("decompress", "m", files, back)[0] == 0
    code, out, err = tfquant("decompress", "m", files, back)
    assert (code, err) == (0, "") and "0 of 2 files made; 2 existed already" in out
    (files / "a.tfq").write_bytes((files / "b.tfq").read_bytes())
    code, out, err = tfquant("decompress", "m", files, back)
    assert code == 1 and "a.png: not replaced: it was made from another .tfq file" in err
    assert tfquant("decompress", "m", files, back, "--overwrite")[0] == 0
    assert colours(back) == [PLAIN["blue"]] * 2


def test_an_existing_file_is_kept_only_if_it_equals_the_new_one(tmp_path, tfquant, pixel_model):
    pictures, files = tmp_path / "pictures", tmp_path / "files"
    names = ["ok", "empty", "cut", "foreign", "stale", "other_model", "other_size", "turned"]
    for name in names:
        save(pictures / f"{name}.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    save(pictures / "turned.png", exif=turned)
    assert tfquant("compress", "m", pictures, files)[0] == 0
    good = (files / "ok.tfq").read_bytes()
    (files / "empty.tfq").write_bytes(b"")
    (files / "cut.tfq").write_bytes(good[:-1])
    (files / "foreign.tfq").write_bytes(b"precious")
    os.utime(files / "stale.tfq", (1, 1))
    other = type(pixel_model[0])("ff112233445566aa")
    (files / "other_model.tfq").write_bytes(other.compress(np.zeros((4, 6, 3), np.uint8)))
    larger = pixel_model[0].compress(np.zeros((5, 6, 3), np.uint8))
    (files / "other_size.tfq").write_bytes(larger)
    code, out, err = tfquant("compress", "m", pictures, files)
    assert code == 1 and "0 of 8 files made; 2 existed already" in out
    reasons = {
        "empty": "empty file", "cut": "file cut off", "foreign": "not a .tfq file",
        "stale": "older than the picture", "other_model": "another model made it, pixels ff11",
        "other_size": "contains another picture, 6x5 pixels",
    }  # fmt: skip
    lines = err.splitlines()
    assert len(lines) == len(reasons) + 1
    for name, reason in reasons.items():
        (line,) = [line for line in lines if f"{name}.tfq: not replaced: " in line]
        assert reason in line and ("--overwrite" in line) == (name != "foreign")
    code, out, err = tfquant("compress", "m", pictures, files, "--overwrite")
    assert code == 1 and "7 of 8 files made" in out and "foreign.tfq: not replaced" in err
    assert (files / "foreign.tfq").read_bytes() == b"precious"
    for name in set(names) - {"foreign", "turned"}:
        assert (files / f"{name}.tfq").read_bytes() == good


def test_skipped_and_converted_pictures_are_reported_once(tmp_path, tfquant):
    from PIL import ImageCms

    pictures = tmp_path / "pictures"
    for i in range(5):
        frames = [Image.new("L", (4, 4), v) for v in (0, 255)]
        frames[0].save(_made(pictures / f"{i}.gif"), save_all=True, append_images=frames[1:])
    save(pictures / "plain.png", icc_profile=_srgb(ImageCms))
    (pictures / "a.HEIF2").write_bytes(b"")
    (pictures / ".thumbnails").mkdir()
    save(pictures / ".thumbnails" / "b.png")
    code, out, err = tfquant("compress", "m", pictures, tmp_path / "files")
    lines = out.splitlines()
    assert (code, err, len(lines)) == (0, "", 3)
    names = ", ".join(str(pictures / f"{i}.gif") for i in range(3))
    assert lines[1] == f"{names} and 2 more: page 1 of 2 is used"
    expected = "skipped: 1 file of another kind: 1 .HEIF2; 1 hidden files or folders"
    assert lines[2] == f"{pictures}: {expected}"
    white = [images.read_image(pictures / "0.gif", page=2), np.full((4, 4, 3), 255)]
    np.testing.assert_array_equal(*white)
    one = tmp_path / "one.tfq"
    code, out, _ = tfquant("compress", "m", pictures / "0.gif", one, "--page=2")
    assert code == 0 and out.splitlines()[1].endswith("0.gif: page 2 of 2 is used")
    assert tfquant("compress", "m", pictures / "0.gif", one, "--page=3", "--overwrite")[0] == 1


def _made(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _srgb(cms):
    return cms.ImageCmsProfile(cms.createProfile("sRGB")).tobytes()


ODD_NAMES = ["a b ", "x[1]", "line\nbreak", "latin\udce9", "tab\t", "snow\u2603", "-dash", "a*?"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_name_survives_compression_and_decompression(tmp_path, tfquant, name):
    folder = tmp_path / name
    save(tmp_path / "plain.png", PLAIN["green"]).rename(_made(folder / f"{name}.png"))
    code, out, err = tfquant("compress", "m", folder, tmp_path / f"{name} files")
    assert (code, err) == (0, "") and len(out.splitlines()) == 1
    code, out, err = tfquant("decompress", "m", tmp_path / f"{name} files", tmp_path / "back")
    assert (code, err) == (0, "")
    assert colours(tmp_path / "back") == [PLAIN["green"]]
    one = tmp_path / f"{name}.tfq"
    assert tfquant("compress", "m", folder / f"{name}.png", one)[0] == 0
    code, out, _ = tfquant("info", one)
    assert code == 0 and len(out.splitlines()) == 8


def test_a_name_that_the_output_cannot_show_costs_no_result(tmp_path, tfquant, monkeypatch):
    path = tmp_path / "snow\u2603\udce9.png"
    save(tmp_path / "a.png").rename(path)
    strict = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    monkeypatch.setattr(sys, "stdout", strict)
    code, _, err = tfquant("compress", "m", path, f"{path}.tfq")
    strict.flush()
    assert (code, err) == (0, "") and (tmp_path / "snow\u2603\udce9.png.tfq").exists()
    assert b"snow\\u2603\\xe9.png.tfq: " in strict.buffer.getvalue()


def test_a_name_that_is_too_long_costs_only_its_own_file(tmp_path, tfquant):
    pictures = tmp_path / "pictures"
    long = "x" * 250
    save(pictures / f"{long}.png")
    save(pictures / f"{long}.bmp")  # so that both keep their extension
    save(pictures / "a.png")
    code, out, err = tfquant("compress", "m", pictures, tmp_path / "files")
    assert code == 1 and "1 of 3 files made" in out and err.count("File name too long") == 2


def forged_size(path, width, height):
    """Changes the sides in the header of a PNG file, whose pixels stay as they are."""
    data = path.read_bytes()
    data = data[:16] + struct.pack(">II", width, height) + data[24:]
    path.write_bytes(data[:29] + struct.pack(">I", zlib.crc32(data[12:29])) + data[33:])


@pytest.mark.parametrize("folder", [False, True])
def test_a_picture_is_compared_with_the_limit_before_its_pixels_are_read(tmp_path, tfquant, folder):
    """The file lacks nearly all of its pixels, so reading them would be another error."""
    picture = tmp_path / "in" / "a.png"
    save(picture)
    forged_size(picture, 300, 200)
    paths = (tmp_path / "in", tmp_path / "out") if folder else (picture, tmp_path / "a.tfq")
    code, _, err = tfquant("compress", "m", *paths, "--max_pixels=59999")
    assert code == 1
    assert err.splitlines()[0] == (
        f"tfquant: {picture}: 300x200 (width x height) = 60000 pixels, more than the limit of"
        " 59999: raise max_pixels here and where the file is read (--max_pixels; for a SavedModel,"
        " tfquant export --max_pixels)"
    )
    code, _, err = tfquant("compress", "m", *paths, "--max_pixels=60000")
    assert code == 1 and "more than" not in err and f"{picture}: unreadable" in err


def test_the_limit_of_the_model_is_that_of_a_picture(tmp_path, tfquant, pixel_model):
    save(tmp_path / "a.png")
    forged_size(tmp_path / "a.png", 20_000, 10_000)  # more than Pillow's and the model's limit
    code, _, err = tfquant("compress", "m", tmp_path / "a.png", tmp_path / "a.tfq")
    assert code == 1 and "= 200000000 pixels, more than the limit of 134217728" in err
    arguments = ("compress", "m", tmp_path / "a.png", tmp_path / "a.tfq", "--max_pixels=200000000")
    code, _, err = tfquant(*arguments)
    assert code == 1 and "more than" not in err and "a.png: unreadable" in err


def test_the_size_of_a_large_picture_is_compared_with_an_existing_file(tmp_path, tfquant):
    save(tmp_path / "in" / "a.png")
    assert tfquant("compress", "m", tmp_path / "in", tmp_path / "out")[0] == 0
    forged_size(tmp_path / "in" / "a.png", 20_000, 10_000)
    code, _, err = tfquant("compress", "m", tmp_path / "in", tmp_path / "out")
    assert code == 1 and "a.tfq: not replaced: it contains another picture, " in err


@pytest.mark.parametrize(
    "error, said",
    [
        (ModelError("cannot encode 7x5 pixels: x"), "cannot encode 7x5 pixels: x"),
        (
            PictureMemoryError("not enough memory for 7x5 pixels"),
            "not enough memory for 7x5 pixels",
        ),
        (MemoryError(), "not enough memory"),
    ],
)
def test_an_error_of_the_model_names_the_file(tmp_path, tfquant, pixel_model, error, said):
    def fail(*_):
        raise error

    save(tmp_path / "a.png")
    assert tfquant("compress", "m", tmp_path / "a.png", tmp_path / "a.tfq")[0] == 0
    pixel_model[0].compress = pixel_model[0].decompress = fail
    for verb, source, target in (("compress", "a.png", "b.tfq"), ("decompress", "a.tfq", "b.png")):
        code, _, err = tfquant(verb, "m", tmp_path / source, tmp_path / target)
        assert (code, err) == (1, f"tfquant: {tmp_path / source}: {said}\n")


def test_a_file_of_a_model_that_is_not_installed_is_named(tmp_path, tfquant, monkeypatch):
    save(tmp_path / "a.png")
    assert tfquant("compress", "m", tmp_path / "a.png", tmp_path / "a.tfq")[0] == 0

    def of_file(codec, fingerprint, quality):
        raise ModelError(f"made by model {codec} {fingerprint}")

    monkeypatch.setattr(registry, "of_file", of_file)
    code, _, err = tfquant("decompress", tmp_path / "a.tfq", tmp_path / "b.png")
    assert code == 1
    assert err == f"tfquant: {tmp_path / 'a.tfq'}: made by model pixels 00112233445566aa\n"


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"version": 1}, "header says format version 1, files of this model have version 2"),
        ({"quality": 50.0}, "header says quality 50, but this model has one rate"),
        ({"width": 4_000_000, "height": 1}, "header says 4000000x1 pixels (width x height), which"),
        ({"width": 20_000, "height": 10_000}, "header says 20000x10000 (width x height) = "),
    ],
)
def test_a_header_is_compared_with_the_manifest_before_the_model_is_loaded(
    tmp_path, tfquant, monkeypatch, fields, said
):
    save(tmp_path / "a.png")
    assert tfquant("compress", "m", tmp_path / "a.png", tmp_path / "a.tfq")[0] == 0
    file = Bitstream.from_bytes((tmp_path / "a.tfq").read_bytes())
    (tmp_path / "a.tfq").write_bytes(dataclasses.replace(file, **fields).to_bytes())
    monkeypatch.setattr(startup, "import_tensorflow", lambda *_: pytest.fail("loads the model"))
    code, _, err = tfquant("decompress", "m", tmp_path / "a.tfq", tmp_path / "b.png")
    assert code == 1 and err.startswith(f"tfquant: {tmp_path / 'a.tfq'}: {said}")
    assert len(err.splitlines()) == 1


def test_a_tilde_is_the_home_folder_in_every_argument(tmp_path, tfquant, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save(tmp_path / "pictures" / "a.png")
    assert tfquant("compress", "m", "~/pictures", "~/files")[0] == 0
    assert tfquant("compress", "m", "~/pictures/a.png", "~/a.tfq")[0] == 0
    assert tfquant("decompress", "m", "~/files", "~/back")[0] == 0
    assert tfquant("info", "~/a.tfq")[0] == 0
    assert sorted(os.listdir(tmp_path)) == ["a.tfq", "back", "files", "pictures"]


def test_links_are_written_through(tmp_path, tfquant):
    save(tmp_path / "a.png")
    (tmp_path / "far").mkdir()
    (tmp_path / "link.tfq").symlink_to("far/real.tfq")
    assert tfquant("compress", "m", tmp_path / "a.png", tmp_path / "link.tfq")[0] == 0
    assert (tmp_path / "link.tfq").is_symlink() and (tmp_path / "far" / "real.tfq").is_file()
    code, _, err = tfquant("compress", "m", tmp_path / "a.png", tmp_path / "link.tfq")
    assert code == 1 and "exists already" in err
    arguments = ["compress", "m", tmp_path / "a.png", tmp_path / "link.tfq", "--overwrite"]
    assert tfquant(*arguments)[0] == 0
    assert (tmp_path / "link.tfq").is_symlink()


def test_links_in_a_folder_are_written_through_and_no_fifo_stops_it(tmp_path, tfquant):
    pictures, out = tmp_path / "pictures", tmp_path / "out"
    for name in ("dangling", "fifo", "loop", "lost", "plain"):
        save(pictures / f"{name}.png")
    out.mkdir()
    (out / "dangling.tfq").symlink_to(tmp_path / "real.tfq")
    (out / "lost.tfq").symlink_to(tmp_path / "gone" / "real.tfq")
    (out / "loop.tfq").symlink_to("loop.tfq")
    os.mkfifo(out / "fifo.tfq")
    code, printed, err = tfquant("compress", "m", pictures, out)
    assert code == 1 and "2 of 5 files made" in printed
    assert (out / "dangling.tfq").is_symlink() and (out / "loop.tfq").is_symlink()
    made = (tmp_path / "real.tfq").read_bytes()
    assert made and (out / "plain.tfq").read_bytes() == made
    lines = err.splitlines()
    assert f"tfquant: {out / 'fifo.tfq'}: not replaced: it is a FIFO, a socket or a" in lines[0]
    for name in ("loop", "lost"):
        assert any(f"{out / name}.tfq: cannot be written: " in line for line in lines)
    assert lines[-1] == "tfquant: 3 of 5 files failed"


def test_a_file_in_the_place_of_the_output_folder_is_named(tmp_path, tfquant):
    save(tmp_path / "pictures" / "a.png")
    (tmp_path / "out").write_bytes(b"precious")
    for more in ([], ["--overwrite"]):
        code, _, err = tfquant("compress", "m", tmp_path / "pictures", tmp_path / "out", *more)
        line = f"tfquant: {tmp_path / 'out'}: a file, not a folder for the outputs\n"
        assert (code, err) == (1, line)
    assert (tmp_path / "out").read_bytes() == b"precious"


def test_a_folder_that_cannot_be_read_is_counted_and_fails(tmp_path, tfquant, monkeypatch):
    pictures, out = tmp_path / "pictures", tmp_path / "out"
    save(pictures / "open" / "a.png")
    save(pictures / "closed" / "b.png")
    scandir = os.scandir

    def refusing(path):
        if os.path.basename(path) == "closed":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    skipped = f"{pictures}: skipped: 1 unreadable folder(s) ({pictures / 'closed'})"
    code, printed, err = tfquant("compress", "m", pictures, out)
    assert (code, err) == (1, "tfquant: 1 folder(s) cannot be read\n")
    first, last = printed.splitlines()
    assert "1 of 1 files made" in first and last == skipped


@pytest.mark.parametrize(
    "arguments",
    [["compress", "a.png", ""], ["compress", "", "b.tfq"], ["info", ""], ["records", "a.png", ""]],
)
def test_an_empty_path_is_rejected(tmp_path, tfquant, monkeypatch, arguments):
    save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    code, out, err = tfquant(*arguments)
    assert (code, out) == (2, "") and "an empty path" in err
    assert tree(tmp_path) == ["a.png"]


def test_decompressing_a_folder_counts_the_skipped_files(tmp_path, tfquant):
    save(tmp_path / "in" / "a.png")
    assert tfquant("compress", "m", tmp_path / "in", tmp_path / "in")[0] == 0
    (tmp_path / "in" / "note.txt").touch()
    code, out, _ = tfquant("decompress", "m", tmp_path / "in", tmp_path / "out")
    skipped = f"{tmp_path / 'in'}: skipped: 2 files of other kinds: 1 .png, 1 .txt"
    assert code == 0 and out.splitlines()[-1] == skipped


def test_a_file_of_another_kind_is_named(tmp_path, tfquant):
    save(tmp_path / "a.png")
    for arguments in (["info"], ["decompress", "m"]):
        more = [tmp_path / "b.png"] if len(arguments) > 1 else []
        code, _, err = tfquant(*arguments, tmp_path / "a.png", *more)
        assert code == 1 and err.startswith(f"tfquant: {tmp_path / 'a.png'}: not a .tfq file: ")


def test_fifos_are_read_and_written(tmp_path, tfquant):
    save(tmp_path / "a.png", PLAIN["red"])
    assert tfquant("compress", "m", tmp_path / "a.png", tmp_path / "a.tfq")[0] == 0
    data = (tmp_path / "a.tfq").read_bytes()
    os.mkfifo(tmp_path / "pipe")
    got = []

    def reading():
        got.append((tmp_path / "pipe").read_bytes())

    def writing(content):
        (tmp_path / "pipe").write_bytes(content)

    def beside(target, *arguments):
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        thread.start()
        return thread

    reader = beside(reading)
    assert tfquant("compress", "m", tmp_path / "a.png", tmp_path / "pipe")[0] == 0
    reader.join(10)
    assert got == [data]
    writer = beside(writing, data)
    code, out, _ = tfquant("info", tmp_path / "pipe")
    writer.join(10)
    assert code == 0 and f"{len(data)} bytes" in out
    writer = beside(writing, data)
    assert tfquant("decompress", "m", tmp_path / "pipe", tmp_path / "back.png")[0] == 0
    writer.join(10)
    assert images.read_image(tmp_path / "back.png")[0, 0].tolist() == [255, 0, 0]
    writer = beside(writing, (tmp_path / "a.png").read_bytes())
    assert tfquant("compress", "m", tmp_path / "pipe", tmp_path / "b.tfq")[0] == 0
    writer.join(10)
    assert (tmp_path / "b.tfq").read_bytes() == data


def test_standard_input_and_output_carry_pictures_and_files(tmp_path, tfquant, monkeypatch):
    picture = save(tmp_path / "a.png", PLAIN["blue"]).read_bytes()

    def piped(data, *arguments):
        stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(data)))
        code, _, err = tfquant(*arguments)
        stream.flush()
        return code, stream.buffer.getvalue(), err

    code, data, err = piped(picture, "compress", "m", "-", "-")
    assert code == 0 and f"-: {len(data)} bytes" in err
    code, shown, _ = piped(data, "info", "-")
    assert code == 0 and b"file         standard input\n" in shown
    code, back, _ = piped(data, "decompress", "m", "-", "-")
    assert code == 0 and Image.open(io.BytesIO(back)).getpixel((0, 0)) == PLAIN["blue"]
    code, nothing, err = piped(b"no picture", "compress", "m", "-", "-")
    assert (code, nothing) == (1, b"") and err.startswith("tfquant: standard input: not a picture")
    code, nothing, err = piped(b"", "compress", "m", "-", "-")
    assert (code, nothing) == (1, b"") and err == "tfquant: standard input: an empty file\n"
    code, same, _ = piped(picture, "compress", "m", "/dev/stdin", "/dev/stdout")
    assert (code, same) == (0, data)


@pytest.mark.slow
def test_closed_streams_cost_no_result(tmp_path, tfquant):
    save(tmp_path / "a.png")
    assert tfquant("compress", "m", tmp_path / "a.png", tmp_path / "a.tfq")[0] == 0

    def shell(arguments):
        command = f"'{sys.executable}' -m tfquant.cli {arguments}"
        return subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True)

    assert shell("info a.tfq >&-").returncode == 0
    done = shell("info - <&-")
    assert (done.returncode, done.stderr) == (1, b"tfquant: -: standard input is closed\n")
    done = shell("decompress a.tfq - >&-")
    assert (done.returncode, done.stderr) == (1, b"tfquant: -: standard output is closed\n")


@pytest.mark.slow
def test_info_reads_a_pipe_of_the_shell(tmp_path, tfquant):
    save(tmp_path / "a.png")
    assert tfquant("compress", "m", tmp_path / "a.png", tmp_path / "a.tfq")[0] == 0
    command = [sys.executable, "-m", "tfquant.cli", "info", "-"]
    data = (tmp_path / "a.tfq").read_bytes()
    done = subprocess.run(command, input=data, capture_output=True, check=True)
    assert f"{len(data)} bytes".encode() in done.stdout


def test_a_process_that_has_tensorflow_keeps_its_garbage_collection():
    import tensorflow  # noqa: F401

    before = gc.get_freeze_count()
    startup.import_tensorflow()
    # Frozen objects may go in the meantime; none may be added.
    assert gc.get_freeze_count() <= before and gc.isenabled()


def test_a_task_that_lacks_memory_beside_others_is_repeated_alone():
    tasks = [batch.Task(name, name) for name in ("first", "large", "too large", "last")]
    calls, said = [], []

    def work(task, alone):
        calls.append((task.source, alone))
        if task.source == "too large" or (task.source == "large" and not alone):
            raise MemoryError("not enough memory")
        return task.source

    results = batch.run(work, tasks, 2, (MemoryError,), said.append)
    assert results == ["first", "large", None, "last"]
    assert said == ["too large: not enough memory"]
    assert calls[0] == ("first", True)
    assert sorted(calls[1:4]) == [("large", False), ("last", False), ("too large", False)]
    assert sorted(calls[4:]) == [("large", True), ("too large", True)]


def test_a_task_that_runs_alone_is_not_repeated():
    tasks = [batch.Task(name, name) for name in ("first", "large")]
    calls = []

    def work(task, alone):
        calls.append((task.source, alone))
        if task.source == "large":
            raise MemoryError

    assert batch.run(work, tasks, 1, (MemoryError,), lambda line: None) == [None, None]
    assert calls == [("first", True), ("large", True)]


def test_work_that_lacks_memory_beside_others_is_still_in_progress_after_a_crash(tmp_path):
    with open(tmp_path / "journal", "w+b", buffering=0) as file:
        journal = guard.Journal(file)

        def fails():
            raise MemoryError

        for alone in (False, False, True):
            with pytest.raises(MemoryError):
                journal.run("alone" if alone else "beside", fails, alone)
        assert journal.goes_on(1, "SIGSEGV")
    assert journal.ended == {"alone": None}
    assert journal.interrupted == {"beside": 1}
