"""A complete evaluation. Only this module knows the order of its steps."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import itertools
import platform
import shlex
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple

from PIL import __version__ as PILLOW_VERSION

import tfquant
from tfquant import files
from tfquant.evaluation import (
    EvaluationError,
    conventional,
    curves,
    gains,
    measure,
    models,
    pictures,
    plots,
    report,
)
from tfquant.evaluation.conventional import ConventionalCodec, Measurer
from tfquant.evaluation.curves import Curve, Point
from tfquant.evaluation.pictures import Picture
from tfquant.evaluation.results import (
    BDRateRow,
    DescribedModel,
    DrawnCurve,
    Explored,
    Failure,
    Gain,
    MeasuredModel,
    Measurement,
    NearestRate,
    Result,
    RunInfo,
    SamePsnr,
    SweptCodec,
)
from tfquant.names import check_known
from tfquant.progress import ProgressBar

# The report lists this codec at the nearest rate to every model.
NEAREST = "jpeg"

_Say = Callable[[str], object]
_Load = Callable[[DescribedModel], models.Model]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Input and output of an evaluation.

    Attributes:
      model_dirs: training runs, exported models, or names or folders of sets of models; may be
        empty.
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
      qualities: qualities at which sets and models for a range of rates are measured, as in
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
        if self.qualities and not self.model_dirs:
            raise EvaluationError("--qualities: expected --model_dir with what to measure at them")
        if self.baselines and not self.model_dirs:
            raise EvaluationError("--baseline: expected --model_dir with what to compare with it")
        conventional.choose(self.conventional)
        check_known("--bd_rate_method: method", self.bd_method, curves.METHODS, EvaluationError)


def run(evaluation: Evaluation, load_model: Callable[[str], Any], say: _Say = print) -> Result:
    """Evaluates, writes the report and returns its content.

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
    compared = _read_input(evaluation)
    load = _loader(load_model)
    report.check_folder(evaluation.report_dir)
    readable = _find_pictures(evaluation, compared, say)
    evaluation.report_dir.mkdir(parents=True, exist_ok=True)
    notes = [*compared.notes, *readable.notes]
    for note in notes:
        say(note)

    measured = _measure_models(compared.models, evaluation, readable.pictures, load, say)
    gained = _gains(compared.pairs, measured, load)
    measurer = Measurer(evaluation.report_dir / "conventional_cache.json")
    swept = _sweep_codecs(compared.codecs, measurer, measured.pictures, say)
    points, lines = _points(measured, swept)
    rd_curves = _rd_curves(compared, measured, swept, points)
    result = Result(
        run=_run_info(evaluation, len(measured.pictures)),
        notes=(*notes, *swept.notes, *lines),
        failed=(*readable.failed, *measured.failed),
        curves=compared.curves,
        models=measured.models,
        gains=gained,
        explorations=compared.explored,
        conventional=swept.codecs,
        nearest_rate=_nearest(measured.models, measurer, swept.pictures.get(NEAREST, [])),
        same_psnr=_same_psnr(points.models, rd_curves),
        bd_rate=_bd_rates(rd_curves, evaluation.bd_method),
    )
    _write(result, rd_curves, evaluation.report_dir)
    return result


class _Compared(NamedTuple):
    """Input of an evaluation, without pictures.

    Attributes:
      explored: results of the explorations.
      models: the models, then their baselines.
      curves: curves of the models.
      pairs: (model, baseline) for each model, if there are baselines.
      anchor: the published curve, or None.
      codecs: conventional codecs by name.
      notes: lines about qualities that models lack, and about codecs that Pillow lacks.
    """

    explored: tuple[Explored, ...]
    models: tuple[DescribedModel, ...]
    curves: tuple[DrawnCurve, ...]
    pairs: list[tuple[DescribedModel, DescribedModel]]
    anchor: Curve | None
    codecs: dict[str, ConventionalCodec]
    notes: list[str]


def _read_input(evaluation: Evaluation) -> _Compared:
    """Reads the input, and rejects what is invalid before anything is measured or written."""
    explored = tuple(gains.explored(evaluation.explorations))
    found = models.find_models((*evaluation.model_dirs, *evaluation.baselines))
    entries = [models.at_qualities(entry, evaluation.qualities) for entry in found]
    described, drawn = models.describe([each for several in entries for each in several])
    asked = sum(map(len, entries[: len(evaluation.model_dirs)]))
    pairs = gains.pair(described[:asked], described[asked:]) if evaluation.baselines else []
    anchor = None
    if evaluation.anchor:
        anchor = curves.read_published(evaluation.anchor, evaluation.anchor_codec)
    codecs, notes = conventional.choose(evaluation.conventional)
    notes = [*filter(None, (models.left_out(each, evaluation.qualities) for each in found)), *notes]
    return _Compared(explored, described, drawn, pairs, anchor, codecs, notes)


