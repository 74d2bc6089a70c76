"""Gains of rectified models over their baselines on the same pictures: quality, latent, time.

If only the predictive stage trained the rectifier, a model and its baseline share an encoder and an
entropy model. They then have the same fingerprint, and their files are byte-identical. A soft stage
changes the encoder. The difference in bits is then reported with the gain.

Gains follow Luo and Chen (2023). `error_reduction` is `1 - ||y - y_bar||^2 / ||y - y_hat||^2` in
percent, as a mean over pictures. The gain of a codec is the mean and the largest gain over its
models, one for each quality (their Table 2). Its time is the mean of encoding plus decoding (their
Table 3). Their Table 1 lists the quality for every tested weight. `explored` reads these from
explorations.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfquant.evaluation import EvaluationError, identity, measure
from tfquant.evaluation.models import Model
from tfquant.evaluation.pictures import Picture
from tfquant.evaluation.results import DescribedModel, Explored, Gain, MeasuredModel
from tfquant.training import exploration

# Number of pictures and of rounds, in which both models alternate, for the comparison of times.
TIMED_PICTURES, TIMED_ROUNDS = 4, 5

# Quality in the list of an exploration: distortion of the training -> a key of `curves.METRICS`.
_QUALITIES = {"mse": "psnr", "ms_ssim": "ms_ssim_db"}

# Settings that a model and its baseline share if their fingerprints differ.
_SHARED = ("codec", "codec_options", "lmbda", "distortion")


def pair(
    models: Iterable[DescribedModel], baselines: Sequence[DescribedModel]
) -> list[tuple[DescribedModel, DescribedModel]]:
    """Returns (model, baseline) for each model.

    The baseline has the model's fingerprint or, if there is none, its codec, codec options, lmbda
    and distortion. If there are several, it is the one whose other settings differ least; see
    `Gain.differences`.

    Raises:
      EvaluationError: a model has no baseline.
    """
    return [(model, _baseline_of(model, baselines)) for model in models]


def _baseline_of(model: DescribedModel, baselines: Sequence[DescribedModel]) -> DescribedModel:
    def settings(each: DescribedModel) -> list[Any]:
        return [each.experiment.get(name) for name in _SHARED]

    candidates = sorted(
        (b for b in baselines if b.quality == model.quality),
        key=lambda baseline: len(differences(model, baseline)),
    )
    same_bits = [b for b in candidates if b.fingerprint == model.fingerprint]
    alike = [b for b in candidates if settings(b) == settings(model)]
    if not same_bits + alike:
        raise EvaluationError(
            f"--baseline: none for {model.name}; expected the run that it started from, or one"
            f" with the same {', '.join(_SHARED)}; got {', '.join(b.name for b in baselines)}"
        )
    return (same_bits + alike)[0]


def differences(model: DescribedModel, baseline: DescribedModel) -> tuple[str, ...]:
    """Returns the settings of the training, other than a rectifier's, that differ."""
    return tuple(
        identity.differing(
            *(
                identity.Trained(m.codec, m.experiment, init_from=m.init_from)
                for m in (model, baseline)
            )
        )
    )


class Timing(NamedTuple):
    """Seconds of a model and its baseline for a picture, and their differences in percent."""

    encode_s: float
    decode_s: float
    baseline_encode_s: float
    baseline_decode_s: float
    decode_percent: float
    total_percent: float


def gain(model: MeasuredModel, baseline: MeasuredModel, seconds: Timing) -> Gain:
    """Returns the gain of a model.

    Args:
      model, baseline: measured on the same pictures.
      seconds: result of `timing` for the two.
    """
    pairs = list(zip(model.images, baseline.images))
    psnr = [a.psnr - b.psnr for a, b in pairs if a.psnr is not None and b.psnr is not None]
    return Gain(
        model=model.name,
        baseline=baseline.name,
        curve=model.curve,
        same_bits=all(a.bpp == b.bpp for a, b in pairs),
        differences=differences(model, baseline),
        bpp=model.mean.bpp,
        bits_percent=100 * (model.mean.bpp / baseline.mean.bpp - 1),
        psnr_gain=statistics.mean(psnr) if psnr else None,
        psnr_gain_largest=max(psnr, default=None),
        psnr_gain_smallest=min(psnr, default=None),
        # The decibels of a mean differ from the mean of decibels.
        ms_ssim_gain_db=_difference(model.mean.ms_ssim_db, baseline.mean.ms_ssim_db),
        error_reduction=model.mean.error_reduction,
        **seconds._asdict(),
    )


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def timing(model: Model, baseline: Model, pictures: Sequence[Picture]) -> Timing:
    """Measures the seconds of both models in alternation, and the difference in percent.

    The result is the mean over pictures of the fastest of several rounds. Other load on the machine
    can only increase a time.

    Args:
      model, baseline: the two.
      pictures: the `Picture`s. Only the first ones are used.
    """
    fastest = []
    for picture in pictures[:TIMED_PICTURES]:
        image = picture.read()
        rounds = [
            [seconds for codec in (model, baseline) for seconds in _both_ways(codec, image)]
            for _ in range(TIMED_ROUNDS)
        ]
        fastest.append([min(turns) for turns in zip(*rounds)])
    encode, decode, baseline_encode, baseline_decode = map(statistics.mean, zip(*fastest))
    return Timing(
        encode,
        decode,
        baseline_encode,
        baseline_decode,
        decode_percent=_percent(decode, baseline_decode),
        total_percent=_percent(encode + decode, baseline_encode + baseline_decode),
    )


