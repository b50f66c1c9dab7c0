"""What a chunk takes with each sampler through each engine, against the least that it could take."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from pandas import DataFrame, factorize, read_csv
from torch import Tensor

from policy import DiffusionPolicy, Prediction, SamplerConfig
from policy.denoiser import BindNetwork, Denoise
from policy.networks.unet import ConditionalUnet1D
from policy.pcm import weights_sha256
from policy.runtime import PLAIN, Policy, serve
from policy.solvers.solver import Solver
from training.benchmark.candidates import Candidate, PCMFile, at_depths, load_pcm_files, pcm_candidates
from training.benchmark.config import BenchmarkConfig, ProfileConfig
from training.benchmark.report import (
    LIBRARIES,
    held_out_observations,
    load_policy,
    markdown_table,
    open_cache,
    percentiles,
    table,
    write_report,
)
from training.benchmark.reports.profile_floor import Floor, measure_floor
from training.benchmark.row_cache import Row, Task
from training.provenance import machine

CALLS_IN_TURN = 5
COLUMNS = (
    "engine",
    "device",
    "model",
    "sampler",
    "iterations",
    "steps",
    "batch",
    "ms_p50",
    "ms_p99",
    "error_p95",
    "reward",
    "network_evaluations",
    "speedup_vs_ddim50",
    "times_floor",
)
"""Of the CSV."""
SHOWN = {
    "engine": "engine",
    "method": "sampler",
    "steps": "T",
    "depth": "depth",
    "ms_p50": "ms p50",
    "ms_p99": "ms p99",
    "speedup_vs_ddim50": "× DDIM",
    "network_share": "in network",
    "network_evaluations": "evaluations",
    "times_floor": "× floor",
    "error_p95": "error p95",
    "reward": "reward",
}
"""Columns of the Markdown table, and what they are called there."""
FORMATS = {
    "ms_p50": ".2f",
    "ms_p99": ".2f",
    "speedup_vs_ddim50": ".1f",
    "network_share": ".0%",
    "network_evaluations": ".3g",
    "times_floor": ".1f",
    "error_p95": ".2g",
    "reward": ".3f",
}


@dataclass(frozen=True)
class Contestant:
    """A row: a sampler through an engine."""

    engine: str
    candidate: Candidate

    @property
    def identity(self) -> dict[str, Any]:
        return {"engine": self.engine, **self.candidate.identity}


def report(config: BenchmarkConfig) -> None:
    """Write the report `profile`.

    Raises:
        ValueError: if the policy has no covariance, or there is no such table of rewards.
        EngineError: for an engine whose library is not installed.
    """
    options = config.profile
    base = load_policy(config)
    rewards = _read_rewards(options.rewards)
    threads = options.threads or torch.get_num_threads()
    torch.set_num_threads(threads)  # of what no engine serves, too
    compared = profile_candidates(options, load_pcm_files(config.pcm, base))
    reference = Contestant(PLAIN, compared[0])
    contestants = [reference, *(Contestant(e, candidate) for e in options.engines for candidate in compared)]
    observations = held_out_observations(config, base)
    cache = open_cache(
        config,
        base,
        observations_sha256=weights_sha256({"": observations}),
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
    cache.measure_all([floor_task, *accuracy, *turns], "profile")

    found = cache.read(floor_task)
    floor = Floor(**{field.name: found[field.name] for field in fields(Floor)})
    timed = [cache.read(task) for task in turns]
    measured = [cache.read(task) for task in accuracy]
    model = Path(config.checkpoint).stem
    rows = table(
        [
            make_row(contestant, measured[index], [_of_contestant(turn, index) for turn in timed], model=model)
            for index, contestant in enumerate(contestants)
        ]
    )
    rows = rows.merge(rewards, how="left", on=["method", "steps", "depth"])
    rows["floor_ms"] = [floor.milliseconds(row["calls"]) for row in measured]
    rows["speedup_vs_ddim50"] = rows["ms_p50"].iloc[0] / rows["ms_p50"]
    rows["times_floor"] = rows["ms_p50"] / rows["floor_ms"]
    write_report(
        config,
        rows.assign(device=str(base.solver.a.device), batch=1)[list(COLUMNS)],
        title="Milliseconds per chunk",
        introduction=describe_profile(options, floor, threads),
        tables=format_profile(rows),
        figures={"": plot_profile(rows)},
        measured=[found, *measured, *timed],
        libraries=[*LIBRARIES, *(name for name in ("onnxruntime", "openvino") if name in options.engines)],
    )


def _of_contestant(turn: Row, index: int) -> Row:
    return {name: turn[name][index] for name in ("milliseconds", "network_share")}


def make_row(contestant: Contestant, accuracy: Row, turns: Sequence[Row], *, model: str) -> dict[str, Any]:
    """What was measured of a contestant."""
    candidate = contestant.candidate
    sampler = candidate.sampler
    p50, p99 = percentiles([ms for turn in turns for ms in turn["milliseconds"]], 50, 99)
    return {
        "engine": contestant.engine,
        "model": model if candidate.pcm is None else candidate.pcm.path.stem,
        "method": candidate.method,
        "sampler": sampler.name if sampler.warm_start == "none" else f"{sampler.name} warm",
        "iterations": sampler.iterations if sampler.is_parallel else None,
        "steps": sampler.steps,
        "depth": candidate.depth,
        "ms_p50": p50,
        "ms_p99": p99,
        "network_share": float(np.median([turn["network_share"] for turn in turns])),
        "network_evaluations": accuracy["network_evaluations"],
        "error_p95": accuracy["error_p95"],
    }


def profile_candidates(options: ProfileConfig, pcms: Sequence[PCMFile]) -> list[Candidate]:
    """All samplers, the slowest sequential one, which others are compared with, first."""
    rows = [
        Candidate(method, SamplerConfig(name, steps), steps)
        for method, name, all_steps in (
            ("DDIM", "ddim", sorted(options.ddim_steps, reverse=True)),
            ("DPM-Solver++(2M)", "dpm_solver", options.dpm_solver_steps),
        )
        for steps in all_steps
    ]
    for steps in options.picard_steps:
        cold = SamplerConfig("picard", steps, formulation="preconditioned", initialisation="gaussian")
        method = "Picard, preconditioned, gaussian"
        rows += [Candidate(method, *at_depth) for at_depth in at_depths(cold, options.picard_depths)]
        warm = replace(cold, initialisation="fresh", warm_start="actions")
        rows += [
            Candidate("Picard, preconditioned, warm start", *at_depth)
            for at_depth in at_depths(warm, options.warm_depths)
        ]
    for file in pcms:
        rows += pcm_candidates(file, options.pcm_depths, options.stiffness)
    return rows


class Bench:
    """Policies and runtimes, made when they are first needed, and what is measured of them."""

    def __init__(
        self,
        base: DiffusionPolicy,
        contestants: Sequence[Contestant],
        observations: Tensor,
        *,
        seed: int,
        threads: int,
    ) -> None:
        self.base = base
        self.contestants = contestants
        self.observations = observations
        self.seed = seed
        self.threads = threads
        self.server = cache(self._make_server)

    def _make_server(self, index: int) -> Policy:
        contestant = self.contestants[index]
        return serve(contestant.candidate.policy(self.base), 1, contestant.engine, self.threads)

    def accuracy(self, index: int) -> Row:
        """Error against the plain sequential sampler of the same solver and T, and what goes through the network.

        A warm start continues an earlier chunk, which drawn observations do not have: it has no error here.
        """
        sampler = self.contestants[index].candidate.sampler
        policy, calls = _recorded(self.server(index))
        shape = (len(self.observations), self.base.config.horizon, self.base.config.action_dim)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(self.seed))
        before = self._before(index)
        predictions = [
            policy.predict(observation[None], x0[None], torch.Generator().manual_seed(self.seed + 1), before)
            for observation, x0 in zip(self.observations, noise, strict=True)
        ]
        per_chunk = len(calls) // len(predictions)
        row: Row = {
            "calls": [count for count, _ in calls[:per_chunk]],
            "network_evaluations": sum(p.network_evaluations for p in predictions) / len(predictions),
            "error_p95": None,
        }
        if before is None:
            sequential = SamplerConfig(sampler.solver_name, sampler.steps)
            exact = self.base.with_sampler(sequential).predict(self.observations, noise).actions
            actions = torch.cat([prediction.actions for prediction in predictions])
            normalize = self.base.normalizer.action.normalize
            errors = (normalize(actions) - normalize(exact)).abs().amax((1, 2)).double().cpu()
            (row["error_p95"],) = percentiles(errors, 95)
        return row

    def turn(self, turn: int) -> Row:
        """Milliseconds of some calls of every contestant, one contestant after the other.

        Every second turn takes them in reverse, so that none always follows the same one.

        Returns:
            `milliseconds` (contestants, calls), from the observation to the chunk on the CPU, and `network_share`, the
            part of one more call that goes by inside the network.
        """
        milliseconds: dict[int, list[float]] = {}
        shares: dict[int, float] = {}
        order = range(len(self.contestants))
        for index in order if turn % 2 == 0 else reversed(order):
            server = self.server(index)
            before = self._before(index)
            generator = torch.Generator().manual_seed(turn)
            recorded, calls = _recorded(server)
            # What it prepares once, the server has prepared long ago.
            recorded.predict(self.observations[:1], generator=torch.Generator().manual_seed(0))
            calls.clear()
            taken = []
            for call, policy in enumerate([server] * (CALLS_IN_TURN + 1) + [recorded]):
                observation = self.observations[(turn * CALLS_IN_TURN + call) % len(self.observations)][None]
                started = time.perf_counter()
                policy.predict(observation, None, generator, before).chunk.cpu()
                taken.append(1000 * (time.perf_counter() - started))
            milliseconds[index] = taken[1:-1]  # the first call finds another one's data in the caches
            shares[index] = 1000 * sum(seconds for _, seconds in calls) / taken[-1]
        return {
            "milliseconds": [milliseconds[index] for index in order],
            "network_share": [shares[index] for index in order],
        }

    def _before(self, index: int) -> Prediction | None:
        if self.contestants[index].candidate.sampler.warm_start == "none":
            return None
        return self.server(index).predict(self.observations[:1], generator=torch.Generator().manual_seed(0))


def _recorded(server: Policy) -> tuple[DiffusionPolicy, list[tuple[int, float]]]:
    """The server's policy, and a list to which it adds samples and seconds of each of its network calls."""
    policy = server if isinstance(server, DiffusionPolicy) else server.policy
    calls: list[tuple[int, float]] = []
    return replace(policy, bind_network=_recording(policy.bind_network, calls)), calls


