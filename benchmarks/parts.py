"""Compares the cost of single parts with alternatives, as ratios within one run.

    python benchmarks/parts.py [--only=serial,coder] [--rounds=7]

Every part and its alternative are measured in turns, round by round, and the median is printed.
`bench.py` measures whole steps, pictures and pipelines.
"""

from __future__ import annotations

import argparse
import functools
import os
import subprocess
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import measuring
import numpy as np
import scipy.special
import tensorflow as tf
import worker

from tfquant import models, stack
from tfquant.coding import portable, range_coder
from tfquant.entropy.conditional import ConditionalModel
from tfquant.entropy.distributions import NoisyGaussian
from tfquant.export import stock, writing
from tfquant.export.codec_module import CodecModule
from tfquant.layers import transforms
from tfquant.layers.rectifier import LIGHT_DEPTH, LIGHT_WIDTH
from tfquant.legacy_keras import keras
from tfquant.training.adam import Adam
from tfquant.training.experiment import Experiment

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WIDTHS = {"N": 128, "M": 192}
BATCH = {"batch_size": 8, "crop": 256}


def show(title: str, seconds: dict, reference: str, note=lambda seconds: "") -> None:
    """Prints times, their ratios to that of the reference, and a note."""
    print(f"\n{title}")
    for name, s in seconds.items():
        ratio = s / seconds[reference]
        print(f"  {name:<44} {1e3 * s:10.1f} ms {ratio:8.3f} x  {note(s)}", flush=True)


def training_step(codec: str, precision: str, plan: str):
    """Returns a training step as a function without arguments."""
    settings = {"codec": codec, "precision": precision, "plan": plan, "widths": WIDTHS, **BATCH}
    return worker.step(settings)[0]


def plain_pair(precision: str):
    """Returns a training step of only `g_a` and `g_s` with MSE, with the same widths and batch."""
    keras.mixed_precision.set_global_policy(models.PRECISIONS[precision])
    g_a = transforms.analysis("plain", *WIDTHS.values())
    g_s = transforms.synthesis("plain", *WIDTHS.values())
    x = tf.random.stateless_uniform((BATCH["batch_size"], BATCH["crop"], BATCH["crop"], 3), [0, 0])
    g_s(g_a(x[:1]))
    keras.mixed_precision.set_global_policy("float32")
    optimizer = Adam(1e-4)
    variables = g_a.trainable_variables + g_s.trainable_variables

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(tf.cast(g_s(g_a(x)), tf.float32) - x))
        optimizer.step(loss, tape.gradient(loss, variables), variables)
        return loss

    return lambda: step().numpy()


def compare_transforms(rounds: int) -> None:
    """Compares a training step of ms_hyper with its transforms alone, in both precisions."""
    candidates = {}
    for precision in ("float32", "bfloat16"):
        candidates[f"g_a and g_s alone, {precision}"] = plain_pair(precision)
        candidates[f"ms_hyper step, {precision}"] = training_step("ms_hyper", precision, "sua_ste")
    seconds = measuring.median_seconds(candidates, rounds)
    show("Transforms and the rest", seconds, "ms_hyper step, float32")


def compare_surrogates(rounds: int) -> None:
    """Measures the additional cost of SUA with the expected gradient over additive noise."""
    candidates = {
        f"ms_hyper_zero step, plan {plan}": training_step("ms_hyper_zero", "float32", plan)
        for plan in ("aun", "mix", "sua_ste", "sua_pge")
    }
    seconds = measuring.median_seconds(candidates, rounds)
    show("Surrogates", seconds, "ms_hyper_zero step, plan aun")


def compare_likelihoods(rounds: int) -> None:
    """Compares forward and backward of the Gaussian likelihood on 98,304 elements with TFC's."""
    rng = np.random.default_rng(0)
    v, mu = (tf.constant(rng.normal(0, 2, 98_304).astype(np.float32)) for _ in range(2))
    sigma = tf.constant(np.exp(rng.uniform(-2, 2, 98_304)).astype(np.float32))

    def of(distribution):
        @tf.function
        def run():
            with tf.GradientTape() as tape:
                tape.watch([v, mu, sigma])
                bits = tf.reduce_sum(distribution(loc=mu, scale=sigma).log_prob(v))
            return tape.gradient(bits, [v, mu, sigma])

        return lambda: run()[0].numpy()

    candidates = {"NoisyGaussian": of(NoisyGaussian)}
    if stack.version("tensorflow-compression"):  # only in the classic stack
        import tensorflow_compression as tfc

        candidates = {"tfc.NoisyNormal": of(tfc.NoisyNormal), **candidates}
    seconds = measuring.median_seconds(candidates, 5 * rounds)
    show("Likelihood, forward and backward", seconds, next(iter(candidates)))


