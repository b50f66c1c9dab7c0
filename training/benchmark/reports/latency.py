"""What latency costs: the reward of samplers in a world that goes on while they compute."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from pandas import DataFrame, Series

from policy import DiffusionPolicy, PicardConfig, SamplerConfig
from policy.runtime import Policy, Runtime, serve
from pusht_env.physics import CONTROL_HZ
from training.benchmark.candidates import (
    Candidate,
    PCMFile,
    at_depths,
    label,
    load_pcm_files,
    pcm_candidates,
    sequential_candidates,
)
from training.benchmark.config import BenchmarkConfig, LatencyReportConfig
from training.benchmark.measurements import percentiles
from training.benchmark.report import load_policy, open_cache, rollout_engine, write_report
from training.benchmark.row_cache import Row, Task
from training.benchmark.tables import interval_cells, markdown_table, table
from training.evaluation.episode import hold_share
from training.evaluation.latency import NS_PER_MS, LatencyConfig
from training.evaluation.rollout import run_episodes
from training.provenance import machine

MARKERS = "osD^vP*X"
WORLD = {
    "skipped_points": ("skipped", ".1f"),
    "missed": ("missed", ".0%"),
    "hold_share": ("hold", ".0%"),
}
"""What becomes of chunks."""
COLUMNS = {
    "label": ("sampler", ""),
    "engine": ("engine", ""),
    "ms_p50": ("ms p50", ".1f"),
    "ms_p99": ("ms p99", ".1f"),
    "reward": ("reward", ".3f"),
    **WORLD,
}


def report(config: BenchmarkConfig) -> None:
    """Write the report `latency`.

    Raises:
        ValueError: if the policy has no covariance, or a PCM cannot be sampled at the configured depth.
    """
    options = config.latency
    base = load_policy(config)
    compared = latency_candidates(options, load_pcm_files(config.pcm, base))
    chunk_ms = 1000 * base.config.action_steps / CONTROL_HZ
    latencies = [LatencyConfig("fixed", ms=ms) for ms in options.fixed_ms]
    if options.horizon:  # up to half a chunk, the next one is always there in time
        latencies += [replace(late, after_chunk="horizon") for late in latencies if 2 * late.ms > chunk_ms]
    if options.measured:
        latencies.append(LatencyConfig("measured", margin_ms=options.margin_ms))

    cache = open_cache(config, base)
    groups = [(candidate, latency) for latency in latencies for candidate in compared]
    tasks = [
        [_task(config, base, candidate, latency=latency, noise_seed=seed) for seed in options.noise_seeds]
        for candidate, latency in groups
    ]
    ordered = sorted((task for group in tasks for task in group), key=lambda task: task.cost)
    missing = [task for task in ordered if cache.find(task.identity) is None]
    print(
        f"{len(ordered)} rollouts of {options.episodes} episodes, {len(missing)} of them to be measured in about "
        f"{sum(task.cost for task in missing):.3g} network evaluations"
    )
    cache.measure_all(ordered, "latency")
    measured = [[cache.read(task) for task in group] for group in tasks]
    rows = table([make_row(*group, found) for group, found in zip(groups, measured, strict=True)])
    write_report(
        config,
        rows,
        title="What latency costs",
        introduction=describe_latency(options),
        tables=format_latency(rows),
        figures={"": plot_latency(rows)},
        measured=[row for found in measured for row in found],
    )


def latency_candidates(options: LatencyReportConfig, pcms: Sequence[PCMFile]) -> list[Candidate]:
    """Sequential DDIM, then the parallel samplers at the configured depth, of which the start takes 1.

    Raises:
        ValueError: for a PCM that cannot be sampled at that depth.
    """
    rows = sequential_candidates(ddim=options.ddim_steps)
    picard = SamplerConfig(
        "picard", "ddim", options.picard_steps, picard=PicardConfig("preconditioned", "gaussian")
    )
    rows += at_depths(picard, [options.depth])
    for file in pcms:
        found = pcm_candidates(file, [options.depth], [1.0])
        if not found:
            raise ValueError(f"{file.path}: cannot be sampled at latency.depth={options.depth}")
        rows.append(found[0])
    return rows


def measure_latency(
    policy: Policy, options: LatencyReportConfig, latency: LatencyConfig, *, noise_seed: int
) -> Row:
    """Rewards of one rollout, and how its chunks met the world.

    Returns:
        `max_rewards`, a number an episode, in the order of their seeds; `latencies_ms`, a number a chunk;
        `skipped_points` and `missed`, means over the chunks that arrived, None if none did; `hold_share`.
    """
    seeds = range(options.first_seed, options.first_seed + options.episodes)
    rollout = run_episodes(
        policy,
        seeds,
        max_steps=options.max_steps,
        noise_seed=noise_seed,
        latency=latency,
        show_progress=False,
    )
    episodes = rollout.episodes
    chunks = [chunk for episode in episodes for chunk in episode.chunks]
    seconds = [taken for episode in episodes for taken in episode.chunk_seconds]
    return {
        "max_rewards": [episode.max_reward for episode in episodes],
        "latencies_ms": [latency.latency_ns(taken) / NS_PER_MS for taken in seconds],
        "skipped_points": _mean([chunk.skipped_points for chunk in chunks]),
        "missed": _mean([chunk.missed for chunk in chunks]),
        "hold_share": hold_share(episodes),
    }


def make_row(candidate: Candidate, latency: LatencyConfig, measured: Sequence[Row]) -> dict[str, Any]:
    """A row of the CSV from the rollouts with each noise seed."""
    p50, p99 = percentiles([ms for row in measured for ms in row["latencies_ms"]], 50, 99)
    return {
        **candidate.columns,
        "latency": latency.mode,
        "after_chunk": latency.after_chunk,
        "engine": measured[0].get("engine"),
        "ms_p50": p50,
        "ms_p99": p99,
        **interval_cells("reward", [row["max_rewards"] for row in measured]),
        **{name: _mean([row[name] for row in measured if row[name] is not None]) for name in WORLD},
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _task(
    config: BenchmarkConfig,
    base: DiffusionPolicy,
    candidate: Candidate,
    *,
    latency: LatencyConfig,
    noise_seed: int,
) -> Task:
    options = config.latency
    measured = latency.mode == "measured"
    identity = {
        "latency": asdict(latency),
        "first_seed": options.first_seed,
        "episodes": options.episodes,
        "max_steps": options.max_steps,
        "noise_seed": noise_seed,
        "machine": machine(base.solver.a.device) if measured else None,
        "engine": options.engine if measured else rollout_engine(config, base).get("engine"),
        **candidate.identity,
    }
    # Control steps from one inference to the next, roughly: it starts so early that it ends with the chunk.
    late = (latency.ms + latency.margin_ms) * CONTROL_HZ / 1000
    cycle = max(base.config.action_steps - math.ceil(late), late, 1)

    def measure() -> Row:
        policy = candidate.policy(base)
        if not measured:
            served = serve(policy, batch_size=None, engine=config.engine)
            return measure_latency(served, options, latency, noise_seed=noise_seed)
        runtime = Runtime(policy, engine=options.engine)
        row = measure_latency(runtime, options, latency, noise_seed=noise_seed)
        return {**row, "engine": runtime.engine}

    return Task(
        label=f"{candidate.label}, {'measured' if measured else f'{latency.ms:g} ms'}",
        cost=candidate.evaluations * options.episodes * math.ceil(options.max_steps / cycle),
        identity=identity,
        measure=measure,
    )


def describe_latency(options: LatencyReportConfig) -> str:
    """What was measured, and what the columns mean."""
    seeds = f"{len(options.noise_seeds)} noise seed{'s' if len(options.noise_seeds) > 1 else ''}"
    return (
        "The simulator goes on while the policy computes. The pusher follows the rest of the chunk before, and skips "
        "the points of a chunk that are over when it arrives. The next inference starts from the last observation that "
        "leaves enough time, one at a time, as in the policy node. A latency counts from the observation to the end of "
        "the control step in which the chunk arrives. Where a chunk ends before the next one is there, the pusher "
        "holds its last target, or goes on with what was predicted beyond the chunk (the horizon), which makes a "
        "difference from half a chunk's duration on.\n\n"
        f"Reward: mean over {options.episodes} episodes (initial states from seed {options.first_seed}) × {seeds} of "
        f"the largest reward in {options.max_steps} control steps of 100 ms, with its 95 % interval over episodes. "
        "Fixed: the same latency for every chunk. Measured: for each chunk the inference time of its own call of the "
        f"runtime at batch size 1 on this machine; inferences start {options.margin_ms:g} ms earlier than needed. "
        "Skipped: points per chunk. Missed: chunks that came after the end of the one before. Hold: control steps "
        "without a target to move to."
    )


def format_latency(rows: DataFrame) -> str:
    """A table of rewards at fixed latencies, and one of the latencies measured here."""
    parts = []
    rows = rows.assign(label=rows.apply(_label, axis=1))
    fixed, measured = (rows[rows["latency"] == mode] for mode in ("fixed", "measured"))
    if len(fixed):
        order = fixed["label"].unique()
        columns = sorted(fixed["ms_p50"].unique())
        rewards = fixed.pivot(index="label", columns="ms_p50", values="reward").loc[order, columns]
        cells = rewards.map("{:.3f}".format, na_action="ignore")
        # What becomes of the chunks depends on the latency alone, up to when the episodes end.
        first = fixed[fixed["label"] == order[0]].set_index("ms_p50")
        for name, (title, form) in WORLD.items():
            cells.loc[f"{title}, {order[0]}"] = first[name].map(f"{{:{form}}}".format, na_action="ignore")
        cells.columns = [f"{ms:g} ms" for ms in columns]
        shown = cells.rename_axis(index="sampler").reset_index()
        parts.append(f"### Reward at fixed latencies\n\n{markdown_table(shown)}")
    if len(measured):
        parts.append(f"### Measured latencies\n\n{markdown_table(measured, COLUMNS, text_columns=2)}")
    return "\n\n".join(parts)


def _sampler(row: Series) -> str:
    return label(row["sampler"], row["steps"], row["depth"])


def _label(row: Series) -> str:
    return _sampler(row) + (", goes on with the horizon" if row["after_chunk"] == "horizon" else "")


def plot_latency(rows: DataFrame) -> Figure:
    """Reward over latency: a line for each sampler at fixed latencies, and what it is on this machine."""
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    fixed_axes, measured_axes = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    rows = rows.assign(shown=rows.apply(_sampler, axis=1)).sort_values("ms_p50", kind="stable")
    for number, sampler in enumerate(rows.sort_index()["shown"].unique()):
        style = {"marker": MARKERS[number % len(MARKERS)], "color": f"C{number % 10}", "markersize": 5}
        for (mode, after_chunk), curve in rows[rows["shown"] == sampler].groupby(["latency", "after_chunk"]):
            if mode == "fixed":
                style["linestyle"], label = ("-", sampler) if after_chunk == "hold" else ("--", None)
                fixed_axes.plot(curve["ms_p50"], curve["reward"], linewidth=1, label=label, **style)
            else:
                low, high = (curve[f"reward_{end}"].fillna(curve["reward"]) for end in ("low", "high"))
                bars = [curve["reward"] - low, high - curve["reward"]]
                style["linestyle"] = ""
                measured_axes.errorbar(
                    curve["ms_p50"], curve["reward"], bars, capsize=3, label=sampler, **style
                )
    fixed_axes.set(
        title="at fixed latencies (dashed: goes on with the horizon)",
        xlabel="latency in ms",
        ylabel="mean maximum reward",
        ylim=(0, 1),
    )
    measured_axes.set(title="measured here, batch size 1", xlabel="latency in ms, median")
    measured_axes.set_xlim(left=0)
    for axes in (fixed_axes, measured_axes):
        axes.grid(alpha=0.3)
    shown = fixed_axes if fixed_axes.has_data() else measured_axes
    figure.legend(*shown.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    return figure
