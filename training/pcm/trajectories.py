"""Picard trajectories on disk, from which a Picard Consistency Model learns (So et al. 2025, algorithm 1).

A zarr store of N samples, in chunks of a few samples each:

- `condition` (N, C): normalised observations;
- `states` (N, K+1, T+1, H, A): the states X⁰ … X^K of Picard iteration, each beginning with the sample's noise;
- `solution` (N, T+1, H, A): X*, the sequential states from the same noise;
- `checksum` (chunks,): checksum of each chunk, written after the chunk; 0 where there is none yet.

All values are float32: the paper's 2000 samples take 0.4 GB, so rounding them would gain nothing.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

FORMAT = "pcm_policy.trajectories/2"
ARRAYS = ("condition", "states", "solution")


class TrajectoryError(ValueError):
    """A store of trajectories that cannot be used. The message names the store and the fault."""


@dataclass(frozen=True)
class Trajectories:
    """Some samples, in float32.

    Attributes:
        condition: (N, C) normalised observations.
        states: (N, K+1, T+1, H, A) states X⁰ … X^K.
        solution: (N, T+1, H, A) sequential states X*.
    """

    condition: np.ndarray
    states: np.ndarray
    solution: np.ndarray

    def checksum(self) -> int:
        """CRC-32 of all values, plus 1: never 0, which marks a missing chunk."""
        crc = 0
        for name in ARRAYS:
            crc = zlib.crc32(np.ascontiguousarray(getattr(self, name), dtype="<f4").tobytes(), crc)
        return crc + 1


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
        return int(self.arrays["checksum"].shape[0])

    def rows(self, chunk: int) -> range:
        """Numbers of the samples in a chunk."""
        size = int(self.arrays["states"].chunks[0])
        return range(chunk * size, min(self.samples, (chunk + 1) * size))

    def write(self, chunk: int, trajectories: Trajectories) -> None:
        """Write a chunk. If the process is killed meanwhile, the chunk counts as missing."""
        rows = self.rows(chunk)
        for name in ARRAYS:
            self.arrays[name][rows.start : rows.stop] = getattr(trajectories, name)
        self.arrays["checksum"][chunk] = trajectories.checksum()

    def read(self, chunk: int) -> Trajectories:
        """Read a chunk and check that it is whole.

        Raises:
            TrajectoryError: if the chunk is missing, damaged or not finite.
        """
        rows = self.rows(chunk)
        where = f"{self.path}: samples {rows.start} to {rows.stop - 1}"
        # zarr-python 2 and 3 and their codecs raise errors of many unrelated types.
        try:
            expected = int(self.arrays["checksum"][chunk])
            found = Trajectories(*(self.arrays[name][rows.start : rows.stop] for name in ARRAYS))
        except Exception as error:
            raise TrajectoryError(f"{where} cannot be decoded ({type(error).__name__})") from error
        if expected == 0:
            raise TrajectoryError(f"{where} are not there yet; run the command that builds the store again")
        if found.checksum() != expected:
            raise TrajectoryError(f"{where} are damaged; run the command that builds the store again")
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
        TrajectoryError: if the path holds anything else than a store of the same identity.
    """
    path, samples = Path(path), shapes["states"][0]
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # Under a temporary name until it has all its arrays.
        temporary = path.with_name(f".{path.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        group: Any = zarr.open_group(str(temporary), mode="w")
        group.attrs.update({"format": FORMAT, "identity": dict(identity), "provenance": dict(provenance)})
        arrays: dict[str, dict[str, Any]] = {
            name: {"shape": shapes[name], "chunks": (chunk_size, *shapes[name][1:]), "dtype": "f4"}
            for name in ARRAYS
        }
        arrays["checksum"] = {"shape": (-(-samples // chunk_size),), "chunks": (1,), "dtype": "i8"}
        for name, options in arrays.items():
            zarr.open_array(str(temporary / name), mode="w", fill_value=0, **options)
        temporary.rename(path)
    store = open_store(path)
    for name in sorted(store.identity.keys() | identity.keys()):
        # Through JSON, as the saved one: it knows no tuples.
        found, value = store.identity.get(name), json.loads(json.dumps(identity.get(name)))
        if found != value:
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
    if not path.exists():
        raise TrajectoryError(f"{path}: no such store of trajectories")
    try:
        group: Any = zarr.open_group(str(path), mode="r+")
        attributes = dict(group.attrs)
        arrays = {name: group[name] for name in (*ARRAYS, "checksum")}
    except Exception as error:
        raise TrajectoryError(
            f"{path}: not a readable store of trajectories ({type(error).__name__})"
        ) from error
    if attributes.get("format") != FORMAT:
        raise TrajectoryError(f"{path}: holds format {attributes.get('format')!r}, need {FORMAT!r}")
    return TrajectoryStore(path, attributes["identity"], attributes["provenance"], arrays)


def load_trajectories(store: TrajectoryStore) -> Trajectories:
    """All samples of a store.

    Raises:
        TrajectoryError: for samples that are missing, damaged or not finite. The message names the first.
    """
    parts = [store.read(chunk) for chunk in range(store.chunks)]
    return Trajectories(*(np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS))
