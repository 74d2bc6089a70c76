"""Gains of rectified models over their baselines on the same pictures: quality, latent, time.

If only the predictive stage trained the rectifier, a model and its baseline share an encoder and an
entropy model. They then have the same fingerprint, and their files are byte-identical. A soft stage
changes the encoder. The difference in bits is then reported with the gain.

Gains follow Luo and Chen (2023). `error_reduction` is `1 - ||y - y_bar||^2 / ||y - y_hat||^2` in
percent, as a mean over pictures. The gain of a codec is the mean and the largest gain over its
models, one for each quality (their Table 2). Its time is the mean of encoding plus decoding (their
Table 3). Their Table 1 lists the quality for every tested weight. `weights` reads these from
explorations.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from tfquant.evaluation import EvaluationError, measure
from tfquant.evaluation.models import Model
from tfquant.evaluation.pictures import Picture
from tfquant.training import exploration

# Number of pictures and of rounds, in which both models alternate, for the comparison of times.
TIMED_PICTURES, TIMED_ROUNDS = 4, 5

# Quality in the list of an exploration: distortion of the training -> a key of `curves.METRICS`.
_QUALITIES = {"mse": "psnr", "ms_ssim": "ms_ssim_db"}

# Settings that a model and its baseline share if their fingerprints differ.
_SHARED = ("codec", "codec_options", "lmbda", "distortion")


def pair(
    models: Sequence[dict[str, Any]], baselines: Sequence[dict[str, Any]]
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Returns (model, baseline) for each model.

    The baseline has the model's fingerprint or, if there is none, its settings.

    Args:
      models, baselines: as listed in `report.json`.

    Raises:
      EvaluationError: a model has no baseline.
    """
    return [(model, _baseline_of(model, baselines)) for model in models]


