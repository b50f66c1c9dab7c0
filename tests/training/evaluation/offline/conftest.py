"""Demonstrations of an arm: two joints that are observed under the names they are commanded by, and a gripper."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from policy import DiffusionPolicy, Normalizer, PolicyConfig, Range
from policy.task import Command, Part, Task
from training.data.demonstrations import Demonstrations

ARM = Task(
    name="arm",
    rate=20,
    observation=(
        Part(name="tool", names=("x", "y"), units=("m", "m")),
        Part(name="arm", names=("shoulder", "elbow"), units=("rad", "rad")),
    ),
    action=Command(
        names=("shoulder", "elbow", "gripper"),
        units=("rad", "rad", "m"),
        lower=(None, None, 0.0),
        upper=(None, None, 0.1),
    ),
)
SHAPES = PolicyConfig(down_dims=(8, 16), step_embed_dim=8, n_groups=4)


@pytest.fixture(scope="session")
def arm() -> Task:
    return ARM


@pytest.fixture(scope="session")
def recorded() -> Callable[..., Demonstrations]:
    """Demonstrations of episodes of these lengths: random, but repeatable."""

    def make(*lengths: int) -> Demonstrations:
        rng = np.random.default_rng(0)
        ends = np.cumsum(lengths)
        return Demonstrations(
            task=ARM,
            observations=rng.uniform(-1, 1, (ends[-1], ARM.observation_dim)).astype(np.float32),
            actions=rng.uniform(-1, 1, (ends[-1], ARM.action_dim)).astype(np.float32),
            episode_ends=ends,
            sha256="",
        )

    return make


@pytest.fixture(scope="session")
def arm_policy() -> DiffusionPolicy:
    """Untrained."""
    torch.manual_seed(0)
    normalizer = Normalizer(Range(-torch.ones(4), torch.ones(4)), Range(-torch.ones(3), torch.ones(3)))
    return DiffusionPolicy(SHAPES.build_network(ARM).eval(), ARM, SHAPES, normalizer)
