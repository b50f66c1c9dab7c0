"""The reports by their names, and what they write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from training.benchmark.config import BenchmarkConfig
from training.benchmark.reports import (
    ablations,
    convergence,
    deadline,
    hand_over,
    latency,
    profile,
    rewards,
    rivals,
    simulator,
    throughput,
    warm_rewards,
    warm_start,
    whole_graph,
)
from training.output_dir import Outputs, check_output_dir, claim_output_dir

REPORTS: Mapping[str, Callable[[BenchmarkConfig], None]] = {
    "ablations": ablations.report,
    "convergence": convergence.report,
    "deadline": deadline.report,
    "hand_over": hand_over.report,
    "latency": latency.report,
    "profile": profile.report,
    "rewards": rewards.report,
    "rivals": rivals.report,
    "simulator": simulator.report,
    "throughput": throughput.report,
    "warm_rewards": warm_rewards.report,
    "warm_start": warm_start.report,
    "whole_graph": whole_graph.report,
}

PATTERNS = tuple(f"{report}{rest}" for report in REPORTS for rest in (".md", ".csv", "*.png", "_rows"))
MADE = tuple(f"{report}{rest}" for report in REPORTS for rest in (".md", "_rows"))
OUTPUTS = Outputs("pcm-benchmark", PATTERNS, lambda path: path.name in MADE)


def benchmark(config: BenchmarkConfig) -> None:
    """Measure, and write the report into the output directory.

    It is not locked: several processes may share the rows of a report, of which each is written as a whole.

    Raises:
        ValueError: if there is no such report, or the output directory holds other things.
    """
    if config.report not in REPORTS:
        raise ValueError(f"report must be one of {', '.join(REPORTS)}, got {config.report!r}")
    output_dir = Path(config.output_dir)
    check_output_dir(output_dir, OUTPUTS, overwrite=config.overwrite)
    REPORTS[config.report](config)
    claim_output_dir(output_dir, OUTPUTS)
