"""What parameters the policy node has: names, defaults, descriptions, ranges."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

from policy.runtime import ENGINE_CHOICES
from policy.sampling.config import sampler_options
from ros_nodes.observations.observation_messages import MESSAGE_TYPES

OUTPUTS = ("topic", "follow_joint_trajectory")
RELIABILITIES = ("reliable", "best_effort")


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

NODE_PARAMETERS = (
    ParameterSpec("checkpoint", "", "safetensors file of the policy"),
    ParameterSpec("pcm", "", "safetensors file of a PCM for the policy; sampler.method=pcm needs one"),
    ParameterSpec("device", "cpu", "where the network runs, as torch names it: cpu, cuda, cuda:1"),
    ParameterSpec(
        "engine",
        "auto",
        "what evaluates the network; auto for openvino on a CPU where it is installed, else eager; plain computes "
        "to the last bit as pcm-evaluate does",
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
        "control_period",
        0.1,
        "time between two points of a chunk, as in training, in s",
        minimum=1e-3,
        maximum=10.0,
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
        "range_margin",
        0.5,
        "how far an observation may leave the range of the training data, as a fraction of that range",
        minimum=0.0,
        maximum=1e6,
    ),
    ParameterSpec(
        "restart_gap",
        0.5,
        "step in a source's stamps, above its max_age, after which the history starts anew, in s",
        minimum=0.0,
        maximum=3600.0,
    ),
    ParameterSpec("joints", ["pusher_x", "pusher_y"], "joints that the policy commands, in its order"),
    ParameterSpec("lower_limits", [0.0, 0.0], "lower limit of each joint; commands are clamped to it"),
    ParameterSpec("upper_limits", [512.0, 512.0], "upper limit of each joint; commands are clamped to it"),
    ParameterSpec("output", "topic", "how chunks reach the controller", choices=OUTPUTS),
    ParameterSpec(
        "trajectory_topic", "pusher_controller/joint_trajectory", "where chunks go with output topic"
    ),
    ParameterSpec(
        "action_name",
        "pusher_controller/follow_joint_trajectory",
        "where chunks go with output follow_joint_trajectory",
    ),
    ParameterSpec("frame_id", "world", "frame of the predicted path's markers"),
    ParameterSpec(
        "observation_sources",
        ["keypoints", "pusher"],
        "sources of the observation; each has parameters of its own, such as `<source>.topic`",
    ),
)

# What differs between sources. The two here fit the PushT simulator.
SOURCE_DEFAULTS: dict[str, dict[str, Any]] = {
    "keypoints": {
        "topic": "block/keypoints",
        "type": "geometry_msgs/PolygonStamped",
        "first": 0,
        "size": 18,
        "fields": ["point.x", "point.y"],
    },
    "pusher": {
        "topic": "joint_states",
        "type": "sensor_msgs/JointState",
        "first": 18,
        "size": 2,
        "joints": ["pusher_x", "pusher_y"],
        "fields": ["position"],
    },
}


def source_parameters(source: str) -> tuple[ParameterSpec, ...]:
    """The parameters of one source. The type `std_msgs/Float64MultiArray` ignores joints and fields."""
    defaults = SOURCE_DEFAULTS.get(source, {})

    def spec(name: str, default: Any, description: str, **options: Any) -> ParameterSpec:
        return ParameterSpec(f"{source}.{name}", defaults.get(name, default), description, **options)

    return (
        spec("topic", source, "topic of its messages"),
        spec("type", "std_msgs/Float64MultiArray", "type of its messages", choices=tuple(MESSAGE_TYPES)),
        spec("first", 0, "first index of the observation that it fills", minimum=0, maximum=10**6),
        spec("size", 1, "how many numbers it fills", minimum=1, maximum=10**6),
        spec("joints", [""], "for JointState: joints, in the order of the observation"),
        spec(
            "fields",
            [""],
            "numbers of each joint (position, velocity, effort), point (point.x, …) or pose (position.x, …, yaw)",
        ),
        spec("max_age", 0.5, "oldest age of an observation to act on, in s", minimum=1e-3, maximum=3600.0),
        spec("frame_id", "", "frame that its messages must be in; empty for any"),
        spec(
            "reliability",
            "reliable",
            "reliability of its subscription; best_effort for drivers that publish so",
            choices=RELIABILITIES,
        ),
    )
