"""What rectified models gain over their baselines on the same pictures: quality, latent, time.

A model and its baseline share an encoder and an entropy model where the rectifier was trained by
the predictive stage alone: then they have one fingerprint, and every file is the other's, byte for
byte. A soft stage moves the encoder; the difference in bits is then said beside the gain.

Gains follow Luo and Chen (2023): `error_reduction` is `1 - ||y - y_bar||^2 / ||y - y_hat||^2` in
percent, the mean over pictures; the gain of a codec is the mean and the largest over its models,
one a quality (their Table 2), its time the mean of encoding plus decoding (Table 3). Their Table 1
lists the quality with every weight that was tried: `weights` reads it from explorations.
"""

from __future__ import annotations

import statistics

from tfquant.evaluation import EvaluationError, measure
from tfquant.training import exploration

# Times are compared on so many pictures, each as often, in turns.
TIMED_PICTURES, TIMED_ROUNDS = 4, 5

# What a search is listed by, the quality that it trained for: the distortion -> a key of
# `curves.METRICS`.
_QUALITIES = {"mse": "psnr", "ms_ssim": "ms_ssim_db"}

# Without one fingerprint: what a model and its baseline have in common.
_SHARED = ("codec", "codec_options", "lmbda", "distortion")


def pair(models, baselines) -> list:
    """(model, baseline) for each model: the baseline with its fingerprint, or of its settings.

    Args:
      models, baselines: as `report.json` lists them.

    Raises:
      EvaluationError: a model without baseline.
    """
    return [(model, _baseline_of(model, baselines)) for model in models]


def _baseline_of(model: dict, baselines) -> dict:
    settings = [model["experiment"].get(name) for name in _SHARED]
    same_bits = [b for b in baselines if b["fingerprint"] == model["fingerprint"]]
    alike = [b for b in baselines if [b["experiment"].get(n) for n in _SHARED] == settings]
    if not same_bits + alike:
        raise EvaluationError(
            f"--baseline: none for {model['name']}; expected the run that it started from, or one"
            f" with the same {', '.join(_SHARED)}; got {', '.join(b['name'] for b in baselines)}"
        )
    return (same_bits + alike)[0]


def gain(model: dict, baseline: dict, seconds: dict) -> dict:
    """One model's gain.

    Args:
      model, baseline: as `report.json` lists them, over the same pictures.
      seconds: what `timing` gave for the two.
    """
    pairs = list(zip(model["images"], baseline["images"]))
    psnr = [a["psnr"] - b["psnr"] for a, b in pairs if None not in (a["psnr"], b["psnr"])]
    # The decibels of a mean are no mean of decibels.
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


def timing(model, baseline, pictures) -> dict:
    """Seconds of both, taken in turns, and what the model takes more, in percent.

    The mean over pictures of the fastest of several turns: whatever else the machine does can only
    add to a time.

    Args:
      model, baseline: what `models.evaluate` takes.
      pictures: the `Picture`s, of which the first are used.
    """
    both = {"": model, "baseline_": baseline}
    fastest = {f"{name}{way}_s": [] for name in both for way in ("encode", "decode")}
    for picture in pictures[:TIMED_PICTURES]:
        image = picture.read()
        turns = {key: [] for key in fastest}
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


def by_codec(gains) -> list:
    """The mean and the largest gain over the models of each curve, and the mean time both ways."""
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


def weights(directory: str) -> dict:
    """What an exploration of the feature distance's weight found.

    Args:
      directory: the exploration's folder.

    Returns:
      `experiment`, `lmbda` and `distortion` of what was trained; `metric`, a key of
      `curves.METRICS`, of the `start_quality` of its baseline and the `quality` by weight, None
      where training diverged, both on the exploration's validation pictures; the `best` weight,
      None where all diverged.

    Raises:
      EvaluationError: the folder holds no exploration, none that has tried anything, or one by an
        earlier version.
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
