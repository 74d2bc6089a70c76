"""Results of an evaluation, as `report.json` holds them.

Every class has the keys of its JSON object as attributes, in the same order. `Result.to_json`
converts the whole result.
"""

from __future__ import annotations

import dataclasses
from typing import Any

# Meaning and unit of the values of a measurement.
UNITS = {
    "bpp": "bits of the whole file per pixel of the picture; the mean is over pictures",
    "estimated_bpp": "bits that the model assigns to its own rounded latents, per pixel",
    "psnr": "dB, over R, G and B together; null where identical; the mean is of decibels",
    "ms_ssim": "five scales, mean of R, G and B; null below 161 pixels a side",
    "ms_ssim_db": "-10 log10(1 - ms_ssim) in dB; the mean's is that of the mean ms_ssim",
    "error_reduction": "percent that a rectifier takes off the squared quantization error of y",
    "encode_s": "seconds from pixels to the file's bytes, after one untimed run per size",
    "decode_s": "seconds from the file's bytes to pixels, after one untimed run per size",
}
# Values that only models have, or only some of them. JSON lacks the key if there is no value.
_OF_SOME_CODECS = ("estimated_bpp", "error_reduction")

MEAN = "mean"


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Rate, quality and times of a picture through a codec, or their means over pictures.

    `UNITS` has the meaning of the values. A value that does not exist is None.

    Attributes:
      name: name of the picture, or `MEAN`.
    """

    name: str
    bpp: float
    estimated_bpp: float | None = None
    psnr: float | None = None
    ms_ssim: float | None = None
    ms_ssim_db: float | None = None
    error_reduction: float | None = None
    encode_s: float | None = None
    decode_s: float | None = None


@dataclasses.dataclass(frozen=True)
class DescribedModel:
    """An exported model at one quality.

    Attributes:
      name: unique in its evaluation and usable as a file name.
      path: the exported model's folder.
      codec: name of the codec.
      curve: name of the curve to which the model belongs.
      plan: the quantization plan of the training.
      lmbda: weight of the distortion; None if the manifest lacks it.
      quality: the quality to code with; None for a model with one rate.
      fingerprint: fingerprint of the entropy model.
      experiment: the experiment from the manifest.
      init_from: the record of the run that gave the first weights, or None.
    """

    name: str
    path: str
    codec: str
    curve: str
    plan: str
    lmbda: float | None
    quality: float | None
    fingerprint: str
    experiment: dict[str, Any]
    init_from: dict[str, Any] | None


@dataclasses.dataclass(frozen=True)
class MeasuredModel(DescribedModel):
    """A model with its measurements: of each picture, and their mean."""

    images: tuple[Measurement, ...]
    mean: Measurement


@dataclasses.dataclass(frozen=True)
class DrawnCurve:
    """A curve of models.

    Attributes:
      name: legend in plots and tables.
      models: names of the models, in the order in which they were named.
      identity: map from setting to value with all identifying settings.
    """

    name: str
    models: tuple[str, ...]
    identity: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class MeasuredSetting:
    """A setting of a conventional codec with its measurements, see `MeasuredModel`."""

    setting: float
    mean: Measurement
    images: tuple[Measurement, ...]


@dataclasses.dataclass(frozen=True)
class SweptCodec:
    """A conventional codec at all of its settings.

    Attributes:
      name: key of `conventional.CODECS`.
      label: label in plots and tables.
      setting: meaning and unit of the settings.
      points: the settings, from low to high rate.
    """

    name: str
    label: str
    setting: str
    points: tuple[MeasuredSetting, ...]


@dataclasses.dataclass(frozen=True)
class NearestRate:
    """Setting of a conventional codec with the rate nearest to that of a model.

    Attributes:
      model: name of the model.
      codec: label of the codec.
      setting, mean, images: see `MeasuredSetting`.
    """

    model: str
    codec: str
    setting: float
    mean: Measurement
    images: tuple[Measurement, ...]


@dataclasses.dataclass(frozen=True)
class SamePsnr:
    """Rates of other curves at the mean PSNR of a model.

    Attributes:
      model: name of the model.
      psnr, bpp: its means over the pictures of the curves.
      needs_bpp: map from the name of a curve to its rate, None if it does not reach the PSNR.
    """

    model: str
    psnr: float
    bpp: float
    needs_bpp: dict[str, float | None]


@dataclasses.dataclass(frozen=True)
class BDRateRow:
    """BD-rate of two curves, see `curves.BDRate`.

    Attributes:
      metric: a key of `curves.METRICS`.
      test, anchor: names of the curves.
      percent, quality, note: see `curves.BDRate`.
    """

    metric: str
    test: str
    anchor: str
    percent: float | None
    quality: tuple[float, float] | None
    note: str


@dataclasses.dataclass(frozen=True)
class Gain:
    """Gain of a model over its baseline on the same pictures.

    Attributes:
      model, baseline: names of the two.
      curve: curve of the model.
      same_bits: true if all files have the same size.
      differences: settings of the training, other than a rectifier's, that differ.
      bpp: mean rate of the model.
      bits_percent: more bits than the baseline, in percent.
      psnr_gain, psnr_gain_largest, psnr_gain_smallest: over pictures, in dB.
      ms_ssim_gain_db: difference of the means in dB.
      error_reduction: mean of the model in percent.
      encode_s, decode_s, baseline_encode_s, baseline_decode_s: see `gains.timing`.
      decode_percent, total_percent: more time than the baseline, in percent.
    """

    model: str
    baseline: str
    curve: str
    same_bits: bool
    differences: tuple[str, ...]
    bpp: float
    bits_percent: float
    psnr_gain: float | None
    psnr_gain_largest: float | None
    psnr_gain_smallest: float | None
    ms_ssim_gain_db: float | None
    error_reduction: float | None
    encode_s: float
    decode_s: float
    baseline_encode_s: float
    baseline_decode_s: float
    decode_percent: float
    total_percent: float


@dataclasses.dataclass(frozen=True)
class Explored:
    """Results of an exploration of the feature distance's weight, on its validation pictures.

    Attributes:
      curve: name of its curve.
      experiment: the experiment of the training.
      lmbda, distortion: those of the experiment.
      metric: a key of `curves.METRICS`.
      start_quality: quality of the baseline; None if all weights diverged.
      quality: map from a weight to its quality, None if training diverged.
      best: the best weight, None if all diverged.
    """

    curve: str
    experiment: dict[str, Any]
    lmbda: float
    distortion: str
    metric: str
    start_quality: float | None
    quality: dict[str, float | None]
    best: str | None


@dataclasses.dataclass(frozen=True)
class Failure:
    """A picture without measurement.

    Attributes:
      name: name of the picture.
      path: its file.
      codec: name of the model that cannot measure it; empty if no codec can.
      error: the reason in one line.
    """

    name: str
    path: str
    codec: str
    error: str


@dataclasses.dataclass(frozen=True)
class RunInfo:
    """Circumstances of an evaluation.

    Attributes:
      command: the command line.
      date: local time in ISO 8601.
      tfquant, pillow: versions.
      machine: processor, operating system and version of Python.
      images: the pictures, as they were named.
      number_of_images: number of measured pictures.
      anchor: file of the published points, or None.
      bd_rate_method: a key of `curves.METHODS`.
    """

    command: str
    date: str
    tfquant: str
    pillow: str
    machine: str
    images: str
    number_of_images: int
    anchor: str | None
    bd_rate_method: str


@dataclasses.dataclass(frozen=True)
class Result:
    """Result of an evaluation.

    Attributes:
      run: its circumstances.
      notes: lines about skipped pictures, codecs and values.
      failed: pictures without measurement. They are in no mean.
      curves: the curves of the models.
      models: the models, then their baselines.
      gains: a gain for each model if there are baselines.
      explorations: the explorations.
      conventional: the conventional codecs that can encode any picture.
      nearest_rate: a conventional codec at the rate of each model.
      same_psnr: rates of the other curves at the PSNR of each model.
      bd_rate: BD-rates of all pairs of curves.
    """

    run: RunInfo
    notes: tuple[str, ...]
    failed: tuple[Failure, ...]
    curves: tuple[DrawnCurve, ...]
    models: tuple[MeasuredModel, ...]
    gains: tuple[Gain, ...]
    explorations: tuple[Explored, ...]
    conventional: tuple[SweptCodec, ...]
    nearest_rate: tuple[NearestRate, ...]
    same_psnr: tuple[SamePsnr, ...]
    bd_rate: tuple[BDRateRow, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns the content of `report.json`."""
        content = dataclasses.asdict(self)
        measured = [*content["models"], *content["nearest_rate"]]
        measured += [point for codec in content["conventional"] for point in codec["points"]]
        for each in measured:
            each["images"] = [_existing(values) for values in each["images"]]
            each["mean"] = _existing(each["mean"])
            del each["mean"]["name"]
        return {"run": content.pop("run"), "units": UNITS, **content}


def _existing(values: dict[str, Any]) -> dict[str, Any]:
    """Returns a measurement without the values that its codec does not have."""
    return {k: v for k, v in values.items() if v is not None or k not in _OF_SOME_CODECS}
