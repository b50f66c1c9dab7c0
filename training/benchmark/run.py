"""Benchmarks of samplers: each report a Markdown table, a CSV and a picture."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from omegaconf import MISSING

from policy import DiffusionPolicy
from policy.checkpoint import file_sha256
from training.benchmark.convergence import format_convergence, measure_convergence, plot_convergence
from training.command import run_command
from training.demonstrations import build_windows, load_demonstrations, split_episodes
from training.distributed import choose_device
from training.provenance import code_version, command_line, machine

REPORTS = ("convergence",)


@dataclass(frozen=True)
class BenchmarkConfig:
    """See `training/conf/benchmark.yaml`."""

    demonstrations: str = MISSING
    report: str = "convergence"
    checkpoint: str = MISSING
    output_dir: str = MISSING
    conditions: int = 32
    held_out_episodes: int = 6
    steps: list[int] = field(default_factory=lambda: [10, 16, 25, 50])
    iterations: int = 20
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.report not in REPORTS:
            raise ValueError(f"report must be one of {', '.join(REPORTS)}, got {self.report!r}")
        for name in ("conditions", "held_out_episodes", "iterations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


def benchmark(config: BenchmarkConfig) -> None:
    """Measure, and write the report into the output directory."""
    device = choose_device(config.device)
    policy = DiffusionPolicy.load(config.checkpoint, device)
    demonstrations = load_demonstrations(config.demonstrations)
    _, held_out = split_episodes(len(demonstrations.episode_ends), config.held_out_episodes, seed=0)
    shape = (policy.config.horizon, policy.config.observation_steps, policy.config.action_steps)
    windows = build_windows(demonstrations, held_out, *shape)
    generator = torch.Generator().manual_seed(config.seed)
    chosen = torch.randperm(len(windows.observations), generator=generator)[: config.conditions]
    observations = windows.observations[chosen]

    rows = measure_convergence(policy, observations, config.steps, config.iterations, config.seed)
    output_dir = Path(config.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    with open(output_dir / "convergence.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(asdict(rows[0])))
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    plot_convergence(rows, output_dir / "convergence.png")
    table = format_convergence(rows, depths=(1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20))
    about = {
        "command": command_line(),
        "checkpoint_sha256": file_sha256(config.checkpoint),
        "code": code_version(),
        "machine": machine(device),
    }
    (output_dir / "convergence.md").write_text(
        "# Convergence to the sequential answer\n\n"
        "95th percentile over held-out observations of the largest difference of a normalised action from sequential "
        "DDIM with the same noise and T. Depth counts network evaluations one after the other.\n\n"
        f"{table}\n\n```json\n{json.dumps(about, indent=2)}\n```\n",
        encoding="utf-8",
    )
    print(table)
    print(f"report: {output_dir / 'convergence.md'}")


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("benchmark", BenchmarkConfig, benchmark, argv)


if __name__ == "__main__":
    sys.exit(main())
