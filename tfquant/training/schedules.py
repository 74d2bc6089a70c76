"""Keras schedules of the learning rate and of alpha, as functions of a stage's step.

alpha is the temperature of the annealed surrogates. A larger alpha is closer to rounding.
"""

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
    """Returns a linear warm-up to the peak, then a cosine decay to `_COSINE_FLOOR` of the peak."""
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

# Kind -> (peak, steps) -> schedule. The last two are those of the paper's two stages.
LEARNING_RATES = {
    "constant": lambda peak, steps: _schedules.ExponentialDecay(peak, 1, decay_rate=1.0),
    "cosine": _cosine,
    # The same section: another drop after epoch 425; in post-training, after 50 and 75 of 100
    # epochs.
    "paper_joint": _drops(ANNEALED_FRACTION, 425 / 450),
    "paper_post": _drops(50 / 100, 75 / 100),
}


def learning_rate(kind: str, peak: float, steps: int) -> Schedule:
    """Returns a learning-rate schedule over a stage.

    Args:
      kind: a key of `LEARNING_RATES`.
      peak: the highest learning rate.
      steps: number of steps of the stage.

    Raises:
      ValueError: the kind is unknown; the message lists the known ones.
    """
    check_known("learning-rate schedule", kind, LEARNING_RATES)
    return LEARNING_RATES[kind](peak, steps)


def annealing(alpha_min: float, alpha_max: float, steps: int) -> Schedule:
    """Returns alpha: linear over the first 400/450 of a stage of `steps`, then constant.

    It starts at `alpha_min` and ends at `alpha_max`.
    """
    return _schedules.PolynomialDecay(
        alpha_min, max(1, round(ANNEALED_FRACTION * steps)), alpha_max, power=1.0
    )
