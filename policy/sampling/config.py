"""The sampler of a policy, as data: the same words on the command line, in files, as ROS parameters and in reports.

A sampler is a method and a solver. The solver says whose sequential answer is wanted, the method how it is found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from typing import Any

from policy.sampling.hand_over import HAND_OVERS
from policy.sampling.method_options import (
    AUTO,
    ParallelConfig,
    ParaSolverConfig,
    PcmConfig,
    PicardConfig,
    StopConfig,
)
from policy.sampling.options import choice, number
from policy.sampling.partial import PartialConfig
from policy.solvers import OWN_SOLVERS, SOLVERS, SPACINGS

METHOD_NAMES = ("sequential", "picard", "parasolver", "pcm")
PARALLEL = ("picard", "parasolver", "pcm")
NAMED_FIRST = ("sampler.method", "sampler.solver", "sampler.steps")

SECTION_METHODS: Mapping[str, tuple[str, ...]] = {
    "stop": PARALLEL,
    "parallel": PARALLEL,
    "picard": ("picard", "pcm"),
    "parasolver": ("parasolver",),
    "pcm": ("pcm",),
    "partial": ("sequential",),
}
"""The methods that the options of a section belong to."""


@dataclass(frozen=True)
class SamplerDefaults:
    """Values that ``auto`` stands for. A PCM brings its own, the ones it was trained for, and so do some policies."""

    solver: str = "ddim"
    steps: int = 50
    jacobian: str = "preconditioned"
    start: str = "fresh"
    space: str = "feature"
    warm_start: str = "none"


@dataclass(frozen=True)
class SamplerConfig:
    """Method, solver and options that turn noise into an action sequence.

    The metadata of each option hold its ``description`` and ``choices``, or ``minimum`` and ``maximum``.

    Raises:
        ValueError: for a value that is not allowed, or an option of another method. The message names the option.
    """

    method: str = choice(
        "sequential",
        METHOD_NAMES,
        "how the answer is found: sequential, or in parallel by picard (Picard iteration), parasolver (Picard "
        "iteration over sub-intervals) or pcm (Picard iteration that a PCM begins)",
    )
    solver: str = choice(
        AUTO,
        (AUTO, *SOLVERS, *OWN_SOLVERS),
        "solver whose sequential answer is wanted; auto: the PCM's own, else ddim; mip and consistency belong to "
        "policies trained for them, whose auto they are",
    )
    steps: int = number(
        0, (0, 1000), "number of solver steps T; 0: the PCM's own, else 50; mip has 2, consistency 1"
    )
    spacing: str = choice(
        AUTO,
        (AUTO, *SPACINGS),
        "timesteps of the solver steps; auto: the solver's own, leading of ddim and ddpm, log_snr of the others",
    )
    hand_over: str = choice(
        "replace",
        HAND_OVERS,
        "what a chunk does about the one before it: replace it; carry its noise along; blend, which also averages "
        "the two where they overlap; inpaint, which does so in every step of the sampling; or guide, which draws them "
        "together by the network's gradient, for three times the work",
    )
    stop: StopConfig = field(default_factory=StopConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    picard: PicardConfig = field(default_factory=PicardConfig)
    parasolver: ParaSolverConfig = field(default_factory=ParaSolverConfig)
    pcm: PcmConfig = field(default_factory=PcmConfig)
    partial: PartialConfig = field(default_factory=PartialConfig)

    def __post_init__(self) -> None:
        for name, option, value in sampler_options(self):
            _check_value(name, option, value)
            section = name.split(".")[1]
            methods = SECTION_METHODS.get(section, METHOD_NAMES)
            if not _asks_for_nothing(option, value) and self.method not in methods:
                belongs = f"the method{'s' if len(methods) > 1 else ''} {', '.join(methods)}"
                raise ValueError(f"{name}={value} belongs to {belongs}, not to {self.method}")
        for name, value in (
            ("parallel.memory", self.parallel.memory),
            ("stop.deadline_ms", self.stop.deadline_ms),
        ):
            if value > 0 and self.parallel.window > 0:
                raise ValueError(f"sampler.{name} needs all steps at once: sampler.parallel.window must be 0")
        if self.stop.warm_iterations and self.parallel.warm_start == "none":
            raise ValueError(
                f"sampler.stop.warm_iterations={self.stop.warm_iterations} needs sampler.parallel.warm_start"
            )
        if self.picard.start_calls > 1 and self.picard.start != "held":
            raise ValueError(
                f"sampler.picard.start_calls={self.picard.start_calls} belongs to the start held, not to "
                f"{self.picard.start}"
            )
        if self.partial.noise != "fresh" and not self.partial.steps:
            raise ValueError(f"sampler.partial.noise={self.partial.noise} needs sampler.partial.steps")
        if self.steps and self.partial.steps > self.steps:
            raise ValueError(
                f"sampler.partial.steps must be at most sampler.steps {self.steps}, got {self.partial.steps}"
            )
        if self.solver in OWN_SOLVERS and (self.spacing != AUTO or self.partial.steps):
            name = "partial.steps" if self.partial.steps else "spacing"
            raise ValueError(
                f"sampler.{name} does not belong to the solver {self.solver}, which has its own timesteps"
            )
        if self.solver in OWN_SOLVERS and self.needs_gradients:
            raise ValueError(f"sampler.hand_over=guide needs a solver of noise, not {self.solver}")
        if self.steps and self.steps % (self.parasolver.sub_intervals or self.steps):
            raise ValueError(
                f"sampler.parasolver.sub_intervals must divide sampler.steps {self.steps}, "
                f"got {self.parasolver.sub_intervals}"
            )

    @property
    def is_parallel(self) -> bool:
        return self.method in PARALLEL

    @property
    def uses_pcm(self) -> bool:
        return self.method == "pcm"

    @property
    def keeps_noise(self) -> bool:
        """Whether the noise of the previous chunk is carried along with time."""
        return (
            self.hand_over != "replace"
            or self.parallel.warm_start == "actions_and_noise"
            or self.partial.noise == "carried"
        )

    @property
    def needs_gradients(self) -> bool:
        """Whether the network is differentiated."""
        return self.hand_over == "guide"

    @property
    def starts_warm(self) -> bool:
        """Whether iteration begins with the previous prediction. Of a resolved sampler."""
        return self.parallel.warm_start not in ("none", AUTO)

    @property
    def uses_previous(self) -> bool:
        """Whether a prediction depends on the one before it. Of a resolved sampler."""
        return self.hand_over != "replace" or self.starts_warm or self.partial.steps > 0

    def resolved(self, defaults: SamplerDefaults | None = None) -> SamplerConfig:
        """The same sampler with nothing left to choose: no ``auto``, and no 0 for the steps.

        Args:
            defaults: defaults of the PCM, for the method ``pcm``, or of the policy.
        """
        chosen = defaults or SamplerDefaults()
        parallel, picard, pcm = self.parallel, self.picard, self.pcm
        if self.is_parallel:
            parallel = replace(parallel, warm_start=_or(parallel.warm_start, chosen.warm_start))
        if self.method in SECTION_METHODS["picard"]:
            picard = replace(
                picard, jacobian=_or(picard.jacobian, chosen.jacobian), start=_or(picard.start, chosen.start)
            )
        if self.uses_pcm:
            pcm = replace(pcm, space=_or(pcm.space, chosen.space))
        return replace(
            self,
            solver=_or(self.solver, chosen.solver),
            steps=self.steps or chosen.steps,
            parallel=parallel,
            picard=picard,
            pcm=pcm,
        )

    def __str__(self) -> str:
        label = f"{self.method}, {self.solver}"
        if self.steps:
            label += f", T = {self.steps}"
        said = [
            f"{name.removeprefix('sampler.')}={value}"
            for name, option, value in sampler_options(self)
            if name not in NAMED_FIRST and not _asks_for_nothing(option, value)
        ]
        return f"{label} ({', '.join(said)})" if said else label


def sampler_options(config: SamplerConfig | None = None) -> Iterator[tuple[str, Field[Any], Any]]:
    """Every option by its dotted name, such as ``sampler.stop.iterations``, with its field and its value."""
    config = config or SamplerConfig()
    for option in fields(config):
        value = getattr(config, option.name)
        if option.name in SECTION_METHODS:
            for inner in fields(value):
                yield f"sampler.{option.name}.{inner.name}", inner, getattr(value, inner.name)
        else:
            yield f"sampler.{option.name}", option, value


def sampler_from_options(values: Mapping[str, Any]) -> SamplerConfig:
    """The sampler with these values of `sampler_options`, by their dotted names."""
    sections: dict[str, dict[str, Any]] = {name: {} for name in ("", *SECTION_METHODS)}
    for name, value in values.items():
        *section, option = name.removeprefix("sampler.").split(".")
        sections[".".join(section)][option] = value
    types: Mapping[str, Any] = {
        "stop": StopConfig,
        "parallel": ParallelConfig,
        "picard": PicardConfig,
        "parasolver": ParaSolverConfig,
        "pcm": PcmConfig,
        "partial": PartialConfig,
    }
    made: dict[str, Any] = {name: kind(**sections[name]) for name, kind in types.items()}
    return SamplerConfig(**sections[""], **made)


def _asks_for_nothing(option: Field[Any], value: Any) -> bool:
    return value == option.default or (value == "none" and option.default == AUTO)


def _or(value: str, default: str) -> str:
    return default if value == AUTO else value


def _check_value(name: str, option: Field[Any], value: Any) -> None:
    allowed = option.metadata
    if "choices" in allowed and value not in allowed["choices"]:
        raise ValueError(f"{name} must be one of {', '.join(allowed['choices'])}, got {value!r}")
    if "minimum" in allowed and not allowed["minimum"] <= value <= allowed["maximum"]:
        raise ValueError(f"{name} must be in {allowed['minimum']} … {allowed['maximum']}, got {value}")
