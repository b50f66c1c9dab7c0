"""Benchmarks: each report a Markdown page, a CSV and, of most, a picture."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from training.benchmark.config import BenchmarkConfig
from training.benchmark.measure import benchmark
from training.command import run_command


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("benchmark", BenchmarkConfig, benchmark, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
