"""Models and files of other stacks and versions, read on this one. `make_exports.py` wrote them.

The classic archives are from tfquant 0.1.0 on TensorFlow 2.14, the default ones from the default
stack. Both have files of version 1. The exact archives have files of version 2, which decode
everywhere.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfquant import stack
from tfquant.coding import container, masses, table_file
from tfquant.export.codec_module import CodecModule
from tfquant.export.model_file import PORTABLE, ExportedModel, ModelError, read_manifest
from tfquant.export.rebuilding import rebuilt

ARCHIVES = sorted((Path(__file__).parent / "exports").glob("*.tar.xz"))


@pytest.fixture(scope="module", params=ARCHIVES, ids=lambda path: path.name.split(".")[0])
def archive(request, tmp_path_factory) -> Path:
    """The folder of every archive in turn."""
    folder = tmp_path_factory.mktemp("archive")
    with tarfile.open(request.param) as file:
        file.extractall(folder, filter="data") if hasattr(tarfile, "data_filter") else (
            file.extractall(folder))  # fmt: skip
    return folder


def is_unreadable_mixture(archive) -> bool:
    """Returns true if the archive's decisions have version 2 and this TensorFlow has another
    `erf`.
    """
    has_tables = (archive / "export" / table_file.NAME).exists()
    codec = read_manifest(str(archive / "export")).codec
    return codec == "cheng_anchor" and not has_tables and not masses.has_version_2()


def assert_reads(model, archive):
    """Asserts that the model decodes the archive's file to the archive's picture."""
    picture, decoded = (
        np.asarray(Image.open(archive / name)).astype(int)
        for name in ("picture.png", "decoded.png")
    )
    assert np.array_equal(
        model.decompress(model.compress(picture.astype(np.uint8))),
        model.evaluate(picture.astype(np.uint8))["image"],
    )
    latents = np.load(archive / "latents.npz")
    evaluated = model.evaluate(picture.astype(np.uint8))
    try:
        found = model.decompress((archive / "picture.tfq").read_bytes())
    except container.SymbolsError:
        # Allowed for version 1, if this machine's convolutions differ from the encoder's.
        assert model.manifest.file_version == 1
        assert not np.array_equal(evaluated["y"], latents["y"])
        return
    # Pixels may be rounded differently on another machine.
    assert np.abs(found.astype(int) - decoded).max() <= 1
    np.testing.assert_allclose(evaluated["y_hat"], latents["y_hat"], atol=1e-4)


def test_files_of_every_stack_decode_here(archive):
    """Uses the SavedModel if this stack has the coder's operations, otherwise a rebuilt codec."""
    path = str(archive / "export")
    if stack.coder().kind == stack.OPERATIONS or (archive / "export" / table_file.NAME).exists():
        assert_reads(ExportedModel.load(path), archive)
    elif is_unreadable_mixture(archive):
        with pytest.raises(ModelError, match=r"decisions need TensorFlow 2\.19 or older"):
            ExportedModel.load(path)
    else:
        pytest.skip("an export of tfquant 0.1 is built again, which the next test is about")


def test_models_of_every_stack_are_rebuilt_from_weights_and_tables(archive):
    path = str(archive / "export")
    manifest = read_manifest(path)
    if is_unreadable_mixture(archive):
        pytest.skip("this TensorFlow's erf has other bits than the file was made with")
    try:
        module = rebuilt(path, manifest)
    except ModelError as error:
        # TensorFlow 2.14 computed the channel tables of tfquant 0.1 with its own kernels.
        assert "the recomputed coding tables differ" in str(error)
        assert not (archive / "export" / table_file.NAME).exists()
        assert stack.numbers(stack.tensorflow_version()) != (2, 14)
        return
    assert module.fingerprint() == manifest.fingerprint
    assert_reads(ExportedModel(manifest, module), archive)


def test_coding_tables_are_the_same_on_every_stack(archive):
    """Checks that a run has the same fingerprint, wherever it is exported."""
    path = str(archive / "export")
    manifest = read_manifest(path)
    if not (archive / "export" / table_file.NAME).exists():
        pytest.skip("tfquant 0.1 made channel tables in float32, which differs between versions")
    codec = rebuilt(path, manifest)._codec()
    assert CodecModule(codec).fingerprint() == manifest.fingerprint


def test_damaged_weights_are_named(archive):
    path = archive / "export"
    data = path / "variables" / "variables.data-00000-of-00001"
    whole, manifest = data.read_bytes(), read_manifest(str(path))
    try:
        data.write_bytes(whole[:100])
        with pytest.raises(ModelError, match="cannot rebuild the model"):
            rebuilt(str(path), manifest)
    finally:
        data.write_bytes(whole)


def test_a_damaged_file_of_tables_is_named(archive, tmp_path):
    path = archive / "export"
    tables = path / table_file.NAME
    if not tables.exists():
        pytest.skip("an export of tfquant 0.1 has no file of tables")
    data, manifest = tables.read_bytes(), read_manifest(str(path))
    try:
        for damaged in (data[:100], b"", data[:-40] + bytes(40)):
            tables.write_bytes(damaged)
            with pytest.raises(ModelError, match=r"tables\.npz is damaged"):
                rebuilt(str(path), manifest)
    finally:
        tables.write_bytes(data)


PORTABLE_ROUND_TRIP = """
    import json, sys
    import numpy as np
    from PIL import Image
    from tfquant import models
    from tfquant import stack
    from tfquant.export.model_file import ExportedModel
    from tfquant.export.codec_module import CodecModule
    from tfquant.export.writing import export_codec
    from tfquant.training.experiment import Experiment

    assert stack.coder().kind == stack.PORTABLE
    folder = sys.argv[1]
    model = ExportedModel.load(folder + "/export")
    picture = np.asarray(Image.open(folder + "/picture.png"))
    data = model.compress(picture)
    same = bool((model.decompress(data) == model.evaluate(picture)["image"]).all())
    options = model.experiment["codec_options"]
    codec = model._functions._codec()
    try:
        CodecModule(codec).signatures()
        said = ""
    except ImportError as error:
        said = str(error)
    export_codec(codec, Experiment(codec=model.codec, codec_options=options), folder + "/again")
    again = ExportedModel.load(folder + "/again").decompress(data)
    print(json.dumps([data.hex(), same, said, bool((again == model.decompress(data)).all())]))
"""


def test_the_portable_coder_makes_the_same_files_and_exports_without_a_graphs_coder(
    archive, fresh_python
):
    path = str(archive / "export")
    if is_unreadable_mixture(archive):
        pytest.skip("this TensorFlow's erf has other bits than the file was made with")
    if not (archive / "export" / table_file.NAME).exists():
        pytest.skip("the archives of the default stack suffice")
    output = fresh_python(PORTABLE_ROUND_TRIP, str(archive), TFQUANT_CODER="portable")
    data, same, said, same_again = json.loads(output.splitlines()[-1])
    assert same and same_again
    assert "needs the coder's operations" in said and "\n" not in said
    picture = np.asarray(Image.open(archive / "picture.png"))
    assert bytes.fromhex(data) == ExportedModel.load(path).compress(picture)
    assert read_manifest(str(archive / "again")).flavour == PORTABLE
    # With the operations, such an export is rebuilt too.
    again = ExportedModel.load(str(archive / "again"))
    assert again.compress(picture).hex() == data
