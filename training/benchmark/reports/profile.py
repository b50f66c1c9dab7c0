"""What a chunk takes with each sampler through each engine, against the least that it could take."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policy import DiffusionPolicy, Prediction, SamplerConfig
from policy.checkpoint import file_sha256
from policy.denoiser import BindNetwork, Denoise
from policy.networks.unet import ConditionalUnet1D
from policy.pcm import weights_sha256
from policy.runtime import PLAIN, Policy, serve
from policy.solvers.solver import Solver
from training.benchmark.candidates import Candidate, PCMFile, at_depths, load_pcm_files, pcm_candidates
from training.benchmark.config import BenchmarkConfig, ProfileConfig
from training.benchmark.report import held_out_observations, load_policy, write_report
from training.benchmark.reports.profile_floor import Floor, measure_floor
from training.benchmark.reports.profile_layout import describe_profile, format_profile, plot_profile
from training.benchmark.row_cache import Row, RowCache, Task
from training.provenance import machine

CALLS_IN_TURN = 5


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
    if base.covariance is None:
        raise ValueError(f"{config.checkpoint} has no covariance; add it with pcm-estimate-covariance")
    rewards = _read_rewards(options.rewards)
    threads = options.threads or torch.get_num_threads()
    torch.set_num_threads(threads)  # of what no engine serves, too
    compared = profile_candidates(options, load_pcm_files(config.pcm, base))
    reference = Contestant(PLAIN, compared[0])
    contestants = [reference, *(Contestant(e, candidate) for e in options.engines for candidate in compared)]
    observations = held_out_observations(config, base)

    shared = {
        "checkpoint_sha256": file_sha256(config.checkpoint),
        "observations_sha256": weights_sha256({"": observations}),
        "seed": config.seed,
        "threads": threads,
        "machine": machine(base.solver.a.device),
    }
    rows_cache = RowCache(Path(config.output_dir) / "profile_rows", shared)
    bench = Bench(base, contestants, observations, config.seed, threads)
    floor_task = Task("floor", 1, {"measured": "floor"}, lambda: asdict(measure_floor(base, threads)))
    accuracy = [
        Task(
            f"error of {c.candidate.label}, {c.engine}",
            1,
            {"measured": "accuracy", **c.identity},
            partial(bench.accuracy, index),
        )
        for index, c in enumerate(contestants)
    ]
    identities = [contestant.identity for contestant in contestants]
    turns = [
        Task(
            f"turn {turn + 1}",
            len(contestants),
            {"measured": "time", "contestants": identities, "turn": turn},
            partial(bench.turn, turn),
        )
        for turn in range(math.ceil(options.calls / CALLS_IN_TURN))
    ]
    rows_cache.measure_all([floor_task, *accuracy, *turns], "profile")

    found = rows_cache.read(floor_task)
    floor = Floor(**{name: found[name] for name in Floor.__dataclass_fields__})
    timed = [rows_cache.read(task) for task in turns]
    rows, details = [], []
    for index, contestant in enumerate(contestants):
        measured = rows_cache.read(accuracy[index])
        milliseconds = [ms for turn in timed for ms in turn["milliseconds"][index]]
        p50, p99 = (float(np.percentile(milliseconds, q)) for q in (50, 99))
        least = floor.milliseconds(measured["calls"])
        candidate = contestant.candidate
        sampler = candidate.sampler
        rows.append(
            {
                "engine": contestant.engine,
                "device": str(base.solver.a.device),
                "model": Path(config.checkpoint).stem if candidate.pcm is None else candidate.pcm.path.stem,
                "sampler": sampler.name if sampler.warm_start == "none" else f"{sampler.name} warm",
                "iterations": sampler.iterations if sampler.is_parallel else None,
                "steps": sampler.steps,
                "batch": 1,
                "ms_p50": p50,
                "ms_p99": p99,
                "error_p95": measured["error_p95"],
                "reward": rewards.get((candidate.method, sampler.steps, candidate.depth)),
                "network_evaluations": measured["network_evaluations"],
                "speedup_vs_ddim50": None,
                "times_floor": p50 / least,
            }
        )
        share = float(np.median([turn["network_share"][index] for turn in timed]))
        details.append(
            {"method": candidate.method, "depth": candidate.depth, "network_share": share, "floor_ms": least}
        )
    for row in rows:
        row["speedup_vs_ddim50"] = rows[0]["ms_p50"] / row["ms_p50"]
    write_report(
        config,
        "Milliseconds per chunk",
        describe_profile(options, floor, threads),
        format_profile(rows, details),
        rows,
        plot_profile(rows, details),
        {"engines": {name: version(name) for name in ("onnxruntime", "openvino") if name in options.engines}},
    )


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
            row["error_p95"] = float(np.percentile(errors, 95))
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


def _read_rewards(path: str | None) -> dict[tuple[str, int, int], float]:
    """Rewards of a table of the report `table3`, by method, T and depth.

    Raises:
        ValueError: for a file that is no such table.
    """
    if path is None:
        return {}
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if missing := {"method", "steps", "depth", "reward_200"} - set(reader.fieldnames or ()):
            raise ValueError(
                f"{path}: no table of the report table3, columns {', '.join(sorted(missing))} are missing"
            )
        return {
            (row["method"], int(row["steps"]), int(row["depth"])): float(row["reward_200"])
            for row in reader
            if row["reward_200"]
        }
