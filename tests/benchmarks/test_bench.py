"""`benchmarks/bench.py` and others: their tables are complete. The tests do not check any time."""

import contextlib
import importlib
import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from unittest import mock

import PIL.Image
import pytest

from tfquant import models
from tfquant.codec import Codec
from tfquant.entropy.factorized import FactorizedModel
from tfquant.layers import klt
from tfquant.legacy_keras import keras

SLOW_FIXTURES = {"idle_workers"}
COMPRESSAI = os.environ.get("TFQUANT_COMPRESSAI", "")
HERE = Path(__file__).resolve().parent.parent.parent / "benchmarks"
SMALL = {"plan": "sua_ste", "batch_size": 2, "crop": 64, "precision": "bfloat16",
         "codec": "factorized", "widths": {"N": 8, "M": 12}}  # fmt: skip

# A worker that does nothing and reports its request.
IDLE = """
import piped
facts = {"version": "nothing 1.0", "operations": 6, "peak_operations": 12, "count": 5, "able": True}
def prepare(settings):
    if settings.get("codec") == "unknown":
        raise ValueError("unknown codec 'unknown'")
    return {"run": lambda: print("in between"), "peak": lambda: None}, facts
piped.serve(prepare)
"""


@pytest.fixture(name="bench")
def _bench(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    import bench

    return bench


@pytest.fixture(name="idle_workers")
def _idle_workers(tmp_path, monkeypatch, bench):
    for name in ("worker", "compressai_worker"):
        (tmp_path / "benchmarks").mkdir(exist_ok=True)
        (tmp_path / "benchmarks" / f"{name}.py").write_text(IDLE)
    (tmp_path / "benchmarks" / "piped.py").write_text((HERE / "piped.py").read_text())
    monkeypatch.setattr(bench, "HERE", str(tmp_path / "benchmarks"))
    monkeypatch.setenv("PYTHONPATH", str(HERE.parent))


def table(bench, capsys, monkeypatch, *arguments):
    """Returns the cells of the rows, and the last line."""
    monkeypatch.setattr(sys, "argv", ["bench.py", "--rounds=2", *arguments])
    bench.main()
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:-2]]
    return rows, lines[-1]


def test_the_table_has_every_row_of_every_codec_width_and_precision(
    bench, idle_workers, capsys, monkeypatch
):
    rows, last = table(
        bench, capsys, monkeypatch, "--codecs=a,b", "--widths=8/12,16/24", "--images=folder",
        f"--compressai_python={sys.executable}",
    )  # fmt: skip
    assert all(len(row) == len(bench.HEAD) for row in rows)
    counts = {what: sum(row[0] == what for row in rows) for what in bench.ROWS}
    assert counts == {
        "step": 8, "compress": 8, "decompress": 8, "folder": 8, "encode": 1, "decode": 1,
        "crops": 2, "start": 8, "call": 1,
    }  # fmt: skip
    steps = {tuple(row[1:4]) for row in rows if row[0] == "step"}
    assert ("`b`", "bfloat16", "16/24") in steps and len(steps) == 8
    assert {row[2] for row in rows if row[0] == "compress"} == {"float32", "bfloat16"}
    assert all(row[4] for row in rows)
    assert all(row[5] and row[7] and row[8] for row in rows if row[0] in ("step", "compress"))
    assert all("with one job" in row[4] and not row[8] for row in rows if row[0] == "folder")
    assert "nothing 1.0" in last


