"""Velocity jumps of a commanded position, in the time after each of some events. Knows no ROS."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def velocity_jumps(
    times: NDArray[np.float64], positions: NDArray[np.float64], *, seams: Sequence[float], seconds: float
) -> NDArray[np.float64]:
    """The largest change of the velocity from one update to the next, after each seam.

    Args:
        times: (T,) increasing, in s.
        positions: (T, J) what a controller commanded then.
        seams: times in s.
        seconds: how long after a seam to look.

    Returns:
        (S,) lengths of the changes, in the joints' unit per second.
    """
    velocity = np.diff(positions, axis=0) / np.diff(times)[:, None]
    changes = np.linalg.norm(np.diff(velocity, axis=0), axis=1)
    after = times[2:]
    found = [changes[(after > seam) & (after <= seam + seconds)] for seam in seams]
    return np.array([change.max() for change in found if len(change)])
