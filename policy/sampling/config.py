"""Which sampler a policy uses, as data: the same fields on the command line, in a file and as ROS parameters."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from policy.sampling.initial import INITIALISATIONS
from policy.sampling.recurrence import FORMULATIONS

PCM_SAMPLERS = ("pcm", "pcm_lora")
SAMPLERS = ("ddim", "ddpm", "dpm_solver", "picard", *PCM_SAMPLERS)


@dataclass(frozen=True)
class SamplerConfig:
    """How to turn noise into an action sequence.

    The metadata of each field hold its ``description`` and ``choices``, or ``minimum`` and ``maximum``.

    Raises:
        ValueError: for a value that is not among the choices or out of its range.
    """

    name: str = field(
        default="ddim",
        metadata={
            "description": "sequential DDIM, sequential stochastic DDPM, sequential DPM-Solver++(2M), DDIM by parallel "
            "Picard iteration, or by that with a PCM, switched off in feature space or by the scale of its adapters",
            "choices": SAMPLERS,
        },
    )
    steps: int = field(
        default=50,
        metadata={
            "description": "solver steps T, at most the policy's training timesteps",
            "minimum": 1,
            "maximum": 1000,
        },
    )
    iterations: int = field(
        default=1000,
        metadata={
            "description": "parallel: at most so many iterations; T of them give the sequential answer",
            "minimum": 1,
            "maximum": 1000,
        },
    )
    tolerance: float = field(
        default=0.0,
        metadata={
            "description": "parallel: stop when states move less than this, in standard deviations of a step; 0 never",
            "minimum": 0.0,
            "maximum": 10.0,
        },
    )
    formulation: str = field(
        default="preconditioned",
        metadata={
            "description": "parallel: the Jacobian that corrections spread with",
            "choices": FORMULATIONS,
        },
    )
    initialisation: str = field(
        default="fresh",
        metadata={"description": "parallel: the initial trajectory", "choices": INITIALISATIONS},
    )
    window: int = field(
        default=0,
        metadata={
            "description": "parallel: steps that are evaluated at once; 0 for all",
            "minimum": 0,
            "maximum": 1000,
        },
    )
    stiffness: float = field(
        default=1.0,
        metadata={
            "description": "pcm: how fast it is switched off, s in λ(k) = 1 − s·k/K at iteration k = 0, 1, …, K what "
            "it was trained for; 0 never",
            "minimum": 0.0,
            "maximum": 1000.0,
        },
    )

    def __post_init__(self) -> None:
        for option in fields(self):
            value, allowed = getattr(self, option.name), option.metadata
            if "choices" in allowed and value not in allowed["choices"]:
                choices = ", ".join(allowed["choices"])
                raise ValueError(f"sampler.{option.name} must be one of {choices}, got {value!r}")
            if "minimum" in allowed and not allowed["minimum"] <= value <= allowed["maximum"]:
                limits = f"{allowed['minimum']} … {allowed['maximum']}"
                raise ValueError(f"sampler.{option.name} must be in {limits}, got {value}")

    @property
    def is_parallel(self) -> bool:
        return self.name == "picard" or self.uses_pcm

    @property
    def uses_pcm(self) -> bool:
        return self.name in PCM_SAMPLERS

    def __str__(self) -> str:
        label = f"{self.name.upper()}-{self.steps}"
        if self.is_parallel:
            options = [self.formulation, self.initialisation, f"at most {self.iterations} iterations"]
            if self.uses_pcm:
                options.append(f"stiffness {self.stiffness:g}")
            label += f" ({', '.join(options)})"
        return label
