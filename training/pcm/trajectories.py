"""Picard trajectories on disk, from which a Picard Consistency Model learns (So et al. 2025, algorithm 1).

A zarr store of N samples, in chunks of a few samples each:

- `condition` (N, C): normalised observations;
- `states` (N, K+1, T+1, H, A): the states X⁰ … X^K of Picard iteration, each beginning with the sample's noise;
- `solution` (N, T+1, H, A): X*, the sequential states from the same noise;
- `executed` (N,): control steps since the chunk before, which X⁰ begins with; 0: a cold start;
- `sha256` (chunks, 4, 32): SHA-256 of these four arrays in each chunk, written after the chunk; zeros where there is
  none yet. By chunks, so that a build can go on, and training verifies what it reads as it reads it.

All other values are float32: the paper's 2000 samples take 0.4 GB, so rounding them would gain nothing.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from training.data.store_check import Layout, check_layout, check_store
from training.data.store_files import FolderFiles, StoreError, folder_store, open_group

FORMAT = "pcm_policy.trajectories/4"
ARRAYS = ("condition", "states", "solution", "executed")
HASH_BYTES = hashlib.sha256().digest_size


class TrajectoryError(ValueError):
    """A store of trajectories that cannot be used. The message names the store and the fault."""


@dataclass(frozen=True)
class Trajectories:
    """Some samples, in float32.

    Attributes:
        condition: (N, C) normalised observations.
        states: (N, K+1, T+1, H, A) states X⁰ … X^K.
        solution: (N, T+1, H, A) sequential states X*.
        executed: (N,) control steps since the chunk before; 0: a cold start.
    """

    condition: np.ndarray
    states: np.ndarray
    solution: np.ndarray
    executed: np.ndarray

    def sha256(self) -> np.ndarray:
        """SHA-256 of each array's values, (4, 32) uint8."""
        return np.stack([_sha256(getattr(self, name)) for name in ARRAYS])


@dataclass(frozen=True)
class TrajectoryStore:
    """A store that is being built or read.

    Attributes:
        path: path of the zarr folder.
        identity: everything that decides the values (JSON): checkpoint, data, sampler, seed, samples.
        provenance: origin of the store: code, command, machine.
        arrays: zarr arrays by name.
    """

    path: Path
    identity: Mapping[str, Any]
    provenance: Mapping[str, Any]
    arrays: Mapping[str, Any]

    @property
    def samples(self) -> int:
        return int(self.arrays["states"].shape[0])

    @property
    def chunks(self) -> int:
        return int(self.arrays["sha256"].shape[0])

    def whole_number(self, name: str) -> int:
        """One of the identity's. Raises TrajectoryError if it is none."""
        value = self.identity.get(name)
        if isinstance(value, bool) or not isinstance(value, int):
            raise TrajectoryError(f"{self.path}: its {name} must be a whole number, got {value!r:.100}")
        return value

    def text(self, name: str) -> str:
        """One of the identity's. Raises TrajectoryError if it is none."""
        value = self.identity.get(name)
        if not isinstance(value, str):
            raise TrajectoryError(f"{self.path}: its {name} must be a text, got {value!r:.100}")
        return value

    def rows(self, chunk: int) -> range:
        """Numbers of the samples in a chunk."""
        size = int(self.arrays["states"].chunks[0])
        return range(chunk * size, min(self.samples, (chunk + 1) * size))

    def write(self, chunk: int, trajectories: Trajectories) -> None:
        """Write a chunk. If the process is killed meanwhile, the chunk counts as missing."""
        rows = self.rows(chunk)
        for name in ARRAYS:
            self.arrays[name][rows.start : rows.stop] = getattr(trajectories, name)
        self.arrays["sha256"][chunk] = trajectories.sha256()

    def read(self, chunk: int) -> Trajectories:
        """Read a chunk and check that it is whole.

        Raises:
            TrajectoryError: if the chunk is missing, damaged or not finite.
        """
        rows = self.rows(chunk)
        where = f"{self.path}: samples {rows.start} to {rows.stop - 1}"
        # zarr-python 2 and 3 and their codecs raise errors of many unrelated types.
        try:
            expected = np.asarray(self.arrays["sha256"][chunk])
            found = Trajectories(*(self.arrays[name][rows.start : rows.stop] for name in ARRAYS))
        except Exception as error:
            raise TrajectoryError(f"{where} cannot be decoded ({type(error).__name__})") from error
        if not expected.any():
            raise TrajectoryError(f"{where} are not there yet; run the command that builds the store again")
        differs = (found.sha256() != expected).any(axis=1)
        if differs.any():
            damaged = ", ".join(np.array(ARRAYS)[differs])
            raise TrajectoryError(
                f"{where} are damaged in {damaged}; run the command that builds the store again"
            )
        if not all(np.isfinite(getattr(found, name)).all() for name in ARRAYS):
            raise TrajectoryError(f"{where} are not finite")
        return found

    def is_whole(self, chunk: int) -> bool:
        try:
            self.read(chunk)
        except TrajectoryError:
            return False
        return True


