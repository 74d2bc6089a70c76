"""The command line, with the exported model of a tiny untrained codec."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import tensorflow as tf

from tfquant import cli
from tfquant.coding.container import Bitstream
from tfquant.data import images
from tfquant.export.manifest_file import FORMAT, ModelError
from tfquant.export.model_file import ExportedModel
from tfquant.progress import ProgressBar

SLOW_FIXTURES = {"exported"}


@pytest.fixture(scope="module", autouse=True)
def loaded_once():
    """Loads each model only once in this process, because a model's first call takes seconds."""
    load = functools.lru_cache(maxsize=None)(ExportedModel.load)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ExportedModel, "load", staticmethod(load))
        yield


@pytest.fixture(scope="module")
def model(rebuilt_export):
    return rebuilt_export


@pytest.fixture(scope="module")
def manifest(model):
    """The content of its `tfquant.json`."""
    return json.loads((model / "tfquant.json").read_text())


@pytest.fixture(scope="module")
def as_decoded(model):
    """`as_decoded(picture)`: the model's decoded picture, without coding."""

    def decoded(path):
        return ExportedModel.load(str(model)).evaluate(images.read_image(path))["image"]

    return decoded


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A training run that was interrupted after a checkpoint."""
    from tfquant import models
    from tfquant.training import checkpoint, folder, trainer
    from tfquant.training.experiment import Experiment

    experiment = Experiment(codec="factorized", codec_options={"N": 4, "M": 6})
    directory = tmp_path_factory.mktemp("stopped") / "run"
    folder.prepare(str(directory), experiment)
    stopped = trainer.Trainer(models.build("factorized", N=4, M=6), experiment)
    stopped.begin(experiment.all_stages()[0])
    checkpoint.RunCheckpoint(str(directory), stopped).save(0, 500)
    return directory


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory, small_exports):
    """The result of `tfquant export` for this run, without the stock flavour."""
    out = tmp_path_factory.mktemp("exported") / "model"
    said = io.StringIO()
    with small_exports(), contextlib.redirect_stdout(said):
        assert cli.main(["export", str(run), "--out", str(out), "--precision=bfloat16"]) == 0
    fingerprint = json.loads((out / "tfquant.json").read_text())["fingerprint"]
    assert said.getvalue() == f"{out}: factorized {fingerprint}, bfloat16, from ckpt-500\n"
    return out


@pytest.fixture
def picture(tmp_path, photograph):
    path = tmp_path / "in.png"
    images.write_image(path, photograph[:17, :23])
    return path


@pytest.fixture
def compressed(model, picture, tmp_path):
    path = tmp_path / "in.tfq"
    assert cli.main(["compress", str(model), str(picture), str(path)]) == 0
    return path


@pytest.fixture
def refused(capsys):
    """`refused(code, *arguments)`: runs the command and returns its one line on standard error."""

    def run(code, *arguments):
        capsys.readouterr()
        assert cli.main([str(argument) for argument in arguments]) == code
        captured = capsys.readouterr()
        lines = captured.err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("tfquant: "), captured.err
        assert captured.out == ""
        return lines[0]

    return run


def _resealed(path, change):
    content = bytearray(path.read_bytes()[:-4])
    change(content)
    path.write_bytes(bytes(content) + struct.pack("<I", zlib.crc32(content)))


def test_a_picture_is_restored(model, picture, compressed, as_decoded, tmp_path, capsys):
    back = tmp_path / "back.png"
    assert cli.main(["decompress", str(model), str(compressed), str(back)]) == 0
    np.testing.assert_array_equal(images.read_image(back), as_decoded(picture))
    assert "23x17" in capsys.readouterr().out
    assert sorted(os.listdir(tmp_path)) == ["back.png", "in.png", "in.tfq"]  # no other file is left


def test_a_file_identifies_model_and_size(compressed, manifest):
    bitstream = Bitstream.from_bytes(compressed.read_bytes())
    assert (bitstream.codec, bitstream.fingerprint) == ("factorized", manifest["fingerprint"])
    assert (bitstream.height, bitstream.width) == (17, 23)


def test_output_has_the_permissions_of_any_new_file(compressed, picture):
    assert compressed.stat().st_mode == picture.stat().st_mode


def test_info_prints_the_header(compressed, manifest, capsys):
    capsys.readouterr()
    assert cli.main(["info", str(compressed)]) == 0
    printed = capsys.readouterr().out
    size = f"{compressed.stat().st_size} bytes"
    for fact in ("factorized", manifest["fingerprint"], "23x17", size):
        assert fact in printed


def test_help_and_info_load_neither_tensorflow_nor_numpy(compressed, fresh_python):
    """Tests that they start fast, because TensorFlow takes seconds to load."""
    fresh_python(
        """
        import sys
        from tfquant import cli
        assert cli.main(["--help"]) == 0
        assert cli.main(["info", sys.argv[1]]) == 0
        assert not {"tensorflow", "numpy", "PIL"} & set(sys.modules)
        """,
        str(compressed),
    )


@pytest.mark.slow
@pytest.mark.parametrize("whose, scheme", [("model", ""), ("exported", "file://")])
def test_the_command_line_prints_only_its_result(picture, tmp_path, request, whose, scheme):
    """Tests a rebuilt model, and one that `tfquant export` made."""
    model, file = request.getfixturevalue(whose), tmp_path / "in.tfq"
    assert cli.main(["compress", str(model), str(picture), str(file)]) == 0
    arguments = ["decompress", model, f"{scheme}{file}", tmp_path / "b.png"]
    done = subprocess.run(
        [sys.executable, "-m", "tfquant.cli", *arguments],
        capture_output=True,
        text=True,
        env={key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1


def test_existing_output_is_kept_without_overwrite(model, picture, compressed, refused):
    before = compressed.read_bytes()
    compressed.write_bytes(b"precious")
    assert "--overwrite" in refused(1, "compress", model, picture, compressed)
    assert compressed.read_bytes() == b"precious"
    assert cli.main(["compress", str(model), str(picture), str(compressed), "--overwrite"]) == 0
    assert compressed.read_bytes() == before


def test_input_is_never_overwritten(model, picture, refused):
    line = refused(1, "compress", model, picture, picture, "--overwrite")
    assert "same file" in line and images.read_image(picture).shape == (17, 23, 3)


def test_damaged_files_are_refused_and_leave_no_output(model, compressed, tmp_path, refused):
    data, back = compressed.read_bytes(), tmp_path / "back.png"
    cases = {
        "empty file": b"",
        "not a .tfq file": b"GIF89a" + bytes(80),
        "cut off": data[:-1],
        "too many": data + b"\0",
        "checksum": data[:-30] + b"~" + data[-29:],
        "version": data[:4] + b"\x07" + data[5:],
    }
    for message, damaged in cases.items():
        compressed.write_bytes(damaged)
        assert message in refused(1, "decompress", model, compressed, back)
        assert not back.exists()
    assert sorted(os.listdir(tmp_path)) == ["in.png", "in.tfq"]


def test_file_of_another_model_is_refused(model, manifest, compressed, tmp_path, refused):
    _resealed(compressed, lambda content: content.__setitem__(22, content[22] ^ 1))
    line = refused(1, "decompress", model, compressed, tmp_path / "back.png")
    first, *others = bytes.fromhex(manifest["fingerprint"])
    assert f"made by model factorized {bytes([first ^ 1, *others]).hex()}" in line


def test_other_symbols_than_the_encoders_are_refused(model, compressed, tmp_path, refused):
    _resealed(compressed, lambda content: content.__setitem__(38, content[38] ^ 1))
    line = refused(1, "decompress", model, compressed, tmp_path / "back.png")
    assert line.startswith(f"tfquant: {compressed}: cannot be decoded: the decoded symbols differ")


def test_a_stream_of_other_symbols_is_refused(model, compressed, tmp_path, refused):
    _resealed(compressed, lambda content: content.__setitem__(slice(48, 51), b"xyz"))
    line = refused(1, "decompress", model, compressed, tmp_path / "back.png")
    assert line.startswith(f"tfquant: {compressed}: cannot be decoded: the decoded symbols differ")


def test_a_forged_size_is_refused(model, compressed, tmp_path, refused):
    _resealed(
        compressed, lambda content: content.__setitem__(slice(30, 38), b"\xff\xff\xff\x7f" * 2)
    )
    line = refused(1, "decompress", model, compressed, tmp_path / "back.png")
    assert "--max_pixels" in line


def test_pixel_limit_is_a_flag(model, compressed, tmp_path, refused):
    back = tmp_path / "back.png"
    refused(1, "decompress", model, compressed, back, "--max_pixels", "390")
    assert cli.main(["decompress", str(model), str(compressed), str(back), "--max_pixels=391"]) == 0


def test_wrong_models_are_refused(model, manifest, picture, tmp_path, refused):
    target = tmp_path / "new.tfq"
    assert "no such folder" in refused(1, "compress", tmp_path / "nowhere", picture, target)
    assert "tfquant.json" in refused(1, "compress", tmp_path, picture, target)
    (tmp_path / "tfquant.json").write_text("{")
    assert "cannot read tfquant.json" in refused(1, "compress", tmp_path, picture, target)
    for version, advice in ((FORMAT + 1, "update tfquant"), (1, "export the model again")):
        (tmp_path / "tfquant.json").write_text(json.dumps({**manifest, "format": version}))
        line = refused(1, "compress", tmp_path, picture, target)
        assert f"has format {version}" in line and advice in line
    (tmp_path / "tfquant.json").write_text(json.dumps({"format": FORMAT, "codec": "ours"}))
    assert "lacks fingerprint, experiment" in refused(1, "compress", tmp_path, picture, target)
    (tmp_path / "tfquant.json").write_text(json.dumps(manifest))
    assert "cannot rebuild the model" in refused(1, "compress", tmp_path, picture, target)
    for wrong, message in (
        ({"fingerprint": 5}, "has fingerprint 5; it takes 16 hexadecimal digits"),
        ({"fingerprint": "0011"}, "has fingerprint '0011'; it takes 16 hexadecimal digits"),
        ({"codec": "a b"}, "has codec name 'a b'; it takes 1 to 16 printable ASCII characters"),
        ({"codec": None}, "has codec name None; it takes 1 to 16 printable ASCII characters"),
        ({"experiment": None}, "has no valid experiment; export the model again"),
    ):
        (tmp_path / "tfquant.json").write_text(json.dumps({**manifest, **wrong}))
        assert message in refused(1, "compress", tmp_path, picture, target)
    assert not target.exists()


@pytest.mark.slow
@pytest.mark.parametrize("whose", ["model", "exported"])
def test_a_model_with_a_cut_file_is_refused(picture, tmp_path, refused, request, whose):
    damaged = tmp_path / "damaged"
    shutil.copytree(request.getfixturevalue(whose), damaged)
    (weights,) = damaged.glob("variables/variables.data*")
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    line = refused(1, "compress", damaged, picture, tmp_path / "new.tfq")
    full = json.loads((damaged / "tfquant.json").read_text()).get("flavour") == "full"
    said = "load the SavedModel" if full else "rebuild the model"
    assert line.startswith(f"tfquant: {damaged}: cannot {said}: ")


def test_a_foreign_saved_model_is_rejected(manifest, tmp_path, operations_module):
    del operations_module  # without operations, no SavedModel is loaded
    (tmp_path / "tfquant.json").write_text(json.dumps({**manifest, "flavour": "full"}))
    with pytest.raises(ModelError, match="cannot load the SavedModel"):
        ExportedModel.load(tmp_path)
    module = tf.Module()
    module.encode = tf.function(lambda x: x, input_signature=[tf.TensorSpec([], tf.float32)])
    tf.saved_model.save(module, str(tmp_path))
    with pytest.raises(ModelError, match="no function decode"):
        ExportedModel.load(tmp_path)


def test_wrong_pictures_and_names_are_refused(model, picture, compressed, tmp_path, refused):
    new = tmp_path / "new.tfq"
    assert "no such file" in refused(1, "compress", model, tmp_path / "no.png", new)
    assert "not a picture" in refused(1, "compress", model, compressed, new)
    assert "does not exist" in refused(1, "compress", model, picture, tmp_path / "no" / "x.tfq")
    assert "a folder" in refused(1, "compress", model, picture, tmp_path)
    assert "'.jpg'" in refused(1, "decompress", model, compressed, tmp_path / "back.jpg")
    assert "No such file" in refused(
        1, "decompress", model, tmp_path / "no.tfq", tmp_path / "b.png"
    )
    assert "No such file" in refused(1, "info", tmp_path / "no.tfq")
    assert "not a .tfq file" in refused(1, "info", picture)


def test_full_disk_leaves_no_half_file(model, picture, tmp_path, refused, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    line = refused(1, "compress", model, picture, tmp_path / "new.tfq")
    assert "No space left" in line and os.listdir(tmp_path) == ["in.png"]


@pytest.fixture
def pictures(tmp_path, make_photograph):
    """A folder with three pictures, one of them in a subfolder, and one file that is not a
    picture.
    """
    folder = tmp_path / "pictures"
    (folder / "far").mkdir(parents=True)
    for name, size in {"a.png": (5, 7), "b.png": (9, 4), "far/c.png": (3, 3)}.items():
        images.write_image(folder / name, make_photograph(*size))
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def _tree(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_folder_is_restored_except_for_broken_files(
    model, pictures, as_decoded, tmp_path, capsys
):
    files, back = tmp_path / "files", tmp_path / "back"
    assert cli.main(["compress", str(model), str(pictures), str(files)]) == 1
    printed = capsys.readouterr()
    assert _tree(files) == ["a.tfq", "b.tfq", "far/c.tfq"]
    size = sum((files / name).stat().st_size for name in _tree(files))
    bpp = 8 * size / (5 * 7 + 9 * 4 + 3 * 3)
    assert printed.out == f"{files}: 3 of 4 files made, {size} bytes, {bpp:.4f} bpp\n"
    named, counted = printed.err.splitlines()
    assert named.startswith(f"tfquant: {pictures / 'broken.png'}: not a picture")
    assert counted == "tfquant: 1 of 4 files failed"

    (files / "far" / "d.tfq").write_bytes((files / "a.tfq").read_bytes()[:-1])
    assert cli.main(["decompress", str(model), str(files), str(back), "--jobs=3"]) == 1
    printed = capsys.readouterr()
    assert printed.out == f"{back}: 3 of 4 files made\n"
    assert printed.err.splitlines()[0].startswith(f"tfquant: {files / 'far' / 'd.tfq'}: file cut")
    assert _tree(back) == ["a.png", "b.png", "far/c.png"]
    for name in _tree(back):
        np.testing.assert_array_equal(images.read_image(back / name), as_decoded(pictures / name))


def test_a_files_bytes_are_the_same_in_a_folder(model, pictures, tmp_path):
    (pictures / "broken.png").unlink()
    assert cli.main(["compress", str(model), str(pictures), str(tmp_path / "files")]) == 0
    single = tmp_path / "single.tfq"
    assert cli.main(["compress", str(model), str(pictures / "b.png"), str(single)]) == 0
    assert (tmp_path / "files" / "b.tfq").read_bytes() == single.read_bytes()
    assert (tmp_path / "files" / "b.tfq").stat().st_mode == single.stat().st_mode


def test_an_interrupted_folder_is_resumed(model, pictures, tmp_path, capsys):
    files = tmp_path / "files"
    command = ["compress", str(model), str(pictures), str(files)]
    cli.main(command)
    before = (files / "b.tfq").read_bytes()
    (files / "a.tfq").unlink()
    (pictures / "broken.png").unlink()
    capsys.readouterr()
    assert cli.main(command) == 0
    assert "1 of 3 files made" in (printed := capsys.readouterr().out) and "2 existed" in printed
    assert (files / "a.tfq").exists() and (files / "b.tfq").read_bytes() == before
    os.utime(files / "b.tfq", ns=(0, 2**62))
    assert cli.main([*command, "--overwrite"]) == 0
    assert (files / "b.tfq").stat().st_mtime_ns < 2**62


def test_pictures_that_differ_by_their_extension_have_files_of_their_own(
    model, pictures, tmp_path, make_photograph
):
    images.write_image(pictures / "a.bmp", make_photograph(2, 2))
    cli.main(["compress", str(model), str(pictures), str(tmp_path / "files")])
    assert _tree(tmp_path / "files") == ["a.bmp.tfq", "a.png.tfq", "b.tfq", "far/c.tfq"]


def test_folders_without_matching_files_are_rejected(model, pictures, tmp_path, refused):
    new = tmp_path / "new"
    assert "no .tfq files in this folder" in refused(1, "decompress", model, pictures, new)
    assert "no pictures in this folder" in refused(1, "compress", model, model, new)
    assert not new.exists()
    (tmp_path / "taken").write_text("")
    line = refused(1, "compress", model, pictures, tmp_path / "taken")
    assert line == f"tfquant: {tmp_path / 'taken'}: a file, not a folder for the outputs"


def test_a_full_disk_ends_a_folder_with_one_line(model, pictures, tmp_path, refused, monkeypatch):
    (pictures / "broken.png").unlink()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    line = refused(1, "compress", model, pictures, tmp_path / "files")
    assert "cannot be written: No space left on device" in line
    assert _tree(tmp_path / "files") == []


# A limit of the operating system interrupts the write: the same code path as a full disk.
@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_a_write_that_the_system_cuts_off_leaves_nothing(
    model, picture, compressed, tmp_path, command, refused, full_disk
):
    source, out = {"compress": (picture, "new.tfq"), "decompress": (compressed, "new.png")}[command]
    before = sorted(os.listdir(tmp_path))
    with full_disk(20):
        line = refused(1, command, model, source, tmp_path / out)
    assert line == f"tfquant: {tmp_path / out}: cannot be written: File too large"
    assert sorted(os.listdir(tmp_path)) == before


def test_a_folder_that_takes_no_files_gives_one_line(model, picture, pictures, refused):
    """Uses Linux's /sys, where not even the superuser can create files."""
    for source in (picture, pictures):
        line = refused(1, "compress", model, source, "/sys/new.tfq")
        assert line.startswith("tfquant: /sys/new.tfq: cannot be ")


