"""The rectifier's stages, run by `train.py`: from a baseline, explored, and on two devices."""

import dataclasses
import json
import re
import shutil

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from absl import flags
from absl.testing import flagsaver
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tfquant.commands import train
from tfquant.export import writing
from tfquant.export.codec_module import CodecModule
from tfquant.export.manifest_file import Manifest, read_manifest
from tfquant.export.model_file import ExportedModel
from tfquant.training import callbacks, checkpoint, exploration, history, run
from tfquant.training import folder as folders
from tfquant.training.trained import load_run

SMALL = [
    "--codec=factorized", "--N=4", "--M=6", "--crop=64", "--batch_size=2", "--epoch_steps=1",
    "--validation_images=2", "--progress=silent", "--rectifier_width=4", "--rectifier_depth=0",
]  # fmt: skip


SLOW_FIXTURES = {"folder"}
pytestmark = pytest.mark.usefixtures("eagerly")


@pytest.fixture(scope="module")
def export_run():
    """Exports a run. `train.py` does not export here, because that takes longer than these runs."""
    usual = writing.export_run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "export_run", lambda *_: ("nothing", "none"))
        yield usual


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory, make_photograph, eagerly, export_run, training_flags):
    """A folder with pictures and a baseline that was briefly trained on them."""
    folder = tmp_path_factory.mktemp("rectifying")
    (folder / "pictures").mkdir()
    for seed in range(4):
        picture = PIL.Image.fromarray(make_photograph(64, 64, seed))
        picture.save(folder / "pictures" / f"{seed}.png")
    with flagsaver.flagsaver():
        call(folder, "baseline", "--stages=joint", "--joint_steps=2")
    return folder


@pytest.fixture(scope="module", name="with_rectified")
def _with_rectified(folder):
    """The same folder with an additional predictive stage from the baseline."""
    with flagsaver.flagsaver():
        call(folder, "rectified", f"--init_from={folder / 'baseline'}", "--stages=qr_predictive",
             "--qr_predictive_steps=2", "--qr_predictive_schedule=constant")  # fmt: skip
    return folder


def call(folder, name, *arguments):
    """Runs `python train.py ...` in this process."""
    flags.FLAGS.unparse_flags()
    for flag in flags.FLAGS:
        flags.FLAGS[flag].unparse()
    flags.FLAGS(["train.py", f"--model_dir={folder / name}", *SMALL,
                 f"--train_images={folder / 'pictures'}", *arguments])  # fmt: skip
    train.main(["train.py"])


@pytest.fixture(autouse=True)
def keep_flags():
    with flagsaver.flagsaver():
        yield


def unexported(run_dir):
    """Returns the functions of a run's exported model, in this process."""
    stands = load_run(str(run_dir))
    module = CodecModule(stands.codec)
    manifest = Manifest(stands.codec.name, module.fingerprint(), {}, "0")
    return stands.experiment, ExportedModel(manifest, module)


def test_the_predictive_stage_alone_gives_a_model_whose_files_are_the_baselines(
    with_rectified, make_photograph
):
    """SavedModels of a rectified codec are in `tests/export`."""
    experiments, (one, other) = zip(
        *(unexported(with_rectified / name) for name in ("baseline", "rectified"))
    )
    picture = make_photograph(70, 90)
    file = one.compress(picture)
    assert file == other.compress(picture)
    assert np.any(one.decompress(file) != other.decompress(file))
    np.testing.assert_array_equal(other.decompress(file), other.evaluate(picture)["image"])
    assert [e.stages for e in experiments] == [("joint",), ("qr_predictive",)]


def test_the_manifest_of_a_rectified_model_names_its_stage_and_its_start(
    with_rectified, export_run, no_saved_models
):
    path, _ = export_run(str(with_rectified / "rectified"))
    manifest = read_manifest(path)
    assert manifest.experiment["stages"] == ["qr_predictive"]
    assert manifest.init_from["experiment"]["stages"] == ["joint"]
    assert "init_from" not in manifest.init_from


def test_a_run_starts_from_the_other_runs_end_and_logs_its_gain(with_rectified):
    """Checks its history and its event file."""
    before = history.read(str(with_rectified / "baseline"))[-1]
    first, *_, last = history.read(str(with_rectified / "rectified"))
    assert (first["step"], first["error_reduction"]) == (0, 0.0)
    for name in ("R", "D", "psnr"):
        assert first[name] == pytest.approx(before[name], rel=1e-5), name
    assert first["R"] == last["R"]
    events = EventAccumulator(str(with_rectified / "rectified" / "logs")).Reload()
    gain = last["psnr"] - first["psnr"]
    for tag, expected in (("error_reduction", last["error_reduction"]), ("psnr_gain", gain)):
        event = events.Tensors(f"rectifier/{tag}")[-1]
        assert event.step == 2
        assert float(tf.make_ndarray(event.tensor_proto)) == pytest.approx(expected, abs=1e-4)
        assert events.SummaryMetadata(f"rectifier/{tag}").summary_description


