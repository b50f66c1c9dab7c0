"""The description of a robot: its sources of observations, its commands, its rates and margins."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any

from policy.robot.message_types import MESSAGE_TYPES, MessageType, type_name

COMMAND = "command"
"""Name of the source of commands."""

OUTPUTS = ("topic", "follow_joint_trajectory")
AUTO = "auto"
RELIABILITIES = ("reliable", "best_effort")
PROJECTION_SIZE = 9
RESERVED = (COMMAND, "sampler", "trajectory")
"""Names that no source may have, besides those of the robot's other keys: others begin with them."""


class RobotError(ValueError):
    """A robot that cannot be, or does not fit its task. The message names the key or the part, and what is allowed."""


def _option(default: Any, description: str, **limits: Any) -> Any:
    return field(default=default, metadata={"description": description, **limits})


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where messages come from, and which of their numbers are taken.

    Attributes:
        name: of the part of the task that it fills.
        topic, type, joints, fields, max_age, frame_id, reliability, same_pictures, projection: see their
            descriptions.

    Raises:
        RobotError: naming the key that does not fit, and what is allowed.
    """

    name: str
    topic: str = _option("", "topic of its messages; needs a value")
    type: str = _option("", "type of its messages; needs a value")
    joints: tuple[str, ...] = _option((), "of a type with joints: their names, in the order of the part")
    fields: tuple[str, ...] = _option((), "numbers of each joint, point or message, in the order of the part")
    max_age: float = _option(
        0.5, "oldest age of an observation to act on, in s", minimum=1e-3, maximum=3600.0
    )
    frame_id: str = _option("", "frame that its messages must be in; empty for any")
    reliability: str = _option(
        AUTO,
        "reliability of its subscription; best_effort for drivers that publish so; auto: best_effort for pictures, "
        "else reliable",
        choices=(AUTO, *RELIABILITIES),
    )
    same_pictures: str = _option(
        "refuse",
        "of a camera: what becomes of the same picture for longer than max_age; a simulated camera needs allow",
        choices=("refuse", "allow"),
    )
    projection: tuple[float, ...] = _option(
        (),
        "of a camera: homography (3×3, row by row) from the positions of the first two commanded joints to x, y in its "
        "picture, as shares of its width and height; path_overlay draws by it; empty where there is none",
    )

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise RobotError(f"a source must have a simple name, such as arm, got {self.name!r}")
        check_options(self, f"{self.name}.")
        object.__setattr__(self, "type", type_name(self.type))
        if self.type not in MESSAGE_TYPES:
            raise RobotError(f"{self.name}.type must be one of {', '.join(MESSAGE_TYPES)}, got {self.type!r}")
        if not self.topic:
            raise RobotError(f"{self.name}.topic is empty, must name the topic of its messages")
        kind = self.kind
        self._check_camera(kind)
        if not self.fields:
            object.__setattr__(self, "fields", kind.default)
        for name in self.fields:
            if not kind.knows(name):
                raise RobotError(
                    f"{self.name}.fields must be among {kind.allowed} for {self.type}, got {name!r}"
                )
        if not self.fields and not (kind.indexed and kind.count) and not kind.picture:
            raise RobotError(f"{self.name}.fields is empty, must name some of {kind.allowed} of {self.type}")
        if self.joints and not kind.by_joint:
            raise RobotError(f"{self.name}.joints must be empty for {self.type}, which has no joints")
        if kind.by_joint and not self.joints:
            raise RobotError(f"{self.name}.joints is empty, must name the joints to take from {self.type}")
        for key in ("joints", "fields"):
            _check_distinct(f"{self.name}.{key}", getattr(self, key))

    def _check_camera(self, kind: MessageType) -> None:
        if self.reliability == AUTO:
            object.__setattr__(self, "reliability", "best_effort" if kind.picture else "reliable")
        if kind.picture and self.fields:
            raise RobotError(f"{self.name}.fields must be empty for {self.type}, which has no numbers")
        if all(map(math.isnan, self.projection)):  # ROS has no empty list of numbers
            object.__setattr__(self, "projection", ())
        if self.projection and not kind.picture:
            raise RobotError(f"{self.name}.projection must be empty for {self.type}, which is no picture")
        if self.projection and not (
            len(self.projection) == PROJECTION_SIZE and all(map(math.isfinite, self.projection))
        ):
            raise RobotError(
                f"{self.name}.projection must be {PROJECTION_SIZE} finite numbers, got {list(self.projection)}"
            )

    @property
    def kind(self) -> MessageType:
        return MESSAGE_TYPES[self.type]

    @property
    def is_camera(self) -> bool:
        """Whether its messages are pictures."""
        return self.kind.picture

    @property
    def size(self) -> int | None:
        """How many numbers it gives; None where only its messages tell."""
        if self.kind.by_joint:
            return len(self.joints) * len(self.fields)
        if self.kind.count is not None and not (self.kind.indexed and self.fields):
            return None
        return len(self.fields)

    def number_names(self, size: int) -> tuple[str, ...]:
        """A name for each of its numbers: of the joint, of the field, or both where there are several of both."""
        if self.kind.by_joint:
            if len(self.fields) == 1:
                return self.joints
            return tuple(f"{joint}.{name}" for joint in self.joints for name in self.fields)
        if self.size is not None:
            return self.fields
        if self.kind.indexed:
            return tuple(f"data[{index}]" for index in range(size))
        names = [name.removeprefix("point") for name in self.fields]
        return tuple(f"point{index}{name}" for index in range(size // len(names)) for name in names)

    def number_units(self, size: int) -> tuple[str, ...]:
        """A unit for each of its numbers; empty where the type does not say one."""
        units = tuple(self.kind.units.get(name, "") for name in self.fields) or ("",)
        return units * (size // len(units))


@dataclass(frozen=True, kw_only=True)
class Robot:
    """Where a robot's observations come from and where its commands go.

    Attributes:
        sources: each named like the part of the task that it fills.
        command: where the commands of demonstrations are read from; None if the file names neither it nor `joints`.
        control_period, range_margin, restart_gap, joints, lower_limits, upper_limits, velocity_limits,
            acceleration_limits, urdf, robot_description, output, trajectory_topic, action_name: see their
            descriptions.

    Raises:
        RobotError: naming the key that does not fit, and what is allowed.
    """

    sources: tuple[Source, ...]
    command: Source | None = None
    control_period: float = _option(
        0.0,
        "time between two control steps, and between two points of a chunk, in s; 0: the task's, which no other "
        "value may contradict",
        minimum=0.0,
        maximum=1000.0,
    )
    range_margin: float = _option(
        0.5,
        "how far an observation may leave the range of the training data, as a fraction of that range",
        minimum=0.0,
        maximum=1e6,
    )
    restart_gap: float = _option(
        0.5,
        "step in a source's stamps, above its max_age, after which the history starts anew, in s",
        minimum=0.0,
        maximum=3600.0,
    )
    joints: tuple[str, ...] = _option(
        (), "joints that the policy commands, in its order; empty: named as the task's actions"
    )
    lower_limits: tuple[float, ...] = _option(
        (), "lower limit of each joint, to which commands are clamped; nan: the URDF's and the task's own"
    )
    upper_limits: tuple[float, ...] = _option((), "upper limit of each joint, likewise")
    velocity_limits: tuple[float, ...] = _option(
        (), "largest speed of each joint, in its unit per s; nan: the URDF's own, or none"
    )
    acceleration_limits: tuple[float, ...] = _option(
        (), "largest acceleration of each joint, in its unit per s²; nan: none"
    )
    urdf: str = _option("", "file of the robot's URDF, whose limits hold too; empty: none")
    robot_description: str = _option(
        "", "topic of the robot's URDF instead, such as /robot_description; empty: none"
    )
    output: str = _option("topic", "how chunks reach the controller", choices=OUTPUTS)
    trajectory_topic: str = _option(
        "joint_trajectory_controller/joint_trajectory", "where chunks go with output topic"
    )
    action_name: str = _option(
        "joint_trajectory_controller/follow_joint_trajectory",
        "where chunks go with output follow_joint_trajectory",
    )

    def __post_init__(self) -> None:
        check_options(self, "")
        if not self.sources:
            raise RobotError("observation_sources is empty, must name the sources of observations")
        names = [source.name for source in self.sources]
        _check_distinct("observation_sources", names)
        taken = {*RESERVED, *(option.name for option in fields(self))}
        for source in self.sources:
            if source.name in taken:
                raise RobotError(
                    f"observation_sources must be names that no other key has, got {source.name!r}"
                )
            if not source.kind.observed:
                raise RobotError(f"{source.name}.type {source.type} tells commands, not observations")
        _check_distinct("joints", self.joints)
        for key in ("lower_limits", "upper_limits"):
            limits = getattr(self, key)
            if any(math.isinf(limit) for limit in limits):
                raise RobotError(f"{key} must be finite, or nan for the task's own, got {list(limits)}")
            _leave_out(self, key)
        for key in ("velocity_limits", "acceleration_limits"):
            limits = getattr(self, key)
            if not all(math.isnan(limit) or 0 < limit < math.inf for limit in limits):
                raise RobotError(f"{key} must be positive, or nan for none of the file's, got {list(limits)}")
            _leave_out(self, key)
        if self.urdf and self.robot_description:
            raise RobotError("the URDF must come from urdf or from robot_description, got both")


def _leave_out(robot: Robot, key: str) -> None:
    """A list of limits of which the file has none is empty."""
    if all(math.isnan(limit) for limit in getattr(robot, key)):
        object.__setattr__(robot, key, ())


def options(described: type[Source] | type[Robot]) -> dict[str, Field[Any]]:
    """The keys of a robot's file, with what they mean, by name."""
    return {option.name: option for option in fields(described) if option.metadata}


