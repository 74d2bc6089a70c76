"""Exported models: rejected files, and the choice of a run's checkpoint."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tfquant import exact, models
from tfquant.coding import container
from tfquant.export import manifest_file, model_file, writing
from tfquant.export.codec_module import CodecModule
from tfquant.export.writing import export_codec, export_run
from tfquant.legacy_keras import keras
from tfquant.training import folder, history, trained
from tfquant.training.checkpoint import RunCheckpoint
from tfquant.training.experiment import Experiment
from tfquant.training.trainer import Trainer

EXPERIMENT = Experiment(codec="factorized", codec_options={"N": 4, "M": 6}, precision="bfloat16")

SLOW_FIXTURES = {"module", "export"}


@pytest.fixture(scope="module", name="module")
def _module():
    return CodecModule(models.build("factorized", N=4, M=6))


@pytest.fixture(scope="module", name="stopped_run")
def _stopped_run(tmp_path_factory):
    """A run that was interrupted after two checkpoints: its folder, and the weights at each."""
    keras.utils.set_random_seed(0)
    directory, weights = tmp_path_factory.mktemp("stopped") / "run", {}
    folder.prepare(str(directory), EXPERIMENT)
    trainer = Trainer(models.build("factorized", "bfloat16", N=4, M=6), EXPERIMENT)
    trainer.begin(EXPERIMENT.all_stages()[0])
    checkpoint = RunCheckpoint(str(directory), trainer)
    for number in (10, 20):
        trainer.codec.set_weights([w + 0.01 for w in trainer.codec.get_weights()])
        checkpoint.save(0, number)
        weights[number] = trainer.codec.get_weights()
    return directory, weights


@pytest.fixture(name="run")
def _run(stopped_run, tmp_path):
    """A copy of that run's folder, to be exported or damaged, and the weights."""
    directory, weights = stopped_run
    return shutil.copytree(directory, tmp_path / "run"), weights


def exported(directory, path=None):
    """Returns the result of `export_run`, and the weights of the codec that it built."""
    built = []

    build_for_files = models.build_for_files

    def build(name, precision, **options):
        assert (name, precision, options) == ("factorized", "float32", {"N": 4, "M": 6})
        built.append(build_for_files(name, precision, **options))
        return built[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "build_for_files", build)
        return *export_run(str(directory), path), built[-1].get_weights()


def assert_same(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b):
        np.testing.assert_array_equal(x, y)


def test_symbols_that_differ_from_the_encoders_give_no_picture(module, make_photograph):
    picture = make_photograph(20, 30)
    coded = module.encode(picture)
    crc = coded["symbols_crc"]
    assert module.decode(coded["streams"], 20, 30, crc)["image"].shape == (20, 30, 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="symbols differ from"):
        module.decode(coded["streams"], 20, 30, crc ^ 1)
    with pytest.raises(tf.errors.InvalidArgumentError, match="symbols differ from"):
        module.decode(coded["streams"], 2000, 30, crc)


def before(op):
    """Returns the names of all operations that `op` depends on, including itself."""
    waiting, names = [op], set()
    while waiting:
        found = waiting.pop()
        if found.name not in names:
            names.add(found.name)
            waiting += [*(tensor.op for tensor in found.inputs), *found.control_inputs]
    return names


def test_the_synthesis_transform_waits_for_the_checksum(module):
    """Checks that the function with the tiles of `g_s` depends on it, so a forged size is never
    synthesized.
    """
    reading = module.read.get_concrete_function()
    names = before(reading.outputs[0].op)
    assert "symbols_crc" in names and any(name.startswith("Assert") for name in names)
    graph = module.decode.get_concrete_function().graph
    operations = graph.get_operations()
    assert not [op for op in operations if op.type.startswith("Conv2D")]
    reads, synthesizes = (op for op in operations if "PartitionedCall" in op.type)
    assert "read" in reads.get_attr("f").name and "synthesize" in synthesizes.get_attr("f").name
    assert reads.name in before(synthesizes)


@pytest.mark.parametrize("flavour", ["", "stock"])
def test_an_export_contains_no_gradients(export, flavour):
    """Checks the shared model, whose codec has GDN and lower bounds with custom gradients."""
    data = (export / flavour / "saved_model.pb").read_bytes()
    saved = saved_model_pb2.SavedModel.FromString(data)
    library = saved.meta_graphs[0].graph_def.library
    assert len(library.function) > 10 and not library.registered_gradients
    assert not [f for f in library.function if "grad" in f.signature.name]


@pytest.mark.slow
def test_an_interrupted_run_is_exported_from_its_newest_checkpoint(run, make_photograph):
    directory, weights = run
    records = [{"stage": "joint", "run_step": step, "psnr": step / 2} for step in (10, 20)]
    folder.write_json(str(directory / history.FILE), records)
    path, name, found = exported(directory)
    assert (path, name) == (str(directory / "export"), "ckpt-20")
    assert_same(found, weights[20])
    manifest = json.loads((directory / "export" / "tfquant.json").read_text())
    went_through = dataclasses.replace(EXPERIMENT, stages=("joint",))
    assert manifest["experiment"] == json.loads(went_through.to_json())
    assert manifest["metrics"] == records[1]

    model, picture = model_file.ExportedModel.load(path), make_photograph(20, 30)
    data = model.compress(picture)
    np.testing.assert_array_equal(model.decompress(data), model.evaluate(picture)["image"])
    bitstream = container.Bitstream.from_bytes(data)
    for forged in ({"height": 2000}, {"symbols_crc": bitstream.symbols_crc ^ 1}):
        forgery = dataclasses.replace(bitstream, **forged).to_bytes()
        with pytest.raises(container.SymbolsError, match="^cannot be decoded: the decoded symbols"):
            model.decompress(forgery)


