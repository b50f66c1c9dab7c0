"""A chunk as one graph of OpenVINO beside one network evaluation after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import fill
from typing import Any

import torch
from matplotlib.figure import Figure
from pandas import DataFrame

from policy import DiffusionPolicy, PicardConfig, SamplerConfig
from training.benchmark.candidates import Candidate, at_depths, label, sequential_candidates
from training.benchmark.config import (
    OPENVINO_BFLOAT16,
    OPENVINO_FIXED,
    BenchmarkConfig,
    WholeGraphConfig,
)
from training.benchmark.measurements import percentiles
from training.benchmark.report import LIBRARIES, load_policy, open_cache, write_report
from training.benchmark.reports.profile_bench import recorded_calls
from training.benchmark.reports.profile_floor import Floor, measure_floor
from training.benchmark.reports.throughput import Bench, Contestant
from training.benchmark.row_cache import Row, Task
from training.benchmark.tables import markdown_table, table
from training.provenance import machine

ENGINES = {
    "openvino": "evaluation by evaluation",
    OPENVINO_FIXED: "whole graph",
    OPENVINO_BFLOAT16: "whole graph, bfloat16",
}
COLUMNS = {
    "sampler": ("sampler", ""),
    "way": ("way", ""),
    "steps": ("T", "d"),
    "depth": ("depth", "d"),
    "threads": ("threads", "d"),
    "ms_p50": ("ms p50", ".2f"),
    "ms_p99": ("ms p99", ".2f"),
    "times_floor": ("× floor", ".1f"),
    "difference": ("difference", ".2g"),
}
TURNS = 10


def report(config: BenchmarkConfig) -> None:
    """Write the report `whole_graph`.

    Raises:
        ValueError: if the policy has no covariance.
        EngineError: if OpenVINO is not installed.
    """
    options = config.whole_graph
    base = load_policy(config)
    candidates = whole_graph_candidates(options)
    contestants = [Contestant(engine, threads, 1) for threads in options.threads for engine in ENGINES]
    cache = open_cache(
        config,
        base,
        seed=config.seed,
        contestants=[vars(contestant) for contestant in contestants],
        machine=machine(base.solver.a.device) | {"threads": None},
    )
    floors = [
        Task(
            label=f"floor of {threads} threads",
            cost=1,
            identity={"measured": "floor", "threads": threads},
            measure=partial(_measured_floor, base, threads),
        )
        for threads in options.threads
    ]
    with TemporaryDirectory() as folder:
        differences, turns = [], []
        for index, candidate in enumerate(candidates):
            own = Path(folder) / str(index)
            own.mkdir()
            bench = Bench(candidate.policy(base), contestants, seed=config.seed, folder=own)
            differences.append(
                Task(
                    label=f"difference of {candidate.label}",
                    cost=len(contestants),
                    identity={"measured": "difference", **candidate.identity},
                    measure=bench.differences,
                )
            )
            turns.append(
                [
                    Task(
                        label=f"turn {turn + 1} of {candidate.label}",
                        cost=len(contestants) * options.calls // TURNS,
                        identity={
                            "measured": "time",
                            "calls": options.calls,
                            "turn": turn,
                            **candidate.identity,
                        },
                        # A turn of `throughput` has a fifth of the calls, here a tenth.
                        measure=partial(bench.turn, turn, options.calls // 2),
                    )
                    for turn in range(TURNS)
                ]
            )
        cache.measure_all(
            [*floors, *differences, *(task for tasks in turns for task in tasks)], "whole_graph"
        )
    floor = {threads: _floor(cache.read(task)) for threads, task in zip(options.threads, floors, strict=True)}
    rows = []
    for candidate, difference, tasks in zip(candidates, differences, turns, strict=True):
        calls = network_calls(candidate.policy(base))
        found = make_rows(
            contestants,
            cache.read(difference),
            [cache.read(task) for task in tasks],
            calls=calls,
            floors=floor,
        )
        rows += [{**candidate.columns, **row} for row in found]
    shown = table(rows)
    write_report(
        config,
        shown,
        title="A chunk as one graph",
        introduction=describe_whole_graph(options),
        tables=markdown_table(shown, COLUMNS, text_columns=2),
        figures={"": plot_whole_graph(shown)},
        measured=[
            cache.read(task) for task in (*floors, *differences, *(t for tasks in turns for t in tasks))
        ],
        libraries=[*LIBRARIES, "openvino"],
    )


def _measured_floor(base: DiffusionPolicy, threads: int) -> Row:
    return asdict(measure_floor(base, threads))


def _floor(row: Row) -> Floor:
    return Floor(**{field.name: row[field.name] for field in fields(Floor)})


def whole_graph_candidates(options: WholeGraphConfig) -> list[Candidate]:
    """The samplers, all of fixed depth."""
    rows = sequential_candidates(ddim=[], dpmpp_2m=options.dpmpp_2m_steps)
    for steps in options.picard_steps:
        cold = SamplerConfig("picard", "ddim", steps, picard=PicardConfig("preconditioned", "gaussian"))
        rows += at_depths(cold, options.picard_depths)
    return rows


def network_calls(policy: DiffusionPolicy) -> list[int]:
    """Samples of each network call of a chunk, one after the other."""
    recorded, calls = recorded_calls(policy)
    observations = policy.normalizer.observation.minimum.expand(1, policy.config.observation_steps, -1)
    recorded.predict(observations, generator=torch.Generator().manual_seed(0))
    return [samples for samples, _ in calls]


def make_rows(
    contestants: Sequence[Contestant],
    difference: Row,
    timed: Sequence[Row],
    *,
    calls: Sequence[int],
    floors: Mapping[int, Floor],
) -> list[dict[str, Any]]:
    """What was measured of a sampler: a row for each way and number of threads.

    Args:
        contestants: ways and numbers of threads.
        difference, timed: what `Bench` measured of them.
        calls: see `network_calls`.
        floors: of the machine, by number of threads.
    """
    rows = []
    for index, contestant in enumerate(contestants):
        p50, p99 = percentiles([ms for turn in timed for ms in turn["milliseconds"][index]], 50, 99)
        rows.append(
            {
                "way": ENGINES[contestant.engine],
                "threads": contestant.threads,
                "ms_p50": p50,
                "ms_p99": p99,
                "times_floor": p50 / floors[contestant.threads].milliseconds(calls),
                "difference": difference["difference"][index],
            }
        )
    return rows


def describe_whole_graph(options: WholeGraphConfig) -> str:
    """What was measured, and what the columns mean."""
    return (
        "Milliseconds: inference time of one chunk at batch size 1; median and 99th percentile of "
        f"{options.calls} calls of each row, in {TURNS} turns, of which every second one goes through the rows in "
        "reverse. Evaluation by evaluation: the engine `openvino` of the node. Whole graph: the file of `pcm-export`, "
        "opened for that batch size; in bfloat16 only where the CPU can. × floor: times the least that this machine "
        "could take with so many threads for the network's arithmetic, or for reading its weights (see the report "
        "profile). Difference: largest one of a normalised action from plain PyTorch's, with drawn observations."
    )


def plot_whole_graph(rows: DataFrame) -> Figure:
    """Milliseconds of each way, a panel for each sampler."""
    samplers = list(rows.groupby(["sampler", "steps", "depth"], sort=False))
    figure = Figure(figsize=(1 + 4 * len(samplers), 3.6), layout="constrained")
    panels = figure.subplots(1, len(samplers), squeeze=False)[0]
    for axes, ((sampler, steps, depth), found) in zip(panels, samplers, strict=True):
        labels = [
            f"{row.way}, {row.threads} thread{'s' if row.threads > 1 else ''}" for row in found.itertuples()
        ]
        axes.barh(labels, found["ms_p50"], color="C0")
        axes.plot(found["ms_p99"], labels, "k|", label="99th percentile")
        axes.invert_yaxis()
        axes.set_title(fill(label(sampler, steps, depth), 36), fontsize=9)
        axes.set_xlabel("ms per chunk, median")
        axes.grid(axis="x", alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center")
    return figure
