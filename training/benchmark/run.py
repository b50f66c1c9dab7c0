"""Benchmarks of samplers: each report a Markdown table, a CSV and a picture."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence

from training.benchmark.config import BenchmarkConfig
from training.benchmark.reports import ablations, convergence, latency, profile, rewards, warm_start
from training.command import run_command

REPORTS: Mapping[str, Callable[[BenchmarkConfig], None]] = {
    "ablations": ablations.report,
    "convergence": convergence.report,
    "latency": latency.report,
    "profile": profile.report,
    "table3": rewards.report,
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
