"""Schedules, compared with the paper's epochs and closed forms."""

import numpy as np
import pytest

from tfquant.training import schedules

# Any number of steps per epoch would work.
EPOCH = 20


def at(schedule, steps):
    return np.array([float(schedule(step)) for step in steps])


@pytest.mark.parametrize(
    "kind,epochs,drops", [("paper_joint", 450, (400, 425)), ("paper_post", 100, (50, 75))]
)
def test_the_papers_learning_rate_drops_tenfold_after_its_epochs(kind, epochs, drops):
    """Compares with section 6.1.2: 1e-4, then 1e-5, then 1e-6.

    The drops are after 400 and 425 of 450 epochs in the joint stage, after 50 and 75 of 100 in
    post-training.
    """
    schedule = schedules.learning_rate(kind, 1e-4, epochs * EPOCH)
    first, second = (drop * EPOCH for drop in drops)
    np.testing.assert_allclose(at(schedule, [0, first // 2, first]), 1e-4, rtol=1e-6)
    np.testing.assert_allclose(at(schedule, [first + 1, second]), 1e-5, rtol=1e-6)
    np.testing.assert_allclose(at(schedule, [second + 1, epochs * EPOCH]), 1e-6, rtol=1e-6)


def test_the_cosine_warms_up_linearly_and_falls_to_a_hundredth():
    peak, steps, warmup = 2e-3, 4000, 200
    schedule = schedules.learning_rate("cosine", peak, steps)
    rising = np.arange(0, warmup, 20)
    np.testing.assert_allclose(at(schedule, rising), peak * rising / warmup, rtol=1e-5)
    falling = np.arange(warmup, steps + 1, 190)
    cosine = 0.5 * (1 + np.cos(np.pi * (falling - warmup) / (steps - warmup)))
    np.testing.assert_allclose(at(schedule, falling), peak * (0.01 + 0.99 * cosine), rtol=1e-4)


def test_the_cosines_warm_up_is_at_most_a_thousand_steps():
    schedule = schedules.learning_rate("cosine", 1.0, 100_000)
    np.testing.assert_allclose(at(schedule, [500, 1000]), [0.5, 1.0], rtol=1e-5)


@pytest.mark.parametrize("kind", schedules.LEARNING_RATES)
def test_every_schedule_takes_a_stage_of_any_length(kind):
    for steps in (0, 1, 2, 3, 10):
        values = at(schedules.learning_rate(kind, 1e-3, steps), range(steps + 2))
        assert np.all(np.isfinite(values)) and np.all((values >= 0) & (values <= 1.001e-3))


def test_a_constant_learning_rate_is_constant():
    schedule = schedules.learning_rate("constant", 3e-4, 100)
    np.testing.assert_allclose(at(schedule, [0, 1, 50, 100, 1000]), 3e-4, rtol=1e-6)


def test_an_unknown_schedule_lists_the_choices():
    with pytest.raises(ValueError, match="unknown learning-rate schedule 'linear'; known: const"):
        schedules.learning_rate("linear", 1e-3, 10)


def test_alpha_rises_linearly_over_400_of_450_epochs_and_stays():
    alpha = schedules.annealing(1.0, 12.0, 450 * EPOCH)
    epochs = np.array([0, 1, 100, 200, 399, 400, 401, 425, 450])
    expected = 1.0 + 11.0 * np.minimum(epochs / 400, 1.0)
    np.testing.assert_allclose(at(alpha, epochs * EPOCH), expected, rtol=1e-5)
