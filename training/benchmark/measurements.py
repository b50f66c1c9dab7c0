"""What is measured of a sampler: its error, its time, its rewards."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policy import DiffusionPolicy, Prediction, SamplerConfig
from policy.runtime import Policy
from training.benchmark.candidates import Candidate
from training.benchmark.row_cache import Row, Task
from training.benchmark.tables import interval_cells
from training.evaluation.episode import Episode
from training.evaluation.rollout import run_episodes
from training.provenance import machine

EPISODE_STEPS = (200, 300)
"""Control steps after which rewards are reported: in the PCM paper, and in Diffusion Policy."""

TURNS = 5
"""In which policies are timed one after the other."""


def percentiles(values: Sequence[float] | NDArray[np.float64] | Tensor, *levels: int) -> list[float]:
    return [float(value) for value in np.percentile(values, levels)]


def accuracy_measure(
    base: DiffusionPolicy, observations: Tensor, *, seed: int, reference_steps: int
) -> Callable[[Candidate], Row]:
    """How to measure errors and costs, with the same observations and noises for every candidate.

    Args:
        base: the policy.
        observations: (B, observation_steps, observation_dim) in the task's units.
        seed: of the noises.
        reference_steps: T of the sequential DDIM that all are compared with.

    Returns:
        A function from a candidate to `depth` and `network_evaluations` of a chunk, and percentiles over observations
        of the largest difference of a normalised action from a sequential sampler's: `error_p50` and `error_p95` from
        that of the same solver and T, None for a sequential sampler, and `error_p95_reference` from DDIM's with
        `reference_steps`.
    """
    shape = (len(observations), base.config.horizon, base.task.action_dim)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    @cache
    def exact(solver: str, steps: int) -> Tensor:
        return actions(base.with_sampler(SamplerConfig("sequential", solver, steps)))[0]

    def actions(policy: DiffusionPolicy) -> tuple[Tensor, int, int]:
        generator = torch.Generator().manual_seed(seed + 1)
        prediction = policy.predict(observations, noise=noise, generator=generator)
        normalized = policy.normalizer.action.normalize(prediction.actions).double().cpu()
        return normalized, prediction.depth, prediction.network_evaluations

    def measure(candidate: Candidate) -> Row:
        found, depth, evaluations = actions(candidate.policy(base))
        row: Row = {"depth": depth, "network_evaluations": evaluations / len(observations)}
        row |= {"error_p50": None, "error_p95": None}
        sampler = candidate.sampler
        if sampler.is_parallel:
            errors = (found - exact(sampler.solver, sampler.steps)).abs().amax((1, 2))
            row["error_p50"], row["error_p95"] = percentiles(errors, 50, 95)
        errors = (found - exact("ddim", reference_steps)).abs().amax((1, 2))
        (row["error_p95_reference"],) = percentiles(errors, 95)
        return row

    return measure


def time_in_turns(
    make_policies: Sequence[Callable[[], Policy]], observations: Tensor, *, turn: int, calls: int
) -> list[list[float]]:
    """Milliseconds of some calls of every policy, one after the other, at batch size 1.

    Args:
        make_policies: every second turn takes them in reverse, so that none always follows the same one.
        observations: (B, observation_steps, observation_dim) in the task's units, of which each call gets another one.
        turn: number of the turn.
        calls: of each policy.

    Returns:
        (policies, calls), from the observation to the chunk on the CPU.
    """
    milliseconds: dict[int, list[float]] = {}
    generator = torch.Generator().manual_seed(turn)
    order = range(len(make_policies))
    for index in order if turn % 2 == 0 else reversed(order):
        policy = make_policies[index]()
        previous = prediction_before(policy, observations)
        taken = []
        for call in range(calls + 1):
            observation = observations[(turn * calls + call) % len(observations)]
            started = time.perf_counter()
            policy.predict(observation[None], generator=generator, previous=previous).chunk.cpu()
            taken.append(1000 * (time.perf_counter() - started))
        milliseconds[index] = taken[1:]  # the first call finds another one's data in the caches
    return [milliseconds[index] for index in order]


def timing_task(
    make_policies: Sequence[Callable[[], Policy]],
    observations: Tensor,
    *,
    identity: Mapping[str, Any],
    cost: float,
    threads: int,
    calls: int,
) -> Task:
    """The row `milliseconds` of `time_in_turns`, in a few turns, so that a busy minute does not meet one policy alone.

    Args:
        make_policies, observations, calls: as there.
        identity: what decides the policies.
        cost: of a call of each, in network evaluations.
        threads: that the policies use.
    """
    turns = min(TURNS, calls)

    def measure() -> Row:
        parts = [
            time_in_turns(make_policies, observations, turn=turn, calls=calls // turns)
            for turn in range(turns)
        ]
        return {"milliseconds": [[ms for part in taken for ms in part] for taken in zip(*parts, strict=True)]}

    return Task(
        label=f"time of all, {threads} thread{'s' if threads > 1 else ''}",
        cost=calls * cost,
        identity={
            "measured": "time",
            **identity,
            "threads": threads,
            "calls": calls,
            "turns": turns,
            "machine": machine(observations.device),
        },
        measure=measure,
    )


def prediction_before(policy: Policy, observations: Tensor) -> Prediction | None:
    """A prediction to go on from, if the policy's sampler uses one."""
    if not policy.resolved_sampler.uses_previous:
        return None
    return policy.predict(observations[:1], generator=torch.Generator().manual_seed(0))


