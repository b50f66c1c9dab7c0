"""Which sampler a policy uses, as data: the same fields on the command line, in a file and as ROS parameters."""

from __future__ import annotations

from dataclasses import dataclass, field

from policy.solver import SOLVERS


@dataclass(frozen=True)
class SamplerConfig:
    """How to turn noise into an action sequence.

    The metadata of each field hold its ``description`` and, for numbers, ``minimum`` and ``maximum``.

    Raises:
        ValueError: for an unknown solver or a number out of its range.
    """

    name: str = field(
        default="ddim", metadata={"description": f"solver of the diffusion process: {', '.join(SOLVERS)}"}
    )
    steps: int = field(
        default=50,
        metadata={
            "description": "solver steps T, at most the policy's training timesteps",
            "minimum": 1,
            "maximum": 1000,
        },
    )

    def __post_init__(self) -> None:
        if self.name not in SOLVERS:
            raise ValueError(f"unknown sampler {self.name!r}, must be one of {', '.join(SOLVERS)}")
        limits = self.__dataclass_fields__["steps"].metadata
        if not limits["minimum"] <= self.steps <= limits["maximum"]:
            raise ValueError(
                f"sampler.steps must be in {limits['minimum']} … {limits['maximum']}, got {self.steps}"
            )
