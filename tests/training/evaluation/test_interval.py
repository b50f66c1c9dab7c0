from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.interval import mean_interval


def limits(values: list[float] | np.ndarray) -> tuple[float, float, float]:
    mean, low, high = mean_interval(values)
    assert low is not None
    assert high is not None
    return mean, low, high


def test_interval_is_over_episodes() -> None:
    seeds = np.array([[0.4, 1.0, 0.2, 0.7], [0.6, 0.8, 0.4, 0.9]])
    mean, low, high = limits(seeds)
    assert mean == pytest.approx(0.625)
    assert low < mean < high
    assert (mean, low, high) == pytest.approx(limits(seeds.mean(axis=0)))
    # More noises of the same episodes do not make it narrower, more episodes do.
    assert limits(np.tile(seeds, (3, 1))) == pytest.approx((mean, low, high))
    _, less_low, less_high = limits(np.tile(seeds, (1, 3)))
    assert less_high - less_low < high - low


def test_interval_is_that_of_the_normal_approximation_where_that_holds() -> None:
    values = np.random.default_rng(1).normal(0.5, 0.1, 200)
    mean, low, high = limits(values)
    half_width = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    assert (low, high) == pytest.approx((mean - half_width, mean + half_width), abs=0.1 * half_width)


def test_interval_covers_the_true_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        difficulty = rng.normal(0.5, 0.1, 50)
        _, low, high = limits(difficulty + rng.normal(0, 0.05, (3, 50)))
        hits += low <= 0.5 <= high
    assert 0.92 <= hits / 400 <= 0.975


@pytest.mark.parametrize("good", [0.0, 1.0])
def test_limits_of_rewards_are_rewards(good: float) -> None:
    rewards = [good] * 19 + [0.5]
    mean, low, high = limits(rewards)
    assert abs(mean - good) < 1.96 * np.std(rewards, ddof=1) / np.sqrt(
        20
    )  # standard errors would leave [0, 1]
    assert 0 <= low <= mean <= high <= 1
    assert low < high


def test_the_same_values_have_the_same_limits() -> None:
    values = list(np.random.default_rng(2).uniform(size=30))
    assert mean_interval(values) == mean_interval(values)
    assert mean_interval(values, seed=1) != mean_interval(values)


@pytest.mark.parametrize("value", [1.0, 0.1])
def test_equal_values_leave_no_doubt(value: float) -> None:
    assert mean_interval([value] * 7) == (pytest.approx(value), pytest.approx(value), pytest.approx(value))
    # Equal but for rounding.
    mean, low, high = limits([0.1 + 0.2, 0.3, 0.3])
    assert (low, high) == pytest.approx((mean, mean))


def test_one_episode_says_nothing_about_the_spread() -> None:
    assert mean_interval([0.25]) == (0.25, None, None)
    assert mean_interval([[0.4], [0.6]]) == (pytest.approx(0.5), None, None)


def test_no_values_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        mean_interval([])
