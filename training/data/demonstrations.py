"""The PushT demonstrations, read from their zarr store and checked.

The store is the one published with Diffusion Policy (Chi et al., RSS 2023): `data/state` (N, 5),
`data/action` (N, 2), `data/keypoint` (N, 9, 2) and `meta/episode_ends` (E,). Its images are never read.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from training.data.bounded_zip import open_zip
from training.data.store_check import check_store
from training.data.store_files import FolderFiles, StoreError, ZipFiles, folder_store, open_group

# None stands for any length.
ARRAY_SHAPES: Mapping[str, tuple[int | None, ...]] = {
    "data/state": (None, 5),
    "data/action": (None, 2),
    "data/keypoint": (None, 9, 2),
    "meta/episode_ends": (None,),
}
LONGEST_REASON = 500  # letters: some errors quote what the file holds
STEP_ARRAYS = ("data/state", "data/action", "data/keypoint")


class DemonstrationError(ValueError):
    """A store of demonstrations that cannot be used. The message names the file, the array and the index."""


@dataclass(frozen=True)
class Demonstrations:
    """All episodes in sequence; episode `i` has the steps `episode_ends[i - 1]:episode_ends[i]`."""

    observations: np.ndarray  # (N, 20) float32, px: 9 keypoints of the block x, y, then the pusher x, y
    actions: np.ndarray  # (N, 2) float32, px: target position of the pusher
    states: np.ndarray  # (N, 5) float32: pusher x, y (px), block x, y (px), block angle (rad)
    episode_ends: np.ndarray  # (E,) int64: index one past each episode's last step
    sha256: str  # hash of the four arrays' values; independent of zarr format, chunks and compressor


def load_demonstrations(path: str | Path) -> Demonstrations:
    """Reads a store: a zarr folder or a `.zarr.zip`, of zarr format 2 or 3, with or without images.

    Raises DemonstrationError when there is no such store, or an array of it is missing, cannot be decoded,
    has another shape, another length or a value that is not finite, or the episodes do not tile the steps. Also for a
    store that `check_store` refuses, of which nothing is decoded.
    """
    path = Path(path)
    arrays = _read_arrays(path)
    num_steps = len(arrays["data/state"])
    for name in STEP_ARRAYS:
        if len(arrays[name]) != num_steps:
            raise DemonstrationError(
                f"{path}: array {name} has {len(arrays[name])} steps, but data/state has {num_steps}"
            )
        arrays[name] = _as_finite_float32(path, name, arrays[name])
    arrays["meta/episode_ends"] = _as_episode_ends(path, arrays["meta/episode_ends"], num_steps)
    states, keypoints = arrays["data/state"], arrays["data/keypoint"]
    hashes = {name: array_sha256(values) for name, values in arrays.items()}
    return Demonstrations(
        observations=np.concatenate([keypoints.reshape(num_steps, 18), states[:, :2]], axis=1),
        actions=arrays["data/action"],
        states=states,
        episode_ends=arrays["meta/episode_ends"],
        sha256=hashlib.sha256(repr(sorted(hashes.items())).encode()).hexdigest(),
    )


def array_sha256(values: np.ndarray) -> str:
    """SHA-256 of an array's dtype, shape and little-endian C-order bytes."""
    little_endian = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    header = f"{little_endian.dtype.str} {values.shape} ".encode()
    return hashlib.sha256(header + little_endian.tobytes()).hexdigest()


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        if not path.exists():
            raise DemonstrationError(f"{path}: no such file or folder")
        if path.is_dir():
            check_store(FolderFiles(path), ARRAY_SHAPES)
            return _read_store(path, folder_store(path, read_only=True))
        with open_zip(path) as opened:
            check_store(ZipFiles(path, opened), ARRAY_SHAPES)
        with closing(zarr.storage.ZipStore(str(path), mode="r")) as store:
            return _read_store(path, store)
    except OSError as error:
        raise DemonstrationError(f"{path}: cannot be read: {error.strerror or _one_line(error)}") from error
    except StoreError as error:
        raise DemonstrationError(str(error)) from error
    except zipfile.BadZipFile as error:
        raise DemonstrationError(
            f"{path}: not a zarr store (neither a folder nor a whole zip file): {_one_line(error)}"
        ) from error


