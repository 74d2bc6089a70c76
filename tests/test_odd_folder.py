"""Tests every command on one random folder of a hundred odd files, and accounts for each file.

`TFQUANT_ODD_SEED` chooses another folder. `TFQUANT_AWKWARD` may name a folder of more files, each
of which must be read or rejected in one line.
"""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from tfquant import cli, files
from tfquant.data import finding, images

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.slow
_SPEC = importlib.util.spec_from_file_location("tiffs", ROOT / "tests" / "data" / "tiffs.py")
tiffs = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(tiffs)

TINY = """\
--codec=factorized
--N=8
--M=8
--plan=aun
--joint_steps=2
--post_steps=0
--epoch_steps=2
--crop=64
--batch_size=2
--validation_images=2
--progress=silent
"""
# Stems that file systems allow.
STEMS = ("plain", "two words", " blank", "x[1]", "a*b", "snow\u2603", "u\u0308", "line\nbreak",
         "latin\udce9", "tab\t", "%d{0}", "-dash", "quote'\"", "semi;colon", "dot.ted",
         "photo.png", "mean", "a__b")  # fmt: skip


class Folder:
    """Builder of a folder, with the expected result of each of its files.

    Attributes:
      good: map from the path of each picture to (height, width).
      bad: paths of pictures that every command rejects.
      other: paths of files of other kinds.
      hidden: number of hidden files and folders.
    """

    def __init__(self, root: Path, seed: int):
        self.root, self.random = root, random.Random(seed)
        self.good, self.bad, self.other, self.hidden = {}, [], [], 0

    def path(self, extension: str, stem: str | None = None) -> Path:
        """Returns a new path with the extension, somewhere below the folder."""
        while True:
            place = self.random.choice(("", "", "deep", "deep/er", "far away"))
            found = self.root / place / ((stem or self.random.choice(STEMS)) + extension)
            if not os.path.lexists(found):
                found.parent.mkdir(parents=True, exist_ok=True)
                return found
            stem = f"{stem or self.random.choice(STEMS)}{self.random.randrange(1000)}"

    def pixels(self, channels: int = 3) -> np.ndarray:
        size = self.random.randint(1, 70), self.random.randint(1, 70)
        noise = np.random.default_rng(self.random.randrange(1 << 30))
        shape = size if channels == 1 else (*size, channels)
        return noise.integers(0, 256, shape, np.uint8)

    def save(self, extension: str, picture: Image.Image, turned: bool = False, **options) -> Path:
        """Saves a picture that every command reads."""
        path, (width, height) = self.path(extension), picture.size
        with open(path, "wb") as file:
            picture.save(file, Image.registered_extensions()[extension.lower()], **options)
        self.good[path] = (width, height) if turned else (height, width)
        return path


def plain(folder):
    extension = folder.random.choice(
        (".png", ".JPG", ".jpeg", ".jfif", ".webp", ".tif", ".bmp", ".ppm", ".gif")
    )
    folder.save(extension, Image.fromarray(folder.pixels()))


def other_modes(folder):
    mode = folder.random.choice(("L", "1", "P", "CMYK", "LA"))
    extension = {"CMYK": ".jpg", "LA": ".png"}.get(mode, ".png")
    folder.save(extension, Image.fromarray(folder.pixels()).convert(mode))


def deep_grey(folder):
    bits, photometric = folder.random.choice(((12, 1), (12, 0), (16, 0), (16, 1), (4, 1)))
    values = folder.pixels(1).astype(np.int64) * (2**bits - 1) // 255
    page = tiffs.page(values, bits, photometric=photometric, deflate=folder.random.random() < 0.5)
    folder.good[tiffs.write(folder.path(".tif"), page)] = values.shape


def several_pages(folder):
    pages = [tiffs.page(folder.pixels(1)) for _ in range(3)]
    folder.good[tiffs.write(folder.path(".TIFF"), *pages)] = (
        pages[0][1][257][1], pages[0][1][256][1]
    )  # fmt: skip


def behind_a_thumbnail(folder):
    values = folder.pixels(1)
    pages = tiffs.page(values[:1, :1], t254=1), tiffs.page(values)
    folder.good[tiffs.write(folder.path(".tif"), *pages)] = values.shape


def sideways(folder):
    entries = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack("<HHII", 0x010F, 2, 50, 9999)
    exif = b"Exif\0\0II*\0\x08\0\0\0\x02\0"
    # Entries are sorted by their tag.
    exif += entries[12:] + entries[:12] + bytes(4)
    folder.save(".jpg", Image.fromarray(folder.pixels()), turned=True, exif=exif)


def profiled(folder):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    folder.save(".png", Image.fromarray(folder.pixels()), icc_profile=profile)


def without_extension(folder):
    path = folder.save(".png", Image.fromarray(folder.pixels()))
    bare = folder.path("", f"bare{folder.random.randrange(10**6)}")
    path.rename(bare)
    folder.good[bare] = folder.good.pop(path)


