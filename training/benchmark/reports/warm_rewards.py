"""Rewards of samplers that begin with the chunk before and are stopped early, and what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pandas import DataFrame
from torch import Tensor, cat

from policy import DiffusionPolicy, ParallelConfig, PicardConfig, SamplerConfig, StopConfig
from policy.runtime import Policy
from policy.runtime.serving import serve
from training.benchmark.candidates import Candidate, PCMFile, load_pcm_files
from training.benchmark.config import BenchmarkConfig, WarmRewardsConfig
from training.benchmark.measurements import (
    EPISODE_STEPS,
    prediction_before,
    reward_cells,
    rewards_of,
    time_and_reward_columns,
    time_cells,
    timing_task,
)
from training.benchmark.report import load_policy, open_cache, rollout_engine, write_report
from training.benchmark.reports.deadline import initial_observations
from training.benchmark.row_cache import Row, Task
from training.benchmark.tables import markdown_table, table
from training.evaluation.rollout import run_episodes

SOLVER = "dpmpp_2m"

ASIDE = 0.05
"""By which points stand aside of those before in the figure, so that intervals do not cover each other."""


def report(config: BenchmarkConfig) -> None:
    """Write the report `warm_rewards`.

    Raises:
        ValueError: if the policy has no covariance, or a PCM was not trained from warm starts.
    """
    options = config.warm_rewards
    base = load_policy(config)
    compared = warm_candidates(options, load_pcm_files(config.pcm, base))
    cache = open_cache(config, base)
    observations = cat(initial_observations(base))
    timings = [
        timing_task(
            [
                partial(serve, candidate.policy(base), engine=options.engine, threads=threads)
                for candidate in compared
            ],
            observations,
            identity={
                "candidates": [candidate.identity for candidate in compared],
                "engine": options.engine,
            },
            cost=sum(candidate.evaluations for candidate in compared),
            threads=threads,
            calls=options.calls,
        )
        for threads in options.threads
    ]
    rewards = [
        [_reward_task(config, base, candidate, noise_seed=seed) for seed in options.noise_seeds]
        for candidate in compared
    ]
    cache.measure_all([*timings, *(task for tasks in rewards for task in tasks)], "warm_rewards")
    milliseconds = [cache.read(task)["milliseconds"] for task in timings]
    measured = [[cache.read(task) for task in tasks] for tasks in rewards]
    answers = {
        candidate.sampler.steps: found
        for candidate, found in zip(compared, measured, strict=True)
        if not candidate.sampler.is_parallel
    }
    rows = table(
        [
            make_row(
                candidate,
                base,
                observations,
                measured=found,
                answer=answers[candidate.sampler.steps],
                milliseconds={n: ms[index] for n, ms in zip(options.threads, milliseconds, strict=True)},
            )
            for index, (candidate, found) in enumerate(zip(compared, measured, strict=True))
        ]
    )
    write_report(
        config,
        rows,
        title="What one evaluation after another is worth, with a warm start",
        introduction=describe_warm_rewards(options),
        tables=markdown_table(rows, _columns(options)),
        figures={"": plot_warm_rewards(rows)},
        measured=[row for found in measured for row in found],
    )


def warm_candidates(options: WarmRewardsConfig, pcms: Sequence[PCMFile]) -> list[Candidate]:
    """For each T the sequential sampler, Picard iteration at each depth, and each PCM of that T at each depth.

    The first chunk of an episode has none before it, and as many iterations as make it as deep as the sequential one.
    """
    for file in pcms:
        if not file.pcm.warm_iterations:
            raise ValueError(f"{file.path} was trained from cold starts alone; this report is of warm ones")
        if (file.pcm.solver, file.pcm.steps) not in {(SOLVER, steps) for steps in options.steps}:
            raise ValueError(
                f"{file.path} was trained for {file.pcm.solver} with T = {file.pcm.steps}; this report is of {SOLVER} "
                f"with T among {', '.join(map(str, options.steps))} (warm_rewards.steps)"
            )
    return [candidate for steps in options.steps for candidate in _candidates_of(steps, options.depths, pcms)]


def _candidates_of(steps: int, depths: Sequence[int], pcms: Sequence[PCMFile]) -> Iterator[Candidate]:
    yield Candidate(SamplerConfig("sequential", SOLVER, steps), steps)
    picard = PicardConfig("preconditioned", "gaussian")
    for depth in depths:
        sampler = SamplerConfig(
            "picard",
            SOLVER,
            steps,
            stop=StopConfig(max(1, steps - 1), warm_iterations=depth),
            parallel=ParallelConfig(warm_start="actions"),
            picard=picard,
        )
        yield Candidate(sampler, depth)
        for file in pcms:
            if file.pcm.steps == steps:
                parallel = ParallelConfig(warm_start=file.pcm.warm_start)
                trained = replace(sampler, method="pcm", parallel=parallel).resolved(file.pcm.defaults)
                yield Candidate(trained, depth, file)


def _reward_task(
    config: BenchmarkConfig, base: DiffusionPolicy, candidate: Candidate, *, noise_seed: int
) -> Task:
    options, policy = config.warm_rewards, candidate.policy(base)

    def measure() -> Row:
        served = serve(policy, batch_size=None, engine=config.engine)
        return measure_rewards_and_jumps(served, options, noise_seed=noise_seed)

    episodes = {"first_seed": options.first_seed, "episodes": options.episodes, "noise_seed": noise_seed}
    return Task(
        label=f"reward of {candidate.label}, noise {noise_seed}",
        cost=candidate.evaluations * options.episodes * max(EPISODE_STEPS) / base.config.action_steps,
        identity={
            "measured": "reward",
            **episodes,
            **candidate.identity,
            **rollout_engine(config, policy),
        },
        measure=measure,
    )


def measure_rewards_and_jumps(policy: Policy, options: WarmRewardsConfig, *, noise_seed: int) -> Row:
    """`max_reward_<steps>` and `success_<steps>`, see `rewards_of`, and the mean jump `jump_px`."""
    episodes = run_episodes(
        policy,
        range(options.first_seed, options.first_seed + options.episodes),
        max_steps=max(EPISODE_STEPS),
        noise_seed=noise_seed,
        show_progress=False,
    ).episodes
    jumps = [chunk.jump for episode in episodes for chunk in episode.chunks if chunk.jump is not None]
    return {**rewards_of(episodes), "jump_px": float(np.mean(jumps)) if jumps else None}


def make_row(
    candidate: Candidate,
    base: DiffusionPolicy,
    observations: Tensor,
    *,
    measured: Sequence[Row],
    answer: Sequence[Row],
    milliseconds: dict[int, Sequence[float]],
) -> dict[str, Any]:
    """A row of the CSV.

    Args:
        candidate: sampler.
        base: policy.
        observations: (B, observation_steps, observation_dim), of which one is predicted for, to count evaluations.
        measured: rollouts, one for each noise seed.
        answer: those of the sequential sampler with the same T.
        milliseconds: of calls, by the number of threads.
    """
    policy = candidate.policy(base)
    first = policy.predict(observations[:1])
    prediction = policy.predict(observations[:1], previous=prediction_before(policy, observations))
    jumps = [row["jump_px"] for row in measured if row["jump_px"] is not None]
    return {
        **candidate.columns,
        "depth": prediction.depth,
        "first_depth": first.depth,
        "network_evaluations": prediction.network_evaluations,
        **time_cells(milliseconds),
        **reward_cells(measured, against=answer if candidate.sampler.is_parallel else None),
        "jump_px": float(np.mean(jumps)) if jumps else None,
    }


def _columns(options: WarmRewardsConfig) -> dict[str, tuple[str, str]]:
    return {
        "sampler": ("sampler", ""),
        "steps": ("T", "d"),
        "depth": ("depth", "d"),
        "first_depth": ("first chunk", "d"),
        "network_evaluations": ("evaluations", "d"),
        **time_and_reward_columns(options.threads),
        "jump_px": ("jump", ".1f"),
    }


def describe_warm_rewards(options: WarmRewardsConfig) -> str:
    """What was measured, and what the columns mean."""
    seeds = f"{len(options.noise_seeds)} noise seed{'s' if len(options.noise_seeds) > 1 else ''}"
    return (
        f"DPM-Solver++(2M). Depth: sequential network evaluations of a chunk that has one before it; first chunk: of "
        "an episode's first, which has none. Evaluations: samples × timesteps that go through the network for a chunk "
        f"with one before it. Milliseconds: median of {options.calls} such chunks at batch size 1, engine "
        f"{options.engine}. Reward: mean over {options.episodes} episodes (initial states from seed "
        f"{options.first_seed}) × {seeds} of the largest reward in {EPISODE_STEPS[0]} and in {EPISODE_STEPS[1]} "
        "control steps, with its 95 % interval over episodes. Gain: over the sequential sampler with the same T, in "
        "the same episodes. Success: share of them whose task was done by then. Jump: mean distance in px "
        "between a chunk's targets and those of the chunk before it for the same control steps."
    )


def plot_warm_rewards(rows: DataFrame) -> Figure:
    """Reward over depth and over evaluations, a marker for each sampler."""
    reward = f"reward_{EPISODE_STEPS[0]}"
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    for axes, (x, label) in zip(
        figure.subplots(1, 2, sharey=True),
        (("depth", "depth"), ("network_evaluations", "evaluations")),
        strict=True,
    ):
        groups = rows.groupby(["sampler", "steps"], sort=False)
        for index, ((sampler, steps), points) in enumerate(groups):
            spread = [points[reward] - points[f"{reward}_low"], points[f"{reward}_high"] - points[reward]]
            axes.errorbar(
                points[x] + ASIDE * (index - (len(groups) - 1) / 2),
                points[reward],
                spread,
                fmt="o-",
                markersize=5,
                capsize=3,
                label=f"{sampler}, T = {steps}",
            )
        axes.set(xlabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel(f"mean maximum reward, {EPISODE_STEPS[0]} steps")
    handles = figure.axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", fontsize=8)
    return figure
