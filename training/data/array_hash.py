"""Hash of an array's values: the same for every zarr format, chunk size and compressor."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

BLOCK_BYTES = 1 << 24


def array_sha256(values: np.ndarray) -> str:
    """SHA-256 of an array's dtype, shape and little-endian C-order bytes. Memory is bounded for a map of a file."""
    dtype = values.dtype.newbyteorder("<")
    digest = hashlib.sha256(f"{dtype.str} {values.shape} ".encode())
    rows = max(1, BLOCK_BYTES // max(1, values[:1].nbytes))
    for _, block in blocks(values, rows):
        digest.update(np.ascontiguousarray(block, dtype=dtype).tobytes())
    return digest.hexdigest()


def blocks(values: np.ndarray, rows: int) -> Iterator[tuple[int, np.ndarray]]:
    """First row and values of each block of so many rows."""
    for start in range(0, len(values), rows):
        yield start, np.asarray(values[start : start + rows])
