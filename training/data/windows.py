"""Training windows, cut out of the episodes of demonstrations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from policy import PolicyConfig
from training.data.demonstrations import Demonstrations


@dataclass(frozen=True)
class Windows:
    """Training samples: the first observations of each window, and its actions."""

    observations: torch.Tensor  # (W, observation_steps, D) float32
    actions: torch.Tensor  # (W, horizon, A) float32
    steps: torch.Tensor  # (W, observation_steps) int64: which steps of the demonstrations are observed


def split_episodes(num_episodes: int, held_out: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sorted indices of the training and of the held-out episodes, drawn without replacement.

    With the same count and seed, the held-out episodes are Diffusion Policy's validation episodes (`get_val_mask`).
    """
    if not 0 <= held_out < num_episodes:
        raise ValueError(
            f"held_out must be 0 to {num_episodes - 1} of {num_episodes} episodes, got {held_out}"
        )
    is_held_out = np.zeros(num_episodes, dtype=bool)
    is_held_out[np.random.default_rng(seed).choice(num_episodes, size=held_out, replace=False)] = True
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)


def build_windows(
    demonstrations: Demonstrations,
    episodes: Sequence[int] | np.ndarray,
    *,
    horizon: int = 16,
    observation_steps: int = 2,
    action_steps: int = 8,
) -> Windows:
    """Every window of `horizon` steps in the given episodes, as cut by Diffusion Policy's SequenceSampler.

    A window may begin up to `observation_steps - 1` steps before its episode and end up to `action_steps - 1` steps
    after it. Steps outside repeat the episode's first or last step. An episode too short for that yields no window.

    Raises:
        ValueError: for an episode that does not exist or is named twice, and for steps outside 1 to `horizon`.
    """
    for name, steps in (("observation_steps", observation_steps), ("action_steps", action_steps)):
        if not 1 <= steps <= horizon:
            raise ValueError(f"{name} must be 1 to horizon ({horizon}), got {steps}")
    chosen = episode_indices(episodes, len(demonstrations.episode_ends))
    ends = demonstrations.episode_ends[chosen]
    starts = np.concatenate([[0], demonstrations.episode_ends[:-1]])[chosen]

    pad_before, pad_after = observation_steps - 1, action_steps - 1
    windows_per_episode = np.maximum(ends - starts + pad_before + pad_after - horizon + 1, 0)
    episode_of_window = np.repeat(np.arange(len(chosen)), windows_per_episode)
    windows_before_episode = np.cumsum(windows_per_episode) - windows_per_episode
    window_in_episode = np.arange(len(episode_of_window)) - windows_before_episode[episode_of_window]
    first_step = starts[episode_of_window] - pad_before + window_in_episode
    steps_of_window = np.clip(  # (W, horizon)
        first_step[:, None] + np.arange(horizon),
        starts[episode_of_window, None],
        ends[episode_of_window, None] - 1,
    )
    return Windows(
        observations=torch.from_numpy(demonstrations.observations[steps_of_window[:, :observation_steps]]),
        actions=torch.from_numpy(demonstrations.actions[steps_of_window]),
        steps=torch.from_numpy(steps_of_window[:, :observation_steps]),
    )


def policy_windows(
    demonstrations: Demonstrations, episodes: Sequence[int] | np.ndarray, config: PolicyConfig
) -> Windows:
    """The windows that a policy learns from: `build_windows` with the policy's shapes."""
    return build_windows(
        demonstrations,
        episodes,
        horizon=config.horizon,
        observation_steps=config.observation_steps,
        action_steps=config.action_steps,
    )


def join_windows(windows: Sequence[Windows], *, num_steps: int = 0) -> Windows:
    """All windows of several sets, in their order.

    Args:
        num_steps: steps of each set's demonstrations, if they are one after the other; 0 if they are the same ones.
    """
    return Windows(
        observations=torch.cat([each.observations for each in windows]),
        actions=torch.cat([each.actions for each in windows]),
        steps=torch.cat([each.steps + index * num_steps for index, each in enumerate(windows)]),
    )


def episode_indices(episodes: Sequence[int] | np.ndarray, num_episodes: int) -> np.ndarray:
    indices = np.asarray(episodes)
    if indices.size == 0:
        return np.zeros(0, dtype=np.int64)
    if indices.ndim != 1 or indices.dtype.kind not in "iu":
        raise ValueError(f"episodes must be a list of integers, got {indices.dtype} of shape {indices.shape}")
    outside = indices[(indices < 0) | (indices >= num_episodes)]
    if outside.size:
        raise ValueError(f"there is no episode {outside[0]}: the demonstrations have {num_episodes}")
    if len(np.unique(indices)) != len(indices):
        raise ValueError("episodes must name each episode once")
    return indices
