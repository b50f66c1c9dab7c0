"""How often an answer is late although its sampler has a deadline, while other processes keep the CPU busy."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from pandas import DataFrame
from torch import Tensor
from tqdm import tqdm

import pusht_env  # noqa: F401, registers the environment
from policy import DiffusionPolicy, PicardConfig, SamplerConfig, StopConfig
from policy.runtime import Runtime
from training.benchmark.config import BenchmarkConfig, DeadlineConfig
from training.benchmark.measurements import percentiles
from training.benchmark.report import held_out_observations, load_policy, write_report
from training.benchmark.row_cache import Row
from training.benchmark.tables import markdown_table
from training.pusht.task import difference_from_pusht

WARM_UP_CALLS = 20
OBSERVATIONS = 50
INTRODUCTION = (
    "The deadline of the sampler {sampler} is {factor:g} times the median time of a call on a quiet machine without a "
    "deadline. What is late is counted twice: at all, and by more than the time of one iteration of the same sampler "
    "on the busy machine (median of call time / depth), since an iteration that has begun cannot be taken back. Times "
    "are in ms."
)


@dataclass(frozen=True)
class Calls:
    """What calls took.

    Attributes:
        ms: (N,) wall time of each.
        depth: (N,) network evaluations one after the other.
        cut: (N,) whether the deadline ended it.
    """

    ms: NDArray[np.float64]
    depth: NDArray[np.int64]
    cut: NDArray[np.bool_]


TABLE = {
    "quiet_median_ms": ("median of a call, quiet", ".1f"),
    "deadline_ms": ("deadline", ".1f"),
    "calls": ("calls, busy", "d"),
    "competitors": ("competing processes", "d"),
    "busy_median_ms": ("median, busy", ".1f"),
    "busy_p99_ms": ("99th percentile, busy", ".1f"),
    "busy_max_ms": ("longest, busy", ".1f"),
    "busy_iteration_ms": ("an iteration", ".1f"),
    "mean_depth": ("mean depth", ".2f"),
    "cut": ("ended by the deadline", "d"),
    "late": ("late", "d"),
    "late_by_more_than_an_iteration": ("late by more than an iteration", "d"),
}
"""Numbers of the report, times in ms: what they are called, and how they are written."""


def report(config: BenchmarkConfig) -> None:
    """Write the report `deadline`.

    Raises:
        OSError: if this user may not have the priority.
        EngineError: for an engine whose library is not installed.
        ValueError: without demonstrations, for a policy of another task than PushT.
    """
    options = config.deadline
    os.nice(options.nice)  # before any thread begins, since threads inherit it
    if options.threads:
        torch.set_num_threads(options.threads)
    sampler = SamplerConfig(
        "picard",
        "ddim",
        options.steps,
        stop=StopConfig(tolerance=options.tolerance),
        picard=PicardConfig(start="gaussian"),
    )
    policy = load_policy(config).with_sampler(sampler)
    if config.demonstrations is not None:
        observations: Sequence[Tensor] = held_out_observations(config, policy).split(1)
    else:
        observations = initial_observations(policy)
    found = measure(policy, observations, options)
    write_report(
        config,
        DataFrame([found]),
        title="Deadlines under load",
        introduction=INTRODUCTION.format(sampler=sampler, factor=options.factor),
        tables=markdown_table(DataFrame(_lines(found))),
    )


def measure(policy: DiffusionPolicy, observations: Sequence[Tensor], options: DeadlineConfig) -> Row:
    """Time calls on the machine as it is, then with a deadline on a machine made busy.

    Args:
        observations: each (1, observation_steps, observation_dim), which calls take in turn.
    """
    runtime = Runtime(policy, engine=options.engine, threads=options.threads)
    quiet = time_calls(runtime, observations, calls=options.quiet_calls, name="quiet")
    deadline = options.factor * float(np.median(quiet.ms))
    stop = replace(policy.sampler.stop, deadline_ms=deadline)
    hurried = policy.with_sampler(replace(policy.sampler, stop=stop))
    runtime = Runtime(hurried, engine=options.engine, threads=options.threads)
    competitors = os.cpu_count() or 1 if options.competitors is None else options.competitors
    # Competitors give back the priority that they inherit.
    with busy_processes(competitors, options.nice):
        busy = time_calls(runtime, observations, calls=options.calls, name="busy")
    return summarise(quiet, busy, deadline, competitors=competitors)


def summarise(quiet: Calls, busy: Calls, deadline_ms: float, *, competitors: int) -> Row:
    """Count what was late."""
    iteration = float(np.median(busy.ms / busy.depth))
    median, p99 = percentiles(busy.ms, 50, 99)
    return {
        "calls": len(busy.ms),
        "competitors": competitors,
        "quiet_median_ms": float(np.median(quiet.ms)),
        "deadline_ms": deadline_ms,
        "busy_median_ms": median,
        "busy_p99_ms": p99,
        "busy_max_ms": float(busy.ms.max()),
        "busy_iteration_ms": iteration,
        "mean_depth": float(busy.depth.mean()),
        "cut": int(busy.cut.sum()),
        "late": int((busy.ms > deadline_ms).sum()),
        "late_by_more_than_an_iteration": int((busy.ms > deadline_ms + iteration).sum()),
    }


def _lines(found: Row) -> list[Row]:
    return [{"": title, "number": format(found[name], form)} for name, (title, form) in TABLE.items()]


def initial_observations(policy: DiffusionPolicy) -> list[Tensor]:
    """What a policy of PushT observes as episodes begin, each (1, observation_steps, observation_dim) in px.

    Raises:
        ValueError: for a policy of another task.
    """
    if difference := difference_from_pusht(policy.task):
        raise ValueError(
            f"demonstrations=… is required for a policy of another task than PushT: {difference}"
        )
    env = gymnasium.make("pusht_env/PushT-v0", disable_env_checker=True)
    states = [torch.from_numpy(env.reset(seed=100_000 + i)[0]).float() for i in range(OBSERVATIONS)]
    env.close()
    return [state.expand(1, policy.config.observation_steps, -1) for state in states]


def time_calls(runtime: Runtime, observations: Sequence[Tensor], *, calls: int, name: str) -> Calls:
    """Call the runtime again and again, one observation at a time, after calls that are not timed."""
    generator = torch.Generator().manual_seed(0)
    for i in range(WARM_UP_CALLS):
        runtime.predict(observations[i % len(observations)], generator=generator)
    ms, depth, cut = np.empty(calls), np.empty(calls, np.int64), np.empty(calls, np.bool_)
    for i in tqdm(range(calls), desc=name, unit="call"):
        started = time.perf_counter()
        prediction = runtime.predict(observations[i % len(observations)], generator=generator)
        ms[i] = 1000 * (time.perf_counter() - started)
        depth[i], cut[i] = prediction.depth, prediction.cut
    return Calls(ms, depth, cut)


@contextmanager
def busy_processes(number: int, nice: int = 0) -> Iterator[Sequence[subprocess.Popen[bytes]]]:
    """Processes that compute as long as the context lasts, without this one's priority, `nice`."""
    # Nobody would stop them if this process was killed.
    program = f"import os; os.nice({-nice})\nwhile os.getppid() == {os.getpid()}: pass"
    processes = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(number)]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()
