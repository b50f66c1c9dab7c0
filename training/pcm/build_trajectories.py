"""Build the Picard trajectories that a Picard Consistency Model is trained on (So et al. 2025, algorithm 1)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from omegaconf import MISSING
from torch import Tensor
from tqdm import tqdm

from policy import DiffusionPolicy, PicardConfig, SamplerConfig
from policy.checkpoint import tensors_sha256
from policy.denoiser import make_denoise
from policy.pcm import weights_sha256
from policy.sampling import sample_sequential
from policy.sampling.picard import picard_step
from policy.sampling.recurrence import make_recurrence
from policy.sampling.start import exact_states, make_start
from training.command import run_command
from training.data.demonstrations import load_demonstrations
from training.data.features import with_features
from training.data.windows import policy_windows, split_episodes
from training.distributed import Worker, worker
from training.pcm.trajectories import ARRAYS, Trajectories, TrajectoryError, TrajectoryStore, create_store
from training.provenance import code_version, command_line, machine
from training.seeds import combine_seeds

Compute: TypeAlias = Callable[[Sequence[int]], Trajectories]
"""Sample numbers → samples."""

VERIFIED_SAMPLES = 3
VERIFICATION_TOLERANCE = 1e-3  # rounding differs with the batch size, and grows over K iterations


@dataclass(frozen=True)
class BuildTrajectoriesConfig:
    """See `training/conf/build_trajectories.yaml`."""

    checkpoint: str = MISSING
    demonstrations: str = MISSING
    output: str = MISSING
    task: str | None = None
    samples: int = MISSING
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    iterations: int = MISSING
    batch_size: int = MISSING
    held_out_episodes: int = 6
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("samples", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        sampler = self.sampler.resolved()
        followed = SamplerConfig(
            "picard",
            sampler.solver,
            sampler.steps,
            picard=PicardConfig(sampler.picard.jacobian, sampler.picard.start),
        )
        if sampler != followed:
            raise ValueError(
                f"the trajectories are those of plain Picard iteration ({followed}), got {sampler}"
            )
        limit = sampler.steps - exact_states(sampler.picard.start)
        if not 1 <= self.iterations <= limit:
            raise ValueError(f"iterations must be in 1 … {limit}, which is exact, got {self.iterations}")


@torch.no_grad()
def picard_trajectories(
    policy: DiffusionPolicy, condition: Tensor, noise: Tensor, *, iterations: int
) -> tuple[Tensor, Tensor]:
    """Picard trajectories, and the sequential states from the same noise (algorithm 1).

    Args:
        policy: policy with a parallel sampler.
        condition: (B, C) normalised observations.
        noise: (B, T+1, H, A): the noise, then the further noises of the start ``fresh``.
        iterations: number K of iterations.

    Returns:
        X⁰ … X^K (B, K+1, T+1, H, A) and X* (B, T+1, H, A).
    """
    solver = policy.solver
    picard = policy.resolved_sampler.picard
    recurrence = make_recurrence(picard.jacobian, solver, policy.covariance)
    denoise = make_denoise(policy.network, solver, condition)
    start = make_start(picard.start, solver, covariance=policy.covariance)
    states, first = start(denoise, noise[:, 0], lambda shape: noise[:, 1:]), exact_states(picard.start)
    trajectories = [states]
    for exact in range(first, first + iterations):  # each iteration makes one more state exact
        changed = picard_step(denoise, solver, states, recurrence=recurrence, first=exact)
        states = torch.cat((states[:, : exact + 1], changed), 1)
        trajectories.append(states)
    return torch.stack(trajectories, 1), sample_sequential(denoise, solver, noise[:, 0])


def draw_samples(
    policy: DiffusionPolicy, conditions: Tensor, samples: Sequence[int], *, seed: int
) -> tuple[Tensor, Tensor]:
    """Condition (B, C) and noises (B, T+1, H, A) of some samples.

    Each sample has its own generator, so any worker and any batch draw the same.
    """
    rows, noises = [], []
    shape = (policy.resolved_sampler.steps + 1, policy.config.horizon, policy.task.action_dim)
    for sample in samples:
        generator = torch.Generator().manual_seed(combine_seeds(seed, sample))
        rows.append(int(torch.randint(len(conditions), (), generator=generator)))
        noises.append(torch.randn(shape, generator=generator))
    like = policy.solver.a
    return conditions[rows].to(like), torch.stack(noises).to(like)


def build_trajectories(config: BuildTrajectoriesConfig) -> None:
    """Build a store, or the chunks that are missing in it."""
    with worker(config.device) as this_worker:
        _build(config, this_worker)


def _build(config: BuildTrajectoriesConfig, this_worker: Worker) -> None:
    base = DiffusionPolicy.load(config.checkpoint, this_worker.device)
    policy = base.with_sampler(config.sampler)
    demonstrations = load_demonstrations(config.demonstrations, task=config.task, policy_task=policy.task)
    episodes, _ = split_episodes(len(demonstrations.episode_ends), config.held_out_episodes, seed=0)
    windows = policy_windows(with_features(demonstrations, policy), episodes, policy.config)
    conditions = policy.normalizer.to("cpu").normalize_rows(windows.observations).flatten(1)

    def compute(samples: Sequence[int]) -> Trajectories:
        condition, noise = draw_samples(policy, conditions, samples, seed=config.seed)
        states, solution = picard_trajectories(policy, condition, noise, iterations=config.iterations)
        return Trajectories(*(tensor.float().cpu().numpy() for tensor in (condition, states, solution)))

    if this_worker.is_first:
        _create(config, policy, data_sha256=demonstrations.sha256, device=this_worker.device)
    this_worker.wait()
    store = _create(config, policy, data_sha256=demonstrations.sha256, device=this_worker.device)
    # Each worker looks for its own chunks: the shares are disjoint.
    share = range(this_worker.rank, store.chunks, this_worker.world_size)
    missing = [chunk for chunk in share if not store.is_whole(chunk)]
    progress = tqdm(
        total=sum(len(store.rows(chunk)) for chunk in share),
        initial=sum(len(store.rows(chunk)) for chunk in share if chunk not in set(missing)),
        unit="sample",
        desc="trajectories",
        disable=not this_worker.is_first,
    )
    with progress:
        for chunk in missing:
            store.write(chunk, compute(store.rows(chunk)))
            progress.update(len(store.rows(chunk)))
    this_worker.wait()
    if this_worker.is_first:
        difference = verify(store, compute)
        print(f"samples computed again differ by at most {difference:.1e}")
        print(f"trajectories: {config.output}, {store.samples} samples")


def _create(
    config: BuildTrajectoriesConfig, policy: DiffusionPolicy, *, data_sha256: str, device: torch.device
) -> TrajectoryStore:
    actions = (policy.config.horizon, policy.task.action_dim)
    sampler = policy.resolved_sampler
    N, K, T = config.samples, config.iterations, sampler.steps
    shapes = {
        "condition": (N, policy.config.cond_dim(policy.task)),
        "states": (N, K + 1, T + 1, *actions),
        "solution": (N, T + 1, *actions),
    }
    uses_covariance = sampler.picard.start == "gaussian" or sampler.picard.jacobian == "preconditioned"
    covariance = policy.covariance if uses_covariance else None
    identity = {
        "base_sha256": weights_sha256(policy.network),
        "covariance_sha256": None if covariance is None else tensors_sha256({"": covariance}),
        "data_sha256": data_sha256,
        "held_out_episodes": config.held_out_episodes,
        "solver": sampler.solver,
        "steps": T,
        "iterations": K,
        "jacobian": sampler.picard.jacobian,
        "start": sampler.picard.start,
        "samples": N,
        "batch_size": config.batch_size,
        "seed": config.seed,
    }
    provenance: dict[str, Any] = {
        "code": code_version(),
        "command": command_line(),
        "machine": machine(device),
    }
    return create_store(
        config.output, identity=identity, provenance=provenance, shapes=shapes, chunk_size=config.batch_size
    )


def verify(store: TrajectoryStore, compute: Compute) -> float:
    """Read every chunk, and compute a few samples again, one by one; returns their largest difference.

    Raises:
        TrajectoryError: if a chunk is missing, damaged or not finite, or a sample differs.
    """
    for chunk in range(store.chunks):
        store.read(chunk)
    difference = 0.0
    for chunk in np.linspace(0, store.chunks - 1, VERIFIED_SAMPLES).astype(int):
        sample = store.rows(int(chunk)).start
        stored, again = store.read(int(chunk)), compute([sample])
        for name in ARRAYS:
            found, expected = getattr(stored, name)[0], getattr(again, name)[0]
            difference = max(difference, float(np.abs(found - expected).max()))
    if difference > VERIFICATION_TOLERANCE:
        raise TrajectoryError(f"{store.path}: samples computed again differ by {difference:.2g}")
    return difference


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("build_trajectories", BuildTrajectoriesConfig, build_trajectories, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
