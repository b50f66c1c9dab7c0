"""Stores of Picard trajectories, which hold hashes of what is in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.fuzz.case import Family, Fault, Inject, Mishandled, Outcome, try_to
from tests.fuzz.store_faults import inject_store_fault
from training.pcm.trajectories import (
    ARRAYS,
    Trajectories,
    TrajectoryError,
    create_store,
    load_trajectories,
    open_store,
)

SHAPES = {"condition": (10, 6), "states": (10, 3, 5, 4, 2), "solution": (10, 5, 4, 2), "executed": (10,)}


def prepare(folder: Path) -> Inject:
    rng = np.random.default_rng(0)
    saved = Trajectories(*(rng.standard_normal(SHAPES[name]).astype(np.float32) for name in ARRAYS))
    good = folder / "good.zarr"
    store = create_store(
        good, identity={"samples": 10, "seed": 0}, provenance={"code": "x"}, shapes=SHAPES, chunk_size=4
    )
    for chunk in range(store.chunks):
        rows = store.rows(chunk)
        store.write(chunk, Trajectories(*(getattr(saved, name)[rows.start : rows.stop] for name in ARRAYS)))

    def inject(rng: np.random.Generator, case: Path) -> Fault:
        path = case / "store.zarr"
        text = inject_store_fault(rng, good, path)
        return Fault(text, lambda: _load(path, saved))

    return inject


def _load(path: Path, saved: Trajectories) -> Outcome:
    def load() -> None:
        read = load_trajectories(open_store(path))
        for name in ARRAYS:
            if not np.array_equal(getattr(read, name), getattr(saved, name)):
                raise Mishandled(f"accepts other values of {name}")

    return try_to(load, errors=TrajectoryError, naming=str(path))


TRAJECTORIES = Family("trajectories", 0.1, prepare, most_seconds=2.0)
