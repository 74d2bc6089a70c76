"""Tests the search for pictures: found files, skipped files, messages."""

from __future__ import annotations

import os
import socket

import numpy as np
import pytest
from PIL import Image

from tfquant.data import finding
from tfquant.data.images import ImageError


def put(path, data=b""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def picture_bytes(tmp_path, extension="png"):
    path = tmp_path / f"one.{extension}"
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)
    data = path.read_bytes()
    path.unlink()
    return data


def found(folder):
    result = finding.search(str(folder))
    return [os.path.relpath(path, folder) for path in result.paths], result.left_out()


def test_hidden_folders_are_skipped_and_other_files_counted(tmp_path):
    taken = ["IMG_1.jpg", "IMG_3.jfif", "IMG_4.MPO", "IMG_5.JPE", "deep/IMG_6.JPX"]
    for name in taken:
        put(tmp_path / name)
    for name in (".thumbnails/a.jpg", ".Trash-1000/files/b.jpg", ".c.jpg", "@eaDir/d.jpg",
                 "$RECYCLE.BIN/e.jpg", "__MACOSX/f.jpg"):  # fmt: skip
        put(tmp_path / name)
    for name in ("a.DNG", "b.DNG", "c.dng", "d.txt", "deep/Makefile", "e.psd"):
        put(tmp_path / name)
    paths, left_out = found(tmp_path)
    assert paths == taken
    assert left_out == (
        "6 files of other kinds: 3 .DNG, 1 without extension, 1 .psd, 1 .txt;"
        " 6 hidden files or folders"
    )


def test_a_file_without_extension_is_recognized_by_its_content(tmp_path):
    for extension in ("png", "jpg", "webp", "tif", "gif", "bmp", "ppm"):
        put(tmp_path / "in" / extension, picture_bytes(tmp_path, extension))
    put(tmp_path / "in" / "IMG_2020.01.02", picture_bytes(tmp_path))
    put(tmp_path / "in" / "README", b"PNG is a format")
    put(tmp_path / "in" / "raw.CR2", b"II*\0")  # recognized by its extension
    paths, left_out = found(tmp_path / "in")
    assert paths == ["IMG_2020.01.02", "bmp", "gif", "jpg", "png", "ppm", "tif", "webp"]
    assert left_out == "2 files of other kinds: 1 without extension, 1 .CR2"


def test_linked_folders_are_followed_once_and_loops_end(tmp_path):
    put(tmp_path / "elsewhere" / "b.png")
    put(tmp_path / "in" / "real" / "a.png")
    (tmp_path / "in" / "album").symlink_to("../elsewhere")
    (tmp_path / "in" / "again").symlink_to("real")
    (tmp_path / "in" / "loop").symlink_to("..")
    (tmp_path / "in" / "real" / "up").symlink_to("../..")
    paths, left_out = found(tmp_path / "in")
    assert paths == ["album/b.png", "real/a.png"] and left_out == ""


def test_special_files_are_not_opened(tmp_path):
    put(tmp_path / "a.png")
    os.mkfifo(tmp_path / "b.png")  # opening it would never return
    (tmp_path / "c.png").symlink_to("gone.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "d.png"))
        paths, left_out = found(tmp_path)
    assert paths == ["a.png", "c.png"] and left_out == "2 FIFOs, sockets or devices"


@pytest.mark.parametrize("name", ["x ", " x", "x[1]", "x*", "x,y", "x\ny", "x\udce9", "~x"])
def test_an_existing_name_is_not_a_glob(tmp_path, monkeypatch, name):
    put(tmp_path / name / name / "a.png")
    (tmp_path / "other").mkdir()
    assert found(tmp_path / name)[0] == [f"{name}/a.png"]
    monkeypatch.chdir(tmp_path / name)
    assert finding.search(name).paths == [f"{name}/a.png"]
    if "," not in name:
        put(tmp_path / name / "b.png")
        assert finding.search(f"b.png,{name}").paths == sorted(["b.png", f"{name}/a.png"])


def test_a_tilde_is_the_home_folder_in_each_part(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    put(tmp_path / "one" / "a.png")
    put(tmp_path / "two" / "b.png")
    for spec in ("~/one,~/two", " ~/one , ~/two ", "~/*"):
        assert finding.search(spec).paths == [f"{tmp_path}/one/a.png", f"{tmp_path}/two/b.png"]


def test_the_error_of_a_folder_without_pictures_counts_its_files(tmp_path):
    put(tmp_path / "a.DNG")
    put(tmp_path / ".hidden" / "b.png")
    message = r"no pictures in this folder \(.*\); skipped: 1 file of another kind: 1 .DNG; 1 hid"
    with pytest.raises(ImageError, match=message):
        finding.search(str(tmp_path))
