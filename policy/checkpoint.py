"""Checkpoints: safetensors files with the weights, and everything else as JSON in the header."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from policy.atomic_write import atomic_write


class CheckpointError(ValueError):
    """A file that cannot be used as a checkpoint. The message names the file and the fault."""


@dataclass(frozen=True)
class Checkpoint:
    """Named weights and a JSON header."""

    tensors: dict[str, Tensor]
    header: dict[str, Any]


def save_checkpoint(path: str | Path, checkpoint: Checkpoint, format_name: str) -> None:
    """Write a checkpoint atomically: after a crash the old file or the new one is there."""
    metadata = {"format": format_name, "header": json.dumps(checkpoint.header, sort_keys=True)}
    with atomic_write(Path(path)) as temporary, open(temporary, "wb") as file:
        file.write(save({name: t.contiguous() for name, t in checkpoint.tensors.items()}, metadata))
        os.fsync(file.fileno())


def load_checkpoint(path: str | Path, format_name: str, device: torch.device | str = "cpu") -> Checkpoint:
    """Read a checkpoint and check that it is whole.

    Raises:
        CheckpointError: for a file that is missing, foreign (pickled, for instance), truncated or of another format,
            or weights that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file")
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict
    except (SafetensorError, OSError) as error:
        if _is_pickle(path):
            raise CheckpointError(
                f"{path}: a pickled file, refused because loading it can run code"
            ) from error
        raise CheckpointError(f"{path}: truncated or not a safetensors file ({error})") from error
    if metadata.get("format") != format_name:
        found = metadata.get("format", "none")
        raise CheckpointError(f"{path}: holds format {found!r}, need {format_name!r}")
    try:
        header = json.loads(metadata["header"])
    except (KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: unreadable header ({error})") from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(f"{path}: weights {name!r} are not finite")
    return Checkpoint(tensors, header)


def _is_pickle(path: Path) -> bool:
    with open(path, "rb") as file:
        start = file.read(9)
    if start[8:] == b"{":  # a safetensors file: its first bytes are a length and can look like anything
        return False
    return start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"))


def load_weights(module: torch.nn.Module, tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Copy weights into a module.

    Raises:
        CheckpointError: see `check_weights`.
    """
    check_weights(module.state_dict(), tensors, source)
    module.load_state_dict(dict(tensors))


def check_weights(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Compare names and shapes.

    Raises:
        CheckpointError: for weights that are missing, unexpected or of another shape. The message names the first.
    """
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors:
            raise CheckpointError(f"{source}: wrong architecture, weights {name!r} are missing")
        if name not in expected:
            raise CheckpointError(f"{source}: wrong architecture, weights {name!r} are unexpected")
        if tensors[name].shape != expected[name].shape:
            found, need = tuple(tensors[name].shape), tuple(expected[name].shape)
            raise CheckpointError(
                f"{source}: wrong architecture, weights {name!r} have shape {found}, need {need}"
            )


def file_sha256(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Hash of names, types, shapes and values: equal tensors have equal hashes, whatever file they are in."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        values = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{name} {values.dtype.str} {values.shape}\n".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
