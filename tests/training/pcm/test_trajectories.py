"""Stores of Picard trajectories that are damaged or made up."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from training.pcm.trajectories import (
    Trajectories,
    TrajectoryError,
    TrajectoryStore,
    create_store,
    load_trajectories,
    open_store,
)

METADATA = ".zarray" if zarr.__version__.startswith("2.") else "zarr.json"
SHAPES = {"condition": (10, 6), "states": (10, 3, 5, 4, 2), "solution": (10, 5, 4, 2), "executed": (10,)}
IDENTITY = {"samples": 10}


def create(path: Path, **changed: Any) -> TrajectoryStore:
    options: dict[str, Any] = {"shapes": SHAPES, "chunk_size": 4, **changed}
    return create_store(path, identity=IDENTITY, provenance={}, **options)


@pytest.fixture
def store(tmp_path: Path) -> TrajectoryStore:
    """Three whole chunks."""
    rng = np.random.default_rng(0)
    store = create(tmp_path / "store.zarr")
    for chunk in range(store.chunks):
        rows = len(store.rows(chunk))
        values = (rng.standard_normal((rows, *shape[1:]), np.float32) for shape in SHAPES.values())
        store.write(chunk, Trajectories(*values))
    return store


def edit(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    metadata = json.loads(file.read_text())
    change(metadata)
    file.write_text(json.dumps(metadata))


def refused(store: TrajectoryStore, message: str) -> None:
    """Neither opened nor created again, and left alone."""
    for open_it in (open_store, create):
        with pytest.raises(TrajectoryError, match=message) as raised:
            open_it(store.path)
        assert str(raised.value).startswith(str(store.path))


class Marker:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_store_that_names_pickle_runs_nothing(store: TrajectoryStore, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    codec = {"id": "pickle"} if METADATA == ".zarray" else {"name": "numcodecs.pickle"}
    changed = {"compressor": codec} if METADATA == ".zarray" else {"codecs": [codec]}
    edit(store.path / "states" / METADATA, lambda metadata: metadata.update(changed))
    for chunk in (path for path in (store.path / "states").rglob("*") if path.is_file()):
        if chunk.name != METADATA:
            chunk.write_bytes(pickle.dumps(Marker(marker)))
    refused(store, r"array states names the co.* (numcodecs\.)?pickle, allowed are")
    assert not marker.exists()


@pytest.mark.parametrize("samples", [10**9, 2**40])
def test_impossible_sizes_are_refused_before_memory(store: TrajectoryStore, samples: int) -> None:
    edit(store.path / "states" / METADATA, lambda metadata: metadata["shape"].__setitem__(0, samples))
    refused(store, rf"array states has the shape \[{samples}, 3, .* allowed are sizes")


def test_a_link_in_place_of_metadata_is_refused(store: TrajectoryStore) -> None:
    (store.path / "solution" / METADATA).unlink()
    (store.path / "solution" / METADATA).symlink_to("/dev/zero")
    refused(store, "solution/.* is a link, allowed are files")


@pytest.mark.parametrize(
    ("name", "shape"),
    [("condition", [9, 6]), ("solution", [10, 4, 4, 2]), ("executed", [9]), ("sha256", [4, 4, 32])],
)
def test_arrays_that_do_not_fit_together_are_refused(
    store: TrajectoryStore, name: str, shape: list[int]
) -> None:
    edit(store.path / name / METADATA, lambda metadata: metadata.update(shape=shape))
    refused(store, f"array {name} has the shape .* which does not fit the other arrays")


def test_a_relabelled_type_is_refused(store: TrajectoryStore) -> None:
    changed = {"dtype": "<i4"} if METADATA == ".zarray" else {"data_type": "int32"}
    edit(store.path / "states" / METADATA, lambda metadata: metadata.update(changed))
    refused(store, "array states holds int32, expected float32")


@pytest.mark.parametrize("missing", ["identity", "provenance"])
def test_attributes_that_are_missing_are_named(store: TrajectoryStore, missing: str) -> None:
    file = store.path / (".zattrs" if METADATA == ".zarray" else METADATA)
    edit(file, lambda metadata: metadata.get("attributes", metadata).pop(missing))
    refused(store, "not a readable store of trajectories")


def test_an_older_format_is_named(store: TrajectoryStore) -> None:
    file = store.path / (".zattrs" if METADATA == ".zarray" else METADATA)
    older = {"format": "pcm_policy.trajectories/3"}
    edit(file, lambda metadata: metadata.get("attributes", metadata).update(older))
    refused(store, "holds format 'pcm_policy.trajectories/3', need")


@pytest.mark.parametrize("name", list(SHAPES))
def test_one_changed_number_is_found_and_its_array_named(store: TrajectoryStore, name: str) -> None:
    whole = load_trajectories(store)
    assert [getattr(whole, array).shape for array in SHAPES] == list(SHAPES.values())
    array = store.arrays[name]
    index = (5,) + (0,) * (array.ndim - 1)
    array[index] = np.nextafter(array[index], np.float32(np.inf))
    with pytest.raises(TrajectoryError, match=f"samples 4 to 7 are damaged in {name}; run"):
        load_trajectories(open_store(store.path))
    assert [open_store(store.path).is_whole(chunk) for chunk in range(3)] == [True, False, True]


def test_chunks_that_divide_a_sample_are_refused(store: TrajectoryStore) -> None:
    """A shape of 10^7 in chunks of 6 would be looked for chunk by chunk, for hours."""
    key = "shape"
    edit(store.path / "condition" / METADATA, lambda metadata: metadata.update({key: [10, 10_000_000]}))
    with pytest.raises(TrajectoryError, match=r"array condition has (the shape|chunks)"):
        open_store(store.path)


@pytest.mark.parametrize(
    ("samples", "chunk_size", "message"),
    [
        (10**15, 4, r"array condition has the shape .*, allowed are sizes of 0 to"),
        (10**7, 10**7, r"array states has the shape .* bytes, allowed are|array states has chunks of"),
    ],
)
def test_a_store_that_could_not_be_opened_is_not_created(
    tmp_path: Path, samples: int, chunk_size: int, message: str
) -> None:
    shapes = {name: (samples, *shape[1:]) for name, shape in SHAPES.items()}
    with pytest.raises(TrajectoryError, match=message):
        create(tmp_path / "store.zarr", shapes=shapes, chunk_size=chunk_size)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_a_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store.zarr").write_text("mine")
    with pytest.raises(TrajectoryError, match="not a readable store of trajectories"):
        create(tmp_path / "store.zarr")


def test_what_an_identity_holds_is_not_taken_for_something_else(tmp_path: Path) -> None:
    options: dict[str, Any] = {"provenance": {}, "shapes": SHAPES, "chunk_size": 4}
    store = create_store(
        tmp_path / "store.zarr", identity={"steps": True, "seed": 1, "solver": "ddim"}, **options
    )
    assert store.whole_number("seed") == 1
    assert store.text("solver") == "ddim"
    with pytest.raises(TrajectoryError, match=r"store\.zarr: its steps must be a whole number, got True"):
        store.whole_number("steps")
    with pytest.raises(TrajectoryError, match=r"store\.zarr: its start must be a text, got None"):
        store.text("start")
    for other in ({"steps": 1, "seed": 1}, {"steps": True, "seed": 1.0}):
        with pytest.raises(TrajectoryError, match=r"holds trajectories with (steps=True, not|seed=1, not)"):
            create_store(store.path, identity={"solver": "ddim", **other}, **options)