def _read_store(path: Path, store: Any) -> dict[str, np.ndarray]:
    # zarr-python 2 and 3 and their codecs raise errors of many unrelated types, hence `Exception` below.
    try:
        group = open_group(store, mode="r")
    except Exception as error:
        hint = ""
        if zarr.__version__.startswith("2."):
            hint = f" (zarr format 3 needs zarr-python 3; this is {zarr.__version__})"
        raise DemonstrationError(f"{path}: not a zarr store: no readable group at its root{hint}") from error
    arrays = {name: _open_array(path, group, name) for name in ARRAY_SHAPES}
    return {name: _decode(path, name, array) for name, array in arrays.items()}


def _open_array(path: Path, group: Any, name: str) -> Any:
    expected = ARRAY_SHAPES[name]
    try:
        array = group[name]
    except KeyError as error:
        raise DemonstrationError(f"{path}: array {name} is missing") from error
    except Exception as error:
        raise DemonstrationError(f"{path}: array {name} cannot be opened: {_one_line(error)}") from error
    if not isinstance(array, zarr.Array):
        raise DemonstrationError(f"{path}: {name} is a group, not an array")
    if len(array.shape) != len(expected) or array.shape[1:] != expected[1:]:
        wanted = str(expected).replace("None", "N")
        raise DemonstrationError(f"{path}: array {name} has shape {array.shape}, expected {wanted}")
    if array.shape[0] == 0:
        raise DemonstrationError(f"{path}: array {name} is empty")
    return array


def _decode(path: Path, name: str, array: Any) -> np.ndarray:
    # zarr reads a missing chunk as its fill value: a half-copied store would train on zeros.
    try:
        present, total = array.nchunks_initialized, array.nchunks
    except Exception as error:  # names in a damaged zip file, for instance
        raise DemonstrationError(f"{path}: array {name} cannot be decoded: {_one_line(error)}") from error
    if present < total:
        raise DemonstrationError(f"{path}: array {name} has only {present} of its {total} chunks")
    rows = array.chunks[0]
    start = 0
    blocks = []
    try:
        for start in range(0, array.shape[0], rows):
            blocks.append(np.asarray(array[start : start + rows]))
    except Exception as error:
        raise DemonstrationError(
            f"{path}: array {name} cannot be decoded, in the chunk from index {start}: {_one_line(error)}"
        ) from error
    return np.concatenate(blocks)


def _as_finite_float32(path: Path, name: str, values: np.ndarray) -> np.ndarray:
    if values.dtype.kind not in "fiu":
        raise DemonstrationError(f"{path}: array {name} holds {values.dtype}, expected numbers")
    with np.errstate(over="ignore"):
        values = values.astype(np.float32, copy=False)
    bad = np.argwhere(~np.isfinite(values))
    if bad.size:
        index = tuple(bad[0].tolist())
        raise DemonstrationError(
            f"{path}: array {name} is {values[index]} at index {index}, expected finite values"
        )
    return values


def _as_episode_ends(path: Path, values: np.ndarray, num_steps: int) -> np.ndarray:
    name = "meta/episode_ends"
    if values.dtype.kind not in "iu":
        raise DemonstrationError(f"{path}: array {name} holds {values.dtype}, expected integers")
    ends = values.astype(np.int64)
    not_increasing = np.flatnonzero(np.diff(ends, prepend=0) <= 0)
    if not_increasing.size:
        index = int(not_increasing[0])
        before = ends[index - 1] if index else 0
        raise DemonstrationError(
            f"{path}: array {name} does not increase at index {index}: {ends[index]} after {before}"
        )
    past_end = np.flatnonzero(ends > num_steps)
    if past_end.size or ends[-1] < num_steps:
        index = int(past_end[0]) if past_end.size else len(ends) - 1
        side = "past" if past_end.size else "short of"
        raise DemonstrationError(
            f"{path}: array {name} is {ends[index]} at index {index}, {side} the {num_steps} steps recorded"
        )
    return ends


def _one_line(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]}…"
