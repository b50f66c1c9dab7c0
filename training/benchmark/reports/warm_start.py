"""How many network evaluations a warm start saves, chunk after chunk of the same episodes."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pandas import DataFrame
from torch import Tensor

from policy import DiffusionPolicy, ParallelConfig, PicardConfig, Prediction, SamplerConfig, StopConfig
from policy.sampling.warm_start import continued_noise
from training.benchmark.config import BenchmarkConfig, WarmStartConfig
from training.benchmark.measurements import percentiles
from training.benchmark.report import load_policy, open_cache, write_report
from training.benchmark.row_cache import Row, Task
from training.benchmark.tables import interval_cells, markdown_table
from training.evaluation.environment import Environment, EnvironmentConfig
from training.evaluation.episode import Episode, RunningEpisode
from training.evaluation.rollout import join_predictions, split_prediction

STARTS: Mapping[str, SamplerConfig] = {
    "cold, fresh": SamplerConfig("picard", "ddim", picard=PicardConfig(start="fresh")),
    "cold, gaussian": SamplerConfig("picard", "ddim", picard=PicardConfig(start="gaussian")),
    "warm": SamplerConfig("picard", "ddim", parallel=ParallelConfig(warm_start="actions")),
}
"""Starts of preconditioned Picard iteration, for any T."""

PARTS = ("horizon", "chunk")
"""Of a prediction, whose largest error counts: all actions, or those of the chunk, which are executed."""

FindDepths: TypeAlias = Callable[..., Mapping[str, list[int]]]
"""(observations (B, …), noise (B, H, A), *, previous predictions (B = 1 each), exact actions (B, H, A) in px) → depth
until the error of a prediction is below the limit, for each of `PARTS`."""

COLUMNS = {
    "noise": ("noise", ""),
    "start": ("start", ""),
    "steps": ("T", "d"),
    "depth_mean": ("depth", ".2f"),
    "depth_p95": ("p95", "g"),
    "saved_of_fresh": ("saved of fresh", ".0%"),
    "saved_of_gaussian": ("saved of gaussian", ".0%"),
    "chunk_depth_mean": ("chunk's depth", ".2f"),
    "chunk_saved_of_fresh": ("chunk, saved of fresh", ".0%"),
    "chunk_saved_of_gaussian": ("chunk, saved of gaussian", ".0%"),
    "reward": ("reward", ".3f"),
    "jump_px": ("jump", ".1f"),
}


def report(config: BenchmarkConfig) -> None:
    """Write the report `warm_start`.

    Raises:
        ValueError: if the policy has no covariance, or episodes have no second chunk.
    """
    options = config.warm_start
    base = load_policy(config)
    if options.max_steps <= base.config.action_steps:
        raise ValueError(
            f"warm_start.max_steps must be above the {base.config.action_steps} of a chunk, got {options.max_steps}"
        )
    cache = open_cache(config, base)
    tasks = {
        (steps, move_noise): _task(base, options, steps=steps, move_noise=move_noise)
        for steps in options.steps
        for move_noise in (False, True)
    }
    cache.measure_all(list(tasks.values()), "warm_start")
    measured = {key: cache.read(task) for key, task in tasks.items()}
    rows = DataFrame([row for key, found in measured.items() for row in make_rows(*key, found)])
    write_report(
        config,
        rows,
        title="What a warm start saves",
        introduction=describe_warm_start(options),
        tables=markdown_table(rows, COLUMNS, text_columns=2),
        figures={"": plot_warm_start({key: found["depths"]["horizon"] for key, found in measured.items()})},
        measured=list(measured.values()),
    )


def _task(base: DiffusionPolicy, options: WarmStartConfig, *, steps: int, move_noise: bool) -> Task:
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
        label=f"T = {steps}, noise {'moved along' if move_noise else 'drawn anew'}",
        cost=chunks * steps * 60,  # three starts of five iterations or so, each number of iterations anew
        identity=identity,
        measure=partial(measure_depths, base, options, steps=steps, move_noise=move_noise),
    )


def measure_depths(base: DiffusionPolicy, options: WarmStartConfig, *, steps: int, move_noise: bool) -> Row:
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
    exact = base.with_sampler(SamplerConfig("sequential", "ddim", steps))
    find_depths = {
        name: _depth_finder(base, replace(start, steps=steps), options.error)
        for name, start in STARTS.items()
    }
    seeds = range(options.first_seed, options.first_seed + options.episodes)
    running = [
        RunningEpisode(
            config,
            Environment(EnvironmentConfig(), base.task, max_steps=options.max_steps),
            seed,
            noise_seed=options.noise_seed,
        )
        for seed in seeds
    ]
    depths: dict[str, dict[str, list[int]]] = {part: {name: [] for name in STARTS} for part in PARTS}
    ended: list[Episode] = []
    while running:
        observations = torch.from_numpy(np.stack([episode.observations() for episode in running])).float()
        shape = (1, config.horizon, base.task.action_dim)
        noise = torch.cat([torch.randn(shape, generator=episode.generator) for episode in running])
        # Nobody waits here, so that all are equally far.
        last = [episode.prediction for episode in running if episode.prediction is not None]
        if last and move_noise:
            noise = continued_noise(join_predictions(last).noise.to(noise), config.action_steps, noise)
        prediction = exact.predict(observations, noise=noise)
        if last:
            for name, find in find_depths.items():
                found = find(observations, noise, previous=last, exact=prediction.actions)
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


def _depth_finder(base: DiffusionPolicy, sampler: SamplerConfig, limit: float) -> FindDepths:
    @functools.cache
    def stopped_after(iterations: int) -> DiffusionPolicy:
        return base.with_sampler(replace(sampler, stop=StopConfig(iterations)))

    first = base.config.observation_steps - 1
    chunk = slice(first, first + base.config.action_steps)

    def find(
        observations: Tensor, noise: Tensor, *, previous: Sequence[Prediction], exact: Tensor
    ) -> Mapping[str, list[int]]:
        normalize = base.normalizer.action.normalize
        everyone = range(len(observations))
        depths = {part: [0] * len(observations) for part in PARTS}
        moving = {part: set(everyone) for part in PARTS}
        left = list(everyone)
        for iterations in range(1, sampler.steps + 1):
            prediction = stopped_after(iterations).predict(
                observations[left],
                noise=noise[left],
                # The same further noise for each number of iterations, whoever is left.
                generator=[torch.Generator().manual_seed(index) for index in left],
                previous=join_predictions([previous[index] for index in left]),
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
    depths = {part: DataFrame(measured["depths"][part]) for part in PARTS}

    def savings(part: str, name: str) -> dict[str, float]:
        mean, prefix = depths[part].mean(), "" if part == "horizon" else f"{part}_"
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
            **dict(zip(("depth_p50", "depth_p95"), percentiles(found, 50, 95), strict=True)),
            **savings("chunk", name),
            "chunks": len(found),
            **interval_cells("reward", measured["max_rewards"]),
            "jump_px": float(np.mean(measured["jumps"])),
        }
        for name, found in depths["horizon"].items()
    ]


def describe_warm_start(options: WarmStartConfig) -> str:
    """What was measured, and what the columns mean."""
    return (
        f"{options.episodes} episodes (initial states from seed {options.first_seed}) of at most {options.max_steps} "
        "control steps, executed by sequential DDIM at the same T. Depth, for each chunk but an episode's first: "
        "sequential network evaluations, those of the start included, of preconditioned Picard iteration until its "
        f"largest difference of a normalised action from sequential DDIM with the same noise is below {options.error:g}"
        ", from a cold start and from the chunk before. Saved: how much less depth than from a cold start, on average. "
        "Chunk: the same for the actions of the chunk alone, those that are executed; most of them were predicted with "
        "the chunk before.\n\nNoise: drawn anew for each chunk, or moved along with the actions. Moving it changes the "
        "answers, and with them the reward (largest in an episode, with the 95 % interval of its mean) and the jump "
        "(distance in px of a chunk's targets from those that the one before predicted for the same control steps)."
    )


def plot_warm_start(depths: Mapping[tuple[int, bool], Mapping[str, Sequence[int]]]) -> Figure:
    """Share of chunks that have converged by depth: a panel for each T, dashed where the noise is moved along."""
    all_steps = list(dict.fromkeys(steps for steps, _ in depths))
    figure = Figure(figsize=(max(9, 1 + 4.5 * len(all_steps)), 4), layout="constrained")
    panels = figure.subplots(1, len(all_steps), sharey=True, squeeze=False)[0]
    for (steps, move_noise), starts in depths.items():
        axes = panels[all_steps.index(steps)]
        for number, (start, found) in enumerate(starts.items()):
            label, line = (f"{start}, noise moved along", "--") if move_noise else (start, "-")
            axes.ecdf(found, linestyle=line, color=f"C{number}", label=label)
        axes.set(title=f"T = {steps}", xlabel="depth", ylim=(0, 1.02))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("share of chunks that have converged")
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, fontsize=8)
    return figure