@pytest.mark.slow
def test_inputs_may_have_a_scheme(model, picture, pictures, as_decoded, tmp_path, capsys):
    """Uses `file://` instead of `gs://`: Python's own functions know neither."""
    (pictures / "broken.png").unlink()
    for source, file, back in ((picture, "one.tfq", "one.png"), (pictures, "files", "back")):
        file, back = tmp_path / file, tmp_path / back
        assert cli.main(["compress", str(model), f"file://{source}", str(file)]) == 0
        assert cli.main(["decompress", str(model), f"file://{file}", str(back)]) == 0
    np.testing.assert_array_equal(images.read_image(tmp_path / "one.png"), as_decoded(picture))
    assert _tree(tmp_path / "files") == ["a.tfq", "b.tfq", "far/c.tfq"]
    assert _tree(tmp_path / "back") == ["a.png", "b.png", "far/c.png"]
    capsys.readouterr()
    assert cli.main(["info", f"file://{tmp_path}/one.tfq"]) == 0
    assert "23x17" in capsys.readouterr().out


def test_outputs_with_a_scheme_are_refused(model, picture, compressed, pictures, refused, tmp_path):
    out, kept = f"file://{tmp_path}/new", _tree(tmp_path)
    for command, source in (("compress", picture), ("compress", pictures),
                            ("decompress", compressed), ("decompress", tmp_path)):  # fmt: skip
        line = refused(1, command, model, source, out)
        assert line == f"tfquant: {out}: output must be on this machine"
    assert _tree(tmp_path) == kept


