"""More demonstrations from those that there are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from pusht_env.block import keypoint_observation
from pusht_env.mirror import mirrored_points, mirrored_states
from training.data.demonstrations import DemonstrationError, Demonstrations
from training.data.store_arrays import as_finite_float32, read_store
from training.data.store_files import StoreError
from training.pusht.task import difference_from_pusht


def mirrored(demonstrations: Demonstrations, states: np.ndarray) -> Demonstrations:
    """The mirror image of every episode of PushT, in the same order.

    The keypoints are those of the mirrored block pose: the nine points are not symmetric themselves.

    Args:
        states: (N, 5): see `load_states`.
    """
    return replace(
        demonstrations,
        observations=keypoint_observation(mirrored_states(states)).astype(np.float32),
        actions=mirrored_points(demonstrations.actions).astype(np.float32),
    )


def load_states(path: str | Path, demonstrations: Demonstrations) -> np.ndarray:
    """The states (N, 5) float32 of a store of demonstrations: pusher x, y, block x, y (px), block angle (rad).

    Raises:
        DemonstrationError: for demonstrations of another task, which has no mirror image, or a store without states.
    """
    path = Path(path)
    if difference := difference_from_pusht(demonstrations.task):
        raise DemonstrationError(
            f"{path}: augmentation=mirror is for PushT, the task {demonstrations.task.name} has no mirror image "
            f"({difference})"
        )
    name = "data/state"
    try:
        states = as_finite_float32(path, name, read_store(path, lambda _: {name: (5,)}).arrays[name])
    except StoreError as error:
        raise DemonstrationError(f"{error}; augmentation=mirror needs it") from error
    if len(states) != len(demonstrations.observations):
        raise DemonstrationError(
            f"{path}: array {name} has {len(states)} steps, but there are {len(demonstrations.observations)}"
        )
    return states
