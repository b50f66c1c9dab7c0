"""From ROS messages to the numbers of an observation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, TypeAlias

import numpy as np
from geometry_msgs.msg import PolygonStamped, PoseStamped
from numpy.typing import NDArray
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

from ros_nodes.observations.observation_history import RejectedObservation
from ros_nodes.reception.times import ImpossibleTimeError, time_ns

Message: TypeAlias = Any  # the message classes of ROS carry no type information
Count: TypeAlias = Callable[[Message, Sequence[str]], int]
Extract: TypeAlias = Callable[[Message, Sequence[str], Sequence[str]], Sequence[float]]


@dataclass(frozen=True, kw_only=True)
class MessageType:
    """One type of message that can feed an observation.

    Attributes:
        message: class of the message.
        extract: function (message, joints, fields) → numbers.
        fields: names that a source's `fields` may hold.
        by_joint: whether joints are looked up by name.
        count: function (message, fields) → how many numbers it holds, for a type of which all are taken.
    """

    message: type
    extract: Extract
    fields: tuple[str, ...] = ()
    by_joint: bool = False
    count: Count | None = None


def message_values(
    message: Message, kind: MessageType, *, joints: Sequence[str], fields: Sequence[str], size: int
) -> NDArray:
    """The numbers of a message, (size,) float64: all fields of the first joint or point, then of the next.

    Raises:
        RejectedObservation: `joint` for one that the message lacks, `length` for fields of unequal lengths, or for
            points or numbers that are not as many as make `size`; they are not looked at then.
    """
    if kind.count is not None and (count := kind.count(message, fields)) != size:
        raise RejectedObservation("length", f"{count} numbers, need {size}")
    return np.asarray(kind.extract(message, joints, fields), dtype=np.float64)


def message_stamp_ns(message: Message, now_ns: int) -> int:
    """When a message was taken, in ns. One that does not say (no header, or a zero stamp) was taken now.

    Raises:
        RejectedObservation: `time` for a stamp that no clock shows.
    """
    header = getattr(message, "header", None)
    if header is None:
        return now_ns
    try:
        return time_ns(header.stamp) or now_ns
    except ImpossibleTimeError as error:
        raise RejectedObservation("time", f"stamped {error}") from None


def check_frame(message: Message, frame_id: str) -> None:
    """Check a message's frame; an empty `frame_id` allows every one.

    Raises:
        RejectedObservation: `frame`.
    """
    header = getattr(message, "header", None)
    if frame_id and header is not None and header.frame_id != frame_id:
        raise RejectedObservation("frame", f"in frame {header.frame_id!r}, need {frame_id!r}")


def _joint_state(message: JointState, joints: Sequence[str], fields: Sequence[str]) -> list[float]:
    index = {name: position for position, name in enumerate(message.name)}
    values = []
    for joint in joints:
        if joint not in index:
            raise RejectedObservation("joint", f"joint {joint!r} is missing")
        for field in fields:
            column = getattr(message, field)
            if index[joint] >= len(column):
                raise RejectedObservation("length", f"{len(column)} numbers in {field}, need {len(index)}")
            values.append(column[index[joint]])
    return values


def _polygon(message: PolygonStamped, joints: Sequence[str], fields: Sequence[str]) -> list[float]:
    points = message.polygon.points
    return [getattr(point, field.removeprefix("point.")) for point in points for field in fields]


def _pose(message: PoseStamped, joints: Sequence[str], fields: Sequence[str]) -> list[float]:
    q = message.pose.orientation
    yaw = math.atan2(2 * (q.w * q.z + q.x * q.y), 1 - 2 * (q.y * q.y + q.z * q.z))
    return [yaw if field == "yaw" else attrgetter(field)(message.pose) for field in fields]


def _array(message: Float64MultiArray, joints: Sequence[str], fields: Sequence[str]) -> Sequence[float]:
    return message.data


# YAML reads a bare y as true, and so does a node that is given the parameters that another one dumped.
POSE_FIELDS = (
    *("position.x", "position.y", "position.z"),
    *("orientation.x", "orientation.y", "orientation.z", "orientation.w"),
    "yaw",
)

MESSAGE_TYPES = {
    "sensor_msgs/JointState": MessageType(
        message=JointState,
        extract=_joint_state,
        fields=("position", "velocity", "effort"),
        by_joint=True,
    ),
    "geometry_msgs/PolygonStamped": MessageType(
        message=PolygonStamped,
        extract=_polygon,
        fields=("point.x", "point.y", "point.z"),
        count=lambda message, fields: len(message.polygon.points) * len(fields),
    ),
    "geometry_msgs/PoseStamped": MessageType(message=PoseStamped, extract=_pose, fields=POSE_FIELDS),
    "std_msgs/Float64MultiArray": MessageType(
        message=Float64MultiArray, extract=_array, count=lambda message, fields: len(message.data)
    ),
}