def _find_pictures(evaluation: Evaluation, compared: _Compared, say: _Say) -> pictures.Readable:
    """Finds the pictures and reads each once; finds none if no codec needs them."""
    if not (compared.models or compared.codecs):
        return pictures.Readable([], [], [])
    folder = evaluation.report_dir
    found = pictures.find_pictures(
        evaluation.images, folder / pictures.SAMPLE, evaluation.background, folder
    )
    say(f"{len(found.pictures)} picture(s) from {files.shown(evaluation.images)}")
    readable = pictures.readable(found.pictures, lambda line: say(f"skipped: {line}"))
    return readable._replace(notes=found.notes + readable.notes)


def _loader(load_model: Callable[[str], Any]) -> _Load:
    """Returns a function from a described model to the model that `models.evaluate` takes.

    The two last models stay in memory: a model for a range of rates is described once for each
    quality, and a model is timed in turn with its baseline.
    """
    loaded = functools.lru_cache(maxsize=2)(load_model)

    def load(described: DescribedModel) -> models.Model:
        model, quality = loaded(described.path), described.quality
        return model if quality is None else models.AtQuality(model, quality)

    return load


class _Measured(NamedTuple):
    """Measurements of models.

    Attributes:
      models: the models with measurements of `pictures`.
      pictures: the pictures that all models measured.
      failed: the other ones.
    """

    models: tuple[MeasuredModel, ...]
    pictures: list[Picture]
    failed: list[Failure]


def _measure_models(
    described: Sequence[DescribedModel],
    evaluation: Evaluation,
    chosen: Sequence[Picture],
    load: _Load,
    say: _Say,
) -> _Measured:
    """Measures all models on the same pictures; means over different ones are not comparable.

    Raises:
      EvaluationError: no picture was measured by all models.
    """
    rows, failed = [], []
    for model in described:
        measured, broken = _measure(model, evaluation, chosen, load, say)
        rows.append(measured)
        failed += broken
    left_out = {each.name for each in failed}
    common = [picture for picture in chosen if picture.name not in left_out]
    if chosen and not common:
        raise EvaluationError(f"no picture can be measured; first: {failed[0].error}")
    found = []
    for model, measured in zip(described, rows):
        images = tuple(row for row in measured if row.name not in left_out)
        found.append(MeasuredModel(**vars(model), images=images, mean=measure.mean(images)))
    return _Measured(tuple(found), common, failed)


def _measure(
    described: DescribedModel,
    evaluation: Evaluation,
    chosen: Sequence[Picture],
    load: _Load,
    say: _Say,
) -> tuple[list[Measurement], list[Failure]]:
    """Returns the measurements of a model, and the pictures that it cannot measure."""
    model = load(described)
    say(f"{described.name}: {described.codec}, {described.path}")
    failed: list[Failure] = []
    done = itertools.count(1)

    def progress(m: Measurement) -> None:
        ms_ssim = "" if m.ms_ssim_db is None else f"  MS-SSIM {m.ms_ssim_db:6.3f} dB"
        say(
            f"  [{next(done)}/{len(chosen)}] {m.name}  {m.bpp:.4f} bpp"
            f"  PSNR {report.number(m.psnr, 3)} dB{ms_ssim}"
            f"  encode {report.number(m.encode_s, 3)} s  decode {report.number(m.decode_s, 3)} s"
        )

    def fail(picture: Picture, error: Exception) -> None:
        failed.append(pictures.failure(picture, described.name, error))
        say(f"  [{next(done)}/{len(chosen)}] {picture.name}  FAILED: {failed[-1].error}")

    store = evaluation.report_dir / pictures.RECONSTRUCTIONS / described.name
    measured = models.evaluate(
        model, chosen, store if evaluation.reconstructions else None, progress, fail
    )
    return measured, failed


def _gains(
    pairs: Sequence[tuple[DescribedModel, DescribedModel]], measured: _Measured, load: _Load
) -> tuple[Gain, ...]:
    by_name = {model.name: model for model in measured.models}
    found = []
    for model, baseline in pairs:
        seconds = gains.timing(load(model), load(baseline), measured.pictures)
        found.append(gains.gain(by_name[model.name], by_name[baseline.name], seconds))
    return tuple(found)


class _Swept(NamedTuple):
    """Measurements of conventional codecs.

    Attributes:
      codecs: those that can encode any picture.
      pictures: map from codec to the pictures that it can encode.
      notes: lines about codecs that cannot encode all pictures.
    """

    codecs: tuple[SweptCodec, ...]
    pictures: dict[str, list[Picture]]
    notes: list[str]


def _sweep_codecs(
    codecs: Mapping[str, ConventionalCodec],
    measurer: Measurer,
    chosen: Sequence[Picture],
    say: _Say,
) -> _Swept:
    swept, held, notes = [], {}, []
    for name, codec in codecs.items():
        say(f"{codec.label}: {len(codec.settings)} settings")
        bar = ProgressBar(len(chosen), sys.stderr)
        points, refused = measurer.curve(codec, chosen, bar.add)
        bar.clear()
        if refused:
            reasons = [f"{picture}: {reason}" for picture, reason in refused.items()]
            kept = "is a mean over the others" if points else "is skipped"
            notes.append(
                f"{codec.label} cannot encode {len(refused)} of {len(chosen)} pictures"
                f" ({measure.some_names(reasons, 3)}); its curve {kept}"
            )
            say(notes[-1])
        if points:
            held[name] = [picture for picture in chosen if picture.name not in refused]
            swept.append(SweptCodec(name, codec.label, codec.setting, tuple(points)))
    return _Swept(tuple(swept), held, notes)


