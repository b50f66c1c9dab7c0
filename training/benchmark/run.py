"""Benchmarks: each report a Markdown page, a CSV and, of most, a picture."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence

from training.benchmark.config import BenchmarkConfig
from training.benchmark.reports import (
    ablations,
    convergence,
    deadline,
    latency,
    profile,
    rewards,
    simulator,
    warm_start,
)
from training.command import run_command

REPORTS: Mapping[str, Callable[[BenchmarkConfig], None]] = {
    "ablations": ablations.report,
    "convergence": convergence.report,
    "deadline": deadline.report,
    "latency": latency.report,
    "profile": profile.report,
    "rewards": rewards.report,
    "simulator": simulator.report,
    "warm_start": warm_start.report,
}


def benchmark(config: BenchmarkConfig) -> None:
    """Measure, and write the report into the output directory.

    Raises:
        ValueError: if there is no such report.
    """
    if config.report not in REPORTS:
        raise ValueError(f"report must be one of {', '.join(REPORTS)}, got {config.report!r}")
    REPORTS[config.report](config)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("benchmark", BenchmarkConfig, benchmark, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
