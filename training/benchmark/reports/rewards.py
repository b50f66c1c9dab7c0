"""What sequential and parallel samplers reach, and what they cost (PCM, So et al. 2025, table 3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from policy import DiffusionPolicy
from policy.checkpoint import file_sha256
from policy.pcm import weights_sha256
from training.benchmark.candidates import Candidate, candidates, load_pcm_files
from training.benchmark.config import BenchmarkConfig, Table3Config
from training.benchmark.measurements import (
    CALLS_IN_TURN,
    EPISODE_STEPS,
    accuracy_measure,
    measure_rewards,
    time_in_turns,
)
from training.benchmark.report import held_out_observations, load_policy, write_report
from training.benchmark.reports.rewards_layout import describe_table, format_table, plot_table
from training.benchmark.reports.rewards_rows import compare, compare_with_untrained, make_row
from training.benchmark.row_cache import Row, RowCache, Task
from training.provenance import machine


def report(config: BenchmarkConfig) -> None:
    """Write the report `table3`.

    Raises:
        ValueError: if the policy has no covariance, or a method that shall get rewards does not exist.
    """
    table = config.table3
    base = load_policy(config)
    if base.covariance is None:
        raise ValueError(f"{config.checkpoint} has no covariance; add it with pcm-estimate-covariance")
    compared = candidates(config, load_pcm_files(config.pcm, base))
    for part in table.reward_methods or ():
        if not any(part in candidate.method for candidate in compared):
            methods = "; ".join(dict.fromkeys(candidate.method for candidate in compared))
            raise ValueError(f"table3.reward_methods: {part!r} is part of none of {methods}")
    observations = held_out_observations(config, base)
    this_machine = machine(base.solver.a.device)
    shared = {"checkpoint_sha256": file_sha256(config.checkpoint), "device": this_machine["device"]}
    cache = RowCache(Path(config.output_dir) / "table3_rows", shared)

    accuracy = _accuracy_tasks(config, base, compared, observations)
    timings = _timing_tasks(table, base, compared, observations, this_machine)
    rewards = [_reward_tasks(table, base, candidate) for candidate in compared]
    chosen = [
        task
        for candidate, tasks in zip(compared, rewards, strict=True)
        if _gets_reward(candidate, table)
        for task in tasks
    ]
    cache.measure_all([*sorted(accuracy, key=_cost), *timings, *sorted(chosen, key=_cost)], "table3")

    milliseconds: list[list[float]] = [[] for _ in compared]
    for task in timings:
        for found, calls in zip(milliseconds, cache.read(task)["milliseconds"], strict=True):
            found += calls
    rows = []
    complete: list[list[Row]] = []
    codes = set()
    for index, candidate in enumerate(compared):
        accurate = cache.read(accuracy[index])
        rewarded = [row for task in rewards[index] if (row := cache.find(task.identity)) is not None]
        codes |= {row["code"] for row in (accurate, *rewarded)}
        complete.append(rewarded if len(rewarded) == len(table.noise_seeds) else [])
        rows.append(make_row(candidate, accurate, milliseconds[index], complete[index]))
    compare_with_untrained(rows, compared, complete)
    compare(rows, _reference_steps(table))
    write_report(
        config,
        "Sequential and parallel samplers",
        describe_table(table, _reference_steps(table), config.conditions),
        format_table(rows, _reference_steps(table)),
        rows,
        plot_table(rows),
        {"rows_measured_by_code": sorted(codes)},
    )


def _cost(task: Task) -> float:
    return task.cost


def _reference_steps(table: Table3Config) -> int:
    return max(table.ddim_steps)


def _accuracy_tasks(
    config: BenchmarkConfig, base: DiffusionPolicy, compared: Sequence[Candidate], observations: Tensor
) -> list[Task]:
    reference_steps = _reference_steps(config.table3)
    measure = accuracy_measure(base, observations, config.seed, reference_steps)
    decisive = {
        "measured": "accuracy",
        "observations_sha256": weights_sha256({"": observations}),
        "seed": config.seed,
        "reference_steps": reference_steps,
    }
    return [
        Task(
            f"error of {candidate.label}",
            candidate.evaluations * len(observations),
            {**decisive, **candidate.identity},
            partial(measure, candidate),
        )
        for candidate in compared
    ]


def _timing_tasks(
    table: Table3Config,
    base: DiffusionPolicy,
    compared: Sequence[Candidate],
    observations: Tensor,
    this_machine: dict[str, Any],
) -> list[Task]:
    """Turns, in each of which all rows are timed: a turn is a row of the cache."""
    decisive = {
        "measured": "time",
        "observations_sha256": weights_sha256({"": observations}),
        "candidates": [candidate.identity for candidate in compared],
        "machine": this_machine,
    }
    evaluations = sum(candidate.evaluations for candidate in compared)
    return [
        Task(
            f"time of all, turn {turn + 1}",
            (CALLS_IN_TURN + 1) * evaluations,
            {**decisive, "turn": turn},
            partial(time_in_turns, base, compared, observations, turn),
        )
        for turn in range(math.ceil(table.timed_calls / CALLS_IN_TURN))
    ]


def _reward_tasks(table: Table3Config, base: DiffusionPolicy, candidate: Candidate) -> list[Task]:
    chunks = table.episodes * math.ceil(max(EPISODE_STEPS) / base.config.action_steps)

    def measure(noise_seed: int) -> Row:
        return measure_rewards(candidate.policy(base), table.first_seed, table.episodes, noise_seed)

    return [
        Task(
            f"reward of {candidate.label}, noise {noise_seed}",
            candidate.evaluations * chunks,
            {
                "measured": "reward",
                "first_seed": table.first_seed,
                "episodes": table.episodes,
                "noise_seed": noise_seed,
                **candidate.identity,
            },
            partial(measure, noise_seed),
        )
        for noise_seed in table.noise_seeds
    ]


def _gets_reward(candidate: Candidate, table: Table3Config) -> bool:
    methods = table.reward_methods
    if methods is not None and not any(part in candidate.method for part in methods):
        return False
    return all(
        chosen is None or value in chosen
        for chosen, value in (
            (table.reward_steps, candidate.sampler.steps),
            (table.reward_depths, candidate.depth),
        )
    )
