"""Demonstrations as a policy with cameras sees them: pictures become the features of its own encoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from policy import DiffusionPolicy
from training.data.demonstrations import Demonstrations

PICTURES_AT_ONCE = 64


def with_features(
    demonstrations: Demonstrations,
    policy: DiffusionPolicy,
    episodes: Sequence[int] | np.ndarray | None = None,
) -> Demonstrations:
    """Demonstrations whose observations are rows (N, D + F); as they are for a task without pictures.

    Args:
        episodes: to encode; by default all. The features of others are NaN, which no policy takes.
    """
    if policy.encoders is None:
        return demonstrations
    ends = demonstrations.episode_ends
    starts = np.concatenate(([0], ends[:-1]))
    chosen = np.arange(len(ends)) if episodes is None else np.asarray(episodes, dtype=np.int64)
    steps = np.concatenate([np.arange(starts[i], ends[i]) for i in chosen] or [np.zeros(0, np.int64)])
    width = policy.config.row_dim(policy.task) - policy.task.observation_dim
    features = np.full((len(demonstrations.observations), width), np.nan, np.float32)
    for start in range(0, len(steps), PICTURES_AT_ONCE):
        some = steps[start : start + PICTURES_AT_ONCE]
        pictures = {name: torch.from_numpy(each.read(some)) for name, each in demonstrations.pictures.items()}
        features[some] = policy.encode_images(pictures).cpu().numpy()
    return replace(demonstrations, observations=np.concatenate([demonstrations.observations, features], 1))
