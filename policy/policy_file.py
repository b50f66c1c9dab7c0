"""A policy's file: weights and covariance as tensors, everything else as JSON in the header."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from policy.checkpoint import Checkpoint, CheckpointError, load_checkpoint, load_weights, save_checkpoint
from policy.config import PolicyConfig
from policy.networks.unet import ConditionalUnet1D
from policy.normalizer import Normalizer, Range

POLICY_FORMAT = "pcm_policy.diffusion_policy/1"
COVARIANCE = "action_covariance"  # the only tensor of a checkpoint that is not a weight


@dataclass(frozen=True)
class PolicyParts:
    """Contents of a policy's file; see `DiffusionPolicy`."""

    network: ConditionalUnet1D
    config: PolicyConfig
    normalizer: Normalizer
    provenance: Mapping[str, Any] = field(default_factory=dict)
    covariance: Tensor | None = None


def save_policy_parts(path: str | Path, parts: PolicyParts) -> None:
    """Write one safetensors file, atomically."""
    normalizer = parts.normalizer
    header = {
        "config": asdict(parts.config),
        "normalizer": {
            name: {"minimum": limits.minimum.tolist(), "maximum": limits.maximum.tolist()}
            for name, limits in (("observation", normalizer.observation), ("action", normalizer.action))
        },
        "provenance": dict(parts.provenance),
    }
    tensors = dict(parts.network.state_dict())
    if parts.covariance is not None:
        tensors[COVARIANCE] = parts.covariance
    save_checkpoint(path, Checkpoint(tensors, header), POLICY_FORMAT)


def load_policy_parts(path: str | Path, device: torch.device | str) -> PolicyParts:
    """Read a file and check that it is whole and consistent.

    Raises:
        CheckpointError: for a missing, pickled, truncated, foreign or inconsistent file, or weights that are not
            finite. The message names the file.
    """
    checkpoint = load_checkpoint(path, POLICY_FORMAT, device)
    try:
        config = PolicyConfig(**checkpoint.header["config"])
        ranges = {
            name: Range(
                torch.tensor(limits["minimum"], device=device),
                torch.tensor(limits["maximum"], device=device),
            )
            for name, limits in checkpoint.header["normalizer"].items()
        }
        normalizer = Normalizer(**ranges)
        for name, size in (("observation", config.observation_dim), ("action", config.action_dim)):
            if ranges[name].minimum.shape != (size,):
                found = tuple(ranges[name].minimum.shape)
                raise ValueError(f"the {name}'s range has shape {found}, need {(size,)}")
        network = config.build_network().to(device)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: bad header ({error})") from error
    covariance = checkpoint.tensors.pop(COVARIANCE, None)
    size = config.horizon * config.action_dim
    if covariance is not None and covariance.shape != (size, size):
        found = tuple(covariance.shape)
        raise CheckpointError(f"{path}: {COVARIANCE} has shape {found}, need {(size, size)}")
    load_weights(network, checkpoint.tensors, path)
    provenance = checkpoint.header.get("provenance", {})
    return PolicyParts(network.eval(), config, normalizer, provenance, covariance)
