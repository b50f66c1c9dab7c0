"""What parameters the policy node has: names, defaults, descriptions, ranges."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, Field, dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

from policy.robot.description import Robot, Source, options
from policy.robot.parameters import SOURCES
from policy.runtime import ENGINE_CHOICES
from policy.sampling.config import sampler_options
from ros_nodes.commands.limited_points import OVER_LIMIT


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter.

    Attributes:
        name: with dots between the levels of a YAML file.
        default: also gives the type.
        description: with the unit.
        minimum, maximum: for numbers.
        choices: for strings.
        live: whether it may change while the node is configured; it takes effect at the next chunk.
    """

    name: str
    default: Any
    description: str
    _: KW_ONLY
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    live: bool = False

    def descriptor(self) -> ParameterDescriptor:
        when = "at the next chunk" if self.live else "at the next configure; fixed until cleanup"
        constraints = [f"takes effect {when}"]
        if self.choices:
            constraints.insert(0, f"one of {', '.join(self.choices)}")
        descriptor = ParameterDescriptor(
            name=self.name, description=self.description, additional_constraints="; ".join(constraints)
        )
        if self.minimum is not None and self.maximum is not None:
            if isinstance(self.default, int):
                limits = IntegerRange(from_value=int(self.minimum), to_value=int(self.maximum), step=1)
                descriptor.integer_range = [limits]
            else:
                limits = FloatingPointRange(from_value=float(self.minimum), to_value=float(self.maximum))
                descriptor.floating_point_range = [limits]
        return descriptor


SAMPLER_PARAMETERS = tuple(
    ParameterSpec(name, option.default, live=True, **option.metadata) for name, option, _ in sampler_options()
)
"""The sampler's options, as `policy.sampling.config` describes them."""


def _of_option(name: str, option: Field[Any]) -> ParameterSpec:
    """A parameter that the robot's description has, too. ROS has no empty lists."""
    empty = {"tuple[str, ...]": [""], "tuple[float, ...]": [math.nan]}
    return ParameterSpec(name, empty.get(str(option.type), option.default), **option.metadata)


NODE_PARAMETERS = (
    ParameterSpec(
        "checkpoint",
        "",
        "safetensors file of the policy, or the address of a server that has one, http://host:port/path, with a "
        "sampler, PCM and engine of its own",
    ),
    ParameterSpec("pcm", "", "safetensors file of a PCM for the policy; sampler.method=pcm needs one"),
    ParameterSpec("device", "cpu", "where the network runs, as torch names it: cpu, cuda, cuda:1"),
    ParameterSpec(
        "engine",
        "auto",
        "what evaluates the network; auto for openvino on a CPU where it is installed, else eager; plain computes "
        "to the last bit as pcm-evaluate does with engine=plain",
        choices=ENGINE_CHOICES,
    ),
    ParameterSpec(
        "threads",
        0,
        "CPU threads of the engine; 0 for as many as PyTorch uses",
        minimum=0,
        maximum=1024,
    ),
    *SAMPLER_PARAMETERS,
    ParameterSpec(
        "seed",
        0,
        "seed of the noises; the same seed and observations repeat the same chunks",
        minimum=0,
        maximum=2**63 - 1,
        live=True,
    ),
    ParameterSpec(
        "synchronous",
        False,
        "whether the next inference waits for the end of the chunk, as the simulator needs in lockstep",
    ),
    ParameterSpec(
        "inference_margin",
        0.05,
        "time by which a chunk should be ready earlier than it is needed, in s",
        minimum=0.0,
        maximum=10.0,
    ),
    ParameterSpec(
        "trajectory.velocities",
        True,
        "whether points have velocities, with which controllers interpolate smoothly; not in lockstep",
    ),
    ParameterSpec(
        "trajectory.accelerations",
        False,
        "whether points have accelerations as well; not in lockstep",
    ),
    ParameterSpec(
        "trajectory.tail_points",
        0,
        "points after the chunk's that are sent with it, so that a late chunk meets a moving robot; none in lockstep",
        minimum=0,
        maximum=1000,
    ),
    ParameterSpec(
        "trajectory.over_limit",
        "slow",
        "what is done with a chunk that is too fast for the limits of the joints: slow takes more time for the same "
        "way, clip goes less far in the same time",
        choices=OVER_LIMIT,
    ),
    ParameterSpec("frame_id", "world", "frame of the predicted path's markers"),
    ParameterSpec(
        SOURCES,
        [""],
        "sources of the observation, each named like the part of the task that it fills; each has parameters of its "
        "own, such as `<source>.topic`",
    ),
    *(_of_option(name, option) for name, option in options(Robot).items()),
)


def source_parameters(source: str) -> tuple[ParameterSpec, ...]:
    """The parameters of one source, or of the commands."""
    return tuple(_of_option(f"{source}.{name}", option) for name, option in options(Source).items())
