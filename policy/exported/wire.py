"""What a policy server and its robots send each other: a graph's inputs and outputs as safetensors, over HTTP.

GET of the server's address gives the policy's description, as JSON. POST takes the inputs of the graph, float32 tensors
(B, …) by name, and gives its outputs. Every answer names its policy by a tag, so that a robot notices another one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from policy.exported.description import GraphTensor

LARGEST_BATCH = 4096
MOST_HEADER_BYTES = 64 * 1024
MOST_DESCRIPTION_BYTES = 4 * 1024 * 1024
TAG_HEADER = "ETag"


def policy_tag(description: str) -> str:
    """The tag of the policy with this description, as an HTTP entity tag."""
    return f'"{hashlib.sha256(description.encode()).hexdigest()}"'


def most_bytes(tensors: Sequence[GraphTensor], batch_size: int) -> int:
    """No message of these tensors is longer."""
    return 4 * batch_size * sum(int(np.prod(tensor.shape)) for tensor in tensors) + MOST_HEADER_BYTES


def to_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays by name, as safetensors."""
    return save({name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()})


def from_bytes(data: bytes, tensors: Sequence[GraphTensor]) -> dict[str, np.ndarray]:
    """Arrays (B, …) by name, in the order of the tensors that they must be.

    Raises:
        ValueError: for anything else, in one line.
    """
    try:
        found = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"no safetensors ({str(error)[:200]})") from error
    needed = [tensor.name for tensor in tensors]
    if found.keys() != set(needed):
        raise ValueError(f"has the tensors {sorted(found)!s:.200}, need {', '.join(needed)}")
    batch_size = len(found[needed[0]]) if found[needed[0]].ndim else 0
    if not 1 <= batch_size <= LARGEST_BATCH:
        raise ValueError(f"the batch size of {needed[0]} must be in 1 … {LARGEST_BATCH}, got {batch_size}")
    for tensor in tensors:
        array, shape = found[tensor.name], (batch_size, *tensor.shape)
        if array.shape != shape or array.dtype != np.float32:
            raise ValueError(
                f"{tensor.name} must be float32 of shape {shape}, got {array.dtype} {array.shape}"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"{tensor.name} is not finite")
    return {name: found[name] for name in needed}
