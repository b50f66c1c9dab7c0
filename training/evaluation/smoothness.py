"""How smoothly commands move: what seams between chunks do to a robot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Smoothness:
    """How the commands of one episode move.

    Attributes:
        top_speed: largest distance between two commands, in their unit per control step.
        jerk: root mean square of their third difference, in their unit.
    """

    top_speed: float
    jerk: float


def smoothness(commands: NDArray[np.float64] | Sequence[Sequence[float]]) -> Smoothness:
    """The smoothness of commands (S, A), one a control step. Too few of them move smoothly: 0."""
    moved = np.asarray(commands, dtype=np.float64)

    def lengths(order: int) -> NDArray[np.float64]:
        if len(moved) <= order:
            return np.zeros(1)
        differences: NDArray[np.float64] = np.linalg.norm(np.diff(moved, order, axis=0), axis=-1)
        return differences

    return Smoothness(float(lengths(1).max()), float(np.sqrt(np.mean(lengths(3) ** 2))))