def compare_serial_parts(rounds: int) -> None:
    """Compares steps of decompressing a 768x512 picture: streams to y_hat, and the synthesis
    transform.

    The first step contains all serial work: hyper-decoder, wavefronts or groups, range decoding.
    """
    for name in ("ms_hyper", "ms_context", "cheng_anchor", "charm", "elic_zero"):
        codec = models.build(name, **models.widths(name))
        coded = measuring.code(codec, measuring.picture())
        y_hat, synthesis = coded.module.read(*coded.file), tf.function(codec.g_s)
        candidates = {
            "decompress": coded.decompress,
            "streams to y_hat": lambda c=coded: c.module.read(*c.file).numpy(),
            "g_s": lambda g_s=synthesis, y_hat=y_hat: g_s(y_hat).numpy(),
        }
        seconds = measuring.median_seconds(candidates, rounds)
        show(f"Serial part, {name}", seconds, "decompress")


def compare_rectifiers(rounds: int) -> None:
    """Compares decompressing one 768x512 picture without rectifier, with a light and with a wide
    one.
    """
    for name in ("factorized", "scale_hyperprior", "ms_context", "cheng_attn"):
        widths = models.widths(name)
        codec = models.build(name, **widths)
        coded = measuring.code(codec, measuring.picture())
        modules = {"without": CodecModule(codec)}
        for width, depth in ((LIGHT_WIDTH, LIGHT_DEPTH), (widths["M"], 3)):
            other = models.build(name, **widths)
            other.set_weights(codec.get_weights())
            other.add_rectifier(width, depth)
            modules[f"width {width}, depth {depth}"] = CodecModule(other)
        candidates = {label: lambda m=m, c=coded: c.decompress(m) for label, m in modules.items()}
        seconds = measuring.median_seconds(candidates, rounds)
        show(f"Rectifier, {name}, decompressing", seconds, "without")


def compare_coders(rounds: int) -> None:
    """Measures range coding of 1e6 symbols by scales, by means and scales, and by mixture
    decisions.

    Compares with TFC's coder alone: 64 Gaussian tables, given indices and symbols, no escapes.
    """
    count, rng = 1_000_000, np.random.default_rng(0)
    candidates = {}
    for streams in (1, 8):
        label = f"TFC alone, {streams} stream{'s' if streams > 1 else ''}"
        candidates[f"{label}, encode"], candidates[f"{label}, decode"] = _plain_coder(
            count, rng, streams
        )
    for family, zero_center, kind in (
        ("gaussian", True, "scale table"),
        ("gaussian", False, "mean-scale table"),
        ("mixture", False, "decisions"),
    ):
        model = ConditionalModel(family, zero_center)
        table = model.coding_table()
        sigma = np.exp(rng.uniform(-2, 2, (1, 1, 1, count)))
        scales = 3 if family == "mixture" else 1
        blocks = [0 * sigma] * (model.outputs - scales) + [np.log(sigma)] * scales
        raw = tf.constant(np.concatenate(blocks, -1).astype(np.float32))
        integers = tf.constant(np.round(rng.normal(size=sigma.shape) * sigma).astype(np.int32))
        for streams in (1, 8) if zero_center else (1,):

            @tf.function
            def write(model=model, table=table, raw=raw, integers=integers, streams=streams):
                where = model.coding_params(tf.shape(integers), raw)
                handle = range_coder.start_encoder(table, streams)
                return range_coder.finish(table.encode(handle, integers, *where))

            @tf.function
            def read(strings, model=model, table=table, raw=raw):
                where = model.coding_params(tf.constant([1, 1, 1, count]), raw)
                return table.decode(range_coder.start_decoder(table, strings), *where)[1]

            label = f"{kind}, {streams} stream{'s' if streams > 1 else ''}"
            candidates[f"{label}, encode"] = lambda write=write: write().numpy()
            strings = write()
            candidates[f"{label}, decode"] = lambda read=read, s=strings: read(s).numpy()
    seconds = measuring.median_seconds(candidates, rounds)
    show("Coder, 1e6 symbols", seconds, "scale table, 1 stream, encode",
         lambda s: f"{count / s / 1e6:.1f} million symbols/s")  # fmt: skip


def compare_implementations(rounds: int) -> None:
    """Compares the portable coder with the operations on 300,000 symbols of about 0.9 bits each.

    The symbols correspond to the latent of a 768x512 picture with 192 channels. The table's row of
    every symbol is given.
    """
    count, rng = 300_000, np.random.default_rng(0)
    model = ConditionalModel("gaussian", zero_center=True)
    table = model.coding_table()
    sigma = np.exp(rng.normal(-1.3, 1.2, count)).astype(np.float32)
    rows, first, windows = (t.numpy() for t in table._windows(tf.constant(sigma))[:3])
    shifted = np.rint(sigma * rng.normal(size=count)).astype(np.int32) - first
    inside = (shifted >= 0) & (shifted < windows)
    symbols = np.where(inside, shifted, windows)  # symbol of an escape
    coders = {"portable": portable}
    if stack.coder().kind == stack.OPERATIONS:
        from tfquant.coding import operations

        coders = {"operations": operations, **coders}
    candidates = {}
    for streams in (1, 8):
        shaped = tf.constant(rows.reshape(streams, -1)), tf.constant(symbols.reshape(streams, -1))
        for name, coder in coders.items():

            def write(coder=coder, streams=streams, shaped=shaped):
                handle = coder.start_encoder(tf.constant(streams), table.lookup)
                return coder.finish(coder.encode(handle, *shaped))

            def read(strings, coder=coder, shaped=shaped):
                return coder.decode(coder.start_decoder(strings, table.lookup), shaped[0])[1]

            strings = write()
            assert np.array_equal(read(strings), shaped[1])
            label = f"{name}, {streams} stream{'s' if streams > 1 else ''}"
            candidates[f"{label}, encode"] = lambda write=write: write().numpy()
            candidates[f"{label}, decode"] = lambda read=read, s=strings: read(s).numpy()
    seconds = measuring.median_seconds(candidates, rounds)
    show("Coder, 300,000 symbols, two implementations", seconds, next(iter(candidates)))


