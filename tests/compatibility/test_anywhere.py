"""Tests files of version 2 under conditions that change the last bits of float arithmetic.

Each condition runs in its own process. The process decodes existing files to the same bytes of
`y_hat`, and makes files that this process decodes. `benchmarks/anywhere.py` does the same with more
files and all pairs of conditions.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfquant.coding.container import Bitstream
from tfquant.export import rebuilding
from tfquant.export.model_file import ExportedModel, read_manifest

ARCHIVES = sorted((Path(__file__).parent / "exports").glob("exact-*.tar.xz"))
SLOW_FIXTURES = {"models"}

CONDITIONS = {
    "oneDNN off": {"TF_ENABLE_ONEDNN_OPTS": "0"},
    "SSE4.1": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "one thread": {"TF_NUM_INTRAOP_THREADS": "1", "OMP_NUM_THREADS": "1"},
    "eight threads": {"TF_NUM_INTRAOP_THREADS": "8", "OMP_NUM_THREADS": "8"},
    "portable coder": {"TFQUANT_CODER": "portable"},
}

IN_ANOTHER_PROCESS = """
    import json, sys, zlib
    from pathlib import Path
    import numpy as np
    from PIL import Image
    import tensorflow as tf
    from tfquant.coding.container import Bitstream
    from tfquant.export.model_file import ExportedModel

    done = {}
    for folder in map(Path, sys.argv[1:]):
        model = ExportedModel.load(str(folder / "export"))
        picture = np.asarray(Image.open(folder / "picture.png"))
        decoded = model.decompress((folder / "picture.tfq").read_bytes()).tolist()
        made = [model.compress(picture[:rows]).hex() for rows in (64, 33, 1)]
        y = model.evaluate(picture)["y"]
        done[folder.name] = [decoded, made, zlib.crc32(y.tobytes())]
    print(json.dumps(done))
"""


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
    return {folder.name: ExportedModel.load(str(folder / "export")) for folder in folders}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_files_go_both_ways(condition, folders, models, fresh_python):
    output = fresh_python(IN_ANOTHER_PROCESS, *map(str, folders), **CONDITIONS[condition])
    done = json.loads(output.splitlines()[-1])
    for folder in folders:
        decoded, made, _ = done[folder.name]
        data = (folder / "picture.tfq").read_bytes()
        assert Bitstream.from_bytes(data).version == 2
        here = models[folder.name].decompress(data).astype(int)
        # The transform may round a pixel differently. The checksum has verified the symbols.
        assert np.abs(here - decoded).max() <= 1
        for file, rows in zip(made, (64, 33, 1)):
            assert models[folder.name].decompress(bytes.fromhex(file)).shape == (rows, 96, 3)


def test_conditions_change_last_bits(folders, fresh_python):
    """Tests that the latents before quantization differ; otherwise the test above could not
    fail.
    """
    found = set()
    for condition in ("oneDNN off", "AVX2"):
        output = fresh_python(IN_ANOTHER_PROCESS, str(folders[0]), **CONDITIONS[condition])
        found.add(json.loads(output.splitlines()[-1])[folders[0].name][2])
    assert len(found) == 2


def test_the_decoded_means_are_the_archives_bit_for_bit(folders):
    for folder in folders:
        path = str(folder / "export")
        module = rebuilding.rebuilt(path, read_manifest(path))
        file = Bitstream.from_bytes((folder / "picture.tfq").read_bytes())
        sides = map(tf.constant, (file.height, file.width))
        y_hat = module.read(tf.constant(file.streams), *sides, file.symbols_crc)
        np.testing.assert_array_equal(y_hat, np.load(folder / "latents.npz")["y_hat"])
