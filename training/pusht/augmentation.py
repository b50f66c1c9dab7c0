"""More demonstrations from those that there are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pusht_env.block import keypoint_observation
from pusht_env.mirror import mirrored_pictures, mirrored_points, mirrored_states
from training.data.demonstrations import DemonstrationError, Demonstrations
from training.data.pictures import Pictures
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


def mirrored_as_seen(demonstrations: Demonstrations) -> Demonstrations:
    """The mirror image of every episode of PushT that a camera sees, in the same order, without its pictures.

    Those are behind the others, see `WithMirrorImages`.
    """
    return replace(
        demonstrations,
        observations=mirrored_points(demonstrations.observations).astype(np.float32),
        actions=mirrored_points(demonstrations.actions).astype(np.float32),
        pictures={},
    )


class WithMirrorImages:
    """Pictures of N steps, and behind them the mirror images of all of these, as if they were pictures of 2N steps."""

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures

    def read(self, steps: NDArray[np.int64]) -> NDArray[np.uint8]:
        """See `Pictures.read`."""
        mirrored, steps = np.divmod(steps, len(self._pictures))
        pictures = self._pictures.read(steps)
        pictures[mirrored == 1] = mirrored_pictures(pictures[mirrored == 1])
        return pictures


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