def _plain_coder(count: int, rng, streams: int) -> tuple:
    """Returns encode and decode functions that use only the coder's operations, without
    arguments.
    """
    tfc = stack.load_operations()
    sigma = np.exp(np.linspace(-2, 2, 64))
    half = np.ceil(5 * sigma).astype(int)
    lookup = []
    for s, h in zip(sigma, half):
        below = scipy.special.ndtr((np.arange(-h, h) + 0.5) / s)
        cdf = np.rint(np.hstack([0, below, 1]) * (2**16 - 2 * h - 1)) + np.arange(2 * h + 2)
        lookup = np.hstack([lookup, 16, cdf]).astype(np.int32)
    which = rng.integers(64, size=count)
    symbols = np.rint(rng.normal(size=count) * sigma[which]).clip(-half[which], half[which])
    index = tf.constant(which.reshape(streams, -1), tf.int32)
    symbols = tf.constant((symbols + half[which]).reshape(streams, -1), tf.int32)

    @tf.function
    def write():
        handle = tfc.create_range_encoder([streams], lookup)
        return tfc.entropy_encode_finalize(tfc.entropy_encode_index(handle, index, symbols))

    strings = write()

    @tf.function
    def read():
        handle = tfc.create_range_decoder(strings, lookup)
        return tfc.entropy_decode_index(handle, index, tf.shape(index)[1:], tf.int32)[1]

    assert np.array_equal(read(), symbols)
    return lambda: write().numpy(), lambda: read().numpy()


def compare_starts(rounds: int) -> None:
    """Compares the import of TensorFlow in a command with the usual import."""
    python = [sys.executable, "-c"]
    programs = {
        "import tensorflow, tf_keras": "import tensorflow; from tfquant.legacy_keras import keras",
        "startup.import_tensorflow": "from tfquant import startup; startup.import_tensorflow()",
    }
    # With this variable, `import tensorflow` does not import Keras 3.
    environment = {n: value for n, value in os.environ.items() if n != "TF_USE_LEGACY_KERAS"}
    options = {"cwd": ROOT, "env": environment, "check": True}
    candidates = {
        name: functools.partial(subprocess.run, [*python, text], **options)
        for name, text in programs.items()
    }
    seconds = measuring.median_seconds(candidates, rounds)
    show("Start of a process", seconds, "import tensorflow, tf_keras")


def compare_exports(rounds: int) -> None:
    """Compares exports whose functions share the graphs of the transforms with exports whose
    functions contain these graphs.
    """
    for name in ("ms_hyper_zero", "elic_sm_zero"):
        with tempfile.TemporaryDirectory() as folder:
            _compare_exports_of(name, folder, rounds)


def _compare_exports_of(name: str, folder: str, rounds: int) -> None:
    codec = models.build(name, **models.widths(name))
    experiment = Experiment(codec=name, codec_options=models.widths(name))
    shared = stock.Transforms
    labels = {
        "each function has its own graphs": lambda codec, qualities, *_: shared(
            codec, qualities, in_graphs=False
        ),
        "shared graphs": shared,
    }

    def export(label: str) -> None:
        stock.Transforms = labels[label]
        try:
            writing.export_codec(codec, experiment, os.path.join(folder, label))
        finally:
            stock.Transforms = shared

    def load(label: str) -> None:
        tf.saved_model.load(os.path.join(folder, label))

    for title, function in (("exporting", export), ("loading", load)):
        candidates = {label: functools.partial(function, label) for label in labels}
        seconds = measuring.median_seconds(candidates, rounds)
        show(f"{name}, {title}", seconds, "each function has its own graphs")


PARTS = {
    "start": compare_starts,
    "export": compare_exports,
    "transforms": compare_transforms,
    "surrogate": compare_surrogates,
    "likelihood": compare_likelihoods,
    "serial": compare_serial_parts,
    "rectifier": compare_rectifiers,
    "coder": compare_coders,
    "portable": compare_implementations,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default=",".join(PARTS), help="default: all")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    names = arguments.only.split(",")
    for name in names:
        if name not in PARTS:
            parser.error(f"unknown part {name!r}; known: {', '.join(PARTS)}")
    for name in names:
        PARTS[name](arguments.rounds)


if __name__ == "__main__":
    main()