def test_the_bar_is_drawn_only_on_terminals():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for stream in (io.StringIO(), terminal := Terminal()):
        bar = ProgressBar(4, stream)
        bar.add()
        bar.clear()
        drawn, stream_is_terminal = stream.getvalue(), stream is terminal
        assert bool(drawn) == stream_is_terminal
    lines = drawn.replace("\r", "").split("\x1b[K")
    assert lines[1].startswith("[..............................] 0/4, 0.0 per second")
    assert lines[2].startswith("[=======.......................] 1/4")
    assert lines[3] == ""


def test_transparency_is_rejected_or_composited(model, tmp_path, refused):
    from PIL import Image

    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    files = [str(model), str(tmp_path / "clear.png"), str(tmp_path / "clear.tfq")]
    refused(1, "compress", *files)
    expected, white = (
        ExportedModel.load(str(model)).compress(np.full([4, 4, 3], colour, np.uint8))
        for colour in ([10, 20, 30], [255, 255, 255])
    )
    for colour in ("#0a141e", "10,20,30"):
        assert cli.main(["compress", *files, "--overwrite", "--background", colour]) == 0
        assert (tmp_path / "clear.tfq").read_bytes() == expected
        assert expected != white


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["explode"],
        ["compress"],
        ["compress", "a", "b", "c", "d"],
        ["compress", "a", "b", "c", "--model=d"],
        ["compress", "a", "b", "--quality=101"],
        ["compress", "a", "b", "--quality=nan"],
        ["compress", "tests"],
        ["compress", "a", "b", "c", "--background", "mauve"],
        ["compress", "a", "b", "c", "--background", "1,2,300"],
        ["decompress", "a", "b", "c", "--max_pixels", "-5"],
        ["decompress", "a", "b", "c", "--max_pixels", "many"],
        ["export", "a", "--max_pixels", str(2**62 + 1)],
    ],
)
def test_wrong_command_lines_are_usage_errors(arguments, refused):
    refused(2, *arguments)


