"""`compress` and `decompress` if their process is ended or runs out of memory."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent.parent
MODEL = ROOT / "tfquant" / "pretrained" / "photographs" / "q10"

# The command with a model without TensorFlow. A picture as high as `SIGNALS` says ends the process,
# and so does a file of such a name, before it gets the name. With STOP, the file of this name gets
# its name, and its thread then waits until the picture of height 12 ends the process, once.
CRASHING = """
    import os, signal, sys, threading
    sys.path.insert(0, "tests/commands")
    import conftest
    from tfquant import cli, startup

    signals = eval(os.environ["SIGNALS"])
    rename = os.replace

    named = threading.Event()
    stop = os.environ.get("STOP")

    def is_first():
        return stop and not os.path.exists(stop + ".ended")

    def replace(path, name):
        if os.path.basename(name) in signals:
            os.kill(os.getpid(), signals[os.path.basename(name)])
        rename(path, name)
        if is_first() and name == stop:
            named.set()
            threading.Event().wait()

    os.replace = replace

    class Crashing(conftest.PixelModel):
        def compress(self, image, *others):
            if is_first() and image.shape[0] == 12:
                named.wait()
                open(stop + ".ended", "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
            if image.shape[0] in signals:
                os.kill(os.getpid(), signals[image.shape[0]])
                signal.pause()
            return super().compress(image)

    def load(*_):
        if "load" in signals:
            os.kill(os.getpid(), signals["load"])

    conftest.replace_models([Crashing()])
    startup.import_tensorflow = load
    sys.exit(cli.main())
"""

# The command with a limit of its address space in bytes. Prints the largest size that it had.
LIMITED = """
    import atexit, re, resource, sys
    from tfquant import cli

    limit = int(sys.argv.pop(1))
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    atexit.register(lambda: print("VmPeak", re.findall(
        r"VmPeak:\\s*(\\d+)", open("/proc/self/status").read())[0], file=sys.stderr))
    sys.exit(cli.main())
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the guard is for Linux"),
]


def run(script, *arguments, **environment):
    """Returns exit code, standard output, and the lines of standard error."""
    lines = [line[4:] for line in script.splitlines()]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines), *map(str, arguments)],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=3600,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr.splitlines()


def pictures(folder, heights):
    folder.mkdir()
    for height in heights:
        Image.fromarray(np.full((height, 8, 3), height, np.uint8)).save(folder / f"{height:02}.png")
    return folder


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGKILL"])
def test_a_picture_that_ends_the_process_gives_one_line(tmp_path, name):
    (picture,) = pictures(tmp_path / "in", [20]).iterdir()
    signals = {20: int(getattr(signal, name))}
    code, out, errors = run(
        CRASHING, "compress", picture, tmp_path / "out.tfq", SIGNALS=repr(signals)
    )
    assert (code, out) == (1, "")
    assert errors == [
        f"tfquant: {picture}: the process ended with {name}; most likely there is not enough"
        " memory for this picture"
    ]
    assert not (tmp_path / "out.tfq").exists()


