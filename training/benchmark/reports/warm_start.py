"""How many network evaluations a warm start saves, chunk after chunk of the same episodes."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from policy import DiffusionPolicy, Prediction, SamplerConfig
from policy.checkpoint import file_sha256
from policy.sampling.warm_start import continued_noise
from training.benchmark.config import BenchmarkConfig, WarmStartConfig
from training.benchmark.report import load_policy, write_report
from training.benchmark.reports.rewards_rows import mean_and_interval
from training.benchmark.reports.warm_start_layout import (
    describe_warm_start,
    format_warm_start,
    plot_warm_start,
)
from training.benchmark.row_cache import Row, RowCache, Task
from training.evaluation.episode import Episode, RunningEpisode
from training.evaluation.rollout import join_predictions, split_prediction
from training.provenance import machine

STARTS: Mapping[str, SamplerConfig] = {
    "cold, fresh": SamplerConfig("picard", initialisation="fresh"),
    "cold, gaussian": SamplerConfig("picard", initialisation="gaussian"),
    "warm": SamplerConfig("picard", warm_start="actions"),
}
"""Initial trajectories of preconditioned Picard iteration, for any T."""

PARTS = ("horizon", "chunk")
"""Of a prediction, whose largest error counts: all actions, or those of the chunk, which are executed."""

FindDepths: TypeAlias = Callable[
    [Tensor, Tensor, Sequence[Prediction], Tensor, float], Mapping[str, list[int]]
]
"""(observations (B, …), noise (B, H, A), last predictions (B = 1 each), exact actions (B, H, A) in px, error) → depth
until the error of a prediction is below that, for each of `PARTS`."""


def report(config: BenchmarkConfig) -> None:
    """Write the report `warm_start`.

    Raises:
        ValueError: if the policy has no covariance, or episodes have no second chunk.
    """
    options = config.warm_start
    base = load_policy(config)
    if base.covariance is None:
        raise ValueError(f"{config.checkpoint} has no covariance; add it with pcm-estimate-covariance")
    if options.max_steps <= base.config.action_steps:
        raise ValueError(
            f"warm_start.max_steps must be above the {base.config.action_steps} of a chunk, got {options.max_steps}"
        )
    device = machine(base.solver.a.device)["device"]
    shared = {"checkpoint_sha256": file_sha256(config.checkpoint), "device": device}
    cache = RowCache(Path(config.output_dir) / "warm_start_rows", shared)
    tasks = {
        (steps, move_noise): _task(base, options, steps, move_noise)
        for steps in options.steps
        for move_noise in (False, True)
    }
    cache.measure_all(list(tasks.values()), "warm_start")
    # There already: this only reads them.
    measured = {key: cache.find_or_measure(task.identity, task.measure) for key, task in tasks.items()}
    rows = [
        row for (steps, move_noise), found in measured.items() for row in make_rows(steps, move_noise, found)
    ]
    write_report(
        config,
        "What a warm start saves",
        describe_warm_start(options),
        format_warm_start(rows),
        rows,
        plot_warm_start({key: found["depths"]["horizon"] for key, found in measured.items()}),
        {"rows_measured_by_code": sorted({found["code"] for found in measured.values()})},
    )


def _task(base: DiffusionPolicy, options: WarmStartConfig, steps: int, move_noise: bool) -> Task:
    chunks = options.episodes * math.ceil(options.max_steps / base.config.action_steps)
    identity = {
        "steps": steps,
        "move_noise": move_noise,
        "first_seed": options.first_seed,
        "episodes": options.episodes,
        "max_steps": options.max_steps,
        "noise_seed": options.noise_seed,
        "error": options.error,
        "parts": PARTS,
    }
    return Task(
        f"T = {steps}, noise {'moved along' if move_noise else 'drawn anew'}",
        chunks * steps * 60,  # three starts of five iterations or so, each number of iterations anew
        identity,
        partial(measure_depths, base, options, steps, move_noise),
    )


def measure_depths(base: DiffusionPolicy, options: WarmStartConfig, steps: int, move_noise: bool) -> Row:
    """Depth until each chunk but the first has converged, from each start, in episodes of sequential DDIM.

    Args:
        base: with a covariance.
        options: episodes, and what has converged.
        steps: T.
        move_noise: whether the noise of a chunk is that of the chunk before it, moved along with the actions.

    Returns:
        `depths`, for each of `PARTS` and `STARTS` a number a chunk; `max_rewards`, a number an episode; `jumps` in px,
        a number a chunk.
    """
    config = base.config
    exact = base.with_sampler(SamplerConfig("ddim", steps))
    find_depths = {name: _depth_finder(base, replace(start, steps=steps)) for name, start in STARTS.items()}
    seeds = range(options.first_seed, options.first_seed + options.episodes)
    running = [
        RunningEpisode(config, seed, options.max_steps, noise_seed=options.noise_seed) for seed in seeds
    ]
    depths: dict[str, dict[str, list[int]]] = {part: {name: [] for name in STARTS} for part in PARTS}
    ended: list[Episode] = []
    while running:
        observations = torch.from_numpy(np.stack([episode.observations() for episode in running])).float()
        shape = (1, config.horizon, config.action_dim)
        noise = torch.cat([torch.randn(shape, generator=episode.generator) for episode in running])
        # Nobody waits here, so that all are equally far.
        last = [episode.prediction for episode in running if episode.prediction is not None]
        if last and move_noise:
            noise = continued_noise(join_predictions(last).noise.to(noise), config.action_steps, noise)
        prediction = exact.predict(observations, noise)
        if last:
            for name, find in find_depths.items():
                found = find(observations, noise, last, prediction.actions, options.error)
                for part in PARTS:
                    depths[part][name] += found[part]
        for episode, one in zip(running, split_prediction(prediction), strict=True):
            episode.prediction = one
            episode.receive(one.actions[0].double().cpu().numpy(), 0.0, 0)
        ended += [episode.finish() for episode in running if episode.ended]
        running = [episode for episode in running if not episode.ended]
    ended.sort(key=lambda episode: episode.seed)
    return {
        "depths": depths,
        "max_rewards": [episode.max_reward for episode in ended],
        "jumps": [chunk.jump for episode in ended for chunk in episode.chunks if chunk.jump is not None],
    }


def _depth_finder(base: DiffusionPolicy, sampler: SamplerConfig) -> FindDepths:
    @functools.cache
    def stopped_after(iterations: int) -> DiffusionPolicy:
        return base.with_sampler(replace(sampler, iterations=iterations))

    first = base.config.observation_steps - 1
    chunk = slice(first, first + base.config.action_steps)

    def find(
        observations: Tensor, noise: Tensor, previous: Sequence[Prediction], exact: Tensor, limit: float
    ) -> Mapping[str, list[int]]:
        normalize = base.normalizer.action.normalize
        everyone = range(len(observations))
        depths = {part: [0] * len(observations) for part in PARTS}
        moving = {part: set(everyone) for part in PARTS}
        left = list(everyone)
        for iterations in range(1, sampler.steps + 1):
            prediction = stopped_after(iterations).predict(
                observations[left],
                noise[left],
                # The same further noise for each number of iterations, whoever is left.
                [torch.Generator().manual_seed(index) for index in left],
                join_predictions([previous[index] for index in left]),
            )
            differences = (normalize(prediction.actions) - normalize(exact[left])).abs()
            for part, counting in (("horizon", differences), ("chunk", differences[:, chunk])):
                for index, error in zip(left, counting.amax((1, 2)).tolist(), strict=True):
                    if index in moving[part]:
                        depths[part][index] = prediction.depth
                        if error < limit:
                            moving[part].remove(index)
            left = sorted(moving["horizon"])
            if not left:
                break
        return depths

    return find


def make_rows(steps: int, move_noise: bool, measured: Row) -> list[dict[str, Any]]:
    """Rows of the CSV, one for each start."""
    reward, low, high = mean_and_interval([measured["max_rewards"]])
    means = {
        part: {name: float(np.mean(depths)) for name, depths in starts.items()}
        for part, starts in measured["depths"].items()
    }

    def savings(part: str, name: str) -> dict[str, float]:
        mean, prefix = means[part], "" if part == "horizon" else f"{part}_"
        return {
            f"{prefix}depth_mean": mean[name],
            f"{prefix}saved_of_fresh": 1 - mean[name] / mean["cold, fresh"],
            f"{prefix}saved_of_gaussian": 1 - mean[name] / mean["cold, gaussian"],
        }

    return [
        {
            "steps": steps,
            "noise": "moved along" if move_noise else "drawn anew",
            "start": name,
            **savings("horizon", name),
            "depth_p50": float(np.percentile(depths, 50)),
            "depth_p95": float(np.percentile(depths, 95)),
            **savings("chunk", name),
            "chunks": len(depths),
            "reward": reward,
            "reward_low": low,
            "reward_high": high,
            "jump_px": float(np.mean(measured["jumps"])),
        }
        for name, depths in measured["depths"]["horizon"].items()
    ]
