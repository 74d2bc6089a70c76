"""An evaluation from beginning to end: the only module that knows the order of things."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import platform
import shlex
import sys
from pathlib import Path
from typing import Callable

from PIL import __version__ as PILLOW_VERSION

import tfquant
from tfquant.evaluation import (
    EvaluationError,
    conventional,
    curves,
    gains,
    identity,
    measure,
    models,
    pictures,
    plots,
    report,
)
from tfquant.export import model_file
from tfquant.legacy_keras import keras

# The codec whose nearest rate is put beside every model.
NEAREST = "jpeg"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What to evaluate and where to put it.

    Attributes:
      model_dirs: training runs or exported models; may be empty.
      baselines: training runs or exported models to measure the others' gains against.
      explorations: folders of `train.py --explore_qr`, whose weights are to be listed; with them
        there may be neither models nor conventional codecs, and then no picture is read.
      images: a folder, a glob, a file, or `pictures.SAMPLE`.
      report_dir: made if it is not there.
      conventional: names from `conventional.CODECS`.
      anchor: a CSV of published points, or None.
      anchor_codec: the codec in it.
      bd_method: a key of `curves.METHODS`.
      reconstructions: whether to write every file and its reconstruction.

    Raises:
      EvaluationError: nothing to evaluate, or an unknown name.
    """

    model_dirs: tuple[str, ...]
    images: str
    report_dir: Path
    conventional: tuple[str, ...] = ()
    anchor: Path | None = None
    anchor_codec: str = "BPG 4:4:4"
    bd_method: str = "akima"
    reconstructions: bool = True
    baselines: tuple[str, ...] = ()
    explorations: tuple[str, ...] = ()

    def __post_init__(self):
        if not (self.model_dirs or self.conventional or self.explorations):
            raise EvaluationError(
                "nothing to evaluate: expected a --model_dir, a --conventional codec or"
                " --explorations"
            )
        if self.baselines and not self.model_dirs:
            raise EvaluationError("--baseline: expected --model_dir with what to compare with it")
        conventional.choose(self.conventional)
        if self.bd_method not in curves.METHODS:
            raise EvaluationError(
                f"--bd_rate_method: unknown {self.bd_method!r}; known: {', '.join(curves.METHODS)}"
            )


def run(evaluation: Evaluation, load_model: Callable, say: Callable = print) -> dict:
    """Evaluates, writes the report and returns what `report.json` holds.

    Args:
      evaluation: what to do.
      load_model: exported model's path -> what `models.evaluate` takes.
      say: takes each line of progress.

    Raises:
      EvaluationError, images.ImageError, ModelError: bad input, or a file that decodes wrongly;
        and what `load_model` raises.
    """
    explored = _explored(evaluation.explorations)
    entries = models.find_models((*evaluation.model_dirs, *evaluation.baselines))
    learned, drawn = _describe(entries)
    asked = len(evaluation.model_dirs)
    # Before anything is measured: a model may turn out to have no baseline.
    pairs = gains.pair(learned[:asked], learned[asked:]) if evaluation.baselines else []
    anchor = evaluation.anchor and curves.read_published(evaluation.anchor, evaluation.anchor_codec)
    codecs, notes = conventional.choose(evaluation.conventional)
    folder = evaluation.report_dir
    chosen = []
    if learned or codecs:
        chosen = pictures.find_pictures(evaluation.images, folder / "sample")
        say(f"{len(chosen)} picture(s) from {evaluation.images}")
    folder.mkdir(parents=True, exist_ok=True)
    for note in notes:
        say(note)

    for model in learned:
        model.update(_measure(model, evaluation, chosen, load_model, say))
    gained = [
        gains.gain(m, b, gains.timing(*(load_model(x["path"]) for x in (m, b)), chosen))
        for m, b in pairs
    ]
    measurer = conventional.Measurer(folder / "conventional_cache.json")
    swept = []
    for name, codec in codecs.items():
        say(f"{codec.label}: {len(codec.settings)} settings")
        points = measurer.curve(codec, chosen, _progress_bar(len(chosen)))
        swept.append(
            {"name": name, "label": codec.label, "setting": codec.setting, "points": points}
        )
    nearest = _nearest(learned, codecs, measurer, chosen)

    every = learned or [point for codec in swept for point in codec["points"]]
    rd_curves = _learned_curves(drawn, learned)
    rd_curves += [
        curves.Curve(c["label"], "conventional", tuple(p["mean"] for p in c["points"]))
        for c in swept
    ]
    rd_curves += [anchor] if anchor else []
    result = {
        "run": {
            "command": shlex.join(["python", *sys.argv]),
            "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "tfquant": tfquant.__version__,
            "pillow": PILLOW_VERSION,
            "machine": f"{platform.machine()} {platform.system()}, Python "
            f"{platform.python_version()}",
            "images": evaluation.images,
            "number_of_images": len(chosen),
            "anchor": str(evaluation.anchor) if anchor else None,
            "bd_rate_method": evaluation.bd_method,
        },
        "units": report.UNITS,
        "notes": notes + (measure.missing_values(every[0]["images"]) if every else []),
        "curves": drawn,
        "models": learned,
        "gains": gained,
        "explorations": explored,
        "conventional": swept,
        "nearest_rate": nearest,
        "same_psnr": _same_psnr(learned, rd_curves),
        "bd_rate": _bd_rates(rd_curves, evaluation.bd_method),
    }
    report.write(result, folder)
    if gained:
        plots.plot_gains(gained, rd_curves, folder / report.GAINS_PLOT)
    if every:
        plots.plot_rd(rd_curves, folder / report.PLOT, f"mean of {len(chosen)} picture(s)")
    return result


