"""Which sampler a policy uses, as data: the same fields in the command line, in a file and in a ROS parameter."""

from __future__ import annotations

from dataclasses import dataclass

from policy.solver import SOLVERS


@dataclass(frozen=True)
class SamplerConfig:
    """How to turn noise into an action sequence.

    Attributes:
        name: the solver, one of `SOLVERS`.
        steps: T, its number of steps.

    Raises:
        ValueError: for an unknown solver or a number of steps below 1.
    """

    name: str = "ddim"
    steps: int = 50

    def __post_init__(self) -> None:
        if self.name not in SOLVERS:
            raise ValueError(f"unknown sampler {self.name!r}, must be one of {', '.join(SOLVERS)}")
        if self.steps < 1:
            raise ValueError(f"sampler.steps must be at least 1, got {self.steps}")
