"""A policy's file: weights and covariance as tensors, everything else as JSON in the header."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
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
        CheckpointError: for a missing, pickled, truncated, changed, foreign or inconsistent file, or weights that are
            not finite. The message names the file.
    """

    def check(header: dict[str, Any], described: dict[str, Tensor]) -> None:
        config, _ = _read_header(path, header)
        expected = config.described_network().state_dict()
        if COVARIANCE in described:
            size, found = config.horizon * config.action_dim, tuple(described[COVARIANCE].shape)
            if found != (size, size):
                raise CheckpointError(f"{path}: {COVARIANCE} has shape {found}, need {(size, size)}")
            expected[COVARIANCE] = torch.empty(found, device="meta")
        check_weights(expected, described, path)

    checkpoint = load_checkpoint(path, POLICY_FORMAT, device, check=check)
    config, normalizer = _read_header(path, checkpoint.header)
    try:
        network = config.build_network().to(device)
    except ValueError as error:
        raise CheckpointError(f"{path}: bad header ({error})") from error
    covariance = checkpoint.tensors.pop(COVARIANCE, None)
    load_weights(network, checkpoint.tensors, path)
    provenance = checkpoint.header.get("provenance", {})
    return PolicyParts(network.eval(), config, normalizer.to(device), provenance, covariance)


def _read_header(path: str | Path, header: dict[str, Any]) -> tuple[PolicyConfig, Normalizer]:
    try:
        config = PolicyConfig(**header["config"])
        config.described_network()  # checks the widths
        ranges = {
            name: Range(_limit(limits["minimum"]), _limit(limits["maximum"]))
            for name, limits in header["normalizer"].items()
        }
        normalizer = Normalizer(**ranges)
        for name, size in (("observation", config.observation_dim), ("action", config.action_dim)):
            if ranges[name].minimum.shape != (size,):
                found = tuple(ranges[name].minimum.shape)
                raise ValueError(f"the {name}'s range has shape {found}, need {(size,)}")
        if not isinstance(header.get("provenance", {}), dict):
            raise ValueError(f"provenance must be an object of keys and values, got {header['provenance']!r}")
    except KeyError as error:
        raise CheckpointError(f"{path}: bad header (key {error} is missing)") from error
    except (AttributeError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: bad header ({error})") from error
    return config, normalizer


def _limit(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)
