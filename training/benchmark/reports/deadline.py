"""How often a policy's answer is late although its sampler has a deadline, while other processes keep the CPU busy.

The deadline is a multiple of the median time of a call on a quiet machine without a deadline. What is late is counted
twice: at all, and by more than the time of one iteration of the same sampler on the busy machine (median of call time
/ depth), since an iteration that has begun cannot be taken back.

  python -m training.benchmark.reports.deadline --calls 10000 --output-dir outputs/deadline
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

import pusht_env  # noqa: F401, registers the environment
from policy import DiffusionPolicy, SamplerConfig
from policy.atomic_write import atomic_write
from policy.checkpoint import CheckpointError, file_sha256
from policy.runtime import ENGINES, EngineError, Runtime
from training.benchmark.report import markdown_table
from training.provenance import code_version, command_line, machine

WARM_UP_CALLS = 20
OBSERVATIONS = 50


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


@dataclass(frozen=True)
class DeadlineReport:
    """Numbers of the report; times in ms."""

    calls: int
    competitors: int
    quiet_median_ms: float
    deadline_ms: float
    busy_median_ms: float
    busy_p99_ms: float
    busy_max_ms: float
    busy_iteration_ms: float
    mean_depth: float
    cut: int
    late: int
    late_by_more_than_an_iteration: int


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; see `--help`."""
    parser = argparse.ArgumentParser(
        prog="python -m training.benchmark.reports.deadline",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--checkpoint", default="checkpoints/pusht_small.safetensors", help="policy (default %(default)s)")
    add("--engine", choices=("auto", *ENGINES), default="auto", help="of the runtime (default %(default)s)")
    add("--threads", type=_positive, help="of the CPU (default: as many as PyTorch uses)")
    add("--steps", type=_positive, default=10, help="solver steps T (default %(default)s)")
    add("--tolerance", type=float, default=0.0, help="of the sampler (default %(default)s: T iterations)")
    add("--calls", type=_positive, default=10_000, help="under load (default %(default)s)")
    add("--quiet-calls", type=_positive, default=500, help="for the median (default %(default)s)")
    add("--factor", type=float, default=2.0, help="deadline in medians (default %(default)s)")
    add(
        "--competitors",
        type=int,
        default=os.cpu_count(),
        help="processes that do nothing but compute (default: one a core, %(default)s)",
    )
    add(
        "--nice",
        type=_not_positive,
        default=0,
        help="priority of the policy over the competitors, down to -20, which needs the right to it (default "
        "%(default)s: the same)",
    )
    add("--output-dir", type=Path, default=Path("outputs/deadline"), help="default %(default)s")
    arguments = parser.parse_args(argv)
    try:
        os.nice(arguments.nice)  # before any thread begins, since threads inherit it
        if arguments.threads:
            torch.set_num_threads(arguments.threads)
        sampler = SamplerConfig(
            "picard", arguments.steps, tolerance=arguments.tolerance, initialisation="gaussian"
        )
        policy = DiffusionPolicy.load(arguments.checkpoint, sampler=sampler)
        report = measure(
            policy,
            arguments.engine,
            arguments.threads,
            arguments.calls,
            arguments.quiet_calls,
            arguments.factor,
            arguments.competitors,
            arguments.nice,
        )
        write(report, arguments.output_dir, policy, arguments.checkpoint)
    except (CheckpointError, EngineError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def measure(
    policy: DiffusionPolicy,
    engine: str,
    threads: int | None,
    calls: int,
    quiet_calls: int,
    factor: float,
    competitors: int,
    nice: int = 0,
) -> DeadlineReport:
    """Time calls on the machine as it is, then with a deadline on a machine made busy.

    Competitors give back the priority that they inherit, `nice`.
    """
    observations = initial_observations(policy.config.observation_steps)
    quiet = time_calls(Runtime(policy, 1, engine, threads), observations, quiet_calls, "quiet")
    deadline = factor * float(np.median(quiet.ms))
    sampler = replace(policy.sampler, deadline_ms=deadline)
    runtime = Runtime(policy.with_sampler(sampler), 1, engine, threads)
    with busy_processes(competitors, nice):
        busy = time_calls(runtime, observations, calls, "busy")
    return summarise(quiet, busy, deadline, competitors)


def summarise(quiet: Calls, busy: Calls, deadline_ms: float, competitors: int) -> DeadlineReport:
    """Count what was late."""
    iteration = float(np.median(busy.ms / busy.depth))
    return DeadlineReport(
        calls=len(busy.ms),
        competitors=competitors,
        quiet_median_ms=float(np.median(quiet.ms)),
        deadline_ms=deadline_ms,
        busy_median_ms=float(np.median(busy.ms)),
        busy_p99_ms=float(np.percentile(busy.ms, 99)),
        busy_max_ms=float(busy.ms.max()),
        busy_iteration_ms=iteration,
        mean_depth=float(busy.depth.mean()),
        cut=int(busy.cut.sum()),
        late=int((busy.ms > deadline_ms).sum()),
        late_by_more_than_an_iteration=int((busy.ms > deadline_ms + iteration).sum()),
    )


def initial_observations(observation_steps: int) -> list[Tensor]:
    """What the policy observes as episodes begin, each (1, observation_steps, observation_dim) in px."""
    env = gymnasium.make("pusht_env/PushT-v0", disable_env_checker=True)
    states = [torch.from_numpy(env.reset(seed=100_000 + i)[0]).float() for i in range(OBSERVATIONS)]
    env.close()
    return [state.expand(1, observation_steps, -1) for state in states]


def time_calls(runtime: Runtime, observations: Sequence[Tensor], calls: int, name: str) -> Calls:
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


def write(report: DeadlineReport, output_dir: Path, policy: DiffusionPolicy, checkpoint: str) -> None:
    """Print the table, and write `deadline.md` and `deadline.json`."""
    rows = [
        ("median of a call, quiet", f"{report.quiet_median_ms:.1f} ms"),
        ("deadline", f"{report.deadline_ms:.1f} ms"),
        ("calls, busy", f"{report.calls}"),
        ("competing processes", f"{report.competitors}"),
        (
            "median, p99, longest",
            f"{report.busy_median_ms:.1f}, {report.busy_p99_ms:.1f}, {report.busy_max_ms:.1f} ms",
        ),
        ("an iteration", f"{report.busy_iteration_ms:.1f} ms"),
        ("mean depth", f"{report.mean_depth:.2f}"),
        ("ended by the deadline", f"{report.cut}"),
        ("late", f"{report.late}"),
        ("late by more than an iteration", f"{report.late_by_more_than_an_iteration}"),
    ]
    table = markdown_table(("", str(policy.sampler)), rows)
    provenance = {
        "command": command_line(),
        "checkpoint_sha256": file_sha256(checkpoint),
        "code": code_version(),
        "machine": machine(policy.solver.a.device),
    }
    page = f"# Deadlines under load\n\n{table}\n\n```json\n{json.dumps(provenance, indent=2)}\n```\n"
    for name, text in (
        ("deadline.json", json.dumps({**asdict(report), **provenance}, indent=2) + "\n"),
        ("deadline.md", page),
    ):
        with atomic_write(output_dir / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    print(table)
    print(f"report: {output_dir / 'deadline.md'}")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def _not_positive(text: str) -> int:
    value = int(text)
    if value > 0:
        raise argparse.ArgumentTypeError(f"must be at most 0, got {value}")
    return value


if __name__ == "__main__":
    sys.exit(main())