@pytest.mark.parametrize("jobs", [1, 3])
def test_the_other_pictures_of_a_folder_are_compressed(tmp_path, jobs):
    heights = range(10, 20)
    source, out = pictures(tmp_path / "in", heights), tmp_path / "out"
    (source / "00.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    signals = {12: int(signal.SIGSEGV), 15: int(signal.SIGKILL)}
    code, said, errors = run(
        CRASHING, "compress", source, out, f"--jobs={jobs}", SIGNALS=repr(signals)
    )
    assert code == 1
    made = sorted(path.name for path in out.iterdir())
    assert made == [f"{height}.tfq" for height in heights if height not in signals]
    lost = [line for line in errors if "the process ended with" in line]
    assert [re.findall(r"(\d+).png: .* (SIG\w+)", line)[0] for line in sorted(lost)] == [
        ("12", "SIGSEGV"), ("15", "SIGKILL")
    ]  # fmt: skip
    assert len([line for line in errors if "00.png" in line]) == 1  # although it was read twice
    assert errors[-1] == "tfquant: 3 of 11 files failed"
    assert len(errors) == 4
    assert f"{out}: 8 of 11 files made, " in said and len(said.splitlines()) == 1


def test_a_process_that_is_ended_while_it_writes_leaves_no_partial_file(tmp_path):
    source, out = pictures(tmp_path / "in", [10, 11, 12]), tmp_path / "out"
    signals = {"11.tfq": int(signal.SIGKILL)}
    code, _, errors = run(CRASHING, "compress", source, out, SIGNALS=repr(signals))
    assert (code, len(errors)) == (1, 2)
    assert "11.png: the process ended with SIGKILL" in errors[0]
    assert sorted(path.name for path in out.iterdir()) == ["10.tfq", "12.tfq"]


def test_a_file_that_was_complete_when_the_process_ended_counts_as_made(tmp_path):
    """Its end was not written down, so the next process repeats it."""
    source, out = pictures(tmp_path / "in", [10, 11, 12]), tmp_path / "out"
    stop = tmp_path / "out" / "11.tfq"
    code, said, errors = run(
        CRASHING, "compress", source, out, "--jobs=2", SIGNALS="{}", STOP=str(stop)
    )
    Path(f"{stop}.ended").unlink()
    assert (code, errors) == (0, [])
    assert "3 of 3 files made" in said and "existed already" not in said
    assert sorted(path.name for path in out.iterdir()) == ["10.tfq", "11.tfq", "12.tfq"]


def test_a_process_that_ends_before_any_picture_is_not_repeated(tmp_path):
    source = pictures(tmp_path / "in", [10, 11])
    signals = {"load": int(signal.SIGABRT)}
    code, out, errors = run(CRASHING, "compress", source, tmp_path / "out", SIGNALS=repr(signals))
    assert (code, out) == (1, "")
    assert errors == [
        "tfquant: the process ended with SIGABRT; most likely there is not enough memory"
    ]


@pytest.mark.parametrize(
    "number,code", [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, 130)]
)
def test_a_signal_to_end_ends_both_processes(tmp_path, number, code):
    """The child waits for a FIFO to which nobody writes."""
    fifo = tmp_path / "in.png"
    os.mkfifo(fifo)
    command = [sys.executable, "-m", "tfquant.cli", "compress", fifo, tmp_path / "out.tfq"]
    process = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )

    def children():
        return Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()

    # Opening the FIFO succeeds once the child waits for it. The child has its handlers then.
    writer, deadline = None, time.monotonic() + 3600
    while writer is None:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
        with contextlib.suppress(OSError):
            writer = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    (child,) = children()
    # A terminal sends Ctrl-C to the whole group, `kill` sends SIGTERM to one process.
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    errors = process.communicate(timeout=3600)[1].splitlines()
    os.close(writer)
    assert process.returncode == code
    assert errors == (["tfquant: interrupted"] if number == signal.SIGINT else [])
    assert not Path(f"/proc/{child}").exists()


def test_a_picture_for_which_there_is_no_memory_gives_one_line(tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), np.uint8)
    for name, side in (("large", 1024), ("small", 64)):
        Image.fromarray(noise[:side, :side]).save(source / f"{name}.png")
    whole = 1 << 40
    small = source / "small.png", tmp_path / "small.tfq"
    code, _, errors = run(LIMITED, whole, "compress", MODEL, *small)
    assert code == 0
    peak = 1024 * max(int(line.split()[1]) for line in errors if line.startswith("VmPeak"))
    code, said, errors = run(LIMITED, peak + (320 << 20), "compress", MODEL, source, out)
    # The C library prints a line of its own if a new thread gets no memory.
    others = ("VmPeak", "cannot allocate memory for thread-local data")
    errors = [line for line in errors if not line.startswith(others)]
    assert code == 1
    assert [path.name for path in out.iterdir()] == ["small.tfq"]
    assert (out / "small.tfq").read_bytes() == (tmp_path / "small.tfq").read_bytes()
    assert len(errors) == 2, errors
    assert errors[0].startswith(f"tfquant: {source / 'large.png'}: ")
    assert "not enough memory" in errors[0]
    assert errors[1] == "tfquant: 1 of 2 files failed"
    assert "1 of 2 files made" in said


@pytest.mark.parametrize("mebibytes", [900, 1300, 1500])
def test_with_too_little_memory_for_tensorflow_there_is_one_line(tmp_path, mebibytes):
    (picture,) = pictures(tmp_path / "in", [20]).iterdir()
    code, out, errors = run(
        LIMITED, mebibytes << 20, "compress", MODEL, picture, tmp_path / "out.tfq"
    )
    lines = [line for line in errors if not line.startswith("VmPeak")]
    assert code == 1 or mebibytes > 900  # with more memory, some versions of TensorFlow start
    if code:
        assert (code, out) == (1, "")
        assert lines[-1].startswith("tfquant: ") and "not enough memory" in lines[-1]
        assert len(lines) == 1 or "SIGABRT" in lines[-1]  # the C++ code says why it aborts
        assert "Traceback" not in "".join(lines)
