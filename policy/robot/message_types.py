"""The types of messages that can feed an observation or tell a command: their fields, and how these are read.

Messages are told by their attributes alone. Those of rclpy and of the package `rosbags` give the same numbers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from operator import attrgetter
from typing import Any, TypeAlias

from policy.robot.observation_history import RejectedObservation

Message: TypeAlias = Any  # the classes of ROS and of rosbags carry no common type
Read: TypeAlias = Callable[[Message, Sequence[str], Sequence[str]], Sequence[float]]
Count: TypeAlias = Callable[[Message, Sequence[str]], int]


@dataclass(frozen=True, kw_only=True)
class MessageType:
    """One type of message.

    Attributes:
        read: function (message, joints, fields) → numbers.
        fields: names that a source's `fields` may hold; an indexed one is followed by an index, as in ``data[3]``.
        default: fields of a source that names none.
        units: of fields, where the type says one.
        by_joint: whether joints are looked up by name.
        indexed: whether the fields are arrays.
        count: function (message, fields) → how many numbers it gives, where only the message knows.
        observed: whether it tells of a state; otherwise of commands alone.
        picture: whether it is a picture, which has no numbers: `policy.robot.pictures` reads it.
    """

    read: Read
    fields: tuple[str, ...]
    default: tuple[str, ...] = ()
    units: Mapping[str, str] = field(default_factory=dict)
    by_joint: bool = False
    indexed: bool = False
    count: Count | None = None
    observed: bool = True
    picture: bool = False

    def knows(self, name: str) -> bool:
        """Whether a source's `fields` may hold a name."""
        if not self.indexed:
            return name in self.fields
        return (found := INDEXED.fullmatch(name)) is not None and found[1] in self.fields

    @property
    def allowed(self) -> str:
        """What a source's `fields` may hold, for people."""
        return ", ".join(f"{name}[0], {name}[1], …" if self.indexed else name for name in self.fields)


INDEXED = re.compile(r"(\w+)\[(\d{1,6})\]")


def type_name(name: str) -> str:
    """The name of a type as a robot's file has it: ``sensor_msgs/msg/Imu`` → ``sensor_msgs/Imu``."""
    return name.replace("/msg/", "/")


def _joint_state(message: Message, joints: Sequence[str], fields: Sequence[str]) -> list[float]:
    return _of_joints(message.name, joints, {field: getattr(message, field) for field in fields})


def _joint_trajectory(message: Message, joints: Sequence[str], fields: Sequence[str]) -> list[float]:
    if len(message.points) != 1:
        raise RejectedObservation("length", f"{len(message.points)} points, need 1")
    return point_values(message, 0, joints=joints, fields=fields)


def point_values(
    message: Message, index: int, *, joints: Sequence[str], fields: Sequence[str]
) -> list[float]:
    """The numbers of one point of a `JointTrajectory`.

    Raises:
        RejectedObservation: `joint` for one that the message lacks, `length` for a field that is too short.
    """
    point = message.points[index]
    columns = {field: getattr(point, POINT_ATTRIBUTES[field]) for field in fields}
    return _of_joints(message.joint_names, joints, columns)


def _of_joints(
    names: Sequence[str], joints: Sequence[str], columns: Mapping[str, Sequence[float]]
) -> list[float]:
    index = {name: position for position, name in enumerate(names)}
    values = []
    for joint in joints:
        if joint not in index:
            raise RejectedObservation("joint", f"joint {joint!r} is missing")
        for field_name, column in columns.items():
            if index[joint] >= len(column):
                raise RejectedObservation(
                    "length", f"{len(column)} numbers in {field_name}, need {len(index)}"
                )
            values.append(column[index[joint]])
    return values


def _polygon(message: Message, joints: Sequence[str], fields: Sequence[str]) -> list[float]:
    names = [name.removeprefix("point.") for name in fields]
    return [getattr(point, name) for point in message.polygon.points for name in names]


def _whole_or_indexed(message: Message, joints: Sequence[str], fields: Sequence[str]) -> Sequence[float]:
    return _indexed(message, joints, fields) if fields else message.data


def _indexed(message: Message, joints: Sequence[str], fields: Sequence[str]) -> list[float]:
    values = []
    for name in fields:
        found = INDEXED.fullmatch(name)
        assert found is not None, name
        column, index = getattr(message, found[1]), int(found[2])
        if index >= len(column):
            raise RejectedObservation(
                "length", f"{len(column)} numbers in {found[1]}, need more than {index}"
            )
        values.append(column[index])
    return values


def _count_data(message: Message, fields: Sequence[str]) -> int:
    return len(fields) or len(message.data)


