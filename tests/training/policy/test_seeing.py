"""Encoders and U-Net as one network, as losses call it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from policy import Command, ImagePart, Part, PolicyConfig, Task
from policy.image_encoder_config import ImageEncoderConfig
from policy.networks.resnet import ResNet18
from training.policy.seeing import SeeingNetwork, showing, trained_network, unet_and_encoders

CAMERA, ARM = ImagePart(name="camera", height=24, width=32), Part(name="arm", names=("x",), units=("px",))
COMMAND = Command(names=("x",), units=("px",), lower=(None,), upper=(None,))
TASK = Task(name="seen", rate=10, observation=(CAMERA, ARM), action=COMMAND)
CONFIG = PolicyConfig(
    horizon=8,
    action_steps=4,
    down_dims=(8, 16),
    step_embed_dim=8,
    n_groups=4,
    image_encoder=ImageEncoderConfig(width=16, features=8),
)
BATCH = 3


def predictor(share: slice = slice(None)) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    torch.manual_seed(0)
    network = trained_network(CONFIG, TASK)
    pictures = torch.randint(0, 256, (BATCH, 2, 24, 32, 3), dtype=torch.uint8)
    generator = torch.Generator().manual_seed(1)
    return showing(network, {"camera": pictures[share]}, generator=generator, batch_size=BATCH, share=share)


def inputs(count: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    sample, vectors = (
        torch.randn(count, 8, 1, generator=generator),
        torch.randn(count, 2, generator=generator),
    )
    return sample, torch.arange(count), vectors


def test_pictures_repeat_where_a_loss_shows_them_twice() -> None:
    sample, timestep, vectors = inputs(2 * BATCH)
    twice = predictor()(sample, timestep, vectors)
    once = [
        predictor()(*(each[part] for each in (sample, timestep, vectors)))
        for part in (slice(BATCH), slice(BATCH, None))
    ]

    torch.testing.assert_close(twice, torch.cat(once))


def test_a_worker_crops_its_share_as_one_alone_would() -> None:
    sample, timestep, vectors = inputs(BATCH)
    share = slice(1, 3)
    shared = predictor(share)(sample[share], timestep[share], vectors[share])

    torch.testing.assert_close(shared, predictor()(sample, timestep, vectors)[share])


def test_encoders_begin_with_published_weights(tmp_path: Path) -> None:
    published = ResNet18(16)
    save_file(published.state_dict(), tmp_path / "resnet18.safetensors")
    network = trained_network(CONFIG, TASK, str(tmp_path / "resnet18.safetensors"))

    assert isinstance(network, SeeingNetwork)
    _, encoders = unet_and_encoders(network)
    assert encoders is not None
    assert torch.equal(encoders.encoder("camera").resnet.conv1.weight, published.conv1.weight)
    blind = Task(name="blind", rate=10, observation=(ARM,), action=COMMAND)
    with pytest.raises(ValueError, match="image_encoder_weights is for pictures, task 'blind' has none"):
        trained_network(CONFIG, blind, "resnet18.safetensors")
