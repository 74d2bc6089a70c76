"""Speed and memory of training, coding and data, as ratios within one run.

    python benchmarks/bench.py [--only=step,surrogate,likelihood,picture,rectifier,coder,data]

Each row is measured alternately with what it is compared with, round by round, and the median is
shown, so that a machine that is busy with other things slows both. Peak memory is of the whole
process, hence of everything measured before the row. Needs no pictures.
"""

from __future__ import annotations

import os
import resource
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import numpy as np
import tensorflow as tf
import tensorflow_compression as tfc
from absl import app, flags

import models
from tfquant import data
from tfquant.coding import range_coder
from tfquant.dead_leaves import dead_leaves
from tfquant.entropy.conditional import ConditionalModel
from tfquant.entropy.distributions import NoisyGaussian
from tfquant.export import CodecModule
from tfquant.layers import transforms
from tfquant.layers.rectifier import LIGHT_DEPTH, LIGHT_WIDTH
from tfquant.rectified import RectifiedCodec
from tfquant.training.experiment import Experiment
from tfquant.training.trainer import Trainer

_N = flags.DEFINE_integer("N", 128, "Width of the transforms.")
_M = flags.DEFINE_integer("M", 192, "Channels of the latent.")
_BATCH = flags.DEFINE_integer("batch_size", 8, "Batch of the training step.")
_CROP = flags.DEFINE_integer("crop", 256, "Side of the training crops.")
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Rounds; every candidate runs once in each.")
_ONLY = flags.DEFINE_list("only", [], "Names of benchmarks; empty: all.")

PICTURE = (512, 768)


def medians(candidates: dict, rounds: int) -> dict:
    """Median seconds of each candidate, all run once a round after one warm-up."""
    for run in candidates.values():
        run()
    seconds = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def show(title: str, seconds: dict, reference: str, note=lambda name, s: "") -> None:
    """Prints one table: time, ratio to the reference, and a note."""
    print(f"\n{title}")
    for name, s in seconds.items():
        ratio = s / seconds[reference]
        print(f"  {name:<44} {1e3 * s:10.1f} ms {ratio:8.3f} x  {note(name, s)}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"  {'peak memory of the process so far':<44} {peak:10.2f} GiB", flush=True)


def _batch() -> dict:
    rng = np.random.default_rng(0)
    shape = (_BATCH.value, _CROP.value, _CROP.value, 3)
    return {
        "image": tf.constant(rng.integers(0, 256, shape, dtype=np.uint8)),
        "index": tf.range(_BATCH.value, dtype=tf.int64),
    }


def training_step(codec: str, precision: str, plan: str):
    """A compiled training step as `fit` runs it, as a function of nothing."""
    options = {"N": _N.value, "M": _M.value}
    experiment = Experiment(
        codec=codec, codec_options=options, precision=precision, plan=plan,
        batch_size=_BATCH.value, crop=_CROP.value,
    )  # fmt: skip
    trainer = Trainer(models.build_codec(codec, precision, **options), experiment)
    trainer.begin(experiment.all_stages()[0])
    batch, step = _batch(), tf.function(trainer.train_step)
    return lambda: step(batch)["loss"].numpy()


def plain_pair(precision: str):
    """The yardstick: a training step of `g_a` and `g_s` alone, MSE, same widths and batch."""
    policy = models.PRECISIONS[precision]
    tf.keras.mixed_precision.set_global_policy(policy)
    g_a = transforms.analysis("plain", _N.value, _M.value)
    g_s = transforms.synthesis("plain", _N.value, _M.value)
    x = tf.cast(_batch()["image"], tf.float32) / 255.0
    g_s(g_a(x[:1]))
    tf.keras.mixed_precision.set_global_policy("float32")
    optimizer = tf.keras.optimizers.Adam(1e-4)
    variables = g_a.trainable_variables + g_s.trainable_variables

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(tf.cast(g_s(g_a(x)), tf.float32) - x))
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
        return loss

    return lambda: step().numpy()


def bench_step() -> None:
    """Training step of ms_hyper beside its transforms alone, in both precisions."""
    candidates = {}
    for precision in ("float32", "bfloat16"):
        candidates[f"g_a and g_s alone, {precision}"] = plain_pair(precision)
        candidates[f"ms_hyper step, {precision}"] = training_step("ms_hyper", precision, "sua_ste")
    seconds = medians(candidates, _ROUNDS.value)
    title = f"Training step, N {_N.value}, M {_M.value}, {_BATCH.value} x {_CROP.value}^2"
    show(title, seconds, "ms_hyper step, float32")


def bench_surrogate() -> None:
    """What SUA with the expected gradient costs over additive noise."""
    candidates = {
        f"ms_hyper_zero step, plan {plan}": training_step("ms_hyper_zero", "float32", plan)
        for plan in ("aun", "mix", "sua_ste", "sua_pge")
    }
    seconds = medians(candidates, _ROUNDS.value)
    show("Surrogate overhead", seconds, "ms_hyper_zero step, plan aun")


