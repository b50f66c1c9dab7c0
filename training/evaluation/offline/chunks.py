"""Demonstrated episodes, cut into the chunks that a policy is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from policy import DiffusionPolicy, PolicyConfig
from training.data.demonstrations import Demonstrations
from training.data.windows import episode_indices
from training.seeds import combine_seeds

CHUNKS_OF_A_CALL = 256  # bounds the memory, whatever the demonstrations


@dataclass(frozen=True)
class DemonstratedChunks:
    """W chunks that tile their episodes: one begins where the one before it ends, as a robot executes them.

    Attributes:
        observations: (W, observation_steps, O) float32, what the policy sees at each chunk's first step, oldest first.
            Before an episode its first observation is repeated.
        actions: (W, action_steps, A) float32, as demonstrated.
        is_demonstrated: (W, action_steps), whether the episode lasts so long; what is beyond counts for nothing.
        episodes: (W,) index of each chunk's episode in the demonstrations, ascending.
        steps: (W,) index of each chunk's first step in its episode.
        last_actions: (W, A) float32, the action before each chunk; NaN at an episode's first step.
    """

    observations: NDArray[np.float32]
    actions: NDArray[np.float32]
    is_demonstrated: NDArray[np.bool_]
    episodes: NDArray[np.int64]
    steps: NDArray[np.int64]
    last_actions: NDArray[np.float32]


def demonstrated_chunks(
    demonstrations: Demonstrations, episodes: Sequence[int] | NDArray[np.int64], config: PolicyConfig
) -> DemonstratedChunks:
    """The chunks of some episodes, every step of which is in one of them.

    Raises:
        ValueError: for no episode, one that does not exist, or one that is named twice.
    """
    chosen = np.sort(episode_indices(episodes, len(demonstrations.episode_ends)))
    if not len(chosen):
        raise ValueError("at least one episode is needed to judge a policy")
    ends = demonstrations.episode_ends[chosen]
    starts = np.concatenate([[0], demonstrations.episode_ends[:-1]])[chosen]
    firsts = [np.arange(start, end, config.action_steps) for start, end in zip(starts, ends, strict=True)]
    count = [len(first) for first in firsts]
    first, start, end = np.concatenate(firsts), np.repeat(starts, count), np.repeat(ends, count)
    seen = np.maximum(first[:, None] + np.arange(1 - config.observation_steps, 1), start[:, None])
    executed = first[:, None] + np.arange(config.action_steps)
    last_actions = demonstrations.actions[np.maximum(first - 1, 0)].copy()
    last_actions[first == start] = np.nan
    return DemonstratedChunks(
        observations=demonstrations.observations[seen],
        actions=demonstrations.actions[np.minimum(executed, end[:, None] - 1)],
        is_demonstrated=executed < end[:, None],
        episodes=np.repeat(chosen, count),
        steps=first - start,
        last_actions=last_actions,
    )


def sampled_chunks(
    policy: DiffusionPolicy, chunks: DemonstratedChunks, noise_seed: int
) -> NDArray[np.float32]:
    """(W, action_steps, A) what the policy answers to the demonstrated observations, in the actions' units.

    A chunk's noise follows from the noise seed, its episode and its step alone, not from what else is judged.
    """
    generators = [
        torch.Generator().manual_seed(combine_seeds(combine_seeds(noise_seed, int(episode)), int(step)))
        for episode, step in zip(chunks.episodes, chunks.steps, strict=True)
    ]
    sampled = []
    for first in range(0, len(generators), CHUNKS_OF_A_CALL):
        part = slice(first, first + CHUNKS_OF_A_CALL)
        observations = torch.from_numpy(chunks.observations[part])
        sampled.append(policy.predict_chunk(observations, generator=generators[part]).float().cpu().numpy())
    return np.concatenate(sampled)