def test_the_gain_in_ms_ssim_is_that_of_a_run_trained_for_it(folder):
    """Checks decibels, where larger is better. No step was skipped as non-finite."""
    call(folder, "structural", f"--init_from={folder / 'baseline'}", "--distortion=ms_ssim",
         "--lmbda=10", "--stages=qr_soft,qr_predictive", "--qr_soft_steps=1",
         "--qr_predictive_steps=1", "--qr_predictive_schedule=constant")  # fmt: skip
    records = history.read(str(folder / "structural"))
    events = EventAccumulator(str(folder / "structural" / "logs")).Reload()
    gains = {e.step: float(tf.make_ndarray(e.tensor_proto))
             for e in events.Tensors("rectifier/ms_ssim_gain")}  # fmt: skip
    assert list(gains) == [1, 2]
    for stage in ("qr_soft", "qr_predictive"):
        first, *rest = (r for r in records if r["stage"] == stage)
        for record in rest:
            ms_ssim_db = [-10 * np.log10(r["D"]) for r in (first, record)]
            gain = gains[record["run_step"]]
            assert gain == pytest.approx(ms_ssim_db[1] - ms_ssim_db[0], abs=1e-5) and gain != 0
    skipped = [float(tf.make_ndarray(e.tensor_proto)) for e in events.Tensors("train/skipped")]
    assert skipped == [0, 0]


def test_without_a_width_the_same_steps_train_the_decoder_alone(folder):
    call(folder, "control", f"--init_from={folder / 'baseline'}", "--stages=qr_predictive",
         "--qr_predictive_steps=2", "--qr_predictive_schedule=constant",
         "--rectifier_width=0")  # fmt: skip
    before, after = (
        tf.train.load_checkpoint(checkpoint.newest_readable(str(folder / name)))
        for name in ("baseline", "control")
    )
    weights = [n for n in before.get_variable_to_shape_map() if n.startswith("codec/")]
    assert weights and not any("rectifier" in n for n in after.get_variable_to_shape_map())
    for name in weights:
        same = np.array_equal(before.get_tensor(name), after.get_tensor(name))
        assert same == ("g_s" not in name), name
    assert history.read(str(folder / "control"))[-1]["error_reduction"] == 0.0


EXPLORE = [
    "--explore_qr", "--explore_start=1", "--explore_minimum=0.1", "--explore_patience=1",
    "--stages=qr_predictive", "--qr_predictive_steps=2", "--qr_predictive_schedule=constant",
    "--lmbda=0.01",
]  # fmt: skip


def explored(folder, name):
    return json.loads((folder / name / exploration.STATE).read_text())["tried"]


def test_a_resumed_exploration_equals_an_uninterrupted_one(folder, monkeypatch, capsys):
    """Kills the search in the middle of the second weight. Weights, history and choice are the
    same. Both searches share the first weight, and have no callbacks but the history.
    """
    monkeypatch.setattr(
        callbacks, "for_stage",
        lambda run_dir, validation, _: lambda stage, earlier: [
            history.Recording(run_dir, earlier, validation)
        ],
    )  # fmt: skip
    arguments = [*EXPLORE, f"--init_from={folder / 'baseline'}"]
    epochs, usual = [], run.Checkpointing.on_epoch_end

    def copied(callback, epoch, logs=None):
        epochs.append(epoch)
        if len(epochs) == 3:
            shutil.copytree(folder / "whole", folder / "killed")
            shutil.rmtree(exploration.run_dir(str(folder / "killed"), 0.1))
        usual(callback, epoch, logs)

    with monkeypatch.context() as patch:
        patch.setattr(run.Checkpointing, "on_epoch_end", copied)
        call(folder, "whole", *arguments)
    assert "Best weight: " in capsys.readouterr().out

    def killed(callback, epoch, logs=None):
        usual(callback, epoch, logs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run.Checkpointing, "on_epoch_end", killed)
        with pytest.raises(SystemExit, match="130"):
            call(folder, "killed", *arguments)
    assert [trial["weight"] for trial in explored(folder, "killed")] == [1]
    call(folder, "killed", *arguments)
    assert "Best weight: " in capsys.readouterr().out

    whole, resumed = (explored(folder, name) for name in ("whole", "killed"))
    assert [trial["weight"] for trial in resumed] == [1, 0.1]
    for one, other in zip(resumed, whole):
        assert one.keys() == other.keys()
        for key in ("J", "R", "D", "quality", "start_J", "error_reduction"):
            assert one[key] == pytest.approx(other[key], rel=1e-4, abs=1e-4), key
    assert exploration.best(resumed)["weight"] == exploration.best(whole)["weight"]
    one, other = (
        history.read(exploration.run_dir(str(folder / name), 0.1)) for name in ("killed", "whole")
    )
    assert [r["step"] for r in one] == [0, 1, 2]
    for found, expected in zip(one, other):
        assert found == {k: pytest.approx(v, rel=1e-4, abs=1e-4) if isinstance(v, float) else v
                         for k, v in expected.items()}  # fmt: skip
    assert whole[0]["start_J"] == whole[1]["start_J"]  # one shared baseline
    for name in ("exploration.md", "exploration.png"):
        assert (folder / "killed" / name).stat().st_size > 100