def bench_likelihood() -> None:
    """Forward and backward of the Gaussian likelihood on 98,304 elements, beside TFC's."""
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

    candidates = {"tfc.NoisyNormal": of(tfc.NoisyNormal), "NoisyGaussian": of(NoisyGaussian)}
    show("Likelihood, forward and backward", medians(candidates, 5 * _ROUNDS.value),
         "tfc.NoisyNormal")  # fmt: skip


def bench_picture() -> None:
    """Compressing and decompressing one 768x512 picture in the graph, latents spread near 3."""
    picture = tf.constant(dead_leaves(0, 768)[: PICTURE[0], : PICTURE[1]])
    candidates = {}
    for name in ("factorized", "scale_hyperprior", "ms_hyper", "ms_hyper_zero"):
        codec = models.build_codec(name, N=_N.value, M=_M.value)
        last = codec.g_a.layers[-1]
        spread = tf.math.reduce_std(codec.analyze(tf.cast(picture[None], tf.float32) / 255.0))
        last.kernel.assign(last.kernel * 3.0 / spread)
        module = CodecModule(codec)
        coded = module.encode(picture)
        file = coded["streams"], *PICTURE, coded["symbols_crc"]
        candidates[f"{name}, compress"] = lambda m=module: m.encode(picture)["bits"].numpy()
        candidates[f"{name}, decompress"] = lambda m=module, f=file: m.decode(*f)["image"].numpy()
    seconds = medians(candidates, _ROUNDS.value)
    show(f"A picture of 768x512, N {_N.value}, M {_M.value}", seconds, "ms_hyper, compress")


def bench_rectifier() -> None:
    """Decompressing one 768x512 picture without and with a rectifier, the light and a wide one."""
    picture = tf.constant(dead_leaves(0, 768)[: PICTURE[0], : PICTURE[1]])
    for name in ("factorized", "scale_hyperprior", "ms_context", "cheng_attn"):
        codec = models.build_codec(name, N=_N.value, M=_M.value)
        module = CodecModule(codec)
        coded = module.encode(picture)
        file = coded["streams"], *PICTURE, coded["symbols_crc"]
        decoders = {
            "without": codec,
            f"width {LIGHT_WIDTH}, depth {LIGHT_DEPTH}": RectifiedCodec(codec),
            f"width {_M.value}, depth 3": RectifiedCodec(codec, _M.value, 3),
        }
        modules = {label: CodecModule(decoder) for label, decoder in decoders.items()}
        seconds = medians(
            {k: lambda m=m, f=file: m.decode(*f)["image"].numpy() for k, m in modules.items()},
            _ROUNDS.value,
        )
        show(f"Rectifier, {name}, N {_N.value}, M {_M.value}, decompress", seconds, "without")


def bench_coder() -> None:
    """Symbols per second of range coding, 1e6 symbols: tables by scale, by mean and scale, and
    the decisions of a mixture."""
    count, rng = 1_000_000, np.random.default_rng(0)
    candidates = {}
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
                handle = range_coder.start_encoder(table, streams)
                return range_coder.finish(model.write(table, handle, integers, raw))

            @tf.function
            def read(strings, model=model, table=table, raw=raw):
                handle = range_coder.start_decoder(table, strings)
                return model.read(table, handle, tf.constant([1, 1, 1, count]), raw)[1]

            label = f"{kind}, {streams} stream{'s' if streams > 1 else ''}"
            candidates[f"{label}, encode"] = lambda write=write: write().numpy()
            strings = write()
            candidates[f"{label}, decode"] = lambda read=read, s=strings: read(s).numpy()
    seconds = medians(candidates, _ROUNDS.value)
    show("Coder, 1e6 symbols", seconds, "scale table, 1 stream, encode",
         lambda name, s: f"{count / s / 1e6:.1f} million symbols/s")  # fmt: skip


def bench_data() -> None:
    """The embedded data set's input pipeline: batches of crops."""
    source = data.open_source("", 0, _CROP.value)
    crops = data.crops(source, seed=0, crop=_CROP.value, batch_size=_BATCH.value)
    batches = iter(crops)
    seconds = medians({"one batch of crops": lambda: next(batches)}, 20 * _ROUNDS.value)
    show("Input pipeline", seconds, "one batch of crops",
         lambda name, s: f"{_BATCH.value / s:.0f} crops/s")  # fmt: skip


BENCHMARKS = {
    "step": bench_step,
    "surrogate": bench_surrogate,
    "likelihood": bench_likelihood,
    "picture": bench_picture,
    "rectifier": bench_rectifier,
    "coder": bench_coder,
    "data": bench_data,
}


def main(argv) -> None:
    del argv
    unknown = [name for name in _ONLY.value if name not in BENCHMARKS]
    if unknown:
        sys.exit(f"bench.py: unknown benchmark {unknown[0]!r}; known: {', '.join(BENCHMARKS)}")
    for name in _ONLY.value or BENCHMARKS:
        BENCHMARKS[name]()


if __name__ == "__main__":
    app.run(main)
