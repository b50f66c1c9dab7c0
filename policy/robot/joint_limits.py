"""Limits of the commanded joints: a robot never gets a command outside of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class JointLimits:
    """Names and limits of the joints that a policy commands, in their own units.

    Attributes:
        names: (J,)
        lower, upper: (J,) positions.
        velocity: (J,) largest speeds, per second; infinite where there is none, empty if for no joint.
        acceleration: (J,) likewise, per second squared.

    Raises:
        ValueError: for lists of unequal lengths, a name that is empty or double, positions that do not increase, or a
            largest speed or acceleration that lets nothing move.
    """

    names: tuple[str, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    velocity: tuple[float, ...] = ()
    acceleration: tuple[float, ...] = ()

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
        for key in ("velocity", "acceleration"):
            values = getattr(self, key) or (math.inf,) * len(self.names)
            object.__setattr__(self, key, values)
            if len(values) != len(self.names):
                raise ValueError(
                    f"{len(self.names)} joints and {len(values)} {key}_limits must be equally many"
                )
            for name, value in zip(self.names, values, strict=True):
                if not value > 0:
                    raise ValueError(f"{key} limit of joint {name} must be positive, got {value:g}")

    @property
    def limits_motion(self) -> bool:
        """Whether any joint has a largest speed or acceleration."""
        return any(math.isfinite(value) for value in (*self.velocity, *self.acceleration))

    def clamp(self, chunk: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
        """A chunk (points, joints) inside the positions' limits, and how many of its points lay outside."""
        clamped = np.clip(chunk, self.lower, self.upper)
        return clamped, int((clamped != chunk).any(axis=1).sum())
