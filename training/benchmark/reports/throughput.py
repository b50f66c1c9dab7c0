"""How many chunks a second a machine computes for batches of robots, by engine, and how long each batch waits."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from matplotlib.figure import Figure
from pandas import DataFrame
from torch import Tensor

from policy import DiffusionPolicy, SamplerConfig
from policy.exported import ExportedPolicy, open_exported, write_exported
from policy.exported.description import describe
from policy.exported.graph_files import SUFFIXES, build_graph, describe_graph
from policy.runtime import PLAIN, Policy, serve
from policy.runtime.chunk_function import ChunkFunction
from training.benchmark.config import (
    EXPORTED_ENGINES,
    MOST_TURNS,
    OPENVINO_BFLOAT16,
    OPENVINO_FIXED,
    BenchmarkConfig,
    ThroughputConfig,
)
from training.benchmark.measurements import percentiles
from training.benchmark.report import LIBRARIES, load_policy, open_cache, write_report
from training.benchmark.row_cache import Row, Task
from training.benchmark.tables import markdown_table, table
from training.provenance import machine

COLUMNS = {
    "engine": ("engine", ""),
    "threads": ("threads", "d"),
    "batch": ("batch", "d"),
    "calls": ("calls", "d"),
    "ms_p50": ("ms p50", ".2f"),
    "ms_p99": ("ms p99", ".2f"),
    "chunks_per_second": ("chunks/s", ".0f"),
    "times_plain": ("× plain", ".1f"),
    "robots": ("robots", ".0f"),
    "difference": ("difference", ".1g"),
}


@dataclass(frozen=True)
class Contestant:
    """A row: an engine for a batch size, with so many threads."""

    engine: str
    threads: int
    batch: int

    def calls_in_turn(self, calls: int) -> int:
        """Calls of one turn, if a batch of 1 has `calls` in all turns that there may be."""
        return math.ceil(max(calls / self.batch, calls / 10) / MOST_TURNS)


def report(config: BenchmarkConfig) -> None:
    """Write the report `throughput`.

    Raises:
        ValueError: for a sampler that the policy cannot be sampled with.
        EngineError: for an engine whose library is not installed.
    """
    options = config.throughput
    sampler = SamplerConfig("sequential", options.solver, options.steps)
    policy = load_policy(config).with_sampler(sampler)
    contestants = [
        Contestant(engine, threads, batch)
        for threads in options.threads
        for engine in options.engines
        for batch in options.batches
    ]
    cache = open_cache(
        config,
        policy,
        solver=options.solver,
        steps=options.steps,
        seed=config.seed,
        contestants=[vars(contestant) for contestant in contestants],
        machine=machine(policy.solver.a.device) | {"threads": None},
    )
    with TemporaryDirectory() as folder:
        bench = Bench(policy, contestants, seed=config.seed, folder=Path(folder))
        differences = Task(
            label="differences",
            cost=sum(contestant.batch for contestant in contestants),
            identity={"measured": "difference"},
            measure=bench.differences,
        )
        turns = [
            Task(
                label=f"turn {turn + 1}",
                cost=sum(each.batch * each.calls_in_turn(options.calls) for each in contestants),
                identity={"measured": "time", "calls": options.calls, "turn": turn},
                measure=partial(bench.turn, turn, options.calls),
            )
            for turn in range(options.turns)
        ]
        cache.measure_all([differences, *turns], "throughput")
    found = cache.read(differences)
    timed = [cache.read(task) for task in turns]
    chunks_of_robot = policy.task.rate / policy.config.action_steps
    rows = table(
        [
            make_row(
                contestant,
                [ms for turn in timed for ms in turn["milliseconds"][index]],
                difference=found["difference"][index],
                chunks_of_robot=chunks_of_robot,
            )
            for index, contestant in enumerate(contestants)
        ]
    )
    plain = rows[rows["engine"] == PLAIN].set_index(["threads", "batch"])["ms_p50"]
    if len(plain):
        rows["times_plain"] = [plain[row.threads, row.batch] / row.ms_p50 for row in rows.itertuples()]
    shown = {name: column for name, column in COLUMNS.items() if name in rows}
    libraries = {"onnxruntime": "onnx_file", "openvino": "openvino"}
    used = [name for name, engine in libraries.items() if any(e.startswith(engine) for e in options.engines)]
    write_report(
        config,
        rows,
        title="Chunks a second",
        introduction=describe_throughput(options, policy, chunks_of_robot),
        tables=markdown_table(rows, shown),
        figures={"": plot_throughput(rows)},
        measured=[found, *timed],
        libraries=[*LIBRARIES, *used],
    )


class Bench:
    """Servers of batches, made when they are first needed.

    Args:
        policy: policy with its sampler.
        contestants: rows to be measured.
        seed: of observations and noises.
        folder: for exported files.
    """

    def __init__(
        self, policy: DiffusionPolicy, contestants: list[Contestant], *, seed: int, folder: Path
    ) -> None:
        self.policy = policy
        self.contestants = contestants
        self.folder = folder
        generator = torch.Generator().manual_seed(seed)
        config, task = policy.config, policy.task
        most = max(contestant.batch for contestant in contestants)
        limits = policy.normalizer.observation.to("cpu")
        share = torch.rand((most, config.observation_steps, task.observation_dim), generator=generator)
        self.observations = limits.minimum + share * (limits.maximum - limits.minimum)
        self.noise = torch.randn((most, config.horizon, task.action_dim), generator=generator)
        self.server = cache(self._make_server)
        self.file = cache(self._write_file)

    def _make_server(self, contestant: Contestant) -> Policy | ExportedPolicy:
        engine, threads, batch = contestant.engine, contestant.threads, contestant.batch
        if engine not in EXPORTED_ENGINES:
            return serve(self.policy, batch_size=batch, engine=engine, threads=threads)
        return open_exported(
            self.file(EXPORTED_ENGINES[engine]),
            threads=threads,
            batch_size=batch if engine in (OPENVINO_FIXED, OPENVINO_BFLOAT16) else None,
            bfloat16=engine == OPENVINO_BFLOAT16,
        )

    def _write_file(self, format: str) -> Path:
        path = self.folder / f"policy{SUFFIXES[format]}"
        function = ChunkFunction(self.policy)
        graph = build_graph(function, format)
        describe_graph(graph, describe(function, precision="float32", provenance={}))
        with write_exported(path, graph):
            return path

    def chunk(self, contestant: Contestant) -> Tensor:
        """(B, action_steps, A) of the first B observations and noises."""
        batch = contestant.batch
        server = self.server(contestant)
        return server.predict(self.observations[:batch], noise=self.noise[:batch]).actions.cpu()

    def differences(self) -> Row:
        """Largest difference of a normalised action from the plain policy's, by contestant."""
        normalize = self.policy.normalizer.to("cpu").action.normalize
        expected = normalize(self.policy.predict(self.observations, noise=self.noise).actions.cpu())
        found = []
        for contestant in self.contestants:
            with torch_threads(contestant.threads):
                actions = normalize(self.chunk(contestant))
            found.append(float((actions - expected[: contestant.batch]).abs().max()))
        return {"difference": found}

    def turn(self, turn: int, calls: int) -> Row:
        """Milliseconds of some calls of every contestant, one after the other; every second turn in reverse.

        Returns:
            `milliseconds` (contestants, calls), from the observations to the chunks on the CPU.
        """
        order = range(len(self.contestants))
        milliseconds: dict[int, list[float]] = {}
        for index in order if turn % 2 == 0 else reversed(order):
            contestant = self.contestants[index]
            taken = []
            with torch_threads(contestant.threads):
                for _ in range(contestant.calls_in_turn(calls) + 1):
                    started = time.perf_counter()
                    self.chunk(contestant)
                    taken.append(1000 * (time.perf_counter() - started))
            milliseconds[index] = taken[1:]  # the first call finds another one's data in the caches
        return {"milliseconds": [milliseconds[index] for index in order]}


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """So many CPU threads for PyTorch."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def make_row(
    contestant: Contestant, milliseconds: list[float], *, difference: float, chunks_of_robot: float
) -> dict[str, Any]:
    """What was measured of a contestant.

    Args:
        contestant: the row.
        milliseconds: of its calls.
        difference: of its actions from the plain policy's.
        chunks_of_robot: that one robot needs a second.
    """
    p50, p99 = percentiles(milliseconds, 50, 99)
    rate = 1000 * contestant.batch / p50
    return {
        **vars(contestant),
        "calls": len(milliseconds),
        "ms_p50": p50,
        "ms_p99": p99,
        "chunks_per_second": rate,
        "robots": math.floor(rate / chunks_of_robot),
        "difference": difference,
    }


def describe_throughput(options: ThroughputConfig, policy: DiffusionPolicy, chunks_of_robot: float) -> str:
    """What was measured, and what the columns mean."""
    steps = policy.config.action_steps
    return (
        f"A batch of B robots shares one call of sequential {options.solver}, T = {options.steps}. Milliseconds: "
        "wall time of a call, from the observations to the chunks on the CPU; median and 99th percentile of as many "
        "calls as the column says, all rows in turns; of few calls the 99th percentile is nearly the slowest. "
        "Chunks/s: B over the median. × plain: how much faster than PyTorch with the same batch and threads. Robots: "
        f"how many such chunks/s are enough for, at {policy.task.rate:g} control steps a second and {steps} a chunk, "
        f"{chunks_of_robot:g} chunks/s each, if all time went into chunks. Difference: the largest of a normalised "
        "action from the plain policy's with the same noise. `openvino` evaluates the network, `…_file` a whole chunk "
        "from a file of `pcm-export`."
    )


def plot_throughput(rows: DataFrame) -> Figure:
    """Chunks a second against the batch size, a panel for each number of threads."""
    numbers = rows["threads"].unique()
    figure = Figure(figsize=(4.6 * len(numbers), 4.2), layout="constrained")
    panels = figure.subplots(1, len(numbers), sharey=True, squeeze=False)[0]
    for axes, threads in zip(panels, numbers, strict=True):
        for engine, found in rows[rows["threads"] == threads].groupby("engine", sort=False):
            axes.plot(found["batch"], found["chunks_per_second"], "o-", markersize=4, label=engine)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(sorted(rows["batch"].unique()), sorted(rows["batch"].unique()))
        axes.set_title(f"{threads} thread{'s' if threads > 1 else ''}")
        axes.set_xlabel("robots in a batch")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("chunks/s")
    panels[0].legend(fontsize=8)
    return figure
