"""What sequential and parallel samplers reach, and what they cost (PCM, So et al. 2025, table 3)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pandas import DataFrame, isna
from torch import Tensor

from policy import DiffusionPolicy, PcmConfig
from policy.checkpoint import tensors_sha256
from policy.runtime import serve
from training.benchmark.candidates import Candidate, candidates, load_pcm_files
from training.benchmark.config import BenchmarkConfig, RewardsConfig
from training.benchmark.measurements import (
    EPISODE_STEPS,
    accuracy_measure,
    measure_rewards,
    percentiles,
    time_in_turns,
)
from training.benchmark.report import (
    held_out_observations,
    load_policy,
    open_cache,
    rollout_engine,
    write_report,
)
from training.benchmark.reports.rewards_layout import describe_rewards, format_rewards, plot_rewards
from training.benchmark.row_cache import Row, Task
from training.benchmark.tables import interval_cells, table
from training.provenance import machine

CALLS_IN_TURN = 3


def report(config: BenchmarkConfig) -> None:
    """Write the report `rewards`.

    Raises:
        ValueError: if the policy has no covariance, or a sampler that shall get rewards does not exist.
    """
    options = config.rewards
    base = load_policy(config)
    compared = candidates(config, load_pcm_files(config.pcm, base))
    for part in options.reward_samplers or ():
        if not any(part in candidate.name for candidate in compared):
            names = "; ".join(dict.fromkeys(candidate.name for candidate in compared))
            raise ValueError(f"rewards.reward_samplers: {part!r} is part of none of {names}")
    observations = held_out_observations(config, base)
    cache = open_cache(config, base)

    accuracy = _accuracy_tasks(config, base, compared, observations=observations)
    timings = _timing_tasks(options, base, compared, observations=observations)
    rewards = [_reward_tasks(config, base, candidate) for candidate in compared]
    chosen = [
        task
        for candidate, tasks in zip(compared, rewards, strict=True)
        if _gets_reward(candidate, options)
        for task in tasks
    ]
    cache.measure_all([*sorted(accuracy, key=_cost), *timings, *sorted(chosen, key=_cost)], "rewards")

    accurate = [cache.read(task) for task in accuracy]
    milliseconds = np.empty((len(compared), 0))  # (candidates, calls)
    if timings:
        milliseconds = np.concatenate([cache.read(task)["milliseconds"] for task in timings], axis=1)
    found = [[row for task in tasks if (row := cache.find(task.identity)) is not None] for tasks in rewards]
    complete = [rows if len(rows) == len(options.noise_seeds) else [] for rows in found]
    rows = table(
        [
            make_row(candidate, errors, milliseconds[index], rewards=complete[index])
            for index, (candidate, errors) in enumerate(zip(compared, accurate, strict=True))
        ]
    )
    rows = rows.join(gains(compared, [row["error_p95"] for row in accurate], complete))
    reference_steps = max(options.ddim_steps)
    rows = compare(rows, reference_steps)
    write_report(
        config,
        rows,
        title="Sequential and parallel samplers",
        introduction=describe_rewards(options, reference_steps, config.observations),
        tables=format_rewards(rows, reference_steps),
        figures={"": plot_rewards(rows)},
        measured=[*accurate, *(row for rows in found for row in rows)],
    )


def _cost(task: Task) -> float:
    return task.cost


def _accuracy_tasks(
    config: BenchmarkConfig, base: DiffusionPolicy, compared: Sequence[Candidate], *, observations: Tensor
) -> list[Task]:
    reference_steps = max(config.rewards.ddim_steps)
    measure = accuracy_measure(base, observations, seed=config.seed, reference_steps=reference_steps)
    decisive = {
        "measured": "accuracy",
        "observations_sha256": tensors_sha256({"": observations}),
        "seed": config.seed,
        "reference_steps": reference_steps,
    }
    return [
        Task(
            label=f"error of {candidate.label}",
            cost=candidate.evaluations * len(observations),
            identity={**decisive, **candidate.identity},
            measure=partial(measure, candidate),
        )
        for candidate in compared
    ]


def _timing_tasks(
    options: RewardsConfig, base: DiffusionPolicy, compared: Sequence[Candidate], *, observations: Tensor
) -> list[Task]:
    """Turns, in each of which all rows are timed: a turn is a row of the cache."""
    decisive = {
        "measured": "time",
        "observations_sha256": tensors_sha256({"": observations}),
        "candidates": [candidate.identity for candidate in compared],
        "machine": machine(base.solver.a.device),
    }
    evaluations = sum(candidate.evaluations for candidate in compared)
    policies = [partial(candidate.policy, base) for candidate in compared]

    def measure(turn: int) -> Row:
        return {"milliseconds": time_in_turns(policies, observations, turn=turn, calls=CALLS_IN_TURN)}

    return [
        Task(
            label=f"time of all, turn {turn + 1}",
            cost=(CALLS_IN_TURN + 1) * evaluations,
            identity={**decisive, "turn": turn},
            measure=partial(measure, turn),
        )
        for turn in range(math.ceil(options.timed_calls / CALLS_IN_TURN))
    ]


def _reward_tasks(config: BenchmarkConfig, base: DiffusionPolicy, candidate: Candidate) -> list[Task]:
    options = config.rewards
    chunks = options.episodes * math.ceil(max(EPISODE_STEPS) / base.config.action_steps)

    def measure(episodes: Mapping[str, int]) -> Row:
        policy = serve(candidate.policy(base), batch_size=None, engine=config.engine)
        return measure_rewards(policy, **episodes)

    tasks = []
    for seed in options.noise_seeds:
        episodes = {"first_seed": options.first_seed, "episodes": options.episodes, "noise_seed": seed}
        task = Task(
            label=f"reward of {candidate.label}, noise {seed}",
            cost=candidate.evaluations * chunks,
            identity={
                "measured": "reward",
                **episodes,
                **rollout_engine(config, base),
                **candidate.identity,
            },
            measure=partial(measure, episodes),
        )
        tasks.append(task)
    return tasks


def _gets_reward(candidate: Candidate, options: RewardsConfig) -> bool:
    parts, steps, depths = options.reward_samplers, options.reward_steps, options.reward_depths
    return (
        (parts is None or any(part in candidate.name for part in parts))
        and (steps is None or candidate.sampler.steps in steps)
        and (depths is None or candidate.depth in depths)
    )


def make_row(
    candidate: Candidate, accuracy: Row, milliseconds: NDArray[np.float64], *, rewards: Sequence[Row]
) -> dict[str, Any]:
    """What was measured of a candidate; None where nothing was."""
    p50, p99 = percentiles(milliseconds, 50, 99) if len(milliseconds) else (None, None)
    row = {
        **candidate.columns,
        "depth": accuracy["depth"],
        "network_evaluations": accuracy["network_evaluations"],
        "ms_p50": p50,
        "ms_p99": p99,
    }
    for steps in EPISODE_STEPS:
        row |= interval_cells(f"reward_{steps}", [reward[f"max_reward_{steps}"] for reward in rewards])
    return row | {name: accuracy[name] for name in ("error_p50", "error_p95", "error_p95_reference")}


def gains(
    compared: Sequence[Candidate], errors: Sequence[float | None], rewards: Sequence[Sequence[Row]]
) -> DataFrame:
    """For each candidate with a PCM the same sampler's error without it, and what it gains in reward, with intervals.

    The gain is paired: in the same episodes with the same noises, so that its interval is narrower than those of the
    two rewards. Other candidates have none.

    Args:
        compared: the candidates.
        errors: the error of each.
        rewards: the rewards of each, none or one for each noise seed.
    """
    untrained = {candidate.sampler: i for i, candidate in enumerate(compared) if candidate.pcm is None}
    rows = []
    for candidate, trained in zip(compared, rewards, strict=True):
        index = None
        if candidate.pcm is not None:
            index = untrained.get(replace(candidate.sampler, method="picard", pcm=PcmConfig()))
        row = {"error_p95_untrained": None if index is None else errors[index]}
        for steps in EPISODE_STEPS:
            gain = np.empty(0)
            if index is not None and trained and rewards[index]:
                maxima, others = (
                    np.array([row[f"max_reward_{steps}"] for row in seeds])
                    for seeds in (trained, rewards[index])
                )
                gain = maxima - others
            row |= interval_cells(f"gain_{steps}", gain)
        rows.append(row)
    return table(rows)


def compare(rows: DataFrame, reference_steps: int) -> DataFrame:
    """The rows with how much faster each is than DDIM, and than the fastest sequential sampler of equal reward.

    Of equal reward is one whose means lie in the row's intervals or above, after each number of control steps.
    """
    is_sequential = rows["method"] == "sequential"
    sequential = rows[is_sequential & rows["ms_p50"].notna()]
    is_reference = is_sequential & (rows["solver"] == "ddim") & (rows["steps"] == reference_steps)
    (reference,) = rows.loc[is_reference, "ms_p50"]

    def fastest_equal(row: Mapping[str, Any]) -> Mapping[str, Any]:
        as_good = [sequential[f"reward_{steps}"] >= row[f"reward_{steps}_low"] for steps in EPISODE_STEPS]
        equal = sequential[np.logical_and.reduce(as_good)]
        if equal.empty or isna(row["ms_p50"]):
            return {"equal_sampler": None, "equal_steps": None, "speedup_to_equal": None}
        fastest = equal.loc[equal["ms_p50"].idxmin()]
        return {
            "equal_sampler": fastest["sampler"],
            "equal_steps": int(fastest["steps"]),
            "speedup_to_equal": fastest["ms_p50"] / row["ms_p50"],
        }

    found = table([fastest_equal(row) for row in rows.to_dict("records")])
    return rows.assign(speedup=reference / rows["ms_p50"]).join(found)