class _Points(NamedTuple):
    """Points of curves, over the pictures that every codec changes at every setting.

    Attributes:
      models: map from the name of a model to its point.
      codecs: map from the name of a conventional codec to its points.
      left_out: names of the pictures that a codec decodes without any error.
    """

    models: dict[str, Point]
    codecs: dict[str, list[Point]]
    left_out: Collection[str]


def _points(measured: _Measured, swept: _Swept) -> tuple[_Points, list[str]]:
    """Returns the points of all curves, and notes about the pictures that means leave out."""
    rows = {model.name: [model.images] for model in measured.models}
    rows |= {codec.label: [point.images for point in codec.points] for codec in swept.codecs}
    left_out = measure.identical(rows)
    models_ = {model.name: Point.of(model.images, left_out) for model in measured.models}
    codecs = {c.name: [Point.of(each.images, left_out) for each in c.points] for c in swept.codecs}
    return _Points(models_, codecs, left_out), measure.missing_values(rows)


def _rd_curves(
    compared: _Compared, measured: _Measured, swept: _Swept, points: _Points
) -> list[Curve]:
    """Returns the curves of models and conventional codecs, and the published one."""

    def names(pictures_: Sequence[Picture]) -> tuple[str, ...]:
        return tuple(each.name for each in pictures_ if each.name not in points.left_out)

    found = []
    for curve in compared.curves:
        own = [points.models[model.name] for model in measured.models if model.curve == curve.name]
        own.sort(key=lambda point: point.bpp)
        plan = curve.identity["plan"]
        found.append(Curve(curve.name, "model", tuple(own), plan, names(measured.pictures)))
    for codec in swept.codecs:
        own, held = points.codecs[codec.name], swept.pictures[codec.name]
        found.append(Curve(codec.label, "conventional", tuple(own), pictures=names(held)))
    return found if compared.anchor is None else [*found, compared.anchor]


def _run_info(evaluation: Evaluation, number_of_images: int) -> RunInfo:
    return RunInfo(
        command=_command(),
        date=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        tfquant=tfquant.__version__,
        pillow=PILLOW_VERSION,
        machine=f"{platform.machine()} {platform.system()}, Python {platform.python_version()}",
        images=evaluation.images,
        number_of_images=number_of_images,
        anchor=str(evaluation.anchor) if evaluation.anchor else None,
        bd_rate_method=evaluation.bd_method,
    )


def _command() -> str:
    """Returns the command line: `tfquant eval ...`, or `python eval.py ...`."""
    program, *arguments = sys.argv
    words = program.split() if program.startswith("tfquant ") else ["python", program]
    return shlex.join([*words, *arguments])


def _nearest(
    measured: Sequence[MeasuredModel], measurer: Measurer, held: Sequence[Picture]
) -> tuple[NearestRate, ...]:
    """Returns JPEG's point at the rate of every model, over the pictures that it can encode."""
    if not held:
        return ()
    codec, names = conventional.CODECS[NEAREST], {picture.name for picture in held}
    rows = []
    for model in measured:
        rates = [row.bpp for row in model.images if row.name in names]
        point = measurer.nearest_rate(codec, held, sum(rates) / len(rates))
        rows.append(NearestRate(model.name, codec.label, **vars(point)))
    return tuple(rows)


def _same_psnr(points: Mapping[str, Point], rd_curves: Sequence[Curve]) -> tuple[SamePsnr, ...]:
    own = next((curve for curve in rd_curves if curve.kind == "model"), None)
    others = [
        curve
        for curve in rd_curves
        if curve.kind != "model" and curves.comparable(own or curve, curve)
    ]
    rows = []
    for model, point in points.items():
        if point.psnr is not None:
            needs = {curve.name: curves.bpp_at(curve, "psnr", point.psnr) for curve in others}
            rows.append(SamePsnr(model, point.psnr, point.bpp, needs))
    return tuple(rows)


def _bd_rates(rd_curves: Sequence[Curve], method: str) -> tuple[BDRateRow, ...]:
    rows = []
    for metric in curves.METRICS:
        for test, anchor in itertools.permutations(rd_curves, 2):
            found = curves.bd_rate(anchor, test, metric, method)
            rows.append(BDRateRow(metric, test.name, anchor.name, **found._asdict()))
    return tuple(rows)


def _write(result: Result, rd_curves: Sequence[Curve], folder: Path) -> None:
    """Writes the report and its plots."""
    report.write(result, folder)
    if result.gains:
        plots.plot_gains(result.gains, rd_curves, folder / report.GAINS_PLOT)
    if result.models or result.conventional:
        title = f"mean of {result.run.number_of_images} picture(s)"
        plots.plot_rd(rd_curves, folder / report.PLOT, title)
