"""A complete evaluation. Only this module knows the order of its steps."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import itertools
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Callable

from PIL import __version__ as PILLOW_VERSION

import tfquant
from tfquant import files
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
from tfquant.export import quality as scale
from tfquant.legacy_keras import keras
from tfquant.names import check_known

# The report lists this codec at the nearest rate to every model.
NEAREST = "jpeg"

_Row = dict[str, Any]  # an entry of a list in `report.json`
_Load = Callable[[_Row], models.Model]
_Say = Callable[[str], object]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Input and output of an evaluation.

    Attributes:
      model_dirs: training runs or exported models; may be empty.
      baselines: training runs or exported models with which the others are compared.
      explorations: folders of `train.py --explore_qr`, whose weights the report lists. With
        explorations, models and conventional codecs may both be missing, and then no picture is
        read.
      images: a folder, a glob, a file, or `pictures.SAMPLE`.
      report_dir: folder of the report; it is created if it does not exist.
      conventional: names from `conventional.CODECS`.
      anchor: a CSV of published points, or None.
      anchor_codec: codec in `anchor`.
      bd_method: a key of `curves.METHODS`.
      reconstructions: true to write every file and its reconstruction.
      background: (red, green, blue) that transparent pixels show, or None to reject such pictures.
      qualities: qualities at which models for a range of rates are measured, as in
        `models.at_qualities`.

    Raises:
      EvaluationError: there is nothing to evaluate, or a name is unknown.
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
    background: tuple[int, int, int] | None = None
    qualities: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not (self.model_dirs or self.conventional or self.explorations):
            raise EvaluationError(
                "nothing to evaluate: expected a --model_dir, a --conventional codec or"
                " --explorations"
            )
        if self.baselines and not self.model_dirs:
            raise EvaluationError("--baseline: expected --model_dir with what to compare with it")
        conventional.choose(self.conventional)
        check_known("--bd_rate_method: method", self.bd_method, curves.METHODS, EvaluationError)


def run(
    evaluation: Evaluation, load_model: Callable[[str], Any], say: Callable[[str], object] = print
) -> dict[str, Any]:
    """Evaluates, writes the report and returns the content of `report.json`.

    A picture that cannot be read or measured is listed in `failed`. All means are over the other
    pictures.

    Args:
      evaluation: the input and the output.
      load_model: function from an exported model's path to a model for `models.evaluate`. If the
        model has a range of rates, its functions take a quality, see `models.AtQuality`.
      say: function that is called with each line of progress.

    Raises:
      EvaluationError, images.ImageError, ModelError: the input is invalid, or no picture can be
        measured. Errors of `load_model` are raised too.
    """
    explored = _explored(evaluation.explorations)
    found = models.find_models((*evaluation.model_dirs, *evaluation.baselines))
    entries = [models.at_qualities(entry, evaluation.qualities) for entry in found]
    learned, drawn = _describe([each for several in entries for each in several])
    asked = sum(map(len, entries[: len(evaluation.model_dirs)]))
    load = _loader(load_model)
    # This precedes all measurements, because a model may have no baseline.
    pairs = gains.pair(learned[:asked], learned[asked:]) if evaluation.baselines else []
    anchor = None
    if evaluation.anchor:
        anchor = curves.read_published(evaluation.anchor, evaluation.anchor_codec)
    codecs, notes = conventional.choose(evaluation.conventional)
    folder = evaluation.report_dir
    report.check_folder(folder)
    chosen: list[pictures.Picture] = []
    failed: list[dict[str, str]] = []
    if learned or codecs:
        chosen, failed, more = _find(evaluation, say)
        notes = notes + more
    folder.mkdir(parents=True, exist_ok=True)
    for note in notes:
        say(note)

    chosen, broken = _measure_all(learned, evaluation, chosen, load, say)
    gained = [gains.gain(m, b, gains.timing(load(m), load(b), chosen)) for m, b in pairs]
    measurer = conventional.Measurer(folder / "conventional_cache.json")
    swept, held, lacking = _sweep(codecs, measurer, chosen, say)
    nearest = _nearest(learned, codecs, measurer, held.get(NEAREST, []))

    every = learned or [point for codec in swept for point in codec["points"]]
    rd_curves = _learned_curves(drawn, learned, tuple(picture.name for picture in chosen))
    rd_curves += _conventional_curves(swept, held)
    rd_curves += [anchor] if anchor else []
    missing = measure.missing_values(every[0]["images"]) if every else []
    result = {
        "run": _of_the_run(evaluation, len(chosen), anchor),
        "units": report.UNITS,
        "notes": [*notes, *lacking, *missing],
        "failed": [*failed, *broken],
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


def _of_the_run(
    evaluation: Evaluation, number_of_images: int, anchor: curves.Curve | None
) -> dict[str, Any]:
    return {
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "tfquant": tfquant.__version__,
        "pillow": PILLOW_VERSION,
        "machine": f"{platform.machine()} {platform.system()}, Python {platform.python_version()}",
        "images": evaluation.images,
        "number_of_images": number_of_images,
        "anchor": str(evaluation.anchor) if anchor else None,
        "bd_rate_method": evaluation.bd_method,
    }


def _find(
    evaluation: Evaluation, say: _Say
) -> tuple[list[pictures.Picture], list[dict[str, str]], list[str]]:
    """Returns (pictures that can be read, failures of the others, notes)."""
    folder = evaluation.report_dir
    found = pictures.find_pictures(
        evaluation.images, folder / pictures.SAMPLE, evaluation.background, folder
    )
    say(f"{len(found.pictures)} picture(s) from {files.shown(evaluation.images)}")
    kept, failed, notes = pictures.readable(found.pictures, lambda line: say(f"skipped: {line}"))
    return kept, failed, found.notes + notes


def _loader(load_model: Callable[[str], Any]) -> _Load:
    """Returns a function from a described model to the model that `models.evaluate` takes.

    The two last models stay in memory: a model for a range of rates is described once for each
    quality, and a model is timed in turn with its baseline.
    """
    loaded = functools.lru_cache(maxsize=2)(lambda path: load_model(path))

    def load(described: _Row) -> models.Model:
        model, quality = loaded(described["path"]), described["quality"]
        return model if quality is None else models.AtQuality(model, quality)

    return load


def _measure_all(
    learned: list[_Row],
    evaluation: Evaluation,
    chosen: list[pictures.Picture],
    load: _Load,
    say: _Say,
) -> tuple[list[pictures.Picture], list[dict[str, str]]]:
    """Adds measurements to every model. Returns (pictures that all measured, failures).

    Raises:
      EvaluationError: no picture was measured by all models.
    """
    failed: list[dict[str, str]] = []
    for model in learned:
        model.update(_measure(model, evaluation, chosen, load, say, failed))
    broken = {each["name"] for each in failed}
    common = [picture for picture in chosen if picture.name not in broken]
    if chosen and not common:
        raise EvaluationError(f"no picture can be measured; first: {failed[0]['error']}")
    for model in learned:
        # Means over different pictures would not be comparable.
        model["images"] = [row for row in model["images"] if row["name"] not in broken]
        model["mean"] = measure.mean(model["images"])
    return common, failed


def _sweep(
    codecs: Mapping[str, conventional.ConventionalCodec],
    measurer: conventional.Measurer,
    chosen: list[pictures.Picture],
    say: _Say,
) -> tuple[list[_Row], dict[str, list[pictures.Picture]], list[str]]:
    """Returns (curves as in `report.json`, map from codec to pictures that it can encode,
    notes).
    """
    swept, held, notes = [], {}, []
    for name, codec in codecs.items():
        say(f"{codec.label}: {len(codec.settings)} settings")
        points, lacking = _points(codec, measurer, chosen)
        if lacking:
            reasons = measure.some_names([f"{p.name}: {reason}" for p, reason in lacking], 3)
            kept = "is a mean over the others" if points else "is skipped"
            notes.append(
                f"{codec.label} cannot encode {len(lacking)} of {len(chosen)} pictures ({reasons});"
                f" its curve {kept}"
            )
            say(notes[-1])
        if points:
            gone = {picture.name for picture, _ in lacking}
            held[name] = [picture for picture in chosen if picture.name not in gone]
            swept.append(
                {"name": name, "label": codec.label, "setting": codec.setting, "points": points}
            )
    return swept, held, notes


def _points(
    codec: conventional.ConventionalCodec,
    measurer: conventional.Measurer,
    chosen: list[pictures.Picture],
) -> tuple[list[_Row], list[tuple[pictures.Picture, str]]]:
    """Returns (points of a codec's curve, pictures that it cannot encode with the reasons)."""
    lacking: list[tuple[pictures.Picture, str]] = []
    points = measurer.curve(
        codec,
        chosen,
        _progress_bar(len(chosen)),
        lambda picture, reason: lacking.append((picture, reason)),
    )
    return points, lacking


def _explored(directories: Iterable[str]) -> list[_Row]:
    """Returns the results of explorations, each with the name of its curve."""
    found = [gains.weights(directory) for directory in directories]
    asked = [identity.Trained(each["experiment"]["codec"], each["experiment"]) for each in found]
    names = identity.name_curves(asked)
    return [{"curve": curve.name, **each} for curve, each in zip(names, found)]


def _describe(entries: Sequence[models.Entry]) -> tuple[list[_Row], list[_Row]]:
    """Returns (models, curves) as in `report.json`, without the measurements."""
    manifests = [model_file.read_manifest(entry.path) for entry in entries]
    lmbdas = [_lmbda(entry, manifest) for entry, manifest in zip(entries, manifests)]
    found = identity.name_curves(
        [
            identity.Trained(m.codec, {**m.experiment, "lmbda": lmbda}, m.precision)
            for m, lmbda in zip(manifests, lmbdas)
        ]
    )
    described = []
    drawn: dict[str, _Row] = {}
    for entry, manifest, lmbda, curve in zip(entries, manifests, lmbdas, found):
        described.append(
            {
                "name": entry.name,
                "path": entry.path,
                "codec": manifest.codec,
                "curve": curve.name,
                "plan": curve.identity["plan"],
                "lmbda": lmbda,
                "quality": entry.quality,
                "fingerprint": manifest.fingerprint,
                "experiment": manifest.experiment,
            }
        )
        new = {"name": curve.name, "models": [], "identity": curve.identity}
        drawn.setdefault(curve.name, new)["models"].append(entry.name)
    return described, list(drawn.values())


def _lmbda(entry: models.Entry, manifest: model_file.Manifest) -> float | None:
    """Returns the weight of the distortion at the entry's quality."""
    if entry.quality is None:
        return manifest.experiment.get("lmbda")
    lmbda = scale.to_lmbda(entry.quality, manifest.experiment.get("distortion", "mse"))
    return float(f"{lmbda:.4g}")


def _measure(
    described: _Row,
    evaluation: Evaluation,
    chosen: list[pictures.Picture],
    load: _Load,
    say: _Say,
    failed: list[dict[str, str]],
) -> _Row:
    """Measures a described model, and appends pictures that cannot be measured to `failed`."""
    model = load(described)
    say(f"{described['name']}: {described['codec']}, {described['path']}")

    done = itertools.count(1)

    def progress(m: dict[str, Any]) -> None:
        ms_ssim = "" if m["ms_ssim_db"] is None else f"  MS-SSIM {m['ms_ssim_db']:6.3f} dB"
        say(
            f"  [{next(done)}/{len(chosen)}] {m['name']}  {m['bpp']:.4f} bpp"
            f"  PSNR {report.number(m['psnr'], 3)} dB{ms_ssim}"
            f"  encode {m['encode_s']:.3f} s  decode {m['decode_s']:.3f} s"
        )

    def fail(picture: pictures.Picture, error: Exception) -> None:
        failed.append(pictures.failure(picture, described["name"], error))
        say(f"  [{next(done)}/{len(chosen)}] {picture.name}  FAILED: {failed[-1]['error']}")

    store = evaluation.report_dir / pictures.RECONSTRUCTIONS / described["name"]
    measured = models.evaluate(
        model, chosen, store if evaluation.reconstructions else None, progress, fail
    )
    return {"images": measured}


def _progress_bar(pictures: int) -> Callable[[], object]:
    bar = keras.utils.Progbar(pictures, unit_name="picture", interval=2)
    return lambda: bar.add(1)


def _learned_curves(
    drawn: list[_Row], learned: list[_Row], names: tuple[str, ...]
) -> list[curves.Curve]:
    found = []
    for curve in drawn:
        means = [model["mean"] for model in learned if model["curve"] == curve["name"]]
        points = tuple(sorted(means, key=lambda m: m["bpp"]))
        found.append(curves.Curve(curve["name"], "model", points, curve["identity"]["plan"], names))
    return found


def _conventional_curves(
    swept: list[_Row], held: Mapping[str, list[pictures.Picture]]
) -> list[curves.Curve]:
    found = []
    for codec in swept:
        points = tuple(point["mean"] for point in codec["points"])
        names = tuple(picture.name for picture in held[codec["name"]])
        found.append(curves.Curve(codec["label"], "conventional", points, pictures=names))
    return found


def _nearest(
    learned: list[_Row],
    codecs: Mapping[str, conventional.ConventionalCodec],
    measurer: conventional.Measurer,
    held: list[pictures.Picture],
) -> list[_Row]:
    """Returns JPEG's point at the rate of every model, over the pictures that it can encode."""
    if NEAREST not in codecs or not held:
        return []
    codec, names = codecs[NEAREST], {picture.name for picture in held}
    rows = []
    for model in learned:
        rates = [row["bpp"] for row in model["images"] if row["name"] in names]
        point = measurer.nearest_rate(codec, held, sum(rates) / len(rates))
        rows.append({"model": model["name"], "codec": codec.label, **point})
    return rows


def _same_psnr(learned: list[_Row], rd_curves: list[curves.Curve]) -> list[_Row]:
    own = next((curve for curve in rd_curves if curve.kind == "model"), None)
    others = [
        curve
        for curve in rd_curves
        if curve.kind != "model" and curves.comparable(own or curve, curve)
    ]
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


def _bd_rates(rd_curves: list[curves.Curve], method: str) -> list[_Row]:
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