ANGLES: Mapping[str, Callable[[Any], float]] = {
    "roll": lambda q: math.atan2(2 * (q.w * q.x + q.y * q.z), 1 - 2 * (q.x * q.x + q.y * q.y)),
    "pitch": lambda q: math.asin(max(-1.0, min(1.0, 2 * (q.w * q.y - q.z * q.x)))),
    "yaw": lambda q: math.atan2(2 * (q.w * q.z + q.x * q.y), 1 - 2 * (q.y * q.y + q.z * q.z)),
}
"""Angles of a quaternion, about the fixed axes x, y and z one after the other, as in REP 103."""


@cache
def _getter(path: str) -> Callable[[Message], float]:
    value: Callable[[Message], float] = attrgetter(path)
    return value


def _structure(paths: Mapping[str, tuple[str, str]]) -> MessageType:
    """A type with vectors at known places: name of each → (its path in the message, its unit)."""
    fields: dict[str, Callable[[Message], float]] = {}
    units: dict[str, str] = {}
    for name, (path, unit) in paths.items():
        is_orientation = name == "orientation"
        for axis in ("x", "y", "z", "w") if is_orientation else ("x", "y", "z"):
            fields[f"{name}.{axis}"] = _getter(f"{path}.{axis}")
            units[f"{name}.{axis}"] = unit
        if is_orientation:
            for angle, of_quaternion in ANGLES.items():
                fields[angle] = _angle(path, of_quaternion)
                units[angle] = "rad"

    def read(message: Message, joints: Sequence[str], wanted: Sequence[str]) -> list[float]:
        return [fields[name](message) for name in wanted]

    return MessageType(read=read, fields=tuple(fields), units=units)


def _angle(path: str, of_quaternion: Callable[[Any], float]) -> Callable[[Message], float]:
    orientation = attrgetter(path)
    return lambda message: of_quaternion(orientation(message))


# A bare y would do, but YAML reads it as true, and so does a node that is given the parameters that another one dumped.
POINT_ATTRIBUTES: Mapping[str, str] = {
    "position": "positions",
    "velocity": "velocities",
    "acceleration": "accelerations",
    "effort": "effort",
}
TWIST = {"linear": "m/s", "angular": "rad/s"}
SCALAR = MessageType(read=lambda message, joints, fields: [message.data], fields=("data",), default=("data",))
ARRAY = MessageType(read=_whole_or_indexed, fields=("data",), indexed=True, count=_count_data)
PICTURE = MessageType(read=lambda message, joints, fields: (), fields=(), picture=True)

MESSAGE_TYPES: Mapping[str, MessageType] = {
    "sensor_msgs/JointState": MessageType(
        read=_joint_state, fields=("position", "velocity", "effort"), default=("position",), by_joint=True
    ),
    "trajectory_msgs/JointTrajectory": MessageType(
        read=_joint_trajectory,
        fields=tuple(POINT_ATTRIBUTES),
        default=("position",),
        by_joint=True,
        observed=False,
    ),
    "sensor_msgs/Imu": _structure(
        {
            "orientation": ("orientation", ""),
            "angular_velocity": ("angular_velocity", "rad/s"),
            "linear_acceleration": ("linear_acceleration", "m/s²"),
        }
    ),
    "sensor_msgs/Image": PICTURE,
    "sensor_msgs/CompressedImage": PICTURE,
    "sensor_msgs/Joy": MessageType(read=_indexed, fields=("axes", "buttons"), indexed=True),
    "nav_msgs/Odometry": _structure(
        {
            "position": ("pose.pose.position", "m"),
            "orientation": ("pose.pose.orientation", ""),
            **{name: (f"twist.twist.{name}", unit) for name, unit in TWIST.items()},
        }
    ),
    "geometry_msgs/PolygonStamped": MessageType(
        read=_polygon,
        fields=("point.x", "point.y", "point.z"),
        count=lambda message, fields: len(message.polygon.points) * len(fields),
    ),
    "geometry_msgs/PoseStamped": _structure(
        {"position": ("pose.position", "m"), "orientation": ("pose.orientation", "")}
    ),
    "geometry_msgs/Twist": _structure({name: (name, unit) for name, unit in TWIST.items()}),
    "geometry_msgs/TwistStamped": _structure({name: (f"twist.{name}", unit) for name, unit in TWIST.items()}),
    "geometry_msgs/WrenchStamped": _structure(
        {"force": ("wrench.force", "N"), "torque": ("wrench.torque", "N·m")}
    ),
    "std_msgs/Bool": SCALAR,
    "std_msgs/Float32": SCALAR,
    "std_msgs/Float64": SCALAR,
    "std_msgs/Float32MultiArray": ARRAY,
    "std_msgs/Float64MultiArray": ARRAY,
}