def test_a_truncated_checkpoint_is_named_and_the_previous_one_is_exported(
    run, caplog, no_saved_models
):
    directory, weights = run
    newest = directory / "checkpoints" / "ckpt-20.data-00000-of-00001"
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    path, name, found = exported(directory, str(directory.parent / "elsewhere"))
    assert (path, name) == (str(directory.parent / "elsewhere"), "ckpt-10")
    assert_same(found, weights[10])
    assert "ckpt-20 is corrupt" in caplog.text
    assert not (directory / "export").exists()


@pytest.mark.parametrize(
    ("stages", "recorded"),
    [(("joint",), True), (("joint", "post"), True), (("joint", "qr_soft"), True),
     (("joint", "post", "qr_soft"), False), (("joint", "post", "qr_soft", "qr_predictive"), True)],
)  # fmt: skip
def test_the_manifest_has_the_metrics_only_if_the_model_has_the_bound_of_their_stage(
    tmp_path, monkeypatch, stages, recorded
):
    experiment = Experiment(
        codec="ms_hyper", codec_options={"N": 4, "M": 6}, stages=stages, rectifier_width=4,
        rectifier_depth=0,
    )  # fmt: skip
    folder.prepare(str(tmp_path), experiment)
    trainer = Trainer(trained.build(experiment, "float32"), experiment)
    for stage in experiment.all_stages():
        trainer.begin(stage)
    RunCheckpoint(str(tmp_path), trainer).save(len(stages) - 1, 10)
    record = {"run_step": 10, "R": 0.5}
    folder.write_json(str(tmp_path / history.FILE), [record])
    found = []
    monkeypatch.setattr(writing, "export_codec", lambda *arguments: found.append(arguments[3]))
    export_run(str(tmp_path), version=1)
    assert found == [record if recorded else None]


def test_an_exported_model_is_replaced_but_nothing_else(run, no_saved_models):
    directory, _ = run
    (directory / "export").mkdir()
    kept = directory / "export" / "thesis.tex"
    kept.write_text("years of work")
    with pytest.raises(
        ValueError, match="overwrite .*export: it exists and is not an exported model"
    ):
        exported(directory)
    assert kept.read_text() == "years of work"
    (directory / "export" / "tfquant.json").write_text("{}")
    exported(directory)
    assert not kept.exists()
    assert manifest_file.read_manifest(str(directory / "export")).codec == "factorized"


def test_networks_that_cannot_be_exact_are_named(run, monkeypatch, caplog):
    """Replaces the writing of the files, which does not matter here."""
    codec = models.build("scale_hyperprior", N=4, M=6)
    assert exact.real_weights(codec) == []
    plain = keras.layers.Conv2DTranspose(6, 5, 4, padding="same")
    codec.h_s = keras.Sequential([plain], name="h_s")
    codec(tf.zeros([1, 64, 64, 3]))
    names = [plain.kernel.name, plain.bias.name]
    assert exact.real_weights(codec) == names

    def full_disk(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", full_disk)
    path = str(run[0] / "plain")
    with pytest.raises(OSError, match="No space left"), caplog.at_level("WARNING", "absl"):
        export_codec(codec, EXPERIMENT, path)
    assert f"{path}: its files decode only where the arithmetic is that of the" in caplog.text
    assert ", ".join(names) in caplog.text


def test_a_failed_export_keeps_the_old_one(run, monkeypatch):
    directory, _ = run
    (directory / "export").mkdir()
    (directory / "export" / "tfquant.json").write_text("{}")
    saved = []

    def full_disk(module, path, *_, **__):
        tf.io.gfile.makedirs(path)
        saved.append(path)
        if path.endswith("stock"):
            raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", full_disk)
    with pytest.raises(OSError, match="run/export.partial/stock: No space left"):
        exported(directory)
    assert len(saved) == 2
    assert not (directory / "export.partial").exists()
    assert (directory / "export" / "tfquant.json").read_text() == "{}"


def test_a_folder_without_run_or_checkpoint_is_rejected(run, tmp_path):
    directory, _ = run
    with pytest.raises(ValueError, match="is not a training run: it has no experiment.json"):
        export_run(str(tmp_path))
    for path in (directory / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="run has no checkpoint yet"):
        export_run(str(directory))


def test_weights_of_another_codec_are_refused(run, monkeypatch):
    directory, _ = run
    other = models.build("ms_hyper", N=4, M=6)
    monkeypatch.setattr(models, "build_for_files", lambda *_, **__: other)
    with pytest.raises(ValueError, match="ckpt-20 does not fit the codec "):
        export_run(str(directory))
