"""Trajectory messages and goals, checked and turned into `Trajectory` and `Tolerances`.

What joint_trajectory_controller rejects is rejected here too, with a reason. So is some of what it lets pass: values
that are not finite, joints named twice, and accelerations without velocities, all of which make it command anything;
and tolerances that mean nothing, for which it takes its defaults.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from policy.robot.times import SECOND, ImpossibleTimeError, duration_ns, time_ns
from ros_nodes.commands.trajectory_execution import Point, Tolerances, Trajectory

if TYPE_CHECKING:
    from builtin_interfaces.msg import Duration, Time
    from control_msgs.action import FollowJointTrajectory
    from control_msgs.msg import JointTolerance
    from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

ERASED = -1.0
"""Tolerance in a goal that takes a default back, by control_msgs/JointTolerance."""

AT_REST = 2.0**-23
"""Fastest joint at the last point, per second, that joint_trajectory_controller takes for one at rest."""

MOST_POINTS = 10_000
"""Of a trajectory: 1,000 s at 10 Hz."""


class InvalidTrajectoryError(ValueError):
    """A trajectory or goal that is not executed; the message says why.

    Attributes:
        reason: short name, by which refusals are counted.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def nanoseconds(time: Time | Duration) -> int:
    return int(time.sec) * SECOND + int(time.nanosec)


def read_trajectory(
    message: JointTrajectory,
    joints: Sequence[str],
    *,
    now: int,
    position: Sequence[float],
    velocity: Sequence[float] | None = None,
) -> Trajectory:
    """Read a trajectory that replaces the running one at the time `now`.

    Args:
        message: its joints in any order. A stamp of 0 means `now`.
        joints: (J,) names, in the order of the result.
        now: in nanoseconds.
        position: (J,) where the joints are now.
        velocity: (J,) how fast, per second; None for at rest.

    Raises:
        InvalidTrajectoryError: naming the first thing that is wrong.
    """
    if len(message.joint_names) != len(joints) or sorted(message.joint_names) != sorted(joints):
        wanted, got = ", ".join(joints), message.joint_names[: len(joints) + 1]  # one too many says enough
        raise InvalidTrajectoryError("joint", f"joint names must be {wanted} (in any order), got {got}")
    names = list(message.joint_names)
    if not message.points:
        raise InvalidTrajectoryError("length", "trajectory has no points")
    if len(message.points) > MOST_POINTS:
        raise InvalidTrajectoryError(
            "length", f"trajectory has {len(message.points)} points, at most {MOST_POINTS} are read"
        )
    order = [names.index(joint) for joint in joints]
    start = _time(message.header.stamp, "stamp") or now
    times: list[int] = []
    points: list[Point] = []
    for index, point in enumerate(message.points):
        _check_point(point, index, len(names))
        time = start + _duration(point.time_from_start, f"time_from_start of point {index}")
        if times and time <= times[-1]:
            raise InvalidTrajectoryError(
                "time", f"time_from_start of point {index} is not after that of point {index - 1}"
            )
        times.append(time)
        positions, velocities, accelerations = (
            tuple(float(values[joint]) for joint in order) if len(values) else None
            for values in (point.positions, point.velocities, point.accelerations)
        )
        assert positions is not None
        points.append(Point(position=positions, velocity=velocities, acceleration=accelerations))
    if any(abs(speed) > AT_REST for speed in message.points[-1].velocities):
        raise InvalidTrajectoryError("velocity", "velocity of the last point is not zero")
    if times[-1] < now:
        late = (now - times[-1]) / SECOND
        raise InvalidTrajectoryError("late", f"trajectory ended {late:.3f} s ago")
    here = Point(position=tuple(position), velocity=None if velocity is None else tuple(velocity))
    return Trajectory(start_time=now, start=here, times=tuple(times), points=tuple(points))


def read_tolerances(
    goal: FollowJointTrajectory.Goal, joints: Sequence[str], defaults: Tolerances
) -> Tolerances:
    """The tolerances of a goal, with defaults for what it leaves at 0.

    Raises:
        InvalidTrajectoryError: for an unknown joint, or a tolerance that is neither a size nor −1.
    """
    path, goal_position = list(defaults.path), list(defaults.goal)
    goal_velocity = list(defaults.goal_velocity)
    for tolerance in goal.path_tolerance:
        joint = _joint_index(tolerance, "path_tolerance", joints)
        path[joint] = _resolve(tolerance.position, path[joint], "path_tolerance")
    for tolerance in goal.goal_tolerance:
        joint = _joint_index(tolerance, "goal_tolerance", joints)
        goal_position[joint] = _resolve(tolerance.position, goal_position[joint], "goal_tolerance")
        goal_velocity[joint] = _resolve(tolerance.velocity, goal_velocity[joint], "goal_tolerance")
    goal_time = _duration(goal.goal_time_tolerance, "goal_time_tolerance")
    if goal_time == ERASED * SECOND:
        goal_time = 0
    elif goal_time < 0:
        raise InvalidTrajectoryError(
            "tolerance", f"goal_time_tolerance must not be negative, got {goal_time / SECOND} s"
        )
    else:
        goal_time = goal_time or defaults.goal_time
    return Tolerances(
        path=tuple(path),
        goal=tuple(goal_position),
        goal_velocity=tuple(goal_velocity),
        goal_time=goal_time,
    )


def _time(time: Time, name: str) -> int:
    try:
        return time_ns(time)
    except ImpossibleTimeError as error:
        raise InvalidTrajectoryError("time", f"{name} is impossible: {error}") from None


def _duration(duration: Duration, name: str) -> int:
    try:
        return duration_ns(duration)
    except ImpossibleTimeError as error:
        raise InvalidTrajectoryError("time", f"{name} is impossible: {error}") from None


def _check_point(point: JointTrajectoryPoint, index: int, joint_count: int) -> None:
    for name in ("positions", "velocities", "accelerations"):
        values = getattr(point, name)
        if len(values) != joint_count and (name == "positions" or len(values)):
            raise InvalidTrajectoryError(
                "length", f"point {index} has {len(values)} {name} for {joint_count} joints"
            )
        if not all(math.isfinite(value) for value in values):
            raise InvalidTrajectoryError(
                "not_finite", f"{name} of point {index} are not finite: {list(values)}"
            )
    if len(point.accelerations) and not len(point.velocities):
        raise InvalidTrajectoryError("acceleration", f"point {index} has accelerations and no velocities")
    if len(point.effort):
        raise InvalidTrajectoryError("effort", f"point {index} has efforts, but the joints take positions")


def _joint_index(tolerance: JointTolerance, field: str, joints: Sequence[str]) -> int:
    if tolerance.name not in joints:
        raise InvalidTrajectoryError(
            "tolerance", f"{field} names joint {tolerance.name!r}, must be one of {', '.join(joints)}"
        )
    return joints.index(tolerance.name)


def _resolve(value: float, default: float, field: str) -> float:
    if value == ERASED:
        return 0.0
    if not value >= 0.0:
        raise InvalidTrajectoryError(
            "tolerance", f"{field} must be positive, 0 (default) or −1 (none), got {value}"
        )
    return value or default