def create_store(
    path: str | Path,
    *,
    identity: Mapping[str, Any],
    provenance: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    chunk_size: int,
) -> TrajectoryStore:
    """Create an empty store, or open the one that is there.

    Args:
        path: path of the zarr folder.
        identity, provenance: see `TrajectoryStore`.
        shapes: shapes of the arrays by name, N first.
        chunk_size: number of samples in a chunk.

    Raises:
        TrajectoryError: if the path holds anything else than a store of the same identity, or an array would be larger
            than a store's may be.
    """
    path, samples = Path(path), shapes["states"][0]
    chunk_shapes = {name: (chunk_size, *shapes[name][1:]) for name in ARRAYS}
    try:
        for name in ARRAYS:
            check_layout(Layout(shapes[name], chunk_shapes[name], 4), where=f"{path}: array {name}")
    except StoreError as error:
        raise TrajectoryError(str(error)) from error
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # Under a temporary name until it has all its arrays.
        temporary = path.with_name(f".{path.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        files = folder_store(temporary, read_only=False)
        group = open_group(files, mode="w")
        group.attrs.update({"format": FORMAT, "identity": dict(identity), "provenance": dict(provenance)})
        arrays: dict[str, dict[str, Any]] = {
            name: {"shape": shapes[name], "chunks": chunk_shapes[name], "dtype": "f4"} for name in ARRAYS
        }
        hashes = (len(ARRAYS), HASH_BYTES)
        arrays["sha256"] = {
            "shape": (-(-samples // chunk_size), *hashes),
            "chunks": (1, *hashes),
            "dtype": "u1",
        }
        for name, options in arrays.items():
            zarr.open_array(files, path=name, mode="w", fill_value=0, **options)
        temporary.rename(path)
    store = open_store(path)
    for name in sorted(store.identity.keys() | identity.keys()):
        # As JSON: it knows no tuples, and tells 8.0 and true from 8 and 1.
        found, value = store.identity.get(name), json.loads(json.dumps(identity.get(name)))
        if json.dumps(found, sort_keys=True) != json.dumps(value, sort_keys=True):
            raise TrajectoryError(
                f"{path} holds trajectories with {name}={found}, not {name}={value}; choose another output"
            )
    return store


def open_store(path: str | Path) -> TrajectoryStore:
    """Open a store, complete or not.

    Raises:
        TrajectoryError: if there is no store that can be read.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise TrajectoryError(f"{path}: no such store of trajectories")
        if not path.is_dir():
            raise NotADirectoryError(path)
        check_store(FolderFiles(path), (*ARRAYS, "sha256"))
        group = open_group(folder_store(path, read_only=False), mode="r+")
        attributes = dict(group.attrs)
        if attributes.get("format") != FORMAT:
            raise TrajectoryError(f"{path}: holds format {attributes.get('format')!r}, need {FORMAT!r}")
        identity, provenance = dict(attributes["identity"]), dict(attributes["provenance"])
        arrays = {name: group[name] for name in (*ARRAYS, "sha256")}
    except TrajectoryError:
        raise
    except StoreError as error:
        raise TrajectoryError(str(error)) from error
    # zarr-python 2 and 3 raise errors of many unrelated types.
    except Exception as error:
        raise TrajectoryError(
            f"{path}: not a readable store of trajectories ({type(error).__name__})"
        ) from error
    _check_shapes(path, arrays)
    return TrajectoryStore(path, identity, provenance, arrays)


def load_trajectories(store: TrajectoryStore) -> Trajectories:
    """All samples of a store.

    Raises:
        TrajectoryError: for samples that are missing, damaged or not finite. The message names the first.
    """
    parts = [store.read(chunk) for chunk in range(store.chunks)]
    return Trajectories(*(np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS))


def _check_shapes(path: Path, arrays: Mapping[str, Any]) -> None:
    """Raise TrajectoryError if the arrays do not fit together."""
    samples, *trajectory = arrays["states"].shape
    size = arrays["states"].chunks[0]
    expected = {
        "condition": (samples, *arrays["condition"].shape[1:]),
        "states": (samples, *trajectory),
        "solution": (samples, *trajectory[1:]),
        "executed": (samples,),
        "sha256": (-(-samples // size), len(ARRAYS), HASH_BYTES),
    }
    dimensions = {"condition": 2, "states": 5, "solution": 4, "executed": 1, "sha256": 3}
    for name, array in arrays.items():
        where, dtype = f"{path}: array {name}", np.dtype("u1" if name == "sha256" else "f4")
        if array.shape != expected[name] or array.ndim != dimensions[name] or 0 in array.shape:
            raise TrajectoryError(f"{where} has the shape {array.shape}, which does not fit the other arrays")
        if array.dtype.newbyteorder("=") != dtype:
            raise TrajectoryError(f"{where} holds {array.dtype}, expected {dtype}")
        # Whole in all but the samples: zarr would look for each of a billion little chunks.
        if array.chunks != (1 if name == "sha256" else size, *array.shape[1:]):
            raise TrajectoryError(f"{where} has chunks of {array.chunks}, which do not fit the other arrays")


def _sha256(values: np.ndarray) -> np.ndarray:
    """SHA-256 of an array's float32 values, (32,) uint8."""
    digest = hashlib.sha256(np.ascontiguousarray(values, dtype="<f4").data).digest()
    return np.frombuffer(digest, np.uint8)