def _baseline_of(model: dict[str, Any], baselines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    def settings(each: dict[str, Any]) -> list:
        return [each["experiment"].get(name) for name in _SHARED]

    names = [b["name"] for b in baselines]
    baselines = [b for b in baselines if b.get("quality") == model.get("quality")]
    same_bits = [b for b in baselines if b["fingerprint"] == model["fingerprint"]]
    alike = [b for b in baselines if settings(b) == settings(model)]
    if not same_bits + alike:
        raise EvaluationError(
            f"--baseline: none for {model['name']}; expected the run that it started from, or one"
            f" with the same {', '.join(_SHARED)}; got {', '.join(names)}"
        )
    return (same_bits + alike)[0]


def gain(
    model: dict[str, Any], baseline: dict[str, Any], seconds: dict[str, Any]
) -> dict[str, Any]:
    """Returns the gain of a model.

    Args:
      model, baseline: as listed in `report.json`, on the same pictures.
      seconds: result of `timing` for the two.
    """
    pairs = list(zip(model["images"], baseline["images"]))
    psnr = [a["psnr"] - b["psnr"] for a, b in pairs if None not in (a["psnr"], b["psnr"])]
    # The decibels of a mean differ from the mean of decibels.
    ms_ssim = (model["mean"]["ms_ssim_db"], baseline["mean"]["ms_ssim_db"])
    return {
        "model": model["name"],
        "baseline": baseline["name"],
        "curve": model["curve"],
        "same_bits": all(a["bpp"] == b["bpp"] for a, b in pairs),
        "bpp": model["mean"]["bpp"],
        "bits_percent": 100 * (model["mean"]["bpp"] / baseline["mean"]["bpp"] - 1),
        "psnr_gain": statistics.mean(psnr) if psnr else None,
        "psnr_gain_largest": max(psnr, default=None),
        "psnr_gain_smallest": min(psnr, default=None),
        "ms_ssim_gain_db": None if None in ms_ssim else ms_ssim[0] - ms_ssim[1],
        "error_reduction": model["mean"].get("error_reduction"),
        **seconds,
    }


def timing(model: Model, baseline: Model, pictures: Sequence[Picture]) -> dict[str, float]:
    """Measures the seconds of both models in alternation, and the difference in percent.

    The result is the mean over pictures of the fastest of several rounds. Other load on the machine
    can only increase a time.

    Args:
      model, baseline: models as for `models.evaluate`.
      pictures: the `Picture`s. Only the first ones are used.
    """
    both = {"": model, "baseline_": baseline}
    keys = [f"{name}{way}_s" for name in both for way in ("encode", "decode")]
    fastest: dict[str, list[float]] = {key: [] for key in keys}
    for picture in pictures[:TIMED_PICTURES]:
        image = picture.read()
        turns: dict[str, list[float]] = {key: [] for key in keys}
        for _ in range(TIMED_ROUNDS):
            for name, codec in both.items():
                data, encode_s = measure.timed(codec.compress, image)
                _, decode_s = measure.timed(codec.decompress, data)
                turns[f"{name}encode_s"].append(encode_s)
                turns[f"{name}decode_s"].append(decode_s)
        for key, seconds in turns.items():
            fastest[key].append(min(seconds))
    result = {key: statistics.mean(seconds) for key, seconds in fastest.items()}
    totals = [result[f"{name}encode_s"] + result[f"{name}decode_s"] for name in both]
    slower = result["decode_s"] / result["baseline_decode_s"]
    return {
        **result,
        "decode_percent": 100 * (slower - 1),
        "total_percent": 100 * (totals[0] / totals[1] - 1),
    }


def by_codec(gains: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns mean and largest gain over the models of each curve, and the mean time both ways."""
    rows = []
    for curve in dict.fromkeys(g["curve"] for g in gains):
        members = [g for g in gains if g["curve"] == curve]
        row = {"curve": curve, "models": len(members)}
        for key in ("psnr_gain", "ms_ssim_gain_db", "error_reduction"):
            values = [g[key] for g in members if g[key] is not None]
            row[key] = statistics.mean(values) if values else None
            row[f"{key}_largest"] = max(values, default=None)
        for who in ("", "baseline_"):
            both_ways = [g[f"{who}encode_s"] + g[f"{who}decode_s"] for g in members]
            row[f"{who}total_s"] = statistics.mean(both_ways)
        row["total_percent"] = 100 * (row["total_s"] / row["baseline_total_s"] - 1)
        rows.append(row)
    return rows


def weights(directory: str) -> dict[str, Any]:
    """Returns the results of an exploration of the feature distance's weight.

    Args:
      directory: the exploration's folder.

    Returns:
      A dict. `experiment`, `lmbda` and `distortion` describe the training. `metric` is a key of
      `curves.METRICS`. `start_quality` is the quality of the baseline, and `quality` maps a weight
      to its quality, None if training diverged. Both are measured on the exploration's validation
      pictures. `best` is the best weight, None if all diverged.

    Raises:
      EvaluationError: the folder has no exploration, its exploration has not tried any weight, or
        an earlier version made it.
    """
    try:
        found = exploration.read(directory)
    except ValueError as error:
        raise EvaluationError(f"--explorations: {error}") from None
    experiment, tried = found["asked"]["experiment"], found["tried"]
    if not tried:
        raise EvaluationError(f"--explorations: {directory} has tried no weight yet")
    good = [trial for trial in tried if trial["J"] is not None]
    if any("quality" not in trial for trial in good):
        raise EvaluationError(
            f"--explorations: {directory} was explored by an earlier version; explore again"
        )
    return {
        "experiment": experiment,
        "lmbda": experiment["lmbda"],
        "distortion": experiment["distortion"],
        "metric": _QUALITIES[experiment["distortion"]],
        "start_quality": good[0]["start_quality"] if good else None,
        "quality": {f"{trial['weight']:g}": trial.get("quality") for trial in tried},
        "best": f"{exploration.best(tried)['weight']:g}" if good else None,
    }
