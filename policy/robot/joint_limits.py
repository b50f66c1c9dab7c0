"""Limits of the commanded joints: a robot never gets a command outside of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class JointLimits:
    """Names and limits of the joints that a policy commands, in their own units.

    Raises:
        ValueError: for lists of unequal lengths, a name that is empty or double, or limits that do not increase.
    """

    names: tuple[str, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.lower) == len(self.upper):
            raise ValueError(
                f"{len(self.names)} joints, {len(self.lower)} lower_limits and {len(self.upper)} upper_limits "
                "must be equally many"
            )
        if not all(self.names) or len(set(self.names)) < len(self.names):
            raise ValueError(f"joints must be named, each once, got {list(self.names)}")
        for name, low, high in zip(self.names, self.lower, self.upper, strict=True):
            if not low < high:
                raise ValueError(f"limits of joint {name} must increase, got {low:g} … {high:g}")

    def clamp(self, chunk: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
        """A chunk (points, joints) inside the limits, and how many of its points lay outside."""
        clamped = np.clip(chunk, self.lower, self.upper)
        return clamped, int((clamped != chunk).any(axis=1).sum())