def _recording(bind: BindNetwork, calls: list[tuple[int, float]]) -> BindNetwork:
    def bind_recorded(network: ConditionalUnet1D, solver: Solver, condition: Tensor) -> Denoise:
        denoise = bind(network, solver, condition)

        def recorded(states: Tensor, steps: slice) -> Tensor:
            started = time.perf_counter()
            prediction = denoise(states, steps)
            if prediction.is_cuda:
                torch.cuda.synchronize(prediction.device)
            calls.append((states.shape[0] * states.shape[1], time.perf_counter() - started))
            return prediction

        return recorded

    return bind_recorded


def _read_rewards(path: str | None) -> DataFrame:
    """Rewards of a table of the report `rewards`, by method, T and depth.

    Raises:
        ValueError: for a file that is no such table.
    """
    columns = ["method", "steps", "depth", "reward_200"]
    if path is None:
        return DataFrame(columns=[*columns[:3], "reward"]).astype({"steps": int, "depth": int})
    found = read_csv(path)
    if missing := set(columns) - set(found.columns):
        raise ValueError(
            f"{path}: no table of the report rewards, columns {', '.join(sorted(missing))} are missing"
        )
    return found[columns].rename(columns={"reward_200": "reward"})


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


def format_profile(rows: DataFrame) -> str:
    """A Markdown table of all rows."""
    return markdown_table(rows[list(SHOWN)], FORMATS, titles=SHOWN, text_columns=2)


def plot_profile(rows: DataFrame) -> Figure:
    """Milliseconds per chunk of each row, with its floor."""
    figure = Figure(figsize=(9, 1.2 + 0.22 * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.barh(rows.index, rows["ms_p50"], color=[f"C{code}" for code in factorize(rows["engine"])[0]])
    axes.plot(rows["floor_ms"], rows.index, "k|", markersize=8, label="floor")
    labels = [
        f"{row.engine}: {row.method}, T = {row.steps}, depth {row.depth}" for row in rows.itertuples()
    ]
    axes.set_yticks(rows.index, labels, fontsize=7)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("ms per chunk, median")
    axes.legend()
    axes.grid(axis="x", alpha=0.3)
    return figure
