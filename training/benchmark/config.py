"""Configuration of `pcm-benchmark`: what all reports share, and a section for each that needs one."""
# ruff: noqa: RUF009, since `numbers` and `positive` make fields, as `field` does

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from policy.runtime import CHUNK_ENGINES, ENGINE_CHOICES, ENGINES, PLAIN
from policy.sampling.hand_over import HAND_OVERS
from training.benchmark.limits import at_least, check, numbers, positive

OPENVINO_FIXED = "openvino_file_fixed"
OPENVINO_BFLOAT16 = "openvino_file_bfloat16"
EXPORTED_ENGINES = {
    "onnx_file": "onnx",
    "openvino_file": "openvino",
    OPENVINO_FIXED: "openvino",
    OPENVINO_BFLOAT16: "openvino",
}
"""Engines that run a file of `pcm-export` → its format."""
MOST_TURNS = 5  # of the report `throughput`
THROUGHPUT_ENGINES = tuple(
    name for name in (PLAIN, "openvino", *EXPORTED_ENGINES) if name != OPENVINO_BFLOAT16
)


@dataclass(frozen=True)
class AblationsConfig:
    """Section `ablations` of `training/conf/benchmark.yaml`."""

    depths: list[int] = numbers(2, 3, 4, 5, 6, least=2, empty=False)
    isotropic: list[float] = positive([0.03, 0.1, 0.3])
    trajectories: str | None = None
    training: list[str] = field(default_factory=list)
    loss_weights: list[str] = field(default_factory=lambda: ["inverse_std", "inverse"])
    without_ema: bool = True
    ranks: list[int] = numbers(4, 64)
    stiffness: list[float] = numbers(1.0, 3.0, empty=False)

    def __post_init__(self) -> None:
        check(self, "ablations.")


@dataclass(frozen=True)
class ConvergenceConfig:
    """Section `convergence` of `training/conf/benchmark.yaml`."""

    rewards: str | None = None


@dataclass(frozen=True)
class DeadlineConfig:
    """Section `deadline` of `training/conf/benchmark.yaml`."""

    engine: str = "auto"
    threads: int | None = at_least(1, None)
    steps: int = at_least(1, 10)
    tolerance: float = 0.0
    calls: int = at_least(1, 10_000)
    quiet_calls: int = at_least(1, 500)
    factor: float = positive(2.0)
    competitors: int | None = at_least(0, None)
    nice: int = 0

    def __post_init__(self) -> None:
        check(self, "deadline.")
        if self.nice > 0:
            raise ValueError(f"deadline.nice must be at most 0, got {self.nice}")


@dataclass(frozen=True)
class HandOverConfig:
    """Section `hand_over` of `training/conf/benchmark.yaml`."""

    fixed_ms: list[float] = numbers(0, 100, 200, 400, 800, least=0, empty=False, repeated=False)
    hand_overs: list[str] = field(default_factory=lambda: list(HAND_OVERS))
    solver: str = "dpmpp_2m"
    steps: int = at_least(1, 5)
    episodes: int = at_least(1, 50)
    first_seed: int = 100000
    noise_seeds: list[int] = numbers(*range(10), empty=False, repeated=False)

    def __post_init__(self) -> None:
        check(self, "hand_over.")
        if unknown := set(self.hand_overs) - set(HAND_OVERS):
            raise ValueError(
                f"hand_over.hand_overs must be some of {', '.join(HAND_OVERS)}, got {', '.join(sorted(unknown))}"
            )


@dataclass(frozen=True)
class LatencyReportConfig:
    """Section `latency` of `training/conf/benchmark.yaml`."""

    fixed_ms: list[float] = numbers(0, 100, 200, 300, 400, 500, 600, 700, 800)
    horizon: bool = True
    measured: bool = True
    margin_ms: float = 50.0
    engine: str = "auto"
    ddim_steps: list[int] = numbers(50, 10, 8)
    picard_steps: int = 10
    depth: int = 3
    episodes: int = at_least(1, 50)
    max_steps: int = at_least(1, 200)
    first_seed: int = 100000
    noise_seeds: list[int] = numbers(0, empty=False)

    def __post_init__(self) -> None:
        check(self, "latency.")
        if not (self.fixed_ms or self.measured):
            raise ValueError("latency.fixed_ms must not be empty if latency.measured is false")
        if not 2 <= self.depth < self.picard_steps:
            raise ValueError(f"latency.depth must be in 2 … {self.picard_steps - 1}, got {self.depth}")


