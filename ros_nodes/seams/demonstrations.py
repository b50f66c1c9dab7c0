"""Demonstrations' own velocity jumps, which those at seams are held against. Knows no ROS."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ros_nodes.seams.synthetic_chunks import CHUNK, PERIOD
from training.data.demonstrations import load_demonstrations


def first_demonstrations(store: Path, *, seconds: float) -> list[NDArray[np.float64]]:
    """Actions (T, 2) in px of the first episodes of a store of PushT, until they last so long together.

    Raises:
        DemonstrationError: see `load_demonstrations`.
    """
    demonstrations = load_demonstrations(store, task="pusht")
    count = int(np.searchsorted(demonstrations.episode_ends * PERIOD, seconds)) + 1
    ends = demonstrations.episode_ends[:count]
    return np.split(demonstrations.actions[: ends[-1]].astype(np.float64), ends[:-1])


def would_be_seams(begin: float, end: float) -> list[float]:
    """Times in s at which chunks could be published, from begin to end."""
    return list(np.arange(begin, end, CHUNK * PERIOD))
