"""Build the Picard trajectories that a Picard Consistency Model is trained on (So et al. 2025, algorithm 1)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from omegaconf import MISSING
from torch import Tensor
from tqdm import tqdm

from policy import DiffusionPolicy, ParallelConfig, PicardConfig, SamplerConfig
from policy.checkpoint import file_sha256, tensors_sha256
from policy.pcm import load_pcm, weights_sha256
from policy.sampling.start import exact_states
from training.command import run_command
from training.data.demonstrations import Demonstrations, load_demonstrations
from training.data.features import with_features
from training.data.windows import policy_windows, split_episodes
from training.distributed import Worker, worker
from training.pcm.chunk_before import (
    ChunkBeforeConfig,
    FindChunkBefore,
    chunk_before_in_demonstrations,
    chunk_before_met,
    no_chunk_before,
)
from training.pcm.closed_loop import closed_loop_sampler, states_met
from training.pcm.picard_trajectories import draw_samples, trajectories_after
from training.pcm.trajectories import ARRAYS, Trajectories, TrajectoryError, TrajectoryStore, create_store
from training.provenance import code_version, command_line, machine

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
    before: ChunkBeforeConfig = field(default_factory=ChunkBeforeConfig)
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
            parallel=ParallelConfig(warm_start=sampler.parallel.warm_start),
            picard=PicardConfig(sampler.picard.jacobian, sampler.picard.start),
        )
        if sampler != followed:
            raise ValueError(
                f"the trajectories are those of plain Picard iteration ({followed}), got {sampler}"
            )
        if self.before.closed_loop.pcm is not None and not sampler.starts_warm:
            raise ValueError("before.closed_loop.pcm needs a warm start: sampler.parallel.warm_start=actions")
        limit = sampler.steps - exact_states(sampler.picard.start)
        if not 1 <= self.iterations <= limit:
            raise ValueError(f"iterations must be in 1 … {limit}, which is exact, got {self.iterations}")


def build_trajectories(config: BuildTrajectoriesConfig) -> None:
    """Build a store, or the chunks that are missing in it."""
    with worker(config.device) as this_worker:
        _build(config, this_worker)


def _build(config: BuildTrajectoriesConfig, this_worker: Worker) -> None:
    base = DiffusionPolicy.load(config.checkpoint, this_worker.device)
    policy = base.with_sampler(config.sampler)
    demonstrations = load_demonstrations(config.demonstrations, task=config.task, policy_task=policy.task)
    if this_worker.is_first:
        _create(config, policy, data_sha256=demonstrations.sha256, device=this_worker.device)
        _conditions(
            config, policy, demonstrations
        )  # runs episodes, if it needs some; the others read of them
    this_worker.wait()
    conditions, find_before = _conditions(config, policy, demonstrations)

    @torch.no_grad()
    def compute(samples: Sequence[int]) -> Trajectories:
        rows, noise = draw_samples(policy, len(conditions), samples, seed=config.seed)
        condition = conditions[rows].to(noise)
        before = find_before(rows, samples)
        return trajectories_after(policy, condition, noise, before=before, iterations=config.iterations)

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


def _conditions(
    config: BuildTrajectoriesConfig, policy: DiffusionPolicy, demonstrations: Demonstrations
) -> tuple[Tensor, FindChunkBefore]:
    """Conditions (N, C) on the CPU that samples are drawn from, and the chunk before each."""
    before = config.before
    if before.closed_loop.pcm is not None:
        pcm = load_pcm(before.closed_loop.pcm, policy.network)
        met = states_met(
            policy.with_pcm(pcm).with_sampler(closed_loop_sampler(pcm)),
            config=before.closed_loop,
            most_executed=before.most_executed,
            seed=config.seed,
            folder=Path(f"{config.output}.closed_loop"),
            identity={"pcm_sha256": file_sha256(before.closed_loop.pcm)},
        )
        return met.conditions, chunk_before_met(met.before, config=before, seed=config.seed)
    episodes, _ = split_episodes(len(demonstrations.episode_ends), config.held_out_episodes, seed=0)
    seen = with_features(demonstrations, policy, episodes)
    windows = [policy_windows(seen, [episode], policy.config).observations for episode in episodes]
    conditions = policy.normalizer.to("cpu").normalize_rows(torch.cat(windows)).flatten(1)
    if not policy.resolved_sampler.starts_warm:
        return conditions, no_chunk_before
    position = torch.cat([torch.arange(len(window)) for window in windows])
    return conditions, chunk_before_in_demonstrations(
        policy, conditions, position, config=before, seed=config.seed
    )


def _identity_of(before: ChunkBeforeConfig) -> dict[str, Any]:
    """The section, with a hash in place of a path."""
    pcm = before.closed_loop.pcm
    identity = asdict(before)
    identity["closed_loop"]["pcm"] = None if pcm is None else file_sha256(pcm)
    return identity


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
        "executed": (N,),
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
        "warm_start": sampler.parallel.warm_start,
        "before": _identity_of(config.before) if sampler.starts_warm else None,
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
