from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from builtin_interfaces.msg import Duration, Time
from control_msgs.action import FollowJointTrajectory
from control_msgs.msg import JointTolerance
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from policy.robot.times import SECOND
from ros_nodes.commands.trajectory_execution import Tolerances
from ros_nodes.commands.trajectory_messages import (
    MOST_POINTS,
    InvalidTrajectoryError,
    read_tolerances,
    read_trajectory,
)

JOINTS = ("pusher_x", "pusher_y")
NOW = 100 * SECOND
HERE = (7.0, 8.0)
DEFAULTS = Tolerances(path=(1.0, 2.0), goal=(3.0, 4.0), goal_velocity=(5.0, 5.0), goal_time=6 * SECOND)


def message(stamp: float = 0.0) -> JointTrajectory:
    """Two points, due 0.5 s and 1.5 s after the stamp."""
    trajectory = JointTrajectory(joint_names=list(JOINTS))
    trajectory.header.stamp = Time(sec=int(stamp), nanosec=int(stamp % 1 * SECOND))
    for seconds, positions in ((0, [1.0, 2.0]), (1, [3.0, 4.0])):
        due = Duration(sec=seconds, nanosec=SECOND // 2)
        trajectory.points.append(JointTrajectoryPoint(positions=positions, time_from_start=due))
    return trajectory


def read(trajectory: JointTrajectory) -> Any:
    return read_trajectory(trajectory, JOINTS, now=NOW, position=HERE)


def test_times_count_from_the_stamp() -> None:
    trajectory = read(message(stamp=99.5))
    assert trajectory.times == (100 * SECOND, 101 * SECOND)
    assert [point.position for point in trajectory.points] == [(1.0, 2.0), (3.0, 4.0)]
    assert (trajectory.start_time, trajectory.start.position) == (NOW, HERE)


def test_a_stamp_of_zero_means_now() -> None:
    assert read(message()).times == (NOW + SECOND // 2, NOW + SECOND * 3 // 2)


def test_joints_come_in_any_order() -> None:
    swapped = message()
    swapped.joint_names = ["pusher_y", "pusher_x"]
    swapped.points[0].velocities = [5.0, 6.0]
    first, last = read(swapped).points
    assert (first.position, first.velocity) == ((2.0, 1.0), (6.0, 5.0))
    assert (last.position, last.velocity) == ((4.0, 3.0), None)


def _joints(*names: str) -> Callable[[JointTrajectory], None]:
    return lambda trajectory: setattr(trajectory, "joint_names", list(names))


def _point(index: int, **values: Any) -> Callable[[JointTrajectory], None]:
    def change(trajectory: JointTrajectory) -> None:
        for name, value in values.items():
            setattr(trajectory.points[index], name, value)

    return change


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_joints(), r"must be pusher_x, pusher_y \(in any order\), got \[\]"),
        (_joints("pusher_x"), "joint names must be"),
        (_joints("pusher_x", "pusher_x"), "joint names must be"),
        (_joints("pusher_x", "elbow"), "joint names must be .* 'elbow'"),
        (_joints("pusher_x", "pusher_y", "elbow"), "joint names must be"),
        (_joints(*"abcdefgh"), r"joint names must be .*\['a', 'b', 'c'\]$"),
        (lambda trajectory: trajectory.points.clear(), "no points"),
        (
            lambda trajectory: setattr(trajectory, "points", [JointTrajectoryPoint()] * (MOST_POINTS + 1)),
            f"{MOST_POINTS + 1} points, at most {MOST_POINTS}",
        ),
        (
            _point(1, time_from_start=Duration(sec=1, nanosec=SECOND)),
            "time_from_start of point 1 is impossible",
        ),
        (lambda trajectory: setattr(trajectory.header, "stamp", Time(sec=-1)), "stamp is impossible: -1 s"),
        (_point(1, positions=[]), "point 1 has 0 positions for 2 joints"),
        (_point(1, positions=[1.0, 2.0, 3.0]), "point 1 has 3 positions for 2 joints"),
        (_point(0, velocities=[1.0]), "point 0 has 1 velocities for 2 joints"),
        (_point(0, accelerations=[1.0]), "point 0 has 1 accelerations for 2 joints"),
        (_point(0, effort=[1.0, 1.0]), "point 0 has efforts"),
        (_point(0, positions=[math.nan, 1.0]), "positions of point 0 are not finite"),
        (_point(1, velocities=[math.inf, 1.0]), "velocities of point 1 are not finite"),
        (_point(1, velocities=[0.0, 1.0]), "velocity of the last point is not zero"),
        (_point(0, accelerations=[1.0, 1.0]), "point 0 has accelerations and no velocities"),
        (_point(1, velocities=[0.0, 2e-7]), "velocity of the last point is not zero"),
        (_point(0, time_from_start=Duration(sec=1, nanosec=SECOND // 2)), "point 1 is not after"),
        (lambda trajectory: setattr(trajectory.header, "stamp", Time(sec=98)), r"ended 0\.500 s ago"),
    ],
)
def test_a_bad_trajectory_is_refused_with_the_reason(
    spoil: Callable[[JointTrajectory], None], reason: str
) -> None:
    trajectory = message()
    spoil(trajectory)
    with pytest.raises(InvalidTrajectoryError, match=reason):
        read(trajectory)


def test_a_goal_without_tolerances_has_the_defaults() -> None:
    assert read_tolerances(FollowJointTrajectory.Goal(), JOINTS, DEFAULTS) == DEFAULTS


def test_a_goal_sets_and_erases_tolerances_joint_by_joint() -> None:
    goal = FollowJointTrajectory.Goal(
        path_tolerance=[JointTolerance(name="pusher_y", position=0.5)],
        goal_tolerance=[JointTolerance(name="pusher_x", position=-1.0, velocity=9.0)],
        goal_time_tolerance=Duration(sec=2),
    )
    assert read_tolerances(goal, JOINTS, DEFAULTS) == Tolerances(
        path=(1.0, 0.5), goal=(0.0, 4.0), goal_velocity=(9.0, 5.0), goal_time=2 * SECOND
    )


def test_a_goal_time_tolerance_of_minus_one_waits_for_ever() -> None:
    goal = FollowJointTrajectory.Goal(goal_time_tolerance=Duration(sec=-1))
    assert read_tolerances(goal, JOINTS, DEFAULTS).goal_time == 0


@pytest.mark.parametrize(
    ("goal", "reason"),
    [
        (
            {"path_tolerance": [JointTolerance(name="elbow", position=1.0)]},
            "path_tolerance names joint 'elbow'",
        ),
        (
            {"goal_tolerance": [JointTolerance(name="pusher_x", position=-0.5)]},
            "goal_tolerance must be positive",
        ),
        (
            {"goal_tolerance": [JointTolerance(name="pusher_x", velocity=math.nan)]},
            "goal_tolerance must be positive",
        ),
        ({"goal_time_tolerance": Duration(sec=-2)}, "goal_time_tolerance must not be negative"),
    ],
)
def test_a_bad_tolerance_is_refused_with_the_reason(goal: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidTrajectoryError, match=reason):
        read_tolerances(FollowJointTrajectory.Goal(**goal), JOINTS, DEFAULTS)
