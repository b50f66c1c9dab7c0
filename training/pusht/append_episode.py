"""Add an episode to a store of PushT demonstrations of the published layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from pusht_env.block import keypoint_observation
from training.data.store_arrays import EPISODE_ENDS, RowShape, as_episode_ends, as_finite_float32, read_store
from training.data.store_files import StoreError
from training.data.whole_store import locked_store, write_store

ROWS: dict[str, RowShape] = {
    "data/state": (5,),
    "data/action": (2,),
    "data/keypoint": (9, 2),
    "data/n_contacts": (1,),
}


def append_episode(path: str | Path, states: ArrayLike, actions: ArrayLike, *, n_contacts: ArrayLike) -> int:
    """Add an episode to the store, which is made if there is none.

    The store is written anew and takes the old one's place in one step: a process that is killed leaves the old one or
    the new one. The block's keypoints follow from its pose.

    Args:
        path: a zarr folder.
        states: (n, 5): pusher x, y, block x, y in px, block angle in rad.
        actions: (n, 2): target positions of the pusher in px.
        n_contacts: (n, 1): contact points per physics step.

    Returns:
        The number of episodes in the store.

    Raises:
        StoreError: for a store that is none of this layout, has further arrays, or cannot be read; for an episode of
            another shape, no step, or values that are not finite.
    """
    path = Path(path)
    given = {"data/state": states, "data/action": actions, "data/n_contacts": n_contacts}
    added = _episode(path, {name: np.asarray(rows) for name, rows in given.items()})
    with locked_store(path):
        arrays, attributes = stored_episodes(path) if path.exists() else ({}, {"task": "pusht"})
        for name, rows in added.items():
            if name not in arrays:
                arrays[name] = rows
            elif name == EPISODE_ENDS:
                arrays[name] = np.concatenate([arrays[name], rows + arrays[name][-1]])
            else:
                arrays[name] = np.concatenate([arrays[name], rows])
        write_store(path, arrays, attributes, replace=True)
    return len(arrays[EPISODE_ENDS])


def _episode(path: Path, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    for name, rows in given.items():
        expected = (len(given["data/state"]), *(ROWS[name] or ()))
        if rows.shape != expected or not len(rows):
            raise StoreError(f"{path}: the episode's {name} has shape {rows.shape}, expected {expected}")
    arrays = {name: as_finite_float32(path, name, rows) for name, rows in given.items()}
    steps = len(arrays["data/state"])
    keypoints = keypoint_observation(arrays["data/state"])[:, :18]
    arrays["data/keypoint"] = keypoints.reshape(steps, 9, 2).astype(np.float32)
    arrays[EPISODE_ENDS] = np.array([steps], np.int64)
    return arrays


def stored_episodes(path: Path) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """Arrays and attributes of a store that `append_episode` can add to.

    Raises:
        StoreError: see `append_episode`.
    """
    if not path.is_dir():
        raise StoreError(f"{path}: episodes are added to a store in a folder, which this is not")
    data = path / "data"
    further = sorted(
        entry.name
        for entry in (data.iterdir() if data.is_dir() else ())
        if entry.is_dir() and f"data/{entry.name}" not in ROWS
    )
    if further:
        raise StoreError(
            f"{path}: array data/{further[0]} has no values in a new episode; add it to another store"
        )
    content = read_store(path, lambda attributes: {**ROWS, EPISODE_ENDS: ()})
    steps = len(content.arrays["data/state"])
    arrays: dict[str, np.ndarray] = {}
    for name in ROWS:
        if len(content.arrays[name]) != steps:
            raise StoreError(
                f"{path}: array {name} has {len(content.arrays[name])} steps, but data/state has {steps}"
            )
        arrays[name] = as_finite_float32(path, name, content.arrays[name])
    arrays[EPISODE_ENDS] = as_episode_ends(path, content.arrays[EPISODE_ENDS], steps)
    return arrays, dict(content.attributes)
