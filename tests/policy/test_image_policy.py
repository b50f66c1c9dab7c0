"""A policy with a camera, from its pictures to its chunk and through its file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from policy import (
    CheckpointError,
    Command,
    DiffusionPolicy,
    ImagePart,
    Normalizer,
    Part,
    PolicyConfig,
    Range,
    SamplerConfig,
    Task,
)
from policy.image_encoder_config import ImageEncoderConfig
from policy.runtime import serve

CAMERA = ImagePart(name="camera", height=40, width=48)
ARM = Part(name="arm", names=("shoulder",), units=("rad",))
COMMAND = Command(names=("shoulder", "elbow"), units=("rad", "rad"), lower=(-1, -1), upper=(1, 1))
CONFIG = PolicyConfig(
    horizon=8,
    action_steps=4,
    num_train_timesteps=20,
    down_dims=(8, 16),
    step_embed_dim=8,
    n_groups=4,
    image_encoder=ImageEncoderConfig(width=16, features=6),
)


def make_policy(*parts: Part | ImagePart) -> DiffusionPolicy:
    task = Task(name="reach", rate=10, observation=parts, action=COMMAND)
    torch.manual_seed(0)
    numbers = task.observation_dim
    encoders = CONFIG.build_encoders(task)
    return DiffusionPolicy(
        CONFIG.build_network(task).eval(),
        task,
        CONFIG,
        Normalizer(
            Range(-2 * torch.ones(numbers), 2 * torch.ones(numbers)), Range(-torch.ones(2), torch.ones(2))
        ),
        sampler=SamplerConfig("sequential", "ddim", 3),
        encoders=None if encoders is None else encoders.eval(),
    )


def pictures(count: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {"camera": torch.randint(0, 256, (count, 40, 48, 3), dtype=torch.uint8, generator=generator)}


def rows(policy: DiffusionPolicy) -> torch.Tensor:
    """Observation rows (1, 2, D + F)."""
    features = policy.encode_images(pictures(2))
    vectors = torch.full((2, policy.task.observation_dim), 0.5)
    return torch.cat((vectors, features), -1)[None]


@pytest.mark.parametrize("parts", [(ARM, CAMERA), (CAMERA,)])
def test_a_policy_that_sees_comes_back_from_its_file(
    parts: tuple[Part | ImagePart, ...], tmp_path: Path
) -> None:
    policy = make_policy(*parts)
    policy.save(tmp_path / "seeing.safetensors")
    again = DiffusionPolicy.load(tmp_path / "seeing.safetensors", sampler=policy.sampler)

    assert (again.task, again.config) == (policy.task, policy.config)
    assert torch.equal(again.encode_images(pictures(2)), policy.encode_images(pictures(2)))
    noise = torch.randn(1, 8, 2)
    chunk = policy.predict_chunk(rows(policy), noise=noise)
    assert chunk.shape == (1, 4, 2)
    assert torch.equal(again.predict_chunk(rows(policy), noise=noise), chunk)


def test_features_reach_the_network_as_they_are_and_vectors_normalised() -> None:
    policy = make_policy(ARM, CAMERA)
    row = rows(policy)

    normalized = policy.normalizer.normalize_rows(row)
    assert torch.equal(normalized[..., 1:], row[..., 1:])
    assert torch.equal(normalized[..., 0], torch.full((1, 2), 0.25))
    assert policy.config.row_names(policy.task)[:2] == ("arm.shoulder", "camera.feature0")


@pytest.mark.parametrize("engine", ["eager", "openvino"])
def test_an_engine_encodes_and_takes_rows(engine: str) -> None:
    policy = make_policy(ARM, CAMERA)
    served = serve(policy, engine=engine)
    noise = torch.randn(1, 8, 2)

    features = served.encode_images(pictures(2))
    torch.testing.assert_close(features, policy.encode_images(pictures(2)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        served.predict_chunk(rows(policy), noise=noise),
        policy.predict_chunk(rows(policy), noise=noise),
        rtol=1e-4,
        atol=1e-4,
    )


def test_what_is_missing_is_said() -> None:
    seeing, blind = make_policy(ARM, CAMERA), make_policy(ARM)

    with pytest.raises(ValueError, match="task 'reach' has no pictures"):
        blind.encode_images(pictures(1))
    with pytest.raises(ValueError, match=r"observations must have shape \(B, 2, 7\), got \(1, 2, 1\)"):
        seeing.predict_chunk(torch.zeros(1, 2, 1))
    with pytest.raises(ValueError, match="pictures of camera must be uint8, got float32"):
        seeing.encode_images({"camera": torch.zeros(1, 40, 48, 3)})


def test_the_header_speaks_of_encoders_only_where_there_are_some(tmp_path: Path) -> None:
    path = tmp_path / "policy.safetensors"
    found = []
    for policy in (make_policy(ARM), make_policy(ARM, CAMERA)):
        policy.save(path)
        with safe_open(path, framework="pt") as file:
            found.append("image_encoder" in json.loads(file.metadata()["header"])["config"])
    assert found == [False, True]


def test_a_file_without_its_encoders_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.safetensors"
    replace(make_policy(ARM, CAMERA), encoders=None).save(path)

    with pytest.raises(CheckpointError, match=r"wrong architecture, weights 'image_encoders.* are missing"):
        DiffusionPolicy.load(path)
