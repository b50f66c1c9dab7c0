"""Checkpoints: safetensors files with the weights, and everything else as JSON in the header."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from policy.atomic_write import atomic_write

# Far above what this project writes (20 kB), far below what would fill a memory.
LARGEST_HEADER = 4 * 2**20
LONGEST_MESSAGE = 1000  # letters
TENSORS_SHA256, HEADER_SHA256 = "tensors_sha256", "header_sha256"
DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
}


class CheckpointError(ValueError):
    """A file that cannot be used as a checkpoint. The message names the file and the fault.

    It is one line of bounded length, as it quotes what the file says.
    """

    def __init__(self, message: str) -> None:
        line = " ".join(message.split("\n"))
        super().__init__(line if len(line) <= LONGEST_MESSAGE else f"{line[:LONGEST_MESSAGE]}…")


@dataclass(frozen=True)
class Checkpoint:
    """Named weights and a JSON header."""

    tensors: dict[str, Tensor]
    header: dict[str, Any]


Check: TypeAlias = Callable[[dict[str, Any], dict[str, Tensor]], None]
"""(header, tensors on the device ``meta``) → None. It raises `CheckpointError` for a file that is not wanted."""


def save_checkpoint(path: str | Path, checkpoint: Checkpoint, format_name: str) -> None:
    """Write a checkpoint atomically: after a crash the old file or the new one is there."""
    header = json.dumps(checkpoint.header, sort_keys=True)
    metadata = {
        "format": format_name,
        "header": header,
        HEADER_SHA256: _text_sha256(header),
        TENSORS_SHA256: tensors_sha256(checkpoint.tensors),
    }
    with atomic_write(Path(path)) as temporary, open(temporary, "wb") as file:
        file.write(save({name: t.contiguous() for name, t in checkpoint.tensors.items()}, metadata))
        os.fsync(file.fileno())


def load_checkpoint(
    path: str | Path,
    format_name: str,
    device: torch.device | str = "cpu",
    *,
    check: Check | None = None,
    retired: Mapping[str, str] | None = None,
) -> Checkpoint:
    """Read a checkpoint and check that it is whole, and what was saved.

    Args:
        check: what else must be true of the header, and of the names, shapes and types of the tensors; called before a
            tensor is read.
        retired: earlier formats, and what to do about a file of theirs.

    Raises:
        CheckpointError: for a file that is missing, foreign (pickled, for instance), truncated, changed, too large or
            of another format, or weights that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file")
    try:
        _check_header_size(path)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            header = _read_header(path, metadata, format_name, retired=retired or {})
            described = {name: _describe(path, name, file.get_slice(name)) for name in file.keys()}  # noqa: SIM118
            if check is not None:
                check(header, described)
            tensors = {name: file.get_tensor(name) for name in described}
        _check_values(path, metadata, tensors)
        return Checkpoint({name: tensor.to(device) for name, tensor in tensors.items()}, header)
    except (SafetensorError, OSError) as error:
        if _is_pickle(path):
            raise CheckpointError(
                f"{path}: a pickled file, refused because loading it can run code"
            ) from error
        raise CheckpointError(f"{path}: truncated or not a safetensors file ({error})") from error
    except MemoryError as error:
        raise CheckpointError(f"{path}: larger than the memory") from error


def _check_header_size(path: Path) -> None:
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
    # A size beyond the file's is a truncated or foreign file, which has its own message.
    if LARGEST_HEADER < size <= path.stat().st_size:
        raise CheckpointError(f"{path}: header of {size} bytes, at most {LARGEST_HEADER} are allowed")


def _read_header(
    path: Path, metadata: Mapping[str, str], format_name: str, *, retired: Mapping[str, str]
) -> dict[str, Any]:
    if metadata.get("format") != format_name:
        found = metadata.get("format", "none")
        advice = f"; {retired[found]}" if found in retired else ""
        raise CheckpointError(f"{path}: holds format {found!r}, need {format_name!r}{advice}")
    try:
        header = json.loads(metadata["header"])
    except KeyError as error:
        raise CheckpointError(f"{path}: unreadable header (there is none)") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: unreadable header ({error})") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: bad header (must be an object of keys and values)")
    return header


def _describe(path: Path, name: str, stored: Any) -> Tensor:
    """A tensor without values: shape and type alone."""
    dtype = stored.get_dtype()
    if dtype not in DTYPES:
        raise CheckpointError(f"{path}: weights {name!r} have type {dtype}, need one of {', '.join(DTYPES)}")
    return torch.empty(stored.get_shape(), dtype=DTYPES[dtype], device="meta")


def _check_values(path: Path, metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(f"{path}: weights {name!r} are not finite")
    if TENSORS_SHA256 not in metadata and HEADER_SHA256 not in metadata:
        warnings.warn(
            f"{path}: an old file without a hash of its weights, which are not verified; save it again",
            stacklevel=3,
        )
        return
    expected = (metadata.get(HEADER_SHA256), metadata.get(TENSORS_SHA256))
    if expected != (_text_sha256(metadata["header"]), tensors_sha256(tensors)):
        raise CheckpointError(f"{path}: damaged, its content has another sha256 than was saved")


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
    """Compare names, shapes and types. All tensors may be on the device ``meta``.

    Raises:
        CheckpointError: for weights that are missing, unexpected or of another shape or type. The message names the
            first.
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
        if tensors[name].dtype != expected[name].dtype:
            raise CheckpointError(
                f"{source}: wrong type, weights {name!r} have {tensors[name].dtype}, need {expected[name].dtype}"
            )


def file_sha256(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Hash of names, types, shapes and values: equal tensors have equal hashes, whatever file they are in."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        values = tensor.detach().cpu().contiguous()
        # NumPy, whose names of types are hashed, has no bfloat16.
        dtype = "bfloat16" if values.dtype is torch.bfloat16 else values.flatten()[:0].numpy().dtype.str
        digest.update(f"{name} {dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _text_sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
