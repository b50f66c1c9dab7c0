from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

import pytest
import torch
from torch import Tensor

from policy import DiffusionPolicy, SamplerConfig, StopConfig
from policy.sampling import Iterate, sampler_from_options
from policy.sampling.deadline import REMEMBERED, Deadline, IterationTimes, device_clock


class Clock:
    """A clock that only a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def timed_policy(policy: DiffusionPolicy, clock: Clock, seconds: Callable[[], float]) -> DiffusionPolicy:
    """Each evaluation of the network takes as long as `seconds` says, whatever its size."""

    def pass_time(*_: object) -> None:
        clock.now += seconds()

    policy.network.register_forward_pre_hook(pass_time)
    return replace(policy, clock=clock, covariance=0.1 * torch.eye(32))


def sampler(deadline_ms: float, options: Mapping[str, object] = MappingProxyType({})) -> SamplerConfig:
    options = {"picard.start": "repeated"} | options
    return sampler_from_options(
        {"method": "picard", "steps": 10, "picard.jacobian": "drift", "stop.deadline_ms": deadline_ms}
        | options
    )


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_an_iteration_takes_as_long_as_the_slowest_remembered() -> None:
    times = IterationTimes()
    assert times.expect(8) == 0  # nothing is known
    for seconds in (0.3, 0.5, 0.2):
        times.remember(8, seconds)
    times.remember(10, 0.9)
    assert [times.expect(size) for size in (7, 8, 9, 10, 11)] == [0.5, 0.5, 0.9, 0.9, 0]
    for _ in range(REMEMBERED):
        times.remember(8, 0.1)
    assert times.expect(8) == 0.1


def in_time(clock: Clock, times: IterationTimes) -> Iterator[int]:
    """Number of iterations, of 2, that a deadline in 1 s leaves a sampler of 10 steps."""
    states = torch.zeros(1, 11, 1, 1)
    iterates = (Iterate(states, first, states[:, :1, 0, 0]) for first in (1, 2))
    for iterate in Deadline(clock.now + 1, clock, times).in_time(iterates):
        yield iterate.first


def test_one_slow_iteration_is_not_believed_for_ever(clock: Clock) -> None:
    times = IterationTimes()
    times.remember(10, 0.1)
    times.remember(9, 5.0)  # a hiccup
    refusals = 0
    while list(in_time(clock, times)) == [1]:
        refusals += 1
    assert refusals == 1


def test_stops_when_the_next_iteration_would_be_late(
    policy: DiffusionPolicy, observations: Tensor, clock: Clock
) -> None:
    timed = timed_policy(policy, clock, lambda: 0.010)
    for _ in range(2):  # the first call learns how long an iteration takes
        started = clock.now
        prediction = timed.with_sampler(sampler(35)).predict(observations, generator=generator())
    assert (prediction.depth, prediction.cut) == (3, True)
    assert clock.now - started <= 0.035
    assert (prediction.residual > 0).all()
    expected = timed.with_sampler(sampler(0, {"stop.iterations": 3})).predict(
        observations, generator=generator()
    )
    torch.testing.assert_close(prediction.actions, expected.actions)
    torch.testing.assert_close(prediction.residual, expected.residual)


def test_is_not_cut_when_it_converges_in_time(
    policy: DiffusionPolicy, observations: Tensor, clock: Clock
) -> None:
    timed = timed_policy(policy, clock, lambda: 0.010)
    for options, depth in (({}, 10), ({"stop.iterations": 4}, 4), ({"stop.tolerance": 10.0}, 3)):
        prediction = timed.with_sampler(sampler(101, options)).predict(observations)
        assert (prediction.depth, prediction.cut) == (depth, False)


def test_a_deadline_that_has_passed_leaves_the_start_and_one_iteration(
    policy: DiffusionPolicy, observations: Tensor, clock: Clock
) -> None:
    timed = timed_policy(policy, clock, lambda: 0.010)
    config = sampler(0.001, {"picard.start": "gaussian"})
    prediction = timed.with_sampler(config).predict(observations)
    assert (prediction.depth, prediction.cut) == (2, True)
    limits = policy.normalizer.action
    assert (prediction.chunk >= limits.minimum - 1e-3).all()
    assert (prediction.chunk <= limits.maximum + 1e-3).all()


def test_the_deadline_counts_from_the_call(
    policy: DiffusionPolicy, observations: Tensor, clock: Clock
) -> None:
    """Time before the sampler begins, such as that of the start, counts as passed."""
    timed = timed_policy(policy, clock, lambda: 0.010)
    config = sampler(35, {"picard.start": "held", "picard.start_calls": 2})
    sampled = timed.with_sampler(config)
    for _ in range(2):
        prediction = sampled.predict(observations)
    assert (prediction.depth, prediction.cut) == (3, True)


@pytest.mark.parametrize("seed", range(3))
def test_is_late_by_no_more_than_the_iteration_that_took_longer_than_any_before(
    policy: DiffusionPolicy, observations: Tensor, clock: Clock, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    taken: list[float] = []

    def seconds() -> float:
        spike = 10.0 if torch.rand((), generator=random) < 0.05 else 1.0
        taken.append(0.010 * spike * float(0.8 + 0.4 * torch.rand((), generator=random)))
        return taken[-1]

    sampled = timed_policy(policy, clock, seconds).with_sampler(sampler(60))
    cuts = 0
    for _ in range(100):
        taken.clear()
        called = clock.now
        prediction = sampled.predict(observations)
        cuts += prediction.cut
        assert prediction.depth == len(taken)
        # All but the last iteration ended in time; the first is made in any case.
        assert len(taken) == 1 or sum(taken[:-1]) <= 0.060
        assert clock.now - called == pytest.approx(sum(taken))
    assert 50 < cuts <= 100


def test_depth_recovers_after_the_load_has_gone(
    policy: DiffusionPolicy, observations: Tensor, clock: Clock
) -> None:
    load = itertools.chain([0.010] * 30, [0.100] * 30, itertools.repeat(0.010))
    sampled = timed_policy(policy, clock, lambda: next(load)).with_sampler(sampler(85))
    depths = [sampled.predict(observations).depth for _ in range(100)]
    assert max(depths[:3]) == 8
    assert min(depths) == 1
    assert depths[-1] == 8


def test_a_deadline_without_iterations_is_refused() -> None:
    message = (
        r"sampler\.stop\.deadline_ms=20\.0 belongs to the methods picard, parasolver, pcm, not to sequential"
    )
    with pytest.raises(ValueError, match=message):
        SamplerConfig(stop=StopConfig(deadline_ms=20.0))


def test_a_deadline_of_a_window_is_refused() -> None:
    """Such a deadline would leave states that no iteration has reached."""
    with pytest.raises(ValueError, match=r"sampler\.stop\.deadline_ms needs all steps at once"):
        sampler(20.0, {"parallel.window": 5})


def test_a_clock_for_the_cpu_waits_for_nothing(clock: Clock) -> None:
    assert device_clock(clock, torch.device("cpu")) is clock