def _both_ways(model: Model, image: np.ndarray) -> tuple[float, float]:
    """Returns the seconds of compression and of decompression."""
    data, encode_s = measure.timed(model.compress, image)
    _, decode_s = measure.timed(model.decompress, data)
    return encode_s, decode_s


def _percent(value: float, reference: float) -> float:
    return 100 * (value / reference - 1)


@dataclasses.dataclass(frozen=True)
class CodecGain:
    """Gains of the models of a curve, see `Gain`.

    Attributes:
      curve: name of the curve.
      models: number of its models.
      psnr_gain, ms_ssim_gain_db, error_reduction: means over the models; None if no model has one.
      psnr_gain_largest, ms_ssim_gain_db_largest, error_reduction_largest: the largest ones.
      total_s, baseline_total_s: mean seconds of encoding plus decoding.
      total_percent: more time than the baselines, in percent.
    """

    curve: str
    models: int
    psnr_gain: float | None
    psnr_gain_largest: float | None
    ms_ssim_gain_db: float | None
    ms_ssim_gain_db_largest: float | None
    error_reduction: float | None
    error_reduction_largest: float | None
    total_s: float
    baseline_total_s: float
    total_percent: float


def by_codec(gains: Sequence[Gain]) -> list[CodecGain]:
    """Returns mean and largest gain over the models of each curve, and the mean time both ways."""
    rows = []
    for curve in dict.fromkeys(g.curve for g in gains):
        members = [g for g in gains if g.curve == curve]
        summary: dict[str, Any] = {}
        for key in ("psnr_gain", "ms_ssim_gain_db", "error_reduction"):
            values = [getattr(g, key) for g in members if getattr(g, key) is not None]
            summary[key] = statistics.mean(values) if values else None
            summary[f"{key}_largest"] = max(values, default=None)
        total = statistics.mean(g.encode_s + g.decode_s for g in members)
        before = statistics.mean(g.baseline_encode_s + g.baseline_decode_s for g in members)
        rows.append(
            CodecGain(
                curve,
                len(members),
                **summary,
                total_s=total,
                baseline_total_s=before,
                total_percent=_percent(total, before),
            )
        )
    return rows


def explored(directories: Sequence[str]) -> list[Explored]:
    """Returns the results of explorations of the feature distance's weight.

    Args:
      directories: folders of the explorations.

    Raises:
      EvaluationError: a folder has no exploration, its exploration has not tried any weight, or an
        earlier version made it.
    """
    found = [_exploration(directory) for directory in directories]
    experiments = [each["asked"]["experiment"] for each in found]
    asked = [
        identity.Trained(
            experiment["codec"],
            experiment,
            init_from=exploration.start_of(directory, each["tried"][0]["weight"]),
        )
        for directory, experiment, each in zip(directories, experiments, found)
    ]
    rows = []
    for curve, experiment, each in zip(identity.name_curves(asked), experiments, found):
        tried = each["tried"]
        good = [trial for trial in tried if trial["J"] is not None]
        rows.append(
            Explored(
                curve=curve.name,
                experiment=experiment,
                lmbda=experiment["lmbda"],
                distortion=experiment["distortion"],
                metric=_QUALITIES[experiment["distortion"]],
                start_quality=good[0]["start_quality"] if good else None,
                quality={f"{trial['weight']:g}": trial.get("quality") for trial in tried},
                best=f"{exploration.best(tried)['weight']:g}" if good else None,
            )
        )
    return rows


def _exploration(directory: str) -> dict[str, Any]:
    """Returns the content of an exploration's file, see `explored`."""
    try:
        found = exploration.read(directory)
    except ValueError as error:
        raise EvaluationError(f"--explorations: {error}") from None
    if not found["tried"]:
        raise EvaluationError(f"--explorations: {directory} has tried no weight yet")
    if any(trial["J"] is not None and "quality" not in trial for trial in found["tried"]):
        raise EvaluationError(
            f"--explorations: {directory} was explored by an earlier version; explore again"
        )
    return found
