"""One run under different conditions: killed and resumed, on two devices, compiled by XLA."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from tfquant.data.images import write_image
from tfquant.training import history
from tfquant.training.checkpoint import newest_readable

# 2 joint and 3 post steps: checkpoint 1 is in the joint stage, 3 in the post stage, and 5 the last.
FLAGS = [
    "--codec=factorized", "--N=8", "--M=12", "--plan=sua_ste", "--crop=64", "--batch_size=4",
    "--joint_steps=2", "--post_steps=3", "--epoch_steps=1", "--validation_images=4",
    "--progress=silent",
]  # fmt: skip

pytestmark = pytest.mark.slow

# `train.py` with eager steps, because tracing takes longer than the steps.
TRAIN = """
import tensorflow as tf
from tfquant.commands.program import run_program
tf.config.run_functions_eagerly(True)
run_program("train")
"""


def start(folder):
    """Starts `python train.py` in its own process, with reproducible arithmetic."""
    pictures = f"--train_images={folder.parent / 'pictures'}"
    return subprocess.Popen(
        [sys.executable, "-c", TRAIN, f"--model_dir={folder}", pictures, *FLAGS],
        env={**os.environ, "TF_DETERMINISTIC_OPS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kill_at(checkpoint, folder, process):
    """Kills a run as soon as it has a checkpoint. Returns its output."""
    while not (folder / "checkpoints" / f"ckpt-{checkpoint}.index").exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert not (folder / "export").exists()
    return process.communicate()[0]


def state(folder):
    """Returns every tensor of the newest checkpoint by name: weights, optimizer, counters."""
    reader = tf.train.load_checkpoint(newest_readable(str(folder)))
    names = reader.get_variable_to_shape_map()
    return {n: reader.get_tensor(n) for n in names if n.endswith("VARIABLE_VALUE")}


def test_a_run_killed_in_either_stage_matches_an_uninterrupted_one_bit_for_bit(
    tmp_path, make_photograph
):
    """Compares weights, optimizer, counters and history after the last step is saved."""
    (tmp_path / "pictures").mkdir()
    for seed in range(5):
        write_image(tmp_path / "pictures" / f"{seed}.png", make_photograph(80, 96, seed))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    kill_at(5, whole, start(whole))
    assert "Resumed from" not in kill_at(1, killed, start(killed))
    for checkpoint in (3, 5):
        assert "Resumed from" in kill_at(checkpoint, killed, start(killed))

    expected, found = state(whole), state(killed)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert history.read(str(killed)) == history.read(str(whole))


# Common to both scripts below: pictures, an experiment, and a comparison of two trainings.
SCRIPT = """
    import sys
    import numpy as np
    import tensorflow as tf
    from tfquant import models
    from tfquant.legacy_keras import keras
    from tfquant.training.experiment import Experiment
    from tfquant.training.trainer import Trainer

    rng = np.random.default_rng(0)
    fields = rng.uniform(0, 255, (12, 4, 4, 3))
    IMAGES = np.kron(fields, np.ones((1, 16, 16, 1))) + rng.normal(0, 9, (12, 64, 64, 3))
    IMAGES = IMAGES.clip(0, 255).astype(np.float32)
    WIDTHS = {"N": 4, "M": 6}

    def experiment(plan, **changes):
        return Experiment(
            codec_options=WIDTHS, plan=plan, batch_size=4, crop=64, joint_steps=3,
            joint_learning_rate=1e-4, joint_schedule="constant", **changes,
        )

    def moved(codec, start):
        return [w - s for w, s in zip(codec.get_weights(), start)]

    def assert_same_way(a, b, names, tolerance):
        '''Both trainings moved every weight the same way: where a gradient is nearly zero, Adam
        makes whole steps of rounding errors.'''
        for x, y, name in zip(a, b, names):
            distance = np.linalg.norm(x - y) / max(np.linalg.norm(x), 1e-9)
            assert distance < tolerance, (name, distance)
