"""What a PCM's own closed loop meets: observations, and the chunk before that the PCM itself had made.

A warm start begins with what the robot was told, not with the base's answer, and the robot is where that has led it. So
the distribution that a PCM should learn from is the one of its own episodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from policy import DiffusionPolicy, Prediction, SamplerConfig, StopConfig
from policy.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from policy.pcm import PCM
from training.evaluation.rollout import run_episodes
from training.pcm.chunk_before import ChunkBefore, ClosedLoopConfig
from training.seeds import combine_seeds

FORMAT = "pcm_policy.closed_loop/1"
GROUP = 25
"""Episodes that run at once, and whose states make a file."""


@dataclass(frozen=True)
class Met:
    """What N inferences began with.

    Attributes:
        conditions: (N, C) normalised observations.
        before: the chunk before.
    """

    conditions: Tensor
    before: ChunkBefore


def states_met(
    policy: DiffusionPolicy,
    *,
    config: ClosedLoopConfig,
    most_executed: int,
    seed: int,
    folder: Path,
    identity: Mapping[str, Any],
) -> Met:
    """What a PCM meets in episodes of its own, each chunk at its K of warm starts.

    Episodes run in groups, each with chunks of another length. A group is a file, which is not measured again.

    Args:
        policy: policy with the PCM and its sampler.
        config: episodes.
        most_executed: largest length of a chunk, in control steps.
        seed: of the lengths and of the policy's noises.
        folder: where the groups' files are.
        identity: what decides the states, besides the configuration.

    Raises:
        ValueError: for files of other episodes.
    """
    groups = range(-(-config.episodes // GROUP))
    parts = []
    for group in tqdm(groups, desc="closed loop", unit="group"):
        first = group * GROUP
        episodes = range(config.first_seed + first, config.first_seed + min(first + GROUP, config.episodes))
        generator = torch.Generator().manual_seed(combine_seeds(seed, group))
        executed = int(torch.randint(1, most_executed + 1, (), generator=generator))
        header = {
            **identity,
            "first_seed": episodes.start,
            "episodes": len(episodes),
            "max_steps": config.max_steps,
            "executed": executed,
            "seed": seed,
        }
        path = folder / f"{group:05d}.safetensors"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            found = _run_group(policy, episodes, max_steps=config.max_steps, executed=executed, seed=seed)
            save_checkpoint(path, Checkpoint(found, header), FORMAT)
        read = load_checkpoint(path, FORMAT)
        if read.header != header:
            raise ValueError(
                f"{path}: states of another closed loop; choose another output, or delete {folder}"
            )
        parts.append(read.tensors)
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    before = ChunkBefore(joined["executed"], joined["actions"], joined["noise"])
    return Met(joined["conditions"], before)


def _run_group(
    policy: DiffusionPolicy, episodes: range, *, max_steps: int, executed: int, seed: int
) -> dict[str, Tensor]:
    """What the inferences of some episodes began with; about as many for every length of chunks."""
    config = replace(policy.config, action_steps=executed)
    met: list[dict[str, Tensor]] = []

    def compute(
        observations: Tensor,
        noise: Tensor,
        *,
        previous: tuple[Tensor, Tensor] | None = None,
        executed: int,
        **options: Any,
    ) -> Prediction:
        normalizer, reference = policy.normalizer, policy.solver.a
        actions = before_noise = torch.zeros_like(noise)
        if previous is not None:
            actions, before_noise = normalizer.action.normalize(previous[0].to(reference)), previous[1]
        met.append(
            {
                "conditions": normalizer.normalize_rows(observations.to(reference)).flatten(1),
                "executed": torch.full((len(noise),), 0 if previous is None else executed),
                "actions": actions,
                "noise": before_noise,
            }
        )
        return shortened.predict_unchecked(
            observations, noise, previous=previous, executed=executed, **options
        )

    shortened = replace(policy, config=config).with_sampler(policy.sampler)
    watched = replace(shortened, compute=compute)
    run_episodes(watched, episodes, max_steps, noise_seed=seed, show_progress=False)
    warm_up, *calls = met  # `run_episodes` begins with a call of its own
    joined = {name: torch.cat([call[name].cpu() for call in calls]) for name in warm_up}
    count = len(joined["executed"])
    wanted = len(episodes) * max(1, max_steps // policy.config.action_steps)
    chosen = torch.randperm(count, generator=torch.Generator().manual_seed(episodes.start))[:wanted]
    return {name: values[chosen] for name, values in joined.items()}


def closed_loop_sampler(pcm: PCM) -> SamplerConfig:
    """The sampler of a PCM in its closed loop: first chunks to the base's answer, all others at its K.

    Raises:
        ValueError: for a PCM that was not trained from warm starts.
    """
    if not pcm.warm_iterations:
        raise ValueError("before.closed_loop.pcm was trained from cold starts alone")
    return SamplerConfig("pcm", stop=StopConfig(warm_iterations=pcm.warm_iterations))
