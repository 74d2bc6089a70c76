"""Models and files of other stacks and versions, read on this one. `make_exports.py` wrote them.

The classic archives are from tfquant 0.1.0 on TensorFlow 2.14, the default ones from the default
stack. Both have files of version 1. The exact archives have files of version 2, which decode
everywhere.
"""

from __future__ import annotations

import functools
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorflow.core.protobuf import saved_model_pb2

from tfquant import stack
from tfquant.coding import container, masses, table_file
from tfquant.export.codec_module import CodecModule
from tfquant.export.manifest_file import PORTABLE, ModelError, read_manifest
from tfquant.export.model_file import ExportedModel
from tfquant.export.rebuilding import rebuilt

FOLDER = Path(__file__).parent / "exports"
ARCHIVES = sorted(FOLDER.glob("*.tar.xz"))
# A SavedModel takes seconds to load. Those of these codecs have every operation of the others.
LOADED = [p for p in ARCHIVES if p.name.endswith(("-charm.tar.xz", "-cheng_anchor.tar.xz"))]
EXPORTED_AGAIN = "default-ms_hyper_zero.tar.xz"
# One for each version of the files. Rebuilding takes seconds, and other codecs read the same files.
DAMAGED = [FOLDER / f"{name}-ms_hyper_zero.tar.xz" for name in ("default", "exact")]
SLOW_FIXTURES = {"loaded", "portable"}


def name_of(path: Path) -> str:
    """Returns an archive's name for the name of a test."""
    return path.name.split(".")[0]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """`unpacked(path)`: the folder with an archive's content."""

    @functools.lru_cache(None)
    def folder_of(path):
        folder = tmp_path_factory.mktemp("archive")
        with tarfile.open(path) as file:
            file.extractall(folder, filter="data") if hasattr(tarfile, "data_filter") else (
                file.extractall(folder))  # fmt: skip
        return folder

    return folder_of


@pytest.fixture(scope="module")
def loaded():
    """`loaded(folder)`: the exported model in an archive's folder, loaded once."""
    return functools.lru_cache(maxsize=None)(lambda folder: ExportedModel.load(folder / "export"))


@pytest.fixture(scope="module")
def rebuilt_once():
    """`rebuilt_once(folder)`: the module rebuilt from an archive's folder, or the ModelError."""

    @functools.cache
    def rebuilt_once(folder):
        path = str(folder / "export")
        try:
            return rebuilt(path, read_manifest(path))
        except ModelError as error:
            return error

    return rebuilt_once


@pytest.fixture(scope="module", params=ARCHIVES, ids=name_of)
def archive(request, unpacked) -> Path:
    """The folder of every archive in turn."""
    return unpacked(request.param)


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
        np.asarray(Image.open(archive / name)) for name in ("picture.png", "decoded.png")
    )
    top = picture[:32]
    assert np.array_equal(model.decompress(model.compress(top)), model.evaluate(top)["image"])
    evaluated = model.evaluate(picture)
    latents = np.load(archive / "latents.npz")
    try:
        found = model.decompress((archive / "picture.tfq").read_bytes())
    except container.SymbolsError:
        # Allowed for version 1, if this machine's convolutions differ from the encoder's.
        assert model.manifest.file_version == 1
        assert not np.array_equal(evaluated["y"], latents["y"])
        return
    # Pixels may be rounded differently on another machine.
    assert np.abs(found.astype(int) - decoded.astype(int)).max() <= 1
    np.testing.assert_allclose(evaluated["y_hat"], latents["y_hat"], atol=1e-4)


@pytest.mark.parametrize("archive", LOADED, indirect=True, ids=name_of)
def test_files_of_every_stack_decode_here(archive, loaded):
    """Uses the SavedModel if this stack has the coder's operations, otherwise a rebuilt codec."""
    path = str(archive / "export")
    if stack.coder().kind == stack.OPERATIONS or (archive / "export" / table_file.NAME).exists():
        assert_reads(loaded(archive), archive)
    elif is_unreadable_mixture(archive):
        with pytest.raises(ModelError, match=r"decisions need TensorFlow 2\.19 or older"):
            ExportedModel.load(path)
    else:
        pytest.skip("an export of tfquant 0.1 is built again, which the next test is about")


@pytest.mark.parametrize("stack_name", sorted({name_of(p).split("-")[0] for p in ARCHIVES}))
def test_the_loaded_models_have_every_operation_of_their_stack(stack_name, unpacked, nodes_of):
    def operations(path):
        data = (unpacked(path) / "export" / "saved_model.pb").read_bytes()
        graph = saved_model_pb2.SavedModel.FromString(data).meta_graphs[0].graph_def
        return {node.op for node in nodes_of(graph)} - {
            f.signature.name for f in graph.library.function
        }

    paths = [path for path in ARCHIVES if name_of(path).startswith(f"{stack_name}-")]
    loaded = set().union(*(operations(path) for path in paths if path in LOADED))
    others = [path for path in paths if path not in LOADED]
    assert others and "While" in loaded
    assert any(op.endswith("EntropyDecodeIndex") for op in loaded), sorted(loaded)
    for path in others:
        assert operations(path) <= loaded, name_of(path)


