"""Untrained policies of PushT that see, small enough for tests."""

from __future__ import annotations

from pathlib import Path

import torch

from policy import DiffusionPolicy, Normalizer, PolicyConfig, Range
from policy.image_encoder_config import ImageEncoderConfig
from policy.task import Task
from policy.task_parts import ImagePart
from training.data.task_file import load_task


def seeing_task(*images: ImagePart) -> Task:
    """PushT's task with pictures in the place of the keypoints."""
    pusht = load_task("pusht").task
    pusher = next(part for part in pusht.vectors if part.name == "pusher")
    return Task(name="seeing", rate=pusht.rate, observation=(*images, pusher), action=pusht.action)


def save_seeing_policy(path: Path, *images: ImagePart) -> Path:
    """The file of a policy whose actions go all over the workspace."""
    torch.manual_seed(0)
    task = seeing_task(*images)
    config = PolicyConfig(
        down_dims=(8, 16),
        step_embed_dim=8,
        n_groups=4,
        image_encoder=ImageEncoderConfig(width=16, features=8),
    )
    normalizer = Normalizer(
        Range(torch.full((2,), 10.0), torch.full((2,), 500.0)),
        Range(torch.tensor([12.0, 25.0]), torch.tensor([511.0, 505.0])),
    )
    encoders = config.build_encoders(task)
    assert encoders is not None
    DiffusionPolicy(
        config.build_network(task).eval(), task, config, normalizer, provenance={}, encoders=encoders.eval()
    ).save(path)
    return path
