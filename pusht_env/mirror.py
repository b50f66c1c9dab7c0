"""The mirror symmetry of PushT: every episode has a mirror image.

The T's axis at its goal is the line x + y = 512. The reflection (x, y) → (512 − y, 512 − x) leaves goal, block and
physics as they are, and the walls up to 1 px.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pusht_env.physics import WORKSPACE_SIZE


def mirrored_points(points: ArrayLike) -> NDArray[np.float64]:
    """Points, or actions, in the mirror.

    Args:
        points: `(..., 2)` in px.

    Returns:
        `(..., 2)`. Their own mirror images are the points again.
    """
    return WORKSPACE_SIZE - np.asarray(points, dtype=np.float64)[..., ::-1]


def mirrored_states(states: ArrayLike) -> NDArray[np.float64]:
    """States in the mirror. The mirror image of the symmetric block is a block turned to π/2 − angle.

    Args:
        states: `(..., 5)`: pusher x, y, block x, y in px, block angle in rad.

    Returns:
        `(..., 5)`.
    """
    states = np.asarray(states, dtype=np.float64)
    angle = math.pi / 2 - states[..., 4:]
    return np.concatenate(
        [mirrored_points(states[..., :2]), mirrored_points(states[..., 2:4]), angle], axis=-1
    )


def mirrored_pictures(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Square pictures `(..., size, size, 3)` in the mirror: what was at x, y is at size − y, size − x."""
    return np.swapaxes(pictures[..., ::-1, ::-1, :], -3, -2)
