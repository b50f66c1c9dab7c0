"""The state of a training on disk: weights, their average, the optimiser's moments, and how far it is."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from policy.checkpoint import Checkpoint, CheckpointError, check_weights, load_checkpoint, save_checkpoint

STATE_FORMAT = "pcm_policy.training_state/2"
LONGEST_VALUE = 300  # letters of what a file says, in a message


@dataclass(frozen=True)
class TrainingState:
    """State that training changes: the weights, their average and the optimiser's moments."""

    network: nn.Module
    averaged: nn.Module
    optimizer: torch.optim.AdamW


@dataclass(frozen=True)
class Progress:
    """How far a training is: optimiser steps done, and the hours that they took."""

    step: int = 0
    hours: float = 0.0


def save_state(path: Path, state: TrainingState, *, progress: Progress, identity: Mapping[str, Any]) -> None:
    """Write the state atomically."""
    tensors = _weights(state)
    for index, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in moments.items()}
    header = {"step": progress.step, "hours": progress.hours, "identity": dict(identity)}
    save_checkpoint(path, Checkpoint(tensors, header), STATE_FORMAT)


def restore_state(
    path: Path, state: TrainingState, identity: Mapping[str, Any], *, steps: int, device: torch.device
) -> Progress:
    """Load the saved state if there is one.

    Args:
        identity: all that defines this run (JSON values).
        steps: optimiser steps of the whole training, which the state cannot be beyond.

    Returns:
        Progress of the saved state.

    Raises:
        ValueError: for the state of another run.
        CheckpointError: for a damaged state. The message names the file.
    """
    if not path.exists():
        return Progress()
    expected = _weights(state)
    trained = [i for i, weight in enumerate(state.network.parameters()) if weight.requires_grad]
    weights = list(state.network.parameters())
    for index in trained:
        expected[f"optimizer.{index}.step"] = torch.empty((), device="meta")
        for moment in ("exp_avg", "exp_avg_sq"):
            expected[f"optimizer.{index}.{moment}"] = weights[index]

    def check(header: dict[str, Any], described: dict[str, Tensor]) -> None:
        _check_identity(path, header, identity)
        _read_progress(path, header, steps)
        check_weights(expected, described, path)

    loaded = load_checkpoint(path, STATE_FORMAT, device, check=check)
    progress = _read_progress(path, loaded.header, steps)
    moments: dict[int, dict[str, Tensor]] = {index: {} for index in trained}
    for index in trained:
        for moment in ("step", "exp_avg", "exp_avg_sq"):
            moments[index][moment] = loaded.tensors[f"optimizer.{index}.{moment}"]
        if moments[index]["step"] != progress.step:
            raise CheckpointError(
                f"{path}: weights 'optimizer.{index}.step' are {moments[index]['step'].item():g}, "
                f"need {progress.step}, the optimiser steps in the header"
            )
        if (moments[index]["exp_avg_sq"] < 0).any():
            raise CheckpointError(f"{path}: weights 'optimizer.{index}.exp_avg_sq' must not be negative")
    for prefix, module in (("network.", state.network), ("averaged.", state.averaged)):
        module.load_state_dict(
            {name.removeprefix(prefix): t for name, t in loaded.tensors.items() if name.startswith(prefix)}
        )
    state.optimizer.load_state_dict({**state.optimizer.state_dict(), "state": moments})
    return progress


def _weights(state: TrainingState) -> dict[str, Tensor]:
    tensors = {f"network.{name}": tensor for name, tensor in state.network.state_dict().items()}
    return tensors | {f"averaged.{name}": tensor for name, tensor in state.averaged.state_dict().items()}


def _check_identity(path: Path, header: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    saved = header.get("identity")
    if not isinstance(saved, dict):
        raise CheckpointError(f"{path}: bad header (identity must be an object of keys and values)")
    for name in sorted(saved.keys() | identity.keys()):
        # As JSON: it knows no tuples, and tells 8.0 and true from 8 and 1.
        value = json.loads(json.dumps(identity.get(name)))
        if json.dumps(saved.get(name), sort_keys=True) != json.dumps(value, sort_keys=True):
            found = str(saved.get(name))
            found = found if len(found) <= LONGEST_VALUE else f"{found[:LONGEST_VALUE]}…"
            raise ValueError(
                f"{path} belongs to a run with {name[:LONGEST_VALUE]}={found}, this one has "
                f"{name[:LONGEST_VALUE]}={value}; choose another output_dir"
            )


def _read_progress(path: Path, header: Mapping[str, Any], steps: int) -> Progress:
    step, hours = header.get("step"), header.get("hours")
    if isinstance(step, bool) or not isinstance(step, int) or not 1 <= step <= steps:
        raise CheckpointError(
            f"{path}: bad header (step must be a whole number in 1 … {steps}, got {step!r})"
        )
    is_number = isinstance(hours, (int, float)) and not isinstance(hours, bool)
    if not is_number or not math.isfinite(hours) or hours < 0:  # type: ignore[arg-type, operator]
        raise CheckpointError(
            f"{path}: bad header (hours must be a number that is not negative, got {hours!r})"
        )
    return Progress(step, float(hours))  # type: ignore[arg-type]