@pytest.mark.slow
def test_models_of_every_stack_are_rebuilt_from_weights_and_tables(archive, rebuilt_once):
    if is_unreadable_mixture(archive):
        pytest.skip("this TensorFlow's erf has other bits than the file was made with")
    manifest, module = read_manifest(str(archive / "export")), rebuilt_once(archive)
    if isinstance(module, ModelError):
        # TensorFlow's kernels computed the channel tables of tfquant 0.1. Their last bits depend on
        # the version and on the processor.
        assert "the recomputed coding tables differ" in str(module)
        assert not (archive / "export" / table_file.NAME).exists()
        return
    assert module.fingerprint() == manifest.fingerprint
    assert_reads(ExportedModel(manifest, module), archive)


def test_coding_tables_are_the_same_on_every_stack(archive, rebuilt_once):
    """Checks that a run has the same fingerprint, wherever it is exported.

    The codec has its weights from the archive, and makes its tables again.
    """
    if not (archive / "export" / table_file.NAME).exists():
        pytest.skip("tfquant 0.1 made channel tables in float32, which differs between versions")
    module = rebuilt_once(archive)
    if isinstance(module, ModelError):
        raise module
    made_again = CodecModule(module.codec)
    assert made_again.fingerprint() == read_manifest(str(archive / "export")).fingerprint


@pytest.mark.parametrize("archive", DAMAGED, indirect=True, ids=name_of)
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


@pytest.mark.slow
@pytest.mark.parametrize("archive", DAMAGED, indirect=True, ids=name_of)
def test_a_damaged_file_of_tables_is_named(archive):
    path = archive / "export"
    tables = path / table_file.NAME
    data, manifest = tables.read_bytes(), read_manifest(str(path))
    try:
        for damaged in (data[:100], b"", data[:-40] + bytes(40)):
            tables.write_bytes(damaged)
            with pytest.raises(ModelError, match=r"tables\.npz is corrupt"):
                rebuilt(str(path), manifest)
    finally:
        tables.write_bytes(data)


# The paths of archives; the first one is also exported again, with an empty folder in place of the
# stock flavour.
PORTABLE_ROUND_TRIPS = """
    import json, sys
    import numpy as np
    import tensorflow as tf
    from PIL import Image
    from tfquant import stack
    from tfquant.export.codec_module import CodecModule
    from tfquant.export.model_file import ExportedModel
    from tfquant.export.writing import export_codec
    from tfquant.training.experiment import Experiment

    assert stack.coder().kind == stack.PORTABLE
    sys.path.append("tests")
    import quick_exports
    quick_exports.use_small(eagerly=False)
    for folder in sys.argv[1:]:
        model = reader = ExportedModel.load(folder + "/export")
        picture = np.asarray(Image.open(folder + "/picture.png"))
        data = model.compress(picture)
        codec = model._functions._codec()
        try:
            CodecModule(codec).signatures()
            said = ""
        except ImportError as error:
            said = str(error)
        if folder == sys.argv[1]:
            options = model.experiment["codec_options"]
            experiment = Experiment(codec=model.codec, codec_options=options)
            export_codec(codec, experiment, folder + "/again", version=1)
            reader = ExportedModel.load(folder + "/again")
        same = bool((reader.decompress(data) == model.evaluate(picture)["image"]).all())
        print("made", json.dumps([data.hex(), same, said]))
"""


@pytest.fixture(scope="module", name="portable")
def _portable(unpacked, fresh_python):
    """Returns archive's name -> results of a process with the portable coder.

    It has the archives of the default stack. Those of the classic one have no file of tables.
    """
    paths = [path for path in ARCHIVES if path.name.startswith("default-")]
    paths.sort(key=lambda path: path.name != EXPORTED_AGAIN)
    output = fresh_python(
        PORTABLE_ROUND_TRIPS, *(str(unpacked(path)) for path in paths), TFQUANT_CODER="portable"
    )
    made = [line.split(" ", 1)[1] for line in output.splitlines() if line.startswith("made ")]
    assert len(made) == len(paths)
    return {path.name: json.loads(line) for path, line in zip(paths, made)}


@pytest.mark.parametrize("name", [p.name for p in ARCHIVES if p.name.startswith("default-")])
def test_the_portable_coder_makes_the_same_files(name, portable, unpacked, rebuilt_once):
    data, same, said = portable[name]
    assert same
    assert "needs the coder's operations" in said and "\n" not in said
    folder = unpacked(FOLDER / name)
    picture = np.asarray(Image.open(folder / "picture.png"))
    model = ExportedModel(read_manifest(str(folder / "export")), rebuilt_once(folder))
    assert bytes.fromhex(data) == model.compress(picture)


def test_the_portable_coder_exports_without_a_graphs_coder(portable, unpacked):
    """Such an export is rebuilt where the operations are available, too."""
    data, _, _ = portable[EXPORTED_AGAIN]
    folder = unpacked(FOLDER / EXPORTED_AGAIN)
    assert read_manifest(str(folder / "again")).flavour == PORTABLE
    again = ExportedModel.load(str(folder / "again"))
    picture = np.asarray(Image.open(folder / "picture.png"))
    assert again.compress(picture).hex() == data