def same_stem(folder):
    stem = f"same{folder.random.randrange(10**6)}"
    place = folder.path(".png", stem).parent
    for name in (f"{stem}.png", f"{stem}.bmp", f"{stem}.png.webp", f"{stem.upper()}.png"):
        picture = Image.fromarray(folder.pixels())
        picture.save(place / name)
        folder.good[place / name] = picture.size[::-1]


def linked(folder):
    outside = folder.root.parent / f"outside{folder.random.randrange(10**6)}"
    outside.mkdir()
    picture = Image.fromarray(folder.pixels())
    picture.save(outside / "a.png")
    link = folder.path("", f"album{folder.random.randrange(10**6)}")
    link.symlink_to(outside)
    folder.good[link / "a.png"] = picture.size[::-1]


def broken(folder):
    path = folder.path(folder.random.choice((".png", ".jpg", ".tif", ".webp", ".gif")))
    Image.fromarray(np.tile(folder.pixels(), (3, 3, 1))).save(folder.root / "one.png")
    data = (folder.root / "one.png").read_bytes()
    (folder.root / "one.png").unlink()
    path.write_bytes(folder.random.choice((b"", b"no picture", data[: len(data) // 2])))
    folder.bad.append(path)


def undefined(folder):
    values, kind = folder.pixels(1), folder.random.choice(((16, 2), (32, 1), (32, 3), (8, 2)))
    page = tiffs.page(values, kind[0], sample_format=kind[1])
    folder.bad.append(tiffs.write(folder.path(".tif"), page))


def transparent(folder):
    path = folder.path(".png")
    pixels = folder.pixels(4)
    pixels[0, 0, 3] = 0
    Image.fromarray(pixels).save(path)
    folder.bad.append(path)


def dangling(folder):
    path = folder.path(".jpg")
    path.symlink_to("gone.jpg")
    folder.bad.append(path)


def other(folder):
    extension = folder.random.choice((".txt", ".DNG", ".mov", ".xmp", ".svg", ".CR2"))
    path = folder.path(extension)
    path.write_bytes(b"II*\0 or anything")
    folder.other.append(path)


def hidden(folder):
    path = folder.root / f".hidden{folder.random.randrange(10**6)}"
    path.mkdir()
    Image.fromarray(folder.pixels()).save(path / "a.png")
    folder.hidden += 1


KINDS = {
    plain: 24, other_modes: 8, deep_grey: 8, several_pages: 3, behind_a_thumbnail: 3, sideways: 5,
    profiled: 3, without_extension: 4, same_stem: 3, linked: 3, broken: 8, undefined: 4,
    transparent: 4, dangling: 2, other: 10, hidden: 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    seed = int(os.environ.get("TFQUANT_ODD_SEED", "1"))
    made = Folder(tmp_path_factory.mktemp("odd") / "pictures [1] \udce9", seed)
    made.root.mkdir()
    for kind, count in KINDS.items():
        for _ in range(count):
            kind(made)
    os.mkfifo(made.root / "pipe.png")
    assert len(made.good) + len(made.bad) + len(made.other) + made.hidden > 100
    return made


# `tfquant` with eager steps and a small export, which take less time.
QUICKLY = f"""
import sys
sys.path.append({str(ROOT / "tests")!r})
import quick_exports
quick_exports.use_small()
from tfquant import cli
sys.exit(cli.main(sys.argv[1:]))
"""


def command(*arguments, cwd, program=("-m", "tfquant.cli")):
    return subprocess.run(
        [sys.executable, *program, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        timeout=3600,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii:strict"},
    )


def here(*arguments):
    """Runs `tfquant ARGUMENTS` in this process, as `command` runs it in its own."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "ascii", "strict") for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        files.lenient_output()
        code = cli.main([str(argument) for argument in arguments])
    for stream in (out, err):
        stream.flush()
    return subprocess.CompletedProcess(
        arguments, code, out.buffer.getvalue(), err.buffer.getvalue()
    )


def lines(data: bytes) -> list:
    return data.decode().splitlines()


def shown(path) -> str:
    """Returns a path as messages show it, by an independent rule."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    escaped = text.encode("unicode_escape").decode() if not text.isprintable() else text
    return escaped.replace("\\\\", "\\").encode("ascii", "backslashreplace").decode()


def check_named(folder, printed: bytes):
    """Checks that a line names every bad picture, and that there is no traceback."""
    text = printed.decode()
    assert "Traceback" not in text
    for path in folder.bad:
        assert shown(path) in text, path


@pytest.fixture(scope="module")
def trained(folder):
    """Returns (output of train, its exit code, the run's folder)."""
    work = folder.root.parent
    (work / "tiny.flags").write_bytes(TINY.replace("\n", "\r\n").encode("utf-16"))
    done = command(
        "train", "--flagfile=tiny.flags", f"--train_images={folder.root}", "--model_dir=run [1]",
        cwd=work, program=("-c", QUICKLY),
    )  # fmt: skip
    return done, work / "run [1]"


@pytest.fixture(scope="module")
def rebuilt(trained):
    """A copy of the exported model that this process rebuilds, which takes less time to load."""
    model = trained[1].parent / "rebuilt"
    shutil.copytree(trained[1] / "export", model)
    manifest = json.loads((model / "tfquant.json").read_text())
    (model / "tfquant.json").write_text(json.dumps({**manifest, "flavour": "portable"}))
    return model


def test_the_search_puts_each_file_where_it_belongs(folder):
    found = finding.search(str(folder.root))
    assert set(found.paths) == {str(path) for path in (*folder.good, *folder.bad)}
    assert set(found.others) == {str(path) for path in folder.other}
    assert len(found.hidden) == folder.hidden
    assert found.special == [str(folder.root / "pipe.png")]
    for path, size in folder.good.items():
        assert images.read_image(path).shape == (*size, 3), path
    for path in folder.bad:
        with pytest.raises(images.ImageError) as error:
            images.read_image(path)
        assert "\n" not in str(error.value)


def test_it_trains(folder, trained):
    done, run = trained
    assert done.returncode == 3, done.stderr.decode()
    check_named(folder, done.stderr)
    assert f"the run is complete without {len(folder.bad)} pictures" in lines(done.stderr)[-1]
    assert (run / "export" / "tfquant.json").exists()


def test_it_is_compressed_and_comes_back(folder, trained, rebuilt):
    """Checks that a rebuilt model reads the files of the full SavedModel.

    The rebuilt model runs in this process. `test_cli.py` tests that TensorFlow prints nothing.
    """
    model, work = trained[1] / "export", folder.root.parent
    done = command("compress", model, folder.root, work / "files", cwd=work)
    assert done.returncode == 1
    check_named(folder, done.stderr)
    total = len(folder.good) + len(folder.bad)
    first = next(line for line in lines(done.stdout) if "files made" in line)
    assert f"{len(folder.good)} of {total} files made" in first
    last = lines(done.stdout)[-1]
    assert f"skipped: {len(folder.other)} files of other kinds: " in last
    assert f"{folder.hidden} hidden files or folders" in last
    assert lines(done.stderr)[-1] == f"tfquant: {len(folder.bad)} of {total} files failed"
    again = here("compress", rebuilt, folder.root, work / "files")
    kept = rf"\b0 of {total} files made; {len(folder.good)} \w+ already"
    assert re.search(kept, again.stdout.decode())

    done = here("decompress", rebuilt, work / "files", work / "back")
    assert (done.returncode, done.stderr) == (0, b"")
    count = len(folder.good)
    assert f"{count} of {count} files made" in done.stdout.decode()
    back = [path for path in (work / "back").rglob("*") if path.is_file()]
    sizes = sorted(images.read_image(path).shape[:2] for path in back)
    assert sizes == sorted(folder.good.values())


def test_it_is_measured(folder, trained):
    work = folder.root.parent
    done = command(
        "eval", f"--model_dir={trained[1]}", f"--images={folder.root}",
        f"--report_dir={work / 'report'}", "--conventional=jpeg", cwd=work,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr.decode()
    check_named(folder, done.stdout)
    report = json.loads((work / "report" / "report.json").read_text())
    assert report["run"]["number_of_images"] == len(folder.good)
    assert len(report["models"][0]["images"]) == len(folder.good)
    assert {row["path"] for row in report["failed"]} == {str(path) for path in folder.bad}
    with open(work / "report" / "report.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["error"]]
    assert len(rows) == len(folder.bad)
    stored = list((work / "report" / "reconstructions").rglob("*.tfq"))
    assert len(stored) == len(folder.good)


def test_it_becomes_a_set_of_records(folder):
    work = folder.root.parent
    done = here("records", folder.root, work / "set")
    assert done.returncode == 1
    check_named(folder, done.stderr)
    total = len(folder.good) + len(folder.bad)
    assert f"{len(folder.good)} of {total} pictures in " in lines(done.stdout)[0]
    index = json.loads((work / "set" / "records.json").read_text())
    assert sum(map(len, index["shards"].values())) == len(folder.good)


def test_an_interrupted_run_says_where_it_stands(folder, trained):
    work = folder.root.parent
    arguments = [
        "train", "--flagfile=tiny.flags", "--model_dir=interrupted", "--joint_steps=100000",
        f"--train_images={folder.root}",
    ]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-c", QUICKLY, *arguments],
        cwd=work,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    deadline = time.monotonic() + 3600
    while not list((work / "interrupted" / "checkpoints").glob("*.index")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=3600)
    assert process.returncode == 130 and "Traceback" not in err.decode()
    last = lines(err)[-1]
    assert last.startswith("tfquant train: interrupted; interrupted ")
    assert re.search(r" step [1-9]\d* of 100000\b.* same command", last)


def test_files_of_another_folder_are_read_or_refused_in_one_line():
    name = os.environ.get("TFQUANT_AWKWARD")
    if not name:
        pytest.skip("TFQUANT_AWKWARD is not set")
    for path in finding.search(name).paths:
        try:
            assert images.read_image(path).size
        except images.ImageError as error:
            assert "\n" not in str(error), path