def test_help_and_version_are_no_errors(capsys):
    assert cli.main(["--help"]) == 0 and "compress" in capsys.readouterr().out
    assert cli.main(["decompress", "--help"]) == 0 and "--max_pixels" in capsys.readouterr().out
    assert cli.main(["--version"]) == 0 and "tfquant" in capsys.readouterr().out


def test_a_loaded_model_describes_itself_and_evaluates(model, manifest, photograph):
    loaded = ExportedModel.load(str(model))
    assert (loaded.codec, loaded.fingerprint) == ("factorized", manifest["fingerprint"])
    assert loaded.experiment["lmbda"] == 0.01
    result = loaded.evaluate(photograph)
    file = loaded.compress(photograph)
    np.testing.assert_array_equal(result["image"], loaded.decompress(file))
    assert result["image"].std() > 1.0  # the reconstruction resembles the picture
    assert 0 < result["bits"] < 8 * len(file) and result["y_hat"].shape == (1, 6, 8, 6)


def test_an_interrupted_run_gives_a_model_that_compresses(exported, picture, tmp_path):
    file, back = tmp_path / "in.tfq", tmp_path / "back.png"
    assert cli.main(["compress", str(exported), str(picture), str(file)]) == 0
    assert cli.main(["decompress", str(exported), str(file), str(back)]) == 0
    expected = ExportedModel.load(str(exported)).evaluate(images.read_image(picture))["image"]
    np.testing.assert_array_equal(images.read_image(back), expected)


@pytest.mark.slow
def test_an_exported_model_is_replaced_when_asked_for(run, tmp_path, refused, no_saved_models):
    out, command = tmp_path / "model", ("export", run, "--out", tmp_path / "model")
    assert cli.main([str(argument) for argument in command]) == 0
    (out / "old").write_text("")
    assert "exists already; use --overwrite" in refused(1, *command)
    assert (out / "old").exists()
    assert cli.main([*map(str, command), "--overwrite"]) == 0
    assert not (out / "old").exists() and (out / "tfquant.json").exists()


def test_a_folder_that_cannot_be_exported_is_rejected(run, picture, tmp_path, refused):
    assert "is not a training run" in refused(1, "export", tmp_path)
    line = refused(1, "export", run, "--out", tmp_path, "--overwrite")
    assert "exists and is not an exported model" in line and picture.exists()
    line = refused(1, "export", run, "--out", tmp_path / "model", "--precision=int8")
    assert "unknown precision 'int8'; known: float32, bfloat16, float16" in line
