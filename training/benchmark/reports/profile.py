"""What a chunk takes with each sampler through each engine, against the least that it could take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from pandas import DataFrame, factorize

from policy import ParallelConfig, PicardConfig, SamplerConfig
from policy.checkpoint import tensors_sha256
from policy.runtime import PLAIN
from training.benchmark.candidates import (
    Candidate,
    PCMFile,
    at_depths,
    label,
    load_pcm_files,
    pcm_candidates,
    sequential_candidates,
)
from training.benchmark.config import BenchmarkConfig, ProfileConfig
from training.benchmark.measurements import percentiles
from training.benchmark.report import LIBRARIES, held_out_observations, load_policy, open_cache, write_report
from training.benchmark.reports.profile_bench import CALLS_IN_TURN, Bench, Contestant
from training.benchmark.reports.profile_encoder import encoder_table, measure_encoders
from training.benchmark.reports.profile_floor import Floor, measure_floor
from training.benchmark.row_cache import Row, Task
from training.benchmark.tables import markdown_table, read_rewards, table
from training.provenance import machine

COLUMNS = {
    "engine": ("engine", ""),
    "sampler": ("sampler", ""),
    "steps": ("T", "d"),
    "depth": ("depth", "d"),
    "ms_p50": ("ms p50", ".2f"),
    "ms_p99": ("ms p99", ".2f"),
    "speedup_vs_ddim50": ("× DDIM", ".1f"),
    "network_share": ("in network", ".0%"),
    "network_evaluations": ("evaluations", ".3g"),
    "times_floor": ("× floor", ".1f"),
    "error_p95": ("error p95", ".2g"),
    "reward": ("reward", ".3f"),
}


def report(config: BenchmarkConfig) -> None:
    """Write the report `profile`.

    Raises:
        ValueError: if the policy has no covariance, or there is no such table of rewards.
        EngineError: for an engine whose library is not installed.
    """
    options = config.profile
    base = load_policy(config)
    columns = ["sampler", "steps", "depth", "reward_200"]
    rewards = DataFrame(columns=columns).astype({"steps": int, "depth": int})
    if options.rewards is not None:
        rewards = read_rewards(options.rewards, *columns)
    threads = options.threads or torch.get_num_threads()
    torch.set_num_threads(threads)  # of what no engine serves, too
    compared = profile_candidates(options, load_pcm_files(config.pcm, base))
    reference = Contestant(PLAIN, compared[0])
    contestants = [reference, *(Contestant(e, candidate) for e in options.engines for candidate in compared)]
    observations = held_out_observations(config, base)
    cache = open_cache(
        config,
        base,
        observations_sha256=tensors_sha256({"": observations}),
        seed=config.seed,
        threads=threads,
        machine=machine(base.solver.a.device),
    )
    bench = Bench(base, contestants, observations, seed=config.seed, threads=threads)
    floor_task = Task(
        label="floor",
        cost=1,
        identity={"measured": "floor"},
        measure=lambda: asdict(measure_floor(base, threads)),
    )
    accuracy = [
        Task(
            label=f"error of {contestant.candidate.label}, {contestant.engine}",
            cost=1,
            identity={"measured": "accuracy", **contestant.identity},
            measure=partial(bench.accuracy, index),
        )
        for index, contestant in enumerate(contestants)
    ]
    identities = [contestant.identity for contestant in contestants]
    turns = [
        Task(
            label=f"turn {turn + 1}",
            cost=len(contestants),
            identity={"measured": "time", "contestants": identities, "turn": turn},
            measure=partial(bench.turn, turn),
        )
        for turn in range(math.ceil(options.calls / CALLS_IN_TURN))
    ]
    encoders = [
        Task(
            label="encoders",
            cost=1,
            identity={"measured": "encoders", "engines": list(options.engines), "calls": options.calls},
            measure=partial(
                measure_encoders,
                base,
                options.engines,
                threads=threads,
                calls=options.calls,
                seed=config.seed,
            ),
        )
        for _ in base.task.images[:1]
    ]
    cache.measure_all([floor_task, *encoders, *accuracy, *turns], "profile")

    found = cache.read(floor_task)
    floor = Floor(**{field.name: found[field.name] for field in fields(Floor)})
    timed = [cache.read(task) for task in turns]
    measured = [cache.read(task) for task in accuracy]
    model = Path(config.checkpoint).stem
    rows = table(
        [
            make_row(
                contestant, measured[index], [_of_contestant(turn, index) for turn in timed], model=model
            )
            for index, contestant in enumerate(contestants)
        ]
    )
    rows = rows.merge(
        rewards.rename(columns={"reward_200": "reward"}), how="left", on=["sampler", "steps", "depth"]
    )
    rows["floor_ms"] = [floor.milliseconds(row["calls"]) for row in measured]
    rows["speedup_vs_ddim50"] = rows["ms_p50"].iloc[0] / rows["ms_p50"]
    rows["times_floor"] = rows["ms_p50"] / rows["floor_ms"]
    write_report(
        config,
        rows.assign(device=str(base.solver.a.device), batch=1),
        title="Milliseconds per chunk",
        introduction=describe_profile(options, floor, threads),
        tables="\n\n".join(
            [
                markdown_table(rows, COLUMNS, text_columns=2),
                *(encoder_table(cache.read(task), floor) for task in encoders),
            ]
        ),
        figures={"": plot_profile(rows)},
        measured=[found, *measured, *timed],
        libraries=[*LIBRARIES, *(name for name in ("onnxruntime", "openvino") if name in options.engines)],
    )


def _of_contestant(turn: Row, index: int) -> Row:
    return {name: turn[name][index] for name in ("milliseconds", "network_share")}


def make_row(contestant: Contestant, accuracy: Row, turns: Sequence[Row], *, model: str) -> dict[str, Any]:
    """What was measured of a contestant."""
    candidate = contestant.candidate
    p50, p99 = percentiles([ms for turn in turns for ms in turn["milliseconds"]], 50, 99)
    return {
        "engine": contestant.engine,
        "model": model if candidate.pcm is None else candidate.pcm.path.stem,
        **candidate.columns,
        "ms_p50": p50,
        "ms_p99": p99,
        "network_share": float(np.median([turn["network_share"] for turn in turns])),
        "network_evaluations": accuracy["network_evaluations"],
        "error_p95": accuracy["error_p95"],
    }


def profile_candidates(options: ProfileConfig, pcms: Sequence[PCMFile]) -> list[Candidate]:
    """All samplers, the slowest sequential one, which others are compared with, first."""
    ddim_steps = sorted(options.ddim_steps, reverse=True)
    rows = sequential_candidates(ddim=ddim_steps, dpmpp_2m=options.dpmpp_2m_steps)
    for steps in options.picard_steps:
        cold = SamplerConfig("picard", "ddim", steps, picard=PicardConfig("preconditioned", "gaussian"))
        rows += at_depths(cold, options.picard_depths)
        warm = replace(
            cold,
            parallel=ParallelConfig(warm_start="actions"),
            picard=PicardConfig("preconditioned", "fresh"),
        )
        rows += at_depths(warm, options.warm_depths)
    for file in pcms:
        rows += pcm_candidates(file, options.pcm_depths, options.stiffness)
    return rows


def describe_profile(options: ProfileConfig, floor: Floor, threads: int) -> str:
    """What was measured, and what the columns mean."""
    rewards = f"from `{options.rewards}`" if options.rewards else "not given"
    return (
        f"Milliseconds: inference time of one chunk at batch size 1 with {threads} thread{'s' if threads > 1 else ''}, "
        f"the chunk on the CPU included; median and 99th percentile of {options.calls} calls of each row, "
        f"{CALLS_IN_TURN} at a time, all rows in turns. × DDIM: against the first row, DDIM through the plain sampler. "
        "Depth: sequential network evaluations, each of as many samples as there are states. In network: share of the "
        "time. Error: 95th percentile over held-out observations of the largest difference of a normalised action from "
        "the plain sequential sampler with the same noise, solver and T. Reward within 200 control steps: "
        f"{rewards}.\n\n"
        f"Floor: an evaluation takes {floor.flops / 1e6:.3g} MFLOP, and each call reads "
        f"{floor.weight_bytes / 1e6:.3g} MB of weights, or takes the longer of both; this machine computes "
        f"{floor.flops_per_second / 1e9:.3g} GFLOP/s and reads as much memory at "
        f"{floor.bytes_per_second / 1e9:.3g} GB/s."
    )


def plot_profile(rows: DataFrame) -> Figure:
    """Milliseconds per chunk of each row, with its floor."""
    figure = Figure(figsize=(9, 1.2 + 0.22 * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.barh(rows.index, rows["ms_p50"], color=[f"C{code}" for code in factorize(rows["engine"])[0]])
    axes.plot(rows["floor_ms"], rows.index, "k|", markersize=8, label="floor")
    labels = [f"{row.engine}: {label(row.sampler, row.steps, row.depth)}" for row in rows.itertuples()]
    axes.set_yticks(rows.index, labels, fontsize=7)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("ms per chunk, median")
    axes.legend()
    axes.grid(axis="x", alpha=0.3)
    return figure