@dataclass(frozen=True)
class ProfileConfig:
    """Section `profile` of `training/conf/benchmark.yaml`."""

    engines: list[str] = field(default_factory=lambda: list(ENGINES))
    threads: int | None = at_least(1, None)
    calls: int = at_least(1, 500)
    ddim_steps: list[int] = numbers(50, 25, 10, 8, empty=False)
    dpmpp_2m_steps: list[int] = numbers(8, 5)
    picard_steps: list[int] = numbers(10)
    picard_depths: list[int] = numbers(5, 4, 3)
    warm_depths: list[int] = numbers(2)
    pcm_depths: list[int] = numbers(3, 2)
    stiffness: list[float] = numbers(1.0)
    rewards: str | None = None

    def __post_init__(self) -> None:
        check(self, "profile.")
        if unknown := sorted(set(self.engines) - set(ENGINES)):
            raise ValueError(f"profile.engines must be among {', '.join(ENGINES)}, got {', '.join(unknown)}")


@dataclass(frozen=True)
class RewardsConfig:
    """Section `rewards` of `training/conf/benchmark.yaml`."""

    ddim_steps: list[int] = numbers(50, 25, 10, 8, 7, 4, 3, 2, least=1, empty=False, repeated=False)
    dpmpp_2m_steps: list[int] = numbers(15, 10, 8, 5, 3, least=1, repeated=False)
    depths: list[int] = numbers(15, 8, 5, 4, 3, 2, least=1, repeated=False)
    stiffness: list[float] = numbers(1.0)
    timed_calls: int = at_least(0, 30)
    reward_samplers: list[str] | None = None
    reward_steps: list[int] | None = None
    reward_depths: list[int] | None = None
    episodes: int = at_least(1, 50)
    first_seed: int = 100000
    noise_seeds: list[int] = numbers(0, 1, 2, empty=False, repeated=False)

    def __post_init__(self) -> None:
        check(self, "rewards.")


@dataclass(frozen=True)
class RivalsConfig:
    """Section `rivals` of `training/conf/benchmark.yaml`."""

    samplers: list[str] = field(default_factory=lambda: ["solver=ddim steps=50"])
    others: list[str] = field(default_factory=list)
    engine: str = "auto"
    threads: list[int] = numbers(1, 2, least=1, repeated=False)
    calls: int = at_least(1, 200)
    episodes: int = at_least(1, 50)
    first_seed: int = 100000
    noise_seeds: list[int] = numbers(*range(10), empty=False, repeated=False)

    def __post_init__(self) -> None:
        check(self, "rivals.")
        if not self.samplers:
            raise ValueError(
                "rivals.samplers must name at least the sampler that the others are compared with"
            )


@dataclass(frozen=True)
class SimulatorConfig:
    """Section `simulator` of `training/conf/benchmark.yaml`."""

    rounds: int = at_least(1, 7)
    steps: int = at_least(1, 5000)
    venv: str = "outputs/gym_pusht_venv"

    def __post_init__(self) -> None:
        check(self, "simulator.")


@dataclass(frozen=True)
class ThroughputConfig:
    """Section `throughput` of `training/conf/benchmark.yaml`."""

    engines: list[str] = field(default_factory=lambda: list(THROUGHPUT_ENGINES))
    batches: list[int] = numbers(1, 4, 16, 64, 256, least=1, empty=False, repeated=False)
    threads: list[int] = numbers(1, 2, least=1, empty=False, repeated=False)
    solver: str = "dpmpp_2m"
    steps: int = at_least(1, 5)
    calls: int = at_least(1, 100)
    turns: int = at_least(1, MOST_TURNS)

    def __post_init__(self) -> None:
        check(self, "throughput.")
        if self.turns > MOST_TURNS:
            raise ValueError(f"throughput.turns must be at most {MOST_TURNS}, got {self.turns}")
        if unknown := sorted(set(self.engines) - set(THROUGHPUT_ENGINES)):
            allowed = ", ".join(THROUGHPUT_ENGINES)
            raise ValueError(f"throughput.engines must be among {allowed}, got {', '.join(unknown)}")


