"""Names with a scheme, which TensorFlow's file systems open.

`file://` is TensorFlow's name for local files, which Python's `open` and `os` do not know: if they
used such a name, they would fail or create a folder called `file:`. `tests/training/test_hosts.py`
tests a whole run with such a name.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import flagsaver

from tfquant import cli, files
from tfquant.commands import train
from tfquant.data import images, records, sources
from tfquant.data.finding import search
from tfquant.data.images import ImageError, read_image
from tfquant.training import folder, history
from tfquant.training.experiment import Experiment


@pytest.fixture(name="pictures")
def _pictures(tmp_path, make_photograph):
    (tmp_path / "pictures" / "deep").mkdir(parents=True)
    for seed, name in enumerate(("a.png", "b.png", "deep/c.png", "deep/d.txt")):
        path = tmp_path / "pictures" / name
        images.write_image(path.with_suffix(".png"), make_photograph(70, 80, seed))
        path.with_suffix(".png").rename(path)
    return tmp_path / "pictures"


def test_pictures_are_found_and_read_as_on_this_machine(pictures):
    names = ["a.png", "b.png", "deep/c.png"]
    assert search(f"file://{pictures}").paths == [f"file://{pictures}/{name}" for name in names]
    assert search(f"file://{pictures}/a.png").paths == [f"file://{pictures}/a.png"]
    both = search(f"file://{pictures}/deep,file://{pictures}/b.png").paths
    assert [path.rpartition("/")[2] for path in both] == ["b.png", "c.png"]
    assert len(search(f"file://{pictures}/*.png").paths) == 2
    for name in names:
        there = read_image(f"file://{pictures}/{name}")
        np.testing.assert_array_equal(there, read_image(pictures / name))
    images.probe_image(f"file://{pictures}/a.png")


def test_a_missing_file_gives_one_line(pictures):
    for spec, message in (
        (f"file://{pictures}/gone.png", "no such file or folder"),
        (f"file://{pictures}/deep/*.jpg", "no pictures in this glob"),
    ):
        with pytest.raises(ImageError, match=message):
            search(spec)
    (pictures / "a.png").write_text("no picture")
    for read in (read_image, images.probe_image, images.encoded_image):
        with pytest.raises(ImageError, match=f"file://{pictures}/a.png: not a picture"):
            read(f"file://{pictures}/a.png")
        with pytest.raises(ImageError, match=f"file://{pictures}/gone.png: unreadable: .*No such"):
            read(f"file://{pictures}/gone.png")


def test_an_unknown_scheme_is_an_oserror_of_one_line(capsys):
    name = "nowhere://bucket/a"
    for look in (files.exists, files.matches, files.read, search, records.Records):
        with pytest.raises(OSError, match=f"^{name}: File system scheme 'nowhere' .*$") as error:
            look(name)
        assert "\n" not in str(error.value)
    assert cli.main(["records", name, "unused"]) == 1
    assert capsys.readouterr().err.startswith(f"tfquant: {name}: File system scheme")


@pytest.mark.parametrize("flag", ["model_dir", "init_from", "train_images"])
def test_train_reports_an_unknown_scheme_in_one_line(tmp_path, flag, training_flags):
    given = {"model_dir": f"{tmp_path}/run", flag: "nowhere://bucket/a"}
    with flagsaver.flagsaver():
        training_flags(["train.py", *(f"--{name}={value}" for name, value in given.items())])
        with pytest.raises(SystemExit, match="^train.py: nowhere://bucket/a: File system scheme"):
            train.main(["train.py"])
    assert not any(tmp_path.iterdir())


def test_a_name_without_scheme_needs_no_tensorflow(fresh_python):
    assert (
        fresh_python(
            """
        import sys
        from tfquant import files
        from tfquant.data import images
        assert files.isfile("setup.py") and files.isdir("tests") and not files.exists("gone")
        assert files.read("setup.py").startswith(b'\"\"\"Package')
        print("tensorflow" in sys.modules)
        """
        )
        == "False\n"
    )


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_failed_write_is_an_oserror_of_one_line(tmp_path, scheme):
    (tmp_path / "file").write_text("kept")
    for name in ("file/a", "file/deeper/a"):
        path = f"{scheme}{tmp_path}/{name}"
        reason = "(File exists|Not a directory|.* is not a directory)"
        with pytest.raises(OSError, match=f"^{path}: cannot be written: {reason}$"):
            files.write(path, "text")
    assert (tmp_path / "file").read_text() == "kept"
    said = "{{function_node __wrapped__SaveV2}} Disk\nfull [Op:SaveV2] name: "
    with pytest.raises(OSError, match="^/a: wait: Disk full$"), files.as_oserror("/a", "wait: "):
        raise tf.errors.ResourceExhaustedError(None, None, said)


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one(tmp_path, scheme):
    with pytest.raises(OSError, match=f"{tmp_path}/gone"):
        files.below(f"{scheme}{tmp_path}/gone")


def test_a_new_folder_replaces_the_old_one_completely_or_not_at_all(tmp_path):
    path = f"file://{tmp_path}/made"

    def write(text):
        with files.new_folder(path) as partial:
            with tf.io.gfile.GFile(f"{partial}/{text}", "w") as file:
                file.write(text)
            if text == "bad":
                raise OSError

    write("first")
    write("second")
    with pytest.raises(OSError):
        write("bad")
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")] == ["made", "made/second"]


def test_a_new_folder_that_cannot_take_its_place_is_kept_and_named(tmp_path, monkeypatch):
    def refuse(source, target):
        raise PermissionError(1, "not yours", source, None, target)

    path, kept = f"{tmp_path}/made", f"{tmp_path}/made.partial"
    monkeypatch.setattr(os, "replace", refuse)
    message = f"^{path}: the result stays in {kept}, .*: not yours$"
    with pytest.raises(OSError, match=message), files.new_folder(path) as partial:
        assert partial == kept
        (tmp_path / "made.partial" / "precious").write_text("dear")
    assert [p.name for p in tmp_path.rglob("*")] == ["made.partial", "precious"]
    monkeypatch.undo()
    with files.new_folder(path):
        pass
    assert [p.name for p in tmp_path.rglob("*")] == ["made"]


@pytest.mark.parametrize("name", ["latin\udce9", "x [1]", "a*", "line\nbreak", "-"])
def test_folders_and_files_of_any_name_are_made(tmp_path, name):
    path = os.path.join(tmp_path, name, name)
    for text in ("first", "second"):
        with files.new_folder(path) as partial:
            partial.encode()  # as TensorFlow does
            with tf.io.gfile.GFile(f"{partial}/a", "w") as file:
                file.write(text)
    files.write(os.path.join(path, name, "b"), "caf\u00e9")
    made = {os.path.relpath(p, path): p.read_bytes() for p in Path(path).rglob("*") if p.is_file()}
    assert made == {"a": b"second", os.path.join(name, "b"): "caf\u00e9".encode()}
    assert os.listdir(tmp_path) == [name] and os.listdir(tmp_path / name) == [name]


def test_a_new_folder_behind_a_link_is_written_through(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "old").touch()
    (tmp_path / "link").symlink_to("far")
    with files.new_folder(f"{tmp_path}/link") as partial:
        Path(partial, "new").touch()
    assert (tmp_path / "link").is_symlink() and os.listdir(tmp_path / "far") == ["new"]
    assert sorted(os.listdir(tmp_path)) == ["far", "link"]


def test_messages_show_a_folder_and_not_the_link_to_it(tmp_path):
    folder = tmp_path / "latin\udce9"
    folder.mkdir()
    link = files.for_tensorflow(os.path.join(folder, "[1]"))
    assert not link.startswith(str(tmp_path))
    assert files.shown(f"cannot read {link}") == f"cannot read {tmp_path}/latin\\xe9/[1]"


def test_a_runs_own_files_work_in_memory_too(make_photograph):
    """Uses `ram://`, which is not a complete file system.

    It renames a folder without its content, and takes a checkpoint for a folder. It works for
    pictures, the experiment and the history.
    """
    for seed in range(3):
        local = f"ram://pictures/{seed}.png"
        with tf.io.gfile.GFile(local, "wb") as file:
            images.Image.fromarray(make_photograph(40, 50, seed)).save(file, "PNG")
    source = sources.open_source("ram://pictures", 0, 16)
    np.testing.assert_array_equal(source[2], make_photograph(40, 50, 2))
    experiment = Experiment(codec_options={"N": 4, "M": 4})
    folder.prepare("ram://runs/one", experiment)
    assert folder.read_experiment("ram://runs/one") == experiment
    folder.write_json(f"ram://runs/one/{history.FILE}", [{"run_step": 1}])
    assert history.read("ram://runs/one") == [{"run_step": 1}]


def test_an_unreadable_subfolder_is_skipped_and_named(tmp_path, monkeypatch):
    for name in ("open", "closed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "picture.png").write_bytes(b"")
    scandir = os.scandir

    def refusing(path):
        if os.path.basename(path) == "closed":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    tree = files.walk(str(tmp_path))
    assert tree.paths == [str(tmp_path / "open" / "picture.png")]
    assert tree.unreadable == [str(tmp_path / "closed")]
    with pytest.raises(OSError, match="nowhere"):
        files.below(str(tmp_path / "nowhere"))


def test_equal_requests_pass_in_any_order():
    files.check_owner("runs/a", "--out", "grid", {"a": 1, "b": [2]}, {"b": [2], "a": 1})


def test_differences_and_missing_values_are_named():
    asked, found = {"a": 1, "b": 2, "d": 4}, {"a": 1, "b": 3, "c": 5}
    message = r"^runs/a contains another grid \(differs in b, c, d\); use a new --out, delete this"
    with pytest.raises(ValueError, match=message):
        files.check_owner("runs/a", "--out", "grid", asked, found)
