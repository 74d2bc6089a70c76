"""`eval.py` as a user runs it, on an exported model that is a SavedModel like any other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfquant.data import images
from tfquant.export.model_file import FORMAT

ROOT = Path(__file__).resolve().parent.parent


class Subsampling(tf.Module):
    """Stores every second pixel of every second row, as one PNG a channel."""

    @tf.function(input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)])
    def encode(self, image):
        kept = tf.transpose(image[::2, ::2], [2, 0, 1])
        streams = tf.map_fn(
            lambda channel: tf.io.encode_png(channel[..., None]),
            kept,
            fn_output_signature=tf.string,
        )
        bits = 8 * tf.reduce_sum(tf.strings.length(streams))
        crc = tf.reduce_sum(tf.cast(kept, tf.int64))
        return {"streams": streams, "symbols_crc": crc, "bits": tf.cast(bits, tf.float32)}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string),
            tf.TensorSpec([], tf.int32),
            tf.TensorSpec([], tf.int32),
            tf.TensorSpec([], tf.int64),
        ]
    )
    def decode(self, streams, height, width, symbols_crc):
        kept = tf.map_fn(
            lambda data: tf.io.decode_png(data, 1)[..., 0], streams, fn_output_signature=tf.uint8
        )
        tf.debugging.assert_equal(tf.reduce_sum(tf.cast(kept, tf.int64)), symbols_crc)
        picture = tf.repeat(tf.repeat(tf.transpose(kept, [1, 2, 0]), 2, axis=0), 2, axis=1)
        return {"image": picture[:height, :width]}

    @tf.function(input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)])
    def evaluate(self, image):
        coded = self.encode(image)
        shape = tf.shape(image)
        decoded = self.decode(coded["streams"], shape[0], shape[1], coded["symbols_crc"])
        y_hat = tf.cast(image[None, ::2, ::2], tf.float32)
        return {"image": decoded["image"], "bits": coded["bits"], "y_hat": y_hat}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, make_photograph):
    """A folder with `run/export` and `pictures/`."""
    folder = tmp_path_factory.mktemp("eval")
    export = folder / "run" / "export"
    tf.saved_model.save(Subsampling(), str(export))
    manifest = {
        "format": FORMAT,
        "codec": "fake",
        "fingerprint": "0123456789abcdef",
        "experiment": {"codec": "fake", "plan": "mix", "lmbda": 0.01},
        "version": "0.1.0",
    }
    (export / "tfquant.json").write_text(json.dumps(manifest))
    (folder / "pictures").mkdir()
    for name, size in {"large": (163, 190), "odd": (33, 47)}.items():
        images.write_image(folder / "pictures" / f"{name}.png", make_photograph(*size))
    return folder


def run_eval(workspace, *arguments):
    return subprocess.run(
        [sys.executable, str(ROOT / "eval.py"), *arguments],
        cwd=workspace,
        capture_output=True,
        text=True,
        timeout=3600,
    )


def test_eval_measures_an_exported_model_end_to_end(workspace):
    done = run_eval(
        workspace,
        "--model_dir=run",
        "--images=pictures/*.png",
        "--report_dir=report",
        "--conventional=jpeg,jpeg2000",
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((workspace / "report" / "report.json").read_text())
    (model,) = report["models"]
    assert (model["name"], model["codec"], model["curve"]) == ("run", "fake", "fake mix")
    assert [row["name"] for row in model["images"]] == ["large", "odd"]
    for row in model["images"]:
        image = images.read_image(workspace / "pictures" / f"{row['name']}.png")
        stored = workspace / "report" / "reconstructions" / "run" / f"{row['name']}.tfq"
        np.testing.assert_allclose(
            row["bpp"], 8 * stored.stat().st_size / image[..., 0].size, rtol=1e-12
        )
        assert 0 < row["estimated_bpp"] < row["bpp"]
        decoded = images.read_image(stored.with_suffix(".png"))
        np.testing.assert_array_equal(decoded[::2, ::2], image[::2, ::2])
    assert report["run"]["command"].endswith("--conventional=jpeg,jpeg2000")
    assert "--model_dir=run" in report["run"]["command"]
    assert "JPEG 4:2:0 at the nearest rate" in done.stdout
    assert "[2/2] odd" in done.stdout


def test_eval_without_models_measures_conventional_codecs(workspace):
    done = run_eval(workspace, "--images=pictures", "--report_dir=jpeg", "--conventional=jpeg")
    assert done.returncode == 0, done.stderr
    report = json.loads((workspace / "jpeg" / "report.json").read_text())
    assert report["models"] == [] and len(report["conventional"]) == 1
    assert (workspace / "jpeg" / "rd.png").stat().st_size > 10_000


def test_explorations_alone_are_listed_without_measuring_anything(workspace):
    """Though --conventional is not empty by default."""
    (workspace / "search").mkdir()
    trial = {"weight": 0.1, "J": 0.5, "quality": 31.25, "start_quality": 31.0}
    asked = {"experiment": {"codec": "fake", "lmbda": 0.01, "distortion": "mse"}}
    kept = json.dumps({"asked": asked, "tried": [trial]})
    (workspace / "search" / "exploration.json").write_text(kept)
    done = run_eval(workspace, "--explorations=search", "--report_dir=listed")
    assert done.returncode == 0, done.stderr
    report = json.loads((workspace / "listed" / "report.json").read_text())
    assert report["conventional"] == [] and report["run"]["number_of_images"] == 0
    assert "**31.250**" in done.stdout and "JPEG" not in done.stdout


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--model_dir=run", "--baseline=nowhere"], "eval.py: 'nowhere' is no folder; expected"),
        (["--model_dir=pictures"], "'pictures' has no exported model; expected a training run"),
        (["--model_dir=run", "--images=nowhere"], "nowhere: no such file or folder"),
        (["--report_dir="], "--report_dir must name a folder of this machine; got ''"),
        (["--report_dir=file://bad"], "a folder of this machine; got 'file://bad'"),
    ],
)
def test_bad_input_is_one_clear_line(workspace, arguments, words):
    done = run_eval(workspace, "--report_dir=bad", *arguments)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("eval.py: ") and words in last
    assert "Traceback" not in done.stderr
    assert not (workspace / "bad").exists() and not (workspace / "file:").exists()