def _explored(directories) -> list:
    """What explorations found, each with the name of its curve."""
    found = [gains.weights(directory) for directory in directories]
    asked = [identity.Trained(each["experiment"]["codec"], each["experiment"]) for each in found]
    names = identity.name_curves(asked)
    return [{"curve": curve.name, **each} for curve, each in zip(names, found)]


def _describe(entries) -> tuple:
    """(models, curves) as `report.json` lists them, less what is measured."""
    manifests = [model_file.read_manifest(entry.path) for entry in entries]
    found = identity.name_curves(
        [identity.Trained(m.codec, m.experiment, m.precision) for m in manifests]
    )
    described, drawn = [], {}
    for entry, manifest, curve in zip(entries, manifests, found):
        described.append(
            {
                "name": entry.name,
                "path": entry.path,
                "codec": manifest.codec,
                "curve": curve.name,
                "plan": curve.identity["plan"],
                "lmbda": manifest.experiment.get("lmbda"),
                "fingerprint": manifest.fingerprint,
                "experiment": manifest.experiment,
            }
        )
        new = {"name": curve.name, "models": [], "identity": curve.identity}
        drawn.setdefault(curve.name, new)["models"].append(entry.name)
    return described, list(drawn.values())


def _measure(described, evaluation, chosen, load_model, say) -> dict:
    """A described model's measurements."""
    model = load_model(described["path"])
    say(f"{described['name']}: {described['codec']}, {described['path']}")

    done = itertools.count(1)

    def progress(m):
        ms_ssim = "" if m["ms_ssim_db"] is None else f"  MS-SSIM {m['ms_ssim_db']:6.3f} dB"
        say(
            f"  [{next(done)}/{len(chosen)}] {m['name']}  {m['bpp']:.4f} bpp"
            f"  PSNR {report.number(m['psnr'], 3)} dB{ms_ssim}"
            f"  encode {m['encode_s']:.3f} s  decode {m['decode_s']:.3f} s"
        )

    store = evaluation.report_dir / "reconstructions" / described["name"]
    measured = models.evaluate(
        model, chosen, store if evaluation.reconstructions else None, progress
    )
    return {"mean": measure.mean(measured), "images": measured}


def _progress_bar(pictures: int) -> Callable:
    bar = keras.utils.Progbar(pictures, unit_name="picture", interval=2)
    return lambda: bar.add(1)


def _learned_curves(drawn, learned) -> list:
    found = []
    for curve in drawn:
        means = [model["mean"] for model in learned if model["curve"] == curve["name"]]
        points = tuple(sorted(means, key=lambda m: m["bpp"]))
        found.append(curves.Curve(curve["name"], "model", points, curve["identity"]["plan"]))
    return found


def _nearest(learned, codecs, measurer, chosen) -> list:
    if NEAREST not in codecs:
        return []
    codec = codecs[NEAREST]
    rows = []
    for model in learned:
        point = measurer.nearest_rate(codec, chosen, model["mean"]["bpp"])
        rows.append({"model": model["name"], "codec": codec.label, **point})
    return rows


def _same_psnr(learned, rd_curves) -> list:
    others = [curve for curve in rd_curves if curve.kind != "model"]
    return [
        {
            "model": model["name"],
            "psnr": model["mean"]["psnr"],
            "bpp": model["mean"]["bpp"],
            "needs_bpp": {
                curve.name: curves.bpp_at(curve, "psnr", model["mean"]["psnr"]) for curve in others
            },
        }
        for model in learned
        if model["mean"]["psnr"] is not None
    ]


def _bd_rates(rd_curves, method: str) -> list:
    rows = []
    for metric in curves.METRICS:
        for test in rd_curves:
            for anchor in rd_curves:
                if test is anchor:
                    continue
                result = curves.bd_rate(anchor, test, metric, method)
                rows.append(
                    {
                        "metric": metric,
                        "test": test.name,
                        "anchor": anchor.name,
                        "percent": result.percent,
                        "quality": result.quality,
                        "note": result.note,
                    }
                )
    return rows