def test_a_failing_workers_message_is_the_last_line(bench, idle_workers, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bench.py", "--codecs=unknown"])
    with pytest.raises(SystemExit, match="bench.py: ValueError: unknown codec 'unknown'"):
        bench.main()


@pytest.mark.slow
def test_an_unknown_row_lists_the_choices():
    done = subprocess.run(
        [sys.executable, HERE / "bench.py", "--rows=steps"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "unknown row 'steps'; known: step, compress" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "what", ["step", "compress", "decompress", "folder", "encode", "decode", "crops"]
)
def test_every_row_can_run(what, monkeypatch, tmp_path, photograph, eager_functions):
    monkeypatch.syspath_prepend(str(HERE))
    import conditions
    import measuring
    import worker

    picture, size = measuring.picture, (64, 96)
    monkeypatch.setattr(conditions, "PICTURE", size)
    monkeypatch.setattr(measuring, "picture", lambda: picture(*size))
    for name, count in {"_SYMBOLS": 10_000, "_BATCHES": 2, "_PICTURES": 2}.items():
        monkeypatch.setattr(worker, name, count)
    # Tracing these takes longer than running them.
    eager = what in ("compress", "decompress", "folder")
    PIL.Image.fromarray(photograph).save(tmp_path / "0.png")
    settings = {"what": what, "images": str(tmp_path), "jobs": 2, **SMALL}
    with eager_functions() if eager else contextlib.nullcontext():
        run, facts = worker.TASKS[what](settings)
        run()
    assert facts.get("operations", 0) > 0 or facts.get("count", 0) > 0


class Strided(Codec):
    """One convolution on either side, and one density for each channel."""

    downsampling = 8

    def __init__(self, N, M):
        super().__init__(name="strided", dtype="float32")
        self.M = M
        self.g_a = keras.layers.Conv2D(M, 9, 8, padding="same", name="g_a")
        self.g_s = keras.layers.Conv2DTranspose(3, 9, 8, padding="same", name="g_s")
        self.y_model = FactorizedModel(M, name="y")
        self.entropy_models = (self.y_model,)

    def latent_channels(self):
        return {"y": (8, self.M)}

    def transmit(self, y, exchange):
        return exchange(self.y_model, y).distortion


@pytest.mark.slow
def test_both_kinds_of_exports_are_made_and_loaded(
    monkeypatch, tmp_path, capsys, exports_are_small, operations_module
):
    """Functions with graphs of their own give a larger export.

    The codec has one convolution on either side: tracing takes most of the time.
    """
    del operations_module  # without the operations, an export has only one function
    monkeypatch.syspath_prepend(str(HERE))
    import parts

    def once(candidates, rounds):
        for run in candidates.values():
            run()
        return dict.fromkeys(candidates, 1.0)

    monkeypatch.setattr(parts.measuring, "median_seconds", once)
    monkeypatch.setattr(models, "widths", lambda name: {"N": 8, "M": 12})
    monkeypatch.setitem(models.CODECS, "strided", Strided)
    parts._compare_exports_of("strided", str(tmp_path), rounds=1)
    lines = capsys.readouterr().out.splitlines()
    kinds = ["each function has its own graphs", "shared graphs"]
    for title in ("strided, exporting", "strided, loading"):
        rows = lines[lines.index(title) + 1 :][:2]
        assert [row.strip().split("  ")[0] for row in rows] == kinds
    own, shared = ((tmp_path / kind / "saved_model.pb").stat().st_size for kind in kinds)
    assert own > shared


def test_compressais_counterparts_are_of_codecs_of_ours(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    for name in ("torch", "compressai"):
        monkeypatch.setitem(sys.modules, name, mock.MagicMock())
    compressai_worker = importlib.import_module("compressai_worker")
    del sys.modules["compressai_worker"]  # it has the mocks
    assert set(compressai_worker.COUNTERPARTS) < set(models.CODECS)


@pytest.mark.skipif(not COMPRESSAI, reason="TFQUANT_COMPRESSAI names no interpreter with it")
@pytest.mark.parametrize("codec,precision", [("ms_hyper", "bfloat16"), ("elic_zero", "float32")])
def test_compressais_latents_are_spread_and_coded_as_gaussians_of_that_spread(codec, precision):
    script = f"""
    import sys
    sys.path.insert(0, {str(HERE)!r})
    import compressai_worker, torch
    settings = {{"codec": {codec!r}, "precision": {precision!r}, "widths": {{"N": 16, "M": 136}}}}
    with torch.no_grad():
        model, x = compressai_worker._coding(settings)
        y, coded = model.g_a(x), model.compress(x)
        assert model.decompress(coded["strings"], coded["shape"])["x_hat"].shape == x.shape
    size = sum(len(string) for strings in coded["strings"] for string in strings)
    print(y.std().item(), 8 * size / y.numel())
    """
    done = subprocess.run(
        [COMPRESSAI, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    deviation, bits = map(float, done.stdout.split())
    assert deviation == pytest.approx(3.0, rel=0.02)
    # z's bits are added, and the context of an untrained codec predicts wrongly.
    entropy = math.log2(deviation * math.sqrt(2 * math.pi * math.e))
    assert entropy < bits < 1.2 * entropy


@pytest.mark.slow
def test_the_table_of_the_codecs_has_all_of_them_at_their_widths(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    import zoo

    assert list(zoo.FACTS) == list(models.CODECS)
    lines = (HERE.parent / "docs" / "codecs.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")] for line in lines if line.startswith("| `")]
    assert [row[1].strip("`") for row in rows] == list(models.CODECS)
    for row in rows:
        widths = models.widths(row[1].strip("`"))
        assert row[5] == f"{widths['N']}/{widths['M']}"
        if widths["N"] == 128:  # the others take seconds to build
            with klt.left_out():
                codec = models.build(row[1].strip("`"))
            count = sum(weight.shape.num_elements() for weight in codec.trainable_variables)
            assert row[6] == f"{count / 1e6:.2f}"


def test_multiply_adds_are_those_of_a_convolution_counted_by_hand(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    import measuring

    codec = models.build("factorized", N=8, M=12)
    # g_a's convolutions of 5x5 with stride 2, and GDN's products between them.
    sides = (32, 16, 8, 4)
    widths = ((3, 8), (8, 8), (8, 8), (8, 12))
    g_a = sum(side**2 * 25 * i * o for side, (i, o) in zip(sides, widths))
    g_a += sum(side**2 * 8 * 8 for side in sides[:3])
    assert measuring.multiply_adds(codec, 64, 64, without=("g_s",)) == g_a