"""


def test_the_whole_step_compiles_with_xla_and_gives_what_the_uncompiled_one_gives(fresh_python):
    """Checks that XLA compiles the whole step.

    With `jit_compile=True`, everything compiles or the call fails, so no host operation can be
    hidden. A difference in noise would change the fourth digit of the rate. One codec has means and
    a hyper-latent. `tests/quantization/test_surrogates.py` compiles every surrogate.
    """
    fresh_python(
        SCRIPT
        + """
    keras.utils.set_random_seed(0)
    codecs = {n: models.build(n, **WIDTHS) for n in ("factorized", "ms_hyper_zero")}
    starts = {name: codec.get_weights() for name, codec in codecs.items()}
    for argument in sys.argv[1:]:
        name, plan = argument.split(":")
        codec, start = codecs[name], starts[name]
        losses, moves = [], []
        for jit_compile in (False, True):
            codec.set_weights(start)
            trainer = Trainer(codec, experiment(plan, codec=name))
            trainer.begin(trainer.experiment.all_stages()[0], jit_compile)
            step = trainer.train_step
            if jit_compile:
                step = tf.function(step, jit_compile=True)
            losses.append([])
            for i in range(2):
                trainer.reset_metrics()
                image, index = IMAGES[4 * i : 4 * i + 4], np.arange(4 * i, 4 * i + 4)
                logs = step({"image": tf.constant(image), "index": tf.constant(index)})
                terms = [*(f"bpp_{model.name}" for model in codec.entropy_models), "mse"]
                losses[-1].append([float(logs[term]) for term in terms])
            assert trainer.optimizer.iterations.numpy() == 2
            moves.append(moved(codec, start))
        np.testing.assert_allclose(losses[1], losses[0], rtol=3e-5, err_msg=argument)
        assert_same_way(*moves, [w.name for w in codec.weights], 0.01)
        """,
        "ms_hyper_zero:sua_pge",
        "factorized:sga",
        # Reduces compilation time; the speed of the code does not matter here.
        XLA_FLAGS="--xla_backend_optimization_level=0",
    )


def test_two_devices_train_as_one_does_at_the_same_global_batch(fresh_python):
    """Compares losses, weights and medians. A NaN on one device skips the step on both.

    Runs eagerly, because tracing takes longer. `test_rectifying_runs` tests two devices in graphs.
    """
    fresh_python(
        SCRIPT
        + """
    tf.config.run_functions_eagerly(True)
    devices = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)
    import tempfile
    from tfquant.training import run
    from tfquant.training.checkpoint import RunCheckpoint
    from tfquant.training.hosts import Host

    mirrored = Host().strategy()
    assert isinstance(mirrored, tf.distribute.MirroredStrategy)
    assert mirrored.num_replicas_in_sync == 2
    IMAGES[7] = np.nan  # in the second batch, the second device's share

    def batches(first):
        data = {"image": IMAGES, "index": np.arange(12)}
        return tf.data.Dataset.from_tensor_slices(data).repeat().batch(4, drop_remainder=True)

    losses, moves, weights = [], [], None
    for strategy in (tf.distribute.get_strategy(), mirrored):
        with strategy.scope():
            codec = models.build("factorized", **WIDTHS)
            trainer = Trainer(codec, experiment("sua_ste", codec="factorized", stages=("joint",)))
        weights = weights or codec.get_weights()
        codec.set_weights(weights)
        seen = []

        class Seen(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                seen.append([logs["loss"], logs["val_loss"], logs["val_surrogate_loss"]])

        with tempfile.TemporaryDirectory() as folder:
            run.run_stages(
                RunCheckpoint(folder, trainer), training_data=batches,
                validation_data=batches(0).take(1), epoch_steps=1, verbose=0,
                callbacks=lambda *_: [Seen()],
            )
            assert len(tf.io.gfile.glob(folder + "/checkpoints/*.index")) == 3
        assert trainer.stage_step.numpy() == 3
        assert trainer.skipped.numpy() == 1
        assert trainer.optimizer.iterations.numpy() == 2
        losses.append(seen)
        moves.append(moved(codec, weights))
    np.testing.assert_allclose(losses[1], losses[0], rtol=3e-5)
    assert len({row[0] for row in losses[0]}) == 3  # 0 stands for the skipped step
    # GDN's small elements start with slopes near zero, where Adam follows rounding errors.
    names = [w.name for w in codec.weights]
    (medians,) = (move for move, name in zip(moves[0], names) if "medians" in name)
    assert np.all(medians != 0)
    kept = [i for i, name in enumerate(names) if "gamma_root" not in name]
    assert_same_way(*([m[i] for i in kept] for m in moves), [names[i] for i in kept], 0.01)

    with mirrored.scope():
        try:
            Trainer(codec, Experiment(batch_size=3))
        except ValueError as error:
            assert "batch_size must be a multiple of the 2 devices; got 3" in str(error)
        else:
            raise AssertionError("a batch of 3 on 2 devices")
        """
    )
