"""What warm starts begin with: the chunk before each sample's, some control steps earlier.

From demonstrations it is the base's own answer to the earlier observations. Some of these answers get noise, since what
a robot has executed is not the base's answer but that of a sampler that was stopped early.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from policy import DiffusionPolicy
from policy.denoiser import make_denoise
from policy.sampling import sample_sequential
from policy.sampling.warm_start import continued_noise, guessed_actions, noise_effect
from training.seeds import combine_seeds

STREAM = 2**16
"""Distance of the seeds of what is drawn here from those of conditions and noises."""


@dataclass(frozen=True)
class ClosedLoopConfig:
    """Section `before.closed_loop` of `training/conf/build_trajectories.yaml`."""

    pcm: str | None = None
    episodes: int = 200
    max_steps: int = 200
    first_seed: int = 500_000

    def __post_init__(self) -> None:
        for name in ("episodes", "max_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"closed_loop.{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.first_seed <= 2**32 - self.episodes:
            raise ValueError(
                f"closed_loop.first_seed must be in 0 … {2**32 - self.episodes}, got {self.first_seed}"
            )


@dataclass(frozen=True)
class ChunkBeforeConfig:
    """Section `before` of `training/conf/build_trajectories.yaml`."""

    cold_share: float = 0.1
    most_executed: int = 8
    disturbed_share: float = 0.5
    disturbance: float = 0.03
    closed_loop: ClosedLoopConfig = field(default_factory=ClosedLoopConfig)

    def __post_init__(self) -> None:
        for name in ("cold_share", "disturbed_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in 0 … 1, got {getattr(self, name)}")
        if self.most_executed < 1:
            raise ValueError(f"most_executed must be at least 1, got {self.most_executed}")
        if not self.disturbance >= 0:
            raise ValueError(f"disturbance must not be negative, got {self.disturbance}")


@dataclass(frozen=True)
class ChunkBefore:
    """The chunk before, of some samples.

    Attributes:
        executed: (B,) control steps since its observations; 0: there is none, the sample starts cold.
        actions: (B, H, A) normalised.
        noise: (B, H, A) that they came from.
    """

    executed: Tensor
    actions: Tensor
    noise: Tensor


FindChunkBefore: TypeAlias = Callable[[Tensor, Sequence[int]], ChunkBefore]
"""(rows (B,) of the conditions, numbers of the samples) → the chunk before."""


def no_chunk_before(rows: Tensor, samples: Sequence[int]) -> ChunkBefore:
    """All samples start cold."""
    nothing = torch.zeros(len(samples))
    return ChunkBefore(nothing.long(), nothing, nothing)


def chunk_before_in_demonstrations(
    policy: DiffusionPolicy,
    conditions: Tensor,
    position: Tensor,
    *,
    config: ChunkBeforeConfig,
    seed: int,
) -> FindChunkBefore:
    """The base's sequential answers some control steps earlier in the same episode.

    Args:
        policy: policy whose sampler has the solver and T.
        conditions: (N, C) normalised observations, one control step apart within an episode.
        position: (N,) of each in its episode, from 0 on.
        config: what is drawn.
        seed: of what is drawn. Each sample has its own generator.
    """
    if config.most_executed >= policy.config.horizon:
        raise ValueError(
            f"before.most_executed must be below the horizon {policy.config.horizon}, got {config.most_executed}"
        )
    reference = policy.solver.a
    shape = (policy.config.horizon, policy.task.action_dim)

    def find(rows: Tensor, samples: Sequence[int]) -> ChunkBefore:
        executed, noise, disturbance = [], [], []
        for sample in samples:
            generator = torch.Generator().manual_seed(combine_seeds(seed + STREAM, sample))
            starts_cold, is_disturbed = torch.rand(2, generator=generator).tolist()
            steps = int(torch.randint(1, config.most_executed + 1, (), generator=generator))
            executed.append(0 if starts_cold < config.cold_share else steps)
            noise.append(torch.randn(shape, generator=generator))
            scale = config.disturbance if is_disturbed < config.disturbed_share else 0.0
            disturbance.append(scale * torch.randn(shape, generator=generator))
        steps_before = torch.tensor(executed)
        steps_before = torch.where(steps_before > position[rows], 0, steps_before)
        noises = torch.stack(noise).to(reference)
        denoise = make_denoise(policy.network, policy.solver, conditions[rows - steps_before].to(reference))
        actions = sample_sequential(denoise, policy.solver, noises)[:, -1].clamp(-1, 1)
        actions = (actions + torch.stack(disturbance).to(reference)).clamp(-1, 1)
        return ChunkBefore(steps_before, actions, noises)

    return find


def chunk_before_met(met: ChunkBefore, *, config: ChunkBeforeConfig, seed: int) -> FindChunkBefore:
    """The chunks before that a closed loop met, by the rows of its conditions.

    Args:
        met: of all conditions.
        config: share of samples that start cold all the same.
        seed: of that draw.
    """

    def find(rows: Tensor, samples: Sequence[int]) -> ChunkBefore:
        seeds = [combine_seeds(seed + STREAM, sample) for sample in samples]
        drawn = [torch.rand((), generator=torch.Generator().manual_seed(each)) for each in seeds]
        executed = torch.where(torch.stack(drawn) < config.cold_share, 0, met.executed[rows])
        return ChunkBefore(executed, met.actions[rows], met.noise[rows])

    return find


def warm_guesses(policy: DiffusionPolicy, before: ChunkBefore, noise: Tensor) -> tuple[Tensor, Tensor]:
    """What the policy's sampler begins with after the chunk before.

    Args:
        policy: policy whose sampler has a warm start.
        before: the chunk before, which all samples have.
        noise: (B, H, A) fresh noise.

    Returns:
        The noise, carried along if the sampler does so, and the guess of the actions, both (B, H, A).
    """
    effect = None if policy.covariance is None else noise_effect(policy.covariance).to(noise)
    noises, guesses = torch.empty_like(noise), torch.empty_like(noise)
    for steps in before.executed.unique().tolist():
        rows = (before.executed == steps).to(noise.device)
        begun = noise[rows]
        if policy.resolved_sampler.keeps_noise:
            begun = continued_noise(before.noise[rows], steps, begun)
        noises[rows] = begun
        guesses[rows] = guessed_actions(
            before.actions[rows], before.noise[rows], noise=begun, executed=steps, effect=effect
        )
    return noises, guesses
