"""Configuration of `pcm-benchmark`: what all reports share, and a section for each that needs one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from policy.runtime import ENGINES


def _at_least(least: int, section: Any, prefix: str, *names: str) -> None:
    """Refuse numbers, or lists of numbers, below the least; None is left alone."""
    for name in names:
        value = getattr(section, name)
        numbers = value if isinstance(value, list) else [] if value is None else [value]
        if min(numbers, default=least) < least:
            raise ValueError(f"{prefix}{name} must be at least {least}, got {value}")


def _not_empty(section: Any, prefix: str, *names: str) -> None:
    for name in names:
        if not getattr(section, name):
            raise ValueError(f"{prefix}{name} must not be empty")


def _seeds_exist(section: Any, prefix: str) -> None:
    last = 2**32 - section.episodes
    if not 0 <= section.first_seed <= last:
        raise ValueError(f"{prefix}first_seed must be in 0 … {last}, got {section.first_seed}")


def _engine_exists(engine: str, prefix: str) -> None:
    if engine not in ("auto", *ENGINES):
        raise ValueError(f"{prefix}engine must be one of auto, {', '.join(ENGINES)}, got {engine!r}")


@dataclass(frozen=True)
class RewardsConfig:
    """Section `rewards` of `training/conf/benchmark.yaml`."""

    ddim_steps: list[int] = field(default_factory=lambda: [50, 25, 10, 8, 7, 4, 3, 2])
    dpmpp_2m_steps: list[int] = field(default_factory=lambda: [15, 10, 8, 5, 3])
    depths: list[int] = field(default_factory=lambda: [15, 8, 5, 4, 3, 2])
    stiffness: list[float] = field(default_factory=lambda: [1.0])
    timed_calls: int = 30
    reward_samplers: list[str] | None = None
    reward_steps: list[int] | None = None
    reward_depths: list[int] | None = None
    episodes: int = 50
    first_seed: int = 100000
    noise_seeds: list[int] = field(default_factory=lambda: [0, 1, 2])

    def __post_init__(self) -> None:
        _not_empty(self, "rewards.", "ddim_steps", "noise_seeds")
        for name in ("ddim_steps", "dpmpp_2m_steps", "depths", "noise_seeds"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"rewards.{name} must not repeat a number, got {getattr(self, name)}")
        _at_least(1, self, "rewards.", "ddim_steps", "dpmpp_2m_steps", "depths", "episodes")
        _at_least(0, self, "rewards.", "timed_calls")
        _seeds_exist(self, "rewards.")


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
        _not_empty(self, "ablations.", "depths", "stiffness")
        _at_least(2, self, "ablations.", "depths")
        if min(self.isotropic, default=1.0) <= 0:
            raise ValueError(f"ablations.isotropic must be above 0, got {self.isotropic}")


@dataclass(frozen=True)
class ConvergenceConfig:
    """Section `convergence` of `training/conf/benchmark.yaml`."""

    rewards: str | None = None


@dataclass(frozen=True)
class DeadlineConfig:
    """Section `deadline` of `training/conf/benchmark.yaml`."""

    engine: str = "auto"
    threads: int | None = None
    steps: int = 10
    tolerance: float = 0.0
    calls: int = 10_000
    quiet_calls: int = 500
    factor: float = 2.0
    competitors: int | None = None
    nice: int = 0

    def __post_init__(self) -> None:
        _engine_exists(self.engine, "deadline.")
        _at_least(1, self, "deadline.", "threads", "steps", "calls", "quiet_calls")
        _at_least(0, self, "deadline.", "competitors")
        if not self.factor > 0:
            raise ValueError(f"deadline.factor must be above 0, got {self.factor}")
        if self.nice > 0:
            raise ValueError(f"deadline.nice must be at most 0, got {self.nice}")


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
        _not_empty(self, "latency.", "noise_seeds")
        _engine_exists(self.engine, "latency.")
        if not (self.fixed_ms or self.measured):
            raise ValueError("latency.fixed_ms must not be empty if latency.measured is false")
        _at_least(1, self, "latency.", "episodes", "max_steps")
        if not 2 <= self.depth < self.picard_steps:
            raise ValueError(f"latency.depth must be in 2 … {self.picard_steps - 1}, got {self.depth}")
        _seeds_exist(self, "latency.")


@dataclass(frozen=True)
class ProfileConfig:
    """Section `profile` of `training/conf/benchmark.yaml`."""

    engines: list[str] = field(default_factory=lambda: list(ENGINES))
    threads: int | None = None
    calls: int = 500
    ddim_steps: list[int] = field(default_factory=lambda: [50, 25, 10, 8])
    dpmpp_2m_steps: list[int] = field(default_factory=lambda: [8, 5])
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
        _not_empty(self, "profile.", "ddim_steps")
        _at_least(1, self, "profile.", "threads", "calls")


@dataclass(frozen=True)
class SimulatorConfig:
    """Section `simulator` of `training/conf/benchmark.yaml`."""

    rounds: int = 7
    steps: int = 5000
    venv: str = "outputs/gym_pusht_venv"

    def __post_init__(self) -> None:
        _at_least(1, self, "simulator.", "rounds", "steps")


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
        _not_empty(self, "warm_start.", "steps")
        if not self.error > 0:
            raise ValueError(f"warm_start.error must be above 0, got {self.error}")
        _at_least(1, self, "warm_start.", "episodes", "max_steps")
        _seeds_exist(self, "warm_start.")


@dataclass(frozen=True)
class BenchmarkConfig:
    """See `training/conf/benchmark.yaml`."""

    report: str = MISSING
    demonstrations: str | None = None
    checkpoint: str = MISSING
    output_dir: str = MISSING
    pcm: list[str] = field(default_factory=list)
    observations: int = 32
    held_out_episodes: int = 6
    steps: list[int] = field(default_factory=lambda: [10, 16, 25, 50])
    iterations: int = 20
    seed: int = 0
    device: str = "auto"
    ablations: AblationsConfig = field(default_factory=AblationsConfig)
    convergence: ConvergenceConfig = field(default_factory=ConvergenceConfig)
    deadline: DeadlineConfig = field(default_factory=DeadlineConfig)
    latency: LatencyReportConfig = field(default_factory=LatencyReportConfig)
    profile: ProfileConfig = field(default_factory=ProfileConfig)
    rewards: RewardsConfig = field(default_factory=RewardsConfig)
    simulator: SimulatorConfig = field(default_factory=SimulatorConfig)
    warm_start: WarmStartConfig = field(default_factory=WarmStartConfig)

    def __post_init__(self) -> None:
        _at_least(1, self, "", "observations", "held_out_episodes", "iterations")
