"""Which sampler a policy uses, as data: the same fields on the command line, in a file and as ROS parameters."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from policy.sampling.recurrence import FORMULATIONS
from policy.sampling.start import INITIALISATIONS
from policy.sampling.warm_start import WARM_STARTS

PCM_SAMPLERS = ("pcm", "pcm_lora")
PARALLEL_SAMPLERS = ("picard", "parasolver", *PCM_SAMPLERS)
SAMPLERS = ("ddim", "ddpm", "dpm_solver", *PARALLEL_SAMPLERS)
PARALLEL_SOLVERS = ("ddim", "dpm_solver")


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
            "description": "sequential DDIM, sequential stochastic DDPM, sequential DPM-Solver++(2M), parallel by "
            "Picard iteration, by ParaSolver, or by Picard iteration with a PCM, switched off in feature space or by "
            "the scale of its adapters",
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
    solver: str = field(
        default="ddim",
        metadata={
            "description": "parallel: the solver whose sequential answer is computed; parasolver's is ddim",
            "choices": PARALLEL_SOLVERS,
        },
    )
    formulation: str = field(
        default="preconditioned",
        metadata={
            "description": "parallel: the Jacobian that corrections spread with; parasolver's is drift",
            "choices": FORMULATIONS,
        },
    )
    initialisation: str = field(
        default="fresh",
        metadata={
            "description": "parallel: the initial trajectory; parasolver's is parasolver",
            "choices": INITIALISATIONS,
        },
    )
    preconditioning: int = field(
        default=1,
        metadata={
            "description": "parallel: sequential network calls M of the initial trajectory parasolver",
            "minimum": 1,
            "maximum": 1000,
        },
    )
    sub_intervals: int = field(
        default=0,
        metadata={
            "description": "parasolver: sub-intervals N, a divisor of the steps; 0 for as many as steps",
            "minimum": 0,
            "maximum": 1000,
        },
    )
    window: int = field(
        default=0,
        metadata={
            "description": "parallel: steps that are evaluated at once; 0 for all",
            "minimum": 0,
            "maximum": 1000,
        },
    )
    memory: int = field(
        default=0,
        metadata={
            "description": "parallel: earlier iterates that Anderson acceleration combines with the newest; 0 for none",
            "minimum": 0,
            "maximum": 100,
        },
    )
    deadline_ms: float = field(
        default=0.0,
        metadata={
            "description": "parallel: stop before the iteration that would end later after the call, in ms, but not "
            "before the first; 0 for no deadline",
            "minimum": 0.0,
            "maximum": 1e6,
        },
    )
    warm_start: str = field(
        default="none",
        metadata={
            "description": "parallel: begin with the previous chunk's actions instead of the initial trajectory and "
            "the iterations that a PCM switches off in, or with its noise too",
            "choices": WARM_STARTS,
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
        if not self.is_parallel:
            for name in ("memory", "deadline_ms", "warm_start"):
                if getattr(self, name) not in (0, "none"):
                    parallel = ", ".join(PARALLEL_SAMPLERS)
                    raise ValueError(f"sampler.{name} needs a parallel sampler ({parallel}), not {self.name}")
        for name in ("memory", "deadline_ms"):
            if getattr(self, name) > 0 and self.window > 0:
                raise ValueError(f"sampler.{name} needs all steps at once: sampler.window must be 0")
        if self.is_parallel and self.solver_name != "ddim" and self.preconditioning > 1:
            raise ValueError(
                f"sampler.preconditioning {self.preconditioning} needs sampler.solver ddim, not {self.solver}"
            )
        if self.name == "parasolver" and self.steps % (self.sub_intervals or self.steps):
            raise ValueError(
                f"sampler.sub_intervals must divide sampler.steps {self.steps}, got {self.sub_intervals}"
            )

    @property
    def is_parallel(self) -> bool:
        return self.name in PARALLEL_SAMPLERS

    @property
    def solver_name(self) -> str:
        """Of the sequential sampler whose answer it is, or, if it is parallel, converges to."""
        if not self.is_parallel:
            return self.name
        return "ddim" if self.name == "parasolver" else self.solver

    @property
    def uses_pcm(self) -> bool:
        return self.name in PCM_SAMPLERS

    def __str__(self) -> str:
        label = f"{self.name.upper()}-{self.steps}"
        if self.is_parallel:
            options = [f"at most {self.iterations} iterations"]
            if self.name == "parasolver":
                options[:0] = [
                    f"{self.sub_intervals or self.steps} sub-intervals",
                    f"{self.preconditioning} calls",
                ]
            else:
                options[:0] = [self.formulation, self.initialisation]
            if self.solver_name != "ddim":
                options.insert(0, self.solver_name)
            if self.memory > 0:
                options.append(f"memory {self.memory}")
            if self.warm_start != "none":
                options.append(f"warm start from {self.warm_start.replace('_', ' ')}")
            if self.deadline_ms > 0:
                options.append(f"deadline {self.deadline_ms:g} ms")
            if self.uses_pcm:
                options.append(f"stiffness {self.stiffness:g}")
            label += f" ({', '.join(options)})"
        return label
