"""The train-test gap: an epoch's `R~, D~, J~` of the surrogate beside `R, D, J` of rounding."""

from __future__ import annotations

from tfquant.training.experiment import Experiment, Stage

SYMBOLS = ("R", "D", "J")


def trains_encoder(stage: Stage) -> bool:
    """Whether there is a gap to speak of: behind a frozen encoder nothing follows a surrogate."""
    return "encoder" not in stage.frozen


def validated(logs: dict, experiment: Experiment) -> dict:
    """`{"R": (rounding, surrogate), "D": ..., "J": ...}` from the logs of an epoch."""
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
    return dict(zip(SYMBOLS, map(tuple, (rates, distortions, costs))))
