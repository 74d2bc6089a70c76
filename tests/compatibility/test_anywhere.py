"""Tests files of version 2 under conditions that change the last bits of float arithmetic.

Each condition runs in its own process. The process decodes existing files to the same bytes of
`y_hat`, and makes files that this process decodes. `benchmarks/anywhere.py` does the same with more
files and all pairs of conditions.
"""

from __future__ import annotations

import functools
import json
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfquant.coding.container import Bitstream
from tfquant.export import rebuilding
from tfquant.export.codec_module import EagerModule
from tfquant.export.manifest_file import read_manifest
from tfquant.export.model_file import ExportedModel

ARCHIVES = sorted((Path(__file__).parent / "exports").glob("exact-*.tar.xz"))
SLOW_FIXTURES = {"models", "done_under"}

# Name -> (environment, archive of which the SavedModel is used). The other models run eagerly,
# which takes less time. By default, oneDNN is on where the processor has AVX-512. oneDNN
# rewrites graphs, so one condition with oneDNN uses a SavedModel. The portable coder cannot use
# one.
CONDITIONS = {
    "oneDNN off": ({"TF_ENABLE_ONEDNN_OPTS": "0"}, ""),
    "SSE4.1, one thread, portable coder": (
        {"TF_ENABLE_ONEDNN_OPTS": "1", "ONEDNN_MAX_CPU_ISA": "SSE41",
         "TF_NUM_INTRAOP_THREADS": "1", "OMP_NUM_THREADS": "1", "TFQUANT_CODER": "portable"}, "",
    ),
    "AVX2, eight threads": (
        {"TF_ENABLE_ONEDNN_OPTS": "1", "ONEDNN_MAX_CPU_ISA": "AVX2",
         "TF_NUM_INTRAOP_THREADS": "8", "OMP_NUM_THREADS": "8"}, "exact-charm",
    ),
}  # fmt: skip
ROWS = 33  # of the pictures that are compressed

IN_ANOTHER_PROCESS = """
    import json, sys, zlib
    from pathlib import Path
    import numpy as np
    from PIL import Image
    from tests.compatibility.test_anywhere import ROWS, eager, y_hat_of
    from tfquant.export.model_file import ExportedModel

    saved, *folders = sys.argv[1:]
    done = {}
    for folder in map(Path, folders):
        path = str(folder / "export")
        model = ExportedModel.load(path) if folder.name == saved else eager(path)
        picture = np.asarray(Image.open(folder / "picture.png"))
        y_hat = y_hat_of(model, (folder / "picture.tfq").read_bytes())
        made = model.compress(picture[:ROWS]).hex()
        compared = folder.name == "exact-charm" != saved
        y = model.evaluate(picture)["y"] if compared else b""
        done[folder.name] = [zlib.crc32(y_hat), made, zlib.crc32(y)]
    print(json.dumps(done))
"""


def eager(path: str) -> ExportedModel:
    """Loads an exported model without its SavedModel."""
    manifest = read_manifest(path)
    module = rebuilding.rebuilt(path, manifest)
    return ExportedModel(manifest, EagerModule(module.codec, module.tables))


def y_hat_of(model: ExportedModel, data: bytes) -> np.ndarray:
    """Decodes a file without the synthesis transform."""
    file = Bitstream.from_bytes(data)
    sides = map(tf.constant, (file.height, file.width))
    crc = tf.constant(file.symbols_crc, tf.int64)
    return model._functions.read(tf.constant(file.streams), *sides, crc).numpy()


@pytest.fixture(scope="module", name="folders")
def _folders(tmp_path_factory) -> list:
    """Unpacks the archives."""
    found = []
    for archive in ARCHIVES:
        folder = tmp_path_factory.mktemp("exact") / archive.name.split(".")[0]
        with tarfile.open(archive) as file:
            file.extractall(folder, filter="data") if hasattr(tarfile, "data_filter") else (
                file.extractall(folder))  # fmt: skip
        found.append(folder)
    assert len(found) == 4
    return found


@pytest.fixture(scope="module", name="models")
def _models(folders) -> dict:
    return {folder.name: eager(str(folder / "export")) for folder in folders}


@pytest.fixture(scope="module", name="done_under")
def _done_under(folders, fresh_python):
    """`done_under(condition)`: the results of its process, which runs once."""

    @functools.cache
    def done_under(condition) -> dict:
        environment, saved = CONDITIONS[condition]
        output = fresh_python(IN_ANOTHER_PROCESS, saved, *map(str, folders), **environment)
        return json.loads(output.splitlines()[-1])

    return done_under


@pytest.mark.parametrize("condition", CONDITIONS)
def test_existing_files_decode_to_the_same_bytes(condition, folders, done_under):
    for folder in folders:
        assert Bitstream.from_bytes((folder / "picture.tfq").read_bytes()).version == 2
        expected = np.load(folder / "latents.npz")["y_hat"]
        found, _, _ = done_under(condition)[folder.name]
        assert found == zlib.crc32(expected.tobytes())


@pytest.mark.parametrize("condition", CONDITIONS)
def test_files_made_there_decode_here(condition, models, done_under):
    for name, (_, made, _) in done_under(condition).items():
        assert models[name].decompress(bytes.fromhex(made)).shape == (ROWS, 96, 3)


def test_conditions_change_last_bits(done_under):
    """Tests that the latents before quantization differ; otherwise the tests above could not
    fail. Both conditions run eagerly.
    """
    found = {
        done_under(condition)["exact-charm"][2]
        for condition in ("oneDNN off", "SSE4.1, one thread, portable coder")
    }
    assert len(found) == 2


def test_existing_files_decode_here_to_the_same_bytes(folders, models):
    for folder in folders:
        y_hat = y_hat_of(models[folder.name], (folder / "picture.tfq").read_bytes())
        np.testing.assert_array_equal(y_hat, np.load(folder / "latents.npz")["y_hat"])
