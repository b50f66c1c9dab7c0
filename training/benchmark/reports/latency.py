"""What latency costs: the reward of samplers in a world that goes on while they compute."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from policy import DiffusionPolicy, SamplerConfig
from policy.checkpoint import file_sha256
from policy.runtime import Policy, Runtime
from pusht_env.physics import CONTROL_HZ
from training.benchmark.candidates import Candidate, PCMFile, load_pcm_files, pcm_candidates
from training.benchmark.config import BenchmarkConfig, LatencyReportConfig
from training.benchmark.report import load_policy, write_report
from training.benchmark.reports.latency_layout import describe_latency, format_latency, plot_latency
from training.benchmark.reports.rewards_rows import mean_and_interval
from training.benchmark.row_cache import Row, RowCache, Task
from training.evaluation.episode import hold_share
from training.evaluation.latency import NS_PER_MS, LatencyConfig
from training.evaluation.rollout import run_episodes
from training.provenance import machine


def report(config: BenchmarkConfig) -> None:
    """Write the report `latency`.

    Raises:
        ValueError: if the policy has no covariance, or a PCM cannot be sampled at the configured depth.
    """
    options = config.latency
    base = load_policy(config)
    if base.covariance is None:
        raise ValueError(f"{config.checkpoint} has no covariance; add it with pcm-estimate-covariance")
    compared = latency_candidates(options, load_pcm_files(config.pcm, base))
    chunk_ms = 1000 * base.config.action_steps / CONTROL_HZ
    latencies = [LatencyConfig("fixed", ms=ms) for ms in options.fixed_ms]
    if options.horizon:  # up to half a chunk, the next one is always there in time
        latencies += [replace(late, after_chunk="horizon") for late in latencies if 2 * late.ms > chunk_ms]
    if options.measured:
        latencies.append(LatencyConfig("measured", margin_ms=options.margin_ms))

    this_machine = machine(base.solver.a.device)
    shared = {"checkpoint_sha256": file_sha256(config.checkpoint), "device": this_machine["device"]}
    cache = RowCache(Path(config.output_dir) / "latency_rows", shared)
    groups = [
        (
            candidate,
            latency,
            [
                _task(options, base, candidate, latency, noise_seed, this_machine)
                for noise_seed in options.noise_seeds
            ],
        )
        for latency in latencies
        for candidate in compared
    ]
    ordered = sorted((task for *_, tasks in groups for task in tasks), key=lambda task: task.cost)
    missing = [task for task in ordered if cache.find(task.identity) is None]
    print(
        f"{len(ordered)} rollouts of {options.episodes} episodes, {len(missing)} of them to be measured in about "
        f"{sum(task.cost for task in missing):.3g} network evaluations"
    )
    cache.measure_all(ordered, "latency")

    rows, codes = [], set()
    for candidate, latency, tasks in groups:
        # There already: this only reads it.
        measured = [cache.find_or_measure(task.identity, task.measure) for task in tasks]
        codes |= {row["code"] for row in measured}
        rows.append(make_row(candidate, latency, measured))
    write_report(
        config,
        "What latency costs",
        describe_latency(options),
        format_latency(rows),
        rows,
        plot_latency(rows),
        {"rows_measured_by_code": sorted(codes)},
    )


def latency_candidates(options: LatencyReportConfig, pcms: Sequence[PCMFile]) -> list[Candidate]:
    """Sequential DDIM, then the parallel samplers at the configured depth, of which the initial trajectory takes 1.

    Raises:
        ValueError: for a PCM that cannot be sampled at that depth.
    """
    rows = [Candidate("DDIM", SamplerConfig("ddim", steps), steps) for steps in options.ddim_steps]
    picard = SamplerConfig("picard", options.picard_steps, options.depth - 1, initialisation="gaussian")
    rows.append(Candidate("Picard", picard, options.depth))
    for file in pcms:
        found = pcm_candidates(file, [options.depth], [1.0])
        if not found:
            raise ValueError(f"{file.path}: cannot be sampled at latency.depth={options.depth}")
        rows.append(found[0])
    return rows


def measure_latency(
    policy: Policy, options: LatencyReportConfig, latency: LatencyConfig, noise_seed: int
) -> Row:
    """Rewards of one rollout, and how its chunks met the world.

    Returns:
        `max_rewards`, a number an episode, in the order of their seeds; `latencies_ms`, a number a chunk;
        `skipped_points` and `missed`, means over the chunks that arrived, None if none did; `hold_share`.
    """
    seeds = range(options.first_seed, options.first_seed + options.episodes)
    rollout = run_episodes(
        policy, seeds, options.max_steps, noise_seed=noise_seed, latency=latency, show_progress=False
    )
    episodes = rollout.episodes
    chunks = [chunk for episode in episodes for chunk in episode.chunks]
    return {
        "max_rewards": [episode.max_reward for episode in episodes],
        "latencies_ms": [
            latency.latency_ns(seconds) / NS_PER_MS
            for episode in episodes
            for seconds in episode.chunk_seconds
        ],
        "skipped_points": _mean([chunk.skipped_points for chunk in chunks]),
        "missed": _mean([chunk.missed for chunk in chunks]),
        "hold_share": hold_share(episodes),
    }


def make_row(candidate: Candidate, latency: LatencyConfig, measured: Sequence[Row]) -> dict[str, Any]:
    """A row of the CSV from the rollouts with each noise seed."""
    reward, low, high = mean_and_interval([row["max_rewards"] for row in measured])
    latencies = [ms for row in measured for ms in row["latencies_ms"]]
    return {
        "method": candidate.method,
        "sampler": candidate.sampler.name,
        "steps": candidate.sampler.steps,
        "depth": candidate.depth,
        "latency": latency.mode,
        "after_chunk": latency.after_chunk,
        "engine": measured[0].get("engine"),
        "ms_p50": float(np.percentile(latencies, 50)),
        "ms_p99": float(np.percentile(latencies, 99)),
        "reward": reward,
        "reward_low": low,
        "reward_high": high,
        **{
            name: _mean([row[name] for row in measured if row[name] is not None])
            for name in ("skipped_points", "missed", "hold_share")
        },
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _task(
    options: LatencyReportConfig,
    base: DiffusionPolicy,
    candidate: Candidate,
    latency: LatencyConfig,
    noise_seed: int,
    this_machine: dict[str, Any],
) -> Task:
    identity = {
        "latency": asdict(latency),
        "first_seed": options.first_seed,
        "episodes": options.episodes,
        "max_steps": options.max_steps,
        "noise_seed": noise_seed,
        "machine": this_machine if latency.mode == "measured" else None,
        "engine": options.engine if latency.mode == "measured" else None,
        **candidate.identity,
    }
    chunks = options.episodes * math.ceil(options.max_steps / _cycle(latency, base.config.action_steps))
    return Task(
        f"{candidate.label}, {latency.ms:g} ms"
        if latency.mode == "fixed"
        else f"{candidate.label}, measured",
        candidate.evaluations * chunks,
        identity,
        partial(_measure, base, candidate, options, latency, noise_seed),
    )


def _measure(
    base: DiffusionPolicy,
    candidate: Candidate,
    options: LatencyReportConfig,
    latency: LatencyConfig,
    noise_seed: int,
) -> Row:
    policy = candidate.policy(base)
    if latency.mode != "measured":
        return measure_latency(policy, options, latency, noise_seed)
    runtime = Runtime(policy, engine=options.engine)
    return {**measure_latency(runtime, options, latency, noise_seed), "engine": runtime.engine}


def _cycle(latency: LatencyConfig, action_steps: int) -> float:
    """Control steps from one inference to the next, roughly: it starts so early that it ends with the chunk."""
    steps = (latency.ms + latency.margin_ms) * CONTROL_HZ / 1000
    return max(action_steps - math.ceil(steps), steps, 1)
