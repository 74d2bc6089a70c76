"""The train-test gap: `R~, D~, J~` of the surrogate compared with `R, D, J` of rounding."""

from __future__ import annotations

from tfquant.training.experiment import Experiment, Stage

SYMBOLS = ("R", "D", "J")


def trains_encoder(stage: Stage) -> bool:
    """Returns true if the stage has a train-test gap. It has none if the encoder is frozen."""
    return "encoder" not in stage.frozen


def validated(logs: dict, experiment: Experiment) -> dict[str, tuple[float, float]]:
    """Returns `{"R": (rounding, surrogate), "D": ..., "J": ...}` from the logs of an epoch."""
    rates, distortions = (
        [float(logs[f"val_{prefix}{name}"]) for prefix in ("", "surrogate_")]
        for name in ("bpp", experiment.distortion)
    )
    if experiment.lmbda_range:
        weighted = [float(logs[f"val_{prefix}weighted_{experiment.distortion}"])
                    for prefix in ("", "surrogate_")]  # fmt: skip
    else:
        weighted = [experiment.lmbda * D for D in distortions]
    costs = [R + D for R, D in zip(rates, weighted)]
    pairs = zip(SYMBOLS, (rates, distortions, costs))
    return {symbol: (rounding, surrogate) for symbol, (rounding, surrogate) in pairs}
