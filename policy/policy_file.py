"""A policy's file: weights and covariance as tensors, everything else as JSON in the header."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from policy.checkpoint import (
    Checkpoint,
    CheckpointError,
    check_weights,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)
from policy.config import PolicyConfig, config_values
from policy.networks.image_encoder import ImageEncoders
from policy.networks.unet import ConditionalUnet1D
from policy.normalizer import Normalizer
from policy.normalizer_values import normalizer_from_values, normalizer_values
from policy.objective import NOISE, OBJECTIVES
from policy.task import Task, task_from_values, task_values

POLICY_FORMAT = "pcm_policy.diffusion_policy/2"
RETIRED = {
    "pcm_policy.diffusion_policy/1": "it does not say what it observes and commands: train the policy again"
}
COVARIANCE = "action_covariance"  # the only tensor of a checkpoint that is not a weight
ENCODERS = "image_encoders."  # before the names of their weights


@dataclass(frozen=True)
class PolicyParts:
    """Contents of a policy's file; see `DiffusionPolicy`."""

    network: ConditionalUnet1D
    task: Task
    config: PolicyConfig
    normalizer: Normalizer
    provenance: Mapping[str, Any] = field(default_factory=dict)
    covariance: Tensor | None = None
    objective: str = NOISE
    encoders: ImageEncoders | None = None


def save_policy_parts(path: str | Path, parts: PolicyParts) -> None:
    """Write one safetensors file, atomically."""
    header: dict[str, Any] = {
        "task": task_values(parts.task),
        "config": config_values(parts.task, parts.config),
        "normalizer": normalizer_values(parts.task, parts.normalizer),
        "provenance": dict(parts.provenance),
    }
    if parts.objective != NOISE:  # a file without it predicts noise
        header["objective"] = parts.objective
    tensors = dict(parts.network.state_dict())
    if parts.encoders is not None:
        tensors |= {f"{ENCODERS}{name}": tensor for name, tensor in parts.encoders.state_dict().items()}
    if parts.covariance is not None:
        tensors[COVARIANCE] = parts.covariance
    save_checkpoint(path, Checkpoint(tensors, header), POLICY_FORMAT)


def load_policy_parts(path: str | Path, device: torch.device | str) -> PolicyParts:
    """Read a file and check that it is whole and consistent.

    Raises:
        CheckpointError: for a missing, pickled, truncated, changed, foreign or inconsistent file, or weights that are
            not finite. The message names the file.
    """

    def check(header: dict[str, Any], described: dict[str, Tensor]) -> None:
        task, config, _ = _read_header(path, header)
        expected = dict(config.described_network(task).state_dict())
        if (described_encoders := config.described_encoders(task)) is not None:
            expected |= {f"{ENCODERS}{name}": like for name, like in described_encoders.state_dict().items()}
        if COVARIANCE in described:
            size, found = config.horizon * task.action_dim, tuple(described[COVARIANCE].shape)
            if found != (size, size):
                raise CheckpointError(f"{path}: {COVARIANCE} has shape {found}, need {(size, size)}")
            expected[COVARIANCE] = torch.empty(found, device="meta")
        check_weights(expected, described, path)

    checkpoint = load_checkpoint(path, POLICY_FORMAT, device, check=check, retired=RETIRED)
    task, config, normalizer = _read_header(path, checkpoint.header)
    try:
        network = config.build_network(task).to(device)
    except ValueError as error:
        raise CheckpointError(f"{path}: bad header ({error})") from error
    covariance = checkpoint.tensors.pop(COVARIANCE, None)
    encoders = config.build_encoders(task)
    if encoders is not None:
        names = [name for name in checkpoint.tensors if name.startswith(ENCODERS)]
        weights = {name.removeprefix(ENCODERS): checkpoint.tensors.pop(name) for name in names}
        load_weights(encoders.to(device).eval(), weights, path)
    load_weights(network, checkpoint.tensors, path)
    provenance = checkpoint.header.get("provenance", {})
    return PolicyParts(
        network.eval(),
        task,
        config,
        normalizer.to(device),
        provenance=provenance,
        covariance=covariance,
        objective=checkpoint.header.get("objective", NOISE),
        encoders=encoders,
    )


def _read_header(path: str | Path, header: dict[str, Any]) -> tuple[Task, PolicyConfig, Normalizer]:
    try:
        task = task_from_values(header["task"])
        config = PolicyConfig(**header["config"])
        config.described_network(task)  # checks the widths
        normalizer = normalizer_from_values(task, header["normalizer"])
        if not isinstance(header.get("provenance", {}), dict):
            raise ValueError(f"provenance must be an object of keys and values, got {header['provenance']!r}")
        if header.get("objective", NOISE) not in tuple(OBJECTIVES):
            raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, got {header['objective']!r}")
    except KeyError as error:
        raise CheckpointError(f"{path}: bad header (key {error} is missing)") from error
    except (AttributeError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: bad header ({error})") from error
    return task, config, normalizer