@pytest.fixture(scope="module", name="with_claimed")
def _with_claimed(folder):
    """The same folder, with the baseline's checkpoints as those of a run that trained a
    rectifier.
    """
    baseline = folders.read_experiment(str(folder / "baseline"))
    claim = dataclasses.replace(baseline, stages=("qr_predictive",), init_from="baseline")
    folders.prepare(str(folder / "claimed"), claim)
    shutil.copytree(folder / "baseline" / "checkpoints", folder / "claimed" / "checkpoints")
    return folder


@pytest.mark.parametrize(
    "arguments,message",
    [
        (["--init_from=nowhere"], "nowhere is not a training run: it has no experiment.json"),
        (["--init_from={}/baseline", "--M=8"], "baseline trained another codec: .*this run's is"),
        (
            ["--init_from={}/claimed", "--rectifier_width=0"],
            "trained a rectifier of width 4 and depth 0; this run has none",
        ),
        (
            ["--init_from={}/claimed", "--rectifier_depth=3"],
            "trained a rectifier of width 4 and depth 0; this run has width 4 and depth 3",
        ),
        (
            ["--explore_qr", "--stages=qr_soft", "--init_from={}/baseline"],
            "needs a stage with steps that decodes with the rectifier",
        ),
    ],
)
def test_an_invalid_start_is_rejected_before_the_folder_is_created(
    with_claimed, arguments, message
):
    arguments = [argument.format(with_claimed) for argument in arguments]
    with pytest.raises(SystemExit) as end:
        call(with_claimed, "refused", "--stages=qr_predictive", *arguments)
    assert re.search(message, end.value.code), end.value.code
    assert not (with_claimed / "refused").exists()


STEPS = """
    import json, sys
    import numpy as np, tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    from tfquant.legacy_keras import keras
    from tfquant.training.experiment import Experiment
    from tfquant.training.hosts import Host
    from tfquant.training.trained import build
    from tfquant.training.trainer import Trainer
    experiment = Experiment(
        codec="factorized", codec_options={"N": 4, "M": 6}, batch_size=4, crop=64,
        stages=("qr_soft", "qr_predictive"), qr_soft_schedule="constant", rectifier_width=4,
        rectifier_depth=0, qr_predictive_schedule="constant", qr_weight=1.0)
    rng = np.random.default_rng(0)
    images = np.kron(rng.uniform(0, 255, (12, 8, 8, 3)), np.ones((1, 8, 8, 1))).astype(np.uint8)
    data = tf.data.Dataset.from_tensor_slices(
        {"image": images, "index": np.arange(12)}).batch(4, drop_remainder=True)
    seen = []
    for strategy in (tf.distribute.get_strategy(), Host().strategy()):
        keras.utils.set_random_seed(0)
        with strategy.scope():
            codec = build(experiment, "float32")
            trainer = Trainer(codec, experiment)
        seen.append([])
        for stage in experiment.all_stages():
            # Two devices have a graph in one of the stages. The others take less time without.
            graph = strategy.num_replicas_in_sync > 1 and stage.name == "qr_soft"
            tf.config.run_functions_eagerly(not graph)
            trainer.begin(stage)
            log = keras.callbacks.LambdaCallback(on_train_batch_end=lambda _, logs:
                seen[-1].append([logs[k] for k in ("loss", "feature_l2", "bpp", "mse")]))
            trainer.fit(data, verbose=0, callbacks=[log], epochs=1)
    print(json.dumps([strategy.num_replicas_in_sync, *seen]))
"""


def test_two_devices_train_the_rectifiers_stages_as_one_does(fresh_python):
    devices, one, two = json.loads(fresh_python(STEPS).splitlines()[-1])
    assert devices == 2 and len(one) == len(two) == 6
    np.testing.assert_allclose(two, one, rtol=5e-4)
    assert len({round(row[0], 6) for row in one}) == 6