def measure_rewards(policy: Policy, *, first_seed: int, episodes: int, noise_seed: int) -> Row:
    """Rewards of episodes in one rollout, as of `rewards_of`."""
    rollout = run_episodes(
        policy,
        range(first_seed, first_seed + episodes),
        max_steps=max(EPISODE_STEPS),
        noise_seed=noise_seed,
        show_progress=False,
    )
    return rewards_of(rollout.episodes)


def rewards_of(episodes: Sequence[Episode]) -> Row:
    """Rewards of episodes, up to each number of control steps in `EPISODE_STEPS`.

    Returns:
        `max_reward_<steps>`, the largest, and `success_<steps>`, whether the task was done: lists of one value an
        episode.
    """
    row: Row = {}
    for steps in EPISODE_STEPS:
        until = [episode.within(steps) for episode in episodes]
        row[f"max_reward_{steps}"] = [float(episode.max_reward) for episode in until]
        row[f"success_{steps}"] = [bool(episode.success) for episode in until]
    return row


def time_cells(milliseconds: Mapping[int, Sequence[float]]) -> Row:
    """`ms_<threads>` and `ms_<threads>_p99`: median and 99th percentile of calls, by the number of threads."""
    row: Row = {}
    for threads, taken in milliseconds.items():
        row[f"ms_{threads}"], row[f"ms_{threads}_p99"] = percentiles(taken, 50, 99)
    return row


def reward_cells(measured: Sequence[Row], *, against: Sequence[Row] | None) -> Row:
    """Means with their intervals, for each of `EPISODE_STEPS`.

    Args:
        measured: rows of `rewards_of`, one for each noise seed.
        against: those of another sampler in the same episodes; None for no gain.

    Returns:
        `reward_<steps>`, `gain_<steps>` and `success_<steps>`.
    """
    row: Row = {}
    for steps in EPISODE_STEPS:
        rewards = np.array([each[f"max_reward_{steps}"] for each in measured])
        before = None if against is None else np.array([each[f"max_reward_{steps}"] for each in against])
        row |= interval_cells(f"reward_{steps}", rewards)
        row |= interval_cells(f"gain_{steps}", [] if before is None else rewards - before)
        row[f"success_{steps}"] = float(np.mean([each[f"success_{steps}"] for each in measured]))
    return row


def time_and_reward_columns(threads: Sequence[int]) -> dict[str, tuple[str, str]]:
    """Titles and formats of `time_cells` and `reward_cells`, for `markdown_table`."""
    return {
        **{f"ms_{n}": (f"ms, {n} thread{'s' if n > 1 else ''}", ".2f") for n in threads},
        **{f"reward_{steps}": (f"reward, {steps}", ".3f") for steps in EPISODE_STEPS},
        **{f"gain_{steps}": (f"gain, {steps}", "+.3f") for steps in EPISODE_STEPS},
        **{f"success_{steps}": (f"success, {steps}", ".3f") for steps in EPISODE_STEPS},
    }