@dataclass(frozen=True)
class WarmRewardsConfig:
    """Section `warm_rewards` of `training/conf/benchmark.yaml`."""

    steps: list[int] = numbers(5, 3, least=1, empty=False, repeated=False)
    depths: list[int] = numbers(1, 2, least=1, empty=False, repeated=False)
    engine: str = "auto"
    threads: list[int] = numbers(1, 2, least=1, repeated=False)
    calls: int = at_least(1, 200)
    episodes: int = at_least(1, 50)
    first_seed: int = 100000
    noise_seeds: list[int] = numbers(*range(10), empty=False, repeated=False)

    def __post_init__(self) -> None:
        check(self, "warm_rewards.")


@dataclass(frozen=True)
class WarmStartConfig:
    """Section `warm_start` of `training/conf/benchmark.yaml`."""

    steps: list[int] = numbers(10, 50, empty=False)
    error: float = positive(0.01)
    episodes: int = at_least(1, 50)
    max_steps: int = at_least(1, 200)
    first_seed: int = 100000
    noise_seed: int = 0

    def __post_init__(self) -> None:
        check(self, "warm_start.")


@dataclass(frozen=True)
class WholeGraphConfig:
    """Section `whole_graph` of `training/conf/benchmark.yaml`."""

    dpmpp_2m_steps: list[int] = numbers(5)
    picard_steps: list[int] = numbers(8)
    picard_depths: list[int] = numbers(2)
    threads: list[int] = numbers(1, 2, least=1, empty=False, repeated=False)
    calls: int = at_least(1, 500)

    def __post_init__(self) -> None:
        check(self, "whole_graph.")


@dataclass(frozen=True)
class BenchmarkConfig:
    """See `training/conf/benchmark.yaml`."""

    report: str = MISSING
    demonstrations: str | None = None
    task: str | None = None
    checkpoint: str = MISSING
    output_dir: str = MISSING
    pcm: list[str] = field(default_factory=list)
    observations: int = at_least(1, 32)
    held_out_episodes: int = at_least(1, 6)
    steps: list[int] = numbers(10, 16, 25, 50)
    iterations: int = at_least(1, 20)
    seed: int = 0
    device: str = "auto"
    engine: str = "auto"
    overwrite: bool = False
    ablations: AblationsConfig = field(default_factory=AblationsConfig)
    convergence: ConvergenceConfig = field(default_factory=ConvergenceConfig)
    deadline: DeadlineConfig = field(default_factory=DeadlineConfig)
    hand_over: HandOverConfig = field(default_factory=HandOverConfig)
    latency: LatencyReportConfig = field(default_factory=LatencyReportConfig)
    profile: ProfileConfig = field(default_factory=ProfileConfig)
    rewards: RewardsConfig = field(default_factory=RewardsConfig)
    rivals: RivalsConfig = field(default_factory=RivalsConfig)
    simulator: SimulatorConfig = field(default_factory=SimulatorConfig)
    throughput: ThroughputConfig = field(default_factory=ThroughputConfig)
    warm_rewards: WarmRewardsConfig = field(default_factory=WarmRewardsConfig)
    warm_start: WarmStartConfig = field(default_factory=WarmStartConfig)
    whole_graph: WholeGraphConfig = field(default_factory=WholeGraphConfig)

    def __post_init__(self) -> None:
        check(self)
        if self.engine not in (allowed := [name for name in ENGINE_CHOICES if name not in CHUNK_ENGINES]):
            raise ValueError(f"engine must be one of {', '.join(allowed)}, got {self.engine!r}")
