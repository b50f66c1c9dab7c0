"""Faults of this project's safetensors files: checkpoints and training states alike."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from policy.checkpoint import Checkpoint, save_checkpoint
from tests.fuzz.case import Mishandled, Outcome
from tests.fuzz.damage import damaged_bytes, damaged_json, hostile_value
from tests.fuzz.file_kinds import FILE_KINDS, put_in_place

HOSTILE_TEXTS = (
    "[" * 100_000,
    '{"a":' * 50_000,
    "9" * 5000,
    "",
    "{",
    "[]",
    "null",
    "NaN",
    '"x"',
    '{"config": {}, "config": 1}',
    "\ud800",
)
DTYPES = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool)


@dataclass(frozen=True)
class Subject:
    """A kind of file.

    Attributes:
        file: a good one.
        load: reads a file and returns header and tensors of what was read, as it would be saved again.
        errors: what `load` may raise, its message naming the file.
    """

    file: Path
    load: Callable[[Path], Checkpoint]
    errors: type[Exception] | tuple[type[Exception], ...]


def inject_file_fault(
    rng: np.random.Generator, good: Path, path: Path
) -> tuple[str, Callable[[Checkpoint], None]]:
    """Write a faulty file; returns what is wrong, and a check of what was read in spite of it."""
    content = good.read_bytes()
    header_end = 8 + int.from_bytes(content[:8], "little")
    saved = read(good)
    kind = rng.choice(
        ["bytes", "head", "header", "tensors", "layout", "file"], p=[0.2, 0.2, 0.3, 0.15, 0.1, 0.05]
    )
    if kind in ("bytes", "head"):
        damaged, text = damaged_bytes(rng, content[:header_end] if kind == "head" else content)
        path.write_bytes(damaged + (content[header_end:] if kind == "head" else b""))
        return text, lambda found: check_same(found, saved)
    if kind == "header":
        header, text = damaged_json(rng, saved.header)
        write(path, Checkpoint(saved.tensors, header), _metadata(good)["format"])
        return f"in the header, {text}", lambda found: check_same(found, Checkpoint(saved.tensors, header))
    if kind == "tensors":
        tensors, text = _damaged_tensors(rng, saved.tensors)
        write(path, Checkpoint(tensors, saved.header), _metadata(good)["format"])
        return text, lambda found: check_same(found, Checkpoint(tensors, saved.header))
    if kind == "layout":
        text = _damage_layout(rng, content, path)
        return text, lambda found: check_same(found, saved)
    return _replace_file(rng, content, path), lambda found: check_same(found, saved)


def try_file(subject: Subject, path: Path, check: Callable[[Checkpoint], None]) -> Outcome:
    """Read a file that may be refused, and check what was read."""
    try:
        found = subject.load(path)
    except subject.errors as error:
        _check_message(error, path)
        return "refused"
    check(found)
    return "accepted"


def check_same(found: Checkpoint, saved: Checkpoint) -> None:
    """Raise `Mishandled` if something that was read is not what the file holds."""
    if found.tensors.keys() != saved.tensors.keys():
        raise Mishandled(f"other tensors: {sorted(found.tensors.keys() ^ saved.tensors.keys())[:3]}")
    for name, tensor in found.tensors.items():
        if tensor.dtype != saved.tensors[name].dtype or not torch.equal(tensor, saved.tensors[name]):
            raise Mishandled(f"accepts another tensor {name}")
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise Mishandled(f"accepts a tensor {name} that is not finite")
    if not isinstance(saved.header, dict):
        raise Mishandled("accepts a header that is no object")
    _check_same_values(found.header, saved.header)


def read(path: Path) -> Checkpoint:
    return Checkpoint(load_file(path), json.loads(_metadata(path)["header"]))


def write(path: Path, checkpoint: Checkpoint, format_name: str) -> None:
    """As whoever makes hostile files would: with the hashes of what is in them."""
    save_checkpoint(path, checkpoint, format_name)


def _check_message(error: Exception, path: Path) -> None:
    message = str(error)
    if str(path) not in message:
        raise Mishandled(f"the error does not name the file: {message!r}") from error
    if len(message) > 1000 + len(str(path)):
        raise Mishandled(f"the error has {len(message)} letters: {message[:200]!r}…") from error


def _check_same_values(found: Any, saved: Any, path: str = "") -> None:
    """Compare what both have: a key that is left out has its default, one that is unknown is left alone."""
    if isinstance(found, dict) and isinstance(saved, dict):
        for key in found.keys() & saved.keys():
            _check_same_values(found[key], saved[key], f"{path}.{key}")
        return
    if isinstance(found, list) and isinstance(saved, list) and len(found) == len(saved):
        for index, (one, other) in enumerate(zip(found, saved, strict=True)):
            _check_same_values(one, other, f"{path}.{index}")
        return
    if isinstance(found, float) and isinstance(saved, (int, float)) and not isinstance(saved, bool):
        # Ranges are read as float32.
        if found == saved or np.float32(found) == np.float32(saved) or (found != found and saved != saved):
            return
    elif type(found) is type(saved) and found == saved:
        return
    raise Mishandled(f"accepts{path} = {str(saved)[:60]!r} and takes it for {str(found)[:60]!r}")


def _damaged_tensors(rng: np.random.Generator, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    tensors = dict(tensors)
    name = sorted(tensors)[rng.integers(len(tensors))]
    tensor = tensors[name]
    kind = rng.choice(["remove", "rename", "type", "shape", "value", "add", "swap", "noise"])
    if kind == "remove":
        del tensors[name]
    elif kind == "rename":
        tensors[f"{name}.x"] = tensors.pop(name)
    elif kind == "type":
        tensors[name] = tensor.to(DTYPES[rng.integers(len(DTYPES))])
    elif kind == "shape":
        shapes = [tensor.flatten(), tensor[None], tensor.flatten()[:-1], tensor.flatten()[:0]]
        tensors[name] = shapes[rng.integers(len(shapes))].contiguous()
    elif kind == "value":
        value = [float("nan"), float("inf"), float("-inf"), 1e30, -1e-40][rng.integers(5)]
        tensors[name] = tensor.clone()
        if tensor.numel() and tensor.is_floating_point():
            tensors[name].view(-1)[rng.integers(tensor.numel())] = value
        kind = f"value {value} in"
    elif kind == "add":
        tensors["added"] = torch.zeros(tuple(rng.integers(0, 9, int(rng.integers(0, 5))).tolist()))
    elif kind == "swap":
        other = sorted(tensors)[rng.integers(len(tensors))]
        tensors[name], tensors[other] = tensors[other].clone(), tensor.clone()
    else:
        tensors[name] = torch.from_numpy(rng.standard_normal(tuple(tensor.shape), np.float32))
    return tensors, f"{kind} tensor {name}"


def _damage_layout(rng: np.random.Generator, content: bytes, path: Path) -> str:
    """Change safetensors' own header: types, shapes and places of tensors, and the metadata beside them."""
    size = int.from_bytes(content[:8], "little")
    described = json.loads(content[8 : 8 + size])
    metadata = described.pop("__metadata__")
    kind = rng.choice(["tensors", "metadata", "text", "no hash", "size"])
    if kind == "tensors":
        described, text = damaged_json(rng, described)
    elif kind == "metadata":
        key = sorted(metadata)[rng.integers(len(metadata))]
        if rng.random() < 0.3:
            del metadata[key]
            text = f"metadata {key} are removed"
        else:
            value = hostile_value(rng)
            metadata[key] = value if rng.random() < 0.3 else str(value)
            text = f"metadata {key} are {str(value)[:60]!r}"
    elif kind == "text":
        text = HOSTILE_TEXTS[rng.integers(len(HOSTILE_TEXTS))]
        metadata["header"] = text
        text = f"the header is {text[:30]!r}"
    elif kind == "no hash":
        metadata = {key: value for key, value in metadata.items() if not key.endswith("sha256")}
        text = "no hashes"
    else:
        size = (0, 1, 2**20, 2**31, 2**40, 2**63, 2**64 - 1)[rng.integers(7)]
        path.write_bytes(struct.pack("<Q", size) + content[8:])
        return f"a header of {size} bytes"
    if isinstance(described, dict):
        described["__metadata__"] = metadata
    raw = json.dumps(described).encode("utf-8", "surrogatepass")
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + content[8 + int.from_bytes(content[:8], "little") :])
    return f"in the layout ({kind}), {text}"


def _replace_file(rng: np.random.Generator, content: bytes, path: Path) -> str:
    kind = str(rng.choice([*FILE_KINDS, "pickle", "zip", "text"]))
    if kind == "pickle":
        path.write_bytes(b"\x80\x04\x95" + rng.bytes(200))
    elif kind == "zip":
        path.write_bytes(b"PK\x03\x04" + rng.bytes(200))
    elif kind == "text":
        path.write_text("policy: diffusion\n" * 10)
    else:
        put_in_place(kind, content, path)
    return f"the file is {kind}"


def _metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        metadata: dict[str, str] = file.metadata()
    return metadata