def check_options(described: Source | Robot, prefix: str) -> None:
    """Check the type and the range of each value.

    Raises:
        RobotError: naming the first that does not fit.
    """
    for name, option in options(type(described)).items():
        value, limits, key = getattr(described, name), option.metadata, f"{prefix}{name}"
        object.__setattr__(described, name, _checked(key, value, option))
        if "choices" in limits and value not in limits["choices"]:
            raise RobotError(f"{key} must be one of {', '.join(limits['choices'])}, got {value!r}")
        if "minimum" in limits and not limits["minimum"] <= value <= limits["maximum"]:
            raise RobotError(f"{key} must be in {limits['minimum']:g} … {limits['maximum']:g}, got {value:g}")


KINDS: Mapping[str, tuple[type, str]] = {
    "str": (str, "a text"),
    "float": (float, "a number"),
    "tuple[str, ...]": (str, "a list of texts"),
    "tuple[float, ...]": (float, "a list of numbers"),
}


def _checked(key: str, value: Any, option: Field[Any]) -> Any:
    kind, described = KINDS[str(option.type)]
    many = str(option.type).startswith("tuple")
    if many and (isinstance(value, str) or not hasattr(value, "__iter__")):
        raise RobotError(f"{key} must be {described}, got {value!r:.100}")
    values = tuple(value) if many else (value,)
    if many and kind is str and values == ("",):  # ROS has no empty list of texts
        values = ()
    for entry in values:
        is_number = isinstance(entry, int | float) and not isinstance(entry, bool)
        if not (is_number if kind is float else isinstance(entry, str)):
            raise RobotError(f"{key} must be {described}, got {value!r:.100}")
    values = tuple(map(kind, values))
    return values if many else values[0]


def _check_distinct(key: str, names: Any) -> None:
    for name in names:
        if not name or list(names).count(name) > 1:
            raise RobotError(f"{key} must be distinct names, got {list(names)}")
