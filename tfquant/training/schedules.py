"""Schedules of the learning rate and of the temperature alpha, as Keras schedules of the step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from tfquant.legacy_keras import keras
from tfquant.names import check_known

if TYPE_CHECKING:
    from typing_extensions import TypeAlias

_schedules = keras.optimizers.schedules
Schedule: TypeAlias = keras.optimizers.schedules.LearningRateSchedule


def _drops(*fractions: float) -> Callable[[float, int], Schedule]:
    """Returns the peak, divided by ten at each of these fractions of the stage."""

    def schedule(peak: float, steps: int) -> Schedule:
        boundaries = [max(1, round(f * steps)) for f in fractions]
        values = [peak * 0.1**k for k in range(len(fractions) + 1)]
        return _schedules.PiecewiseConstantDecay(boundaries, values)

    return schedule


# Warm-up of the cosine as a fraction of the stage, and its maximum in steps.
_WARMUP_FRACTION, _WARMUP_STEPS = 0.05, 1000
_COSINE_FLOOR = 0.01  # final learning rate / peak


def _cosine(peak: float, steps: int) -> Schedule:
    warmup = max(1, min(_WARMUP_STEPS, int(_WARMUP_FRACTION * steps)))
    return _schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=max(1, steps - warmup),
        alpha=_COSINE_FLOOR,
        warmup_target=peak,
        warmup_steps=warmup,
    )


# arXiv 2309.17051, section 6.1.2: joint training has 450 epochs. alpha is annealed for the first
# 400, and then the learning rate drops.
ANNEALED_FRACTION = 400 / 450

LEARNING_RATES = {
    "constant": lambda peak, steps: _schedules.ExponentialDecay(peak, 1, decay_rate=1.0),
    "cosine": _cosine,
    # The same section: another drop after epoch 425; in post-training, after 50 and 75 of 100
    # epochs.
    "paper_joint": _drops(ANNEALED_FRACTION, 425 / 450),
    "paper_post": _drops(50 / 100, 75 / 100),
}


def learning_rate(kind: str, peak: float, steps: int) -> Schedule:
    """Returns a learning-rate schedule over a stage of `steps`. A ValueError lists the kinds."""
    check_known("learning-rate schedule", kind, LEARNING_RATES)
    return LEARNING_RATES[kind](peak, steps)


def annealing(alpha_min: float, alpha_max: float, steps: int) -> Schedule:
    """Returns alpha, linear from `alpha_min` to `alpha_max` over the first 400/450 of the stage."""
    return _schedules.PolynomialDecay(
        alpha_min, max(1, round(ANNEALED_FRACTION * steps)), alpha_max, power=1.0
    )
