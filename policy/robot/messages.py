"""From messages to the numbers of an observation, or of a command. Knows no ROS.

The policy node, and whoever reads a bag, both call `measurement`. So a policy is shown what it was trained on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from policy.robot.description import Source
from policy.robot.message_types import Message, point_values
from policy.robot.observation_history import RejectedObservation
from policy.robot.times import ImpossibleTimeError, duration_ns, time_ns


def measurement(
    message: Message, source: Source, *, size: int, now_ns: int
) -> tuple[int, NDArray[np.float64]]:
    """When a message was taken, in ns, and its numbers, (size,).

    Args:
        message: of the source's type.
        source: which of its numbers to take.
        size: of the part that it fills.
        now_ns: when it arrived.

    Raises:
        RejectedObservation: `frame`, `time`, or as `message_values` says.
    """
    check_frame(message, source.frame_id)
    return message_stamp_ns(message, now_ns), message_values(message, source, size)


def command_points(
    message: Message, source: Source, *, size: int, now_ns: int
) -> list[tuple[int, NDArray[np.float64]]]:
    """The commands (size,) of a message, each with the time in ns at which the robot shall be there.

    A `JointTrajectory` gives one for each of its points, every other message one, for its own time. Arguments and
    errors are those of `measurement`; a trajectory without points is refused as `length`.
    """
    if not hasattr(message, "points"):
        return [measurement(message, source, size=size, now_ns=now_ns)]
    check_frame(message, source.frame_id)
    start = message_stamp_ns(message, now_ns)
    if not len(message.points):
        raise RejectedObservation("length", "trajectory has no points")
    points = []
    for index, point in enumerate(message.points):
        values = point_values(message, index, joints=source.joints, fields=source.fields)
        try:
            due = start + duration_ns(point.time_from_start)
        except ImpossibleTimeError as error:
            raise RejectedObservation("time", f"time_from_start of point {index} is {error}") from None
        points.append((due, np.asarray(values, dtype=np.float64)))
    return points


def message_values(message: Message, source: Source, size: int) -> NDArray[np.float64]:
    """The numbers of a message, (size,): all fields of the first joint or point, then of the next.

    Raises:
        RejectedObservation: `joint` for one that the message lacks, `length` for fields of unequal lengths, or for
            points or numbers that are not as many as make `size`; they are not looked at then.
    """
    kind = source.kind
    if kind.count is not None and (count := kind.count(message, source.fields)) != size:
        raise RejectedObservation("length", f"{count} numbers, need {size}")
    return np.asarray(kind.read(message, source.joints, source.fields), dtype=np.float64)


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
