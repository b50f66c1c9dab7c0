"""Execution of trajectories as ros2_control's joint_trajectory_controller does it. Knows no ROS.

Times are integer nanoseconds of one clock, positions and tolerances are in the joints' unit (px for the pusher).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from policy.robot.times import SECOND as SECOND  # in which the times here are told

Position = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """Positions to pass at given times.

    Attributes:
        start_time: time at which it replaced the trajectory before it.
        start_position: (J,) position of the joints then; the way to the first point starts there.
        times: (P,) strictly increasing, at least one. The first ones may lie before `start_time`: they are over.
        positions: (P, J).
    """

    start_time: int
    start_position: Position
    times: tuple[int, ...]
    positions: tuple[Position, ...]

    @property
    def end_time(self) -> int:
        return self.times[-1]

    def sample(self, time: int) -> Position:
        """Position (J,) at a time: on the straight line between two points, exact at each point.

        Before its start the trajectory is at its start; after its last point it stays there.
        """
        after = bisect_right(self.times, time)
        if after == len(self.times):
            return self.positions[-1]
        if after == 0:
            before_time, before = self.start_time, self.start_position
        else:
            before_time, before = self.times[after - 1], self.positions[after - 1]
        if time <= before_time:
            return before
        share = (time - before_time) / (self.times[after] - before_time)
        return tuple(a + (b - a) * share for a, b in zip(before, self.positions[after], strict=True))


def hold(position: Sequence[float], time: int) -> Trajectory:
    """Stay at a position (J,) from a time on."""
    point = tuple(position)
    return Trajectory(start_time=time, start_position=point, times=(time,), positions=(point,))


@dataclass(frozen=True, kw_only=True)
class Tolerances:
    """How far the joints may be from where a trajectory wants them; 0 enforces nothing.

    Attributes:
        path: (J,) on the way.
        goal: (J,) at the end.
        goal_velocity: (J,) at the end, per second.
        goal_time: nanoseconds after the end by which the joints have to be there; 0 waits for ever.
    """

    path: tuple[float, ...]
    goal: tuple[float, ...]
    goal_velocity: tuple[float, ...]
    goal_time: int = 0


class Outcome(Enum):
    """Where a trajectory stands."""

    MOVING = "moving"
    SUCCEEDED = "succeeded"
    PATH_TOLERANCE_VIOLATED = "path tolerance violated"
    GOAL_TOLERANCE_VIOLATED = "goal tolerance violated"


def judge(
    trajectory: Trajectory,
    tolerances: Tolerances,
    *,
    time: int,
    position: Sequence[float],
    velocity: Sequence[float],
) -> Outcome:
    """Judge a trajectory by where the joints are at a time: positions (J,) and velocities (J,) per second."""
    errors = [abs(want - have) for want, have in zip(trajectory.sample(time), position, strict=True)]
    if time < trajectory.end_time:
        return Outcome.PATH_TOLERANCE_VIOLATED if _exceeds(errors, tolerances.path) else Outcome.MOVING
    speeds = [abs(value) for value in velocity]
    if not _exceeds(errors, tolerances.goal) and not _exceeds(speeds, tolerances.goal_velocity):
        return Outcome.SUCCEEDED
    if tolerances.goal_time and time - trajectory.end_time > tolerances.goal_time:
        return Outcome.GOAL_TOLERANCE_VIOLATED
    return Outcome.MOVING


def _exceeds(values: Sequence[float], limits: Sequence[float]) -> bool:
    return any(limit > 0.0 and value > limit for value, limit in zip(values, limits, strict=True))
