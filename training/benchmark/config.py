"""Configuration of `pcm-benchmark`: what all reports share, and a section for each that needs one."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING


@dataclass(frozen=True)
class BenchmarkConfig:
    """See `training/conf/benchmark.yaml`."""

    report: str = MISSING
    demonstrations: str = MISSING
    checkpoint: str = MISSING
    output_dir: str = MISSING
    pcm: list[str] = field(default_factory=list)
    conditions: int = 32
    held_out_episodes: int = 6
    steps: list[int] = field(default_factory=lambda: [10, 16, 25, 50])
    iterations: int = 20
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("conditions", "held_out_episodes", "iterations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
