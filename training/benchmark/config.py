"""Configuration of `pcm-benchmark`: what all reports share, and a section for each that needs one."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from policy.runtime import ENGINES


@dataclass(frozen=True)
class Table3Config:
    """Section `table3` of `training/conf/benchmark.yaml`."""

    ddim_steps: list[int] = field(default_factory=lambda: [50, 25, 10, 8, 7, 4, 3, 2])
    dpm_solver_steps: list[int] = field(default_factory=lambda: [15, 10, 8, 5, 3])
    depths: list[int] = field(default_factory=lambda: [15, 8, 5, 4, 3, 2])
    stiffness: list[float] = field(default_factory=lambda: [1.0])
    timed_calls: int = 30
    reward_methods: list[str] | None = None
    reward_steps: list[int] | None = None
    reward_depths: list[int] | None = None
    episodes: int = 50
    first_seed: int = 100000
    noise_seeds: list[int] = field(default_factory=lambda: [0, 1, 2])

    def __post_init__(self) -> None:
        for name in ("ddim_steps", "noise_seeds"):
            if not getattr(self, name):
                raise ValueError(f"table3.{name} must not be empty")
        for name in ("ddim_steps", "dpm_solver_steps", "depths", "noise_seeds"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"table3.{name} must not repeat a number, got {getattr(self, name)}")
        for name in ("ddim_steps", "dpm_solver_steps", "depths"):
            if min(getattr(self, name), default=1) < 1:
                raise ValueError(f"table3.{name} must be at least 1, got {getattr(self, name)}")
        if self.timed_calls < 0:
            raise ValueError(f"table3.timed_calls must not be negative, got {self.timed_calls}")
        if self.episodes < 1:
            raise ValueError(f"table3.episodes must be at least 1, got {self.episodes}")
        if not 0 <= self.first_seed <= 2**32 - self.episodes:
            raise ValueError(
                f"table3.first_seed must be in 0 … {2**32 - self.episodes}, got {self.first_seed}"
            )


@dataclass(frozen=True)
class AblationsConfig:
    """Section `ablations` of `training/conf/benchmark.yaml`."""

    depths: list[int] = field(default_factory=lambda: [2, 3, 4, 5, 6])
    isotropic: list[float] = field(default_factory=lambda: [0.03, 0.1, 0.3])
    trajectories: str | None = None
    training: list[str] = field(default_factory=list)
    loss_weights: list[str] = field(default_factory=lambda: ["inverse_std", "inverse"])
    without_ema: bool = True
    ranks: list[int] = field(default_factory=lambda: [4, 64])
    stiffness: list[float] = field(default_factory=lambda: [1.0, 3.0])

    def __post_init__(self) -> None:
        for name in ("depths", "stiffness"):
            if not getattr(self, name):
                raise ValueError(f"ablations.{name} must not be empty")
        if min(self.depths) < 2:
            raise ValueError(f"ablations.depths must be at least 2, got {self.depths}")
        if min(self.isotropic, default=1.0) <= 0:
            raise ValueError(f"ablations.isotropic must be above 0, got {self.isotropic}")


@dataclass(frozen=True)
class LatencyReportConfig:
    """Section `latency` of `training/conf/benchmark.yaml`."""

    fixed_ms: list[float] = field(default_factory=lambda: [0, 100, 200, 300, 400, 500, 600, 700, 800])
    horizon: bool = True
    measured: bool = True
    margin_ms: float = 50.0
    engine: str = "auto"
    ddim_steps: list[int] = field(default_factory=lambda: [50, 10, 8])
    picard_steps: int = 10
    depth: int = 3
    episodes: int = 50
    max_steps: int = 200
    first_seed: int = 100000
    noise_seeds: list[int] = field(default_factory=lambda: [0])

    def __post_init__(self) -> None:
        if not self.noise_seeds:
            raise ValueError("latency.noise_seeds must not be empty")
        if self.engine not in ("auto", *ENGINES):
            raise ValueError(f"latency.engine must be one of auto, {', '.join(ENGINES)}, got {self.engine!r}")
        if not (self.fixed_ms or self.measured):
            raise ValueError("latency.fixed_ms must not be empty if latency.measured is false")
        for name in ("episodes", "max_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"latency.{name} must be at least 1, got {getattr(self, name)}")
        if not 2 <= self.depth < self.picard_steps:
            raise ValueError(f"latency.depth must be in 2 … {self.picard_steps - 1}, got {self.depth}")
        if not 0 <= self.first_seed <= 2**32 - self.episodes:
            raise ValueError(
                f"latency.first_seed must be in 0 … {2**32 - self.episodes}, got {self.first_seed}"
            )


@dataclass(frozen=True)
class ProfileConfig:
    """Section `profile` of `training/conf/benchmark.yaml`."""

    engines: list[str] = field(default_factory=lambda: list(ENGINES))
    threads: int | None = None
    calls: int = 500
    ddim_steps: list[int] = field(default_factory=lambda: [50, 25, 10, 8])
    dpm_solver_steps: list[int] = field(default_factory=lambda: [8, 5])
    picard_steps: list[int] = field(default_factory=lambda: [10])
    picard_depths: list[int] = field(default_factory=lambda: [5, 4, 3])
    warm_depths: list[int] = field(default_factory=lambda: [2])
    pcm_depths: list[int] = field(default_factory=lambda: [3, 2])
    stiffness: list[float] = field(default_factory=lambda: [1.0])
    rewards: str | None = None

    def __post_init__(self) -> None:
        if unknown := set(self.engines) - set(ENGINES):
            raise ValueError(
                f"profile.engines must be among {', '.join(ENGINES)}, got {', '.join(sorted(unknown))}"
            )
        if not self.ddim_steps:
            raise ValueError("profile.ddim_steps must not be empty")
        for name in ("threads", "calls"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"profile.{name} must be at least 1, got {value}")


@dataclass(frozen=True)
class WarmStartConfig:
    """Section `warm_start` of `training/conf/benchmark.yaml`."""

    steps: list[int] = field(default_factory=lambda: [10, 50])
    error: float = 0.01
    episodes: int = 50
    max_steps: int = 200
    first_seed: int = 100000
    noise_seed: int = 0

    def __post_init__(self) -> None:
        if not self.steps:
            raise ValueError("warm_start.steps must not be empty")
        if not self.error > 0:
            raise ValueError(f"warm_start.error must be above 0, got {self.error}")
        for name in ("episodes", "max_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"warm_start.{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.first_seed <= 2**32 - self.episodes:
            raise ValueError(
                f"warm_start.first_seed must be in 0 … {2**32 - self.episodes}, got {self.first_seed}"
            )


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
    table3: Table3Config = field(default_factory=Table3Config)
    ablations: AblationsConfig = field(default_factory=AblationsConfig)
    latency: LatencyReportConfig = field(default_factory=LatencyReportConfig)
    warm_start: WarmStartConfig = field(default_factory=WarmStartConfig)
    profile: ProfileConfig = field(default_factory=ProfileConfig)

    def __post_init__(self) -> None:
        for name in ("conditions", "held_out_episodes", "iterations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
