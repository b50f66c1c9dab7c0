"""Zarr stores that appear whole or not at all, also in the place of an older one."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from filelock import FileLock, Timeout

from training.data.array_hash import array_sha256, blocks
from training.data.store_check import Layout, check_layout
from training.data.store_files import IS_ZARR_2, MOST_METADATA_BYTES, StoreError, folder_store, open_group

CHUNK_BYTES = 1 << 22
# Chunks of zeros are written like others: without that, those of a gripper that stays shut would be missing.
_ARRAY_OPTIONS: dict[str, Any] = (
    {"write_empty_chunks": True} if IS_ZARR_2 else {"zarr_format": 2, "config": {"write_empty_chunks": True}}
)
_WORKING_DIRECTORY, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of renameat2(2)


@contextmanager
def locked_store(path: Path) -> Iterator[None]:
    """Write a store in this process alone. The lock of a process that is dead does not count.

    Raises:
        StoreError: if another process is writing it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise StoreError(f"{path}: another process is writing it; wait for its end") from error
    try:
        yield
    finally:
        lock.release()


def write_store(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    attributes: Mapping[str, Any],
    *,
    replace: bool = False,
) -> None:
    """Write a store of zarr format 2, which zarr-python 2 and 3 read. The caller has `locked_store`.

    Memory is bounded if the arrays are maps of files.

    Args:
        path: folder of the store.
        arrays: values (N, …) by name, such as ``data/action``.
        attributes: of the root group, JSON values. The hash of each array is added to them, as ``sha256``.
        replace: whether a store that is there gives way, in one step.

    Raises:
        StoreError: if there is something at the path, or the store would be larger than one that is read again.
    """
    if path.exists() and not replace:
        raise StoreError(f"{path} is there already; choose another output, or move it away")
    temporary = path.with_name(f".{path.name}.tmp")
    _remove(temporary)
    try:
        files = folder_store(temporary, read_only=False)
        group = open_group(files, mode="w", **({} if IS_ZARR_2 else {"zarr_format": 2}))
        for name in sorted({name.split("/")[0] for name in arrays}):
            group.create_group(name)
        for name, values in arrays.items():
            rows = max(1, min(len(values), CHUNK_BYTES // max(1, values[:1].nbytes)))
            chunks = (rows, *values.shape[1:])
            check_layout(Layout(values.shape, chunks, values.dtype.itemsize), where=f"{path}: array {name}")
            array = zarr.open_array(
                files,
                path=name,
                mode="w",
                shape=values.shape,
                chunks=chunks,
                dtype=values.dtype.str,
                fill_value=0,
                **_ARRAY_OPTIONS,
            )
            for start, block in blocks(values, rows):
                array[start : start + len(block)] = block
        hashes = {name: array_sha256(values) for name, values in arrays.items()}
        written = {**attributes, "sha256": hashes}
        if len(json.dumps(written, indent=4)) > MOST_METADATA_BYTES:
            raise StoreError(
                f"{path}: its attributes have more than {MOST_METADATA_BYTES} bytes, which is the most allowed"
            )
        group.attrs.update(written)
        _put(temporary, path)
    finally:
        _remove(temporary)


def _put(temporary: Path, path: Path) -> None:
    """Give a folder its name. What had the name before has the temporary one afterwards."""
    if not path.exists():
        temporary.rename(path)
    elif not _exchange(temporary, path):
        aside = path.with_name(f".{path.name}.old")
        _remove(aside)
        path.rename(aside)
        temporary.rename(path)
        _remove(aside)


def _exchange(one: Path, other: Path) -> bool:
    """Swap the names of two folders in one step, where the system can (Linux)."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    names = [os.fsencode(path) for path in (one, other)]
    return bool(call(_WORKING_DIRECTORY, names[0], _WORKING_DIRECTORY, names[1], _EXCHANGE) == 0)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
