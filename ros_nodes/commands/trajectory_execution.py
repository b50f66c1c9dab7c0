"""Execution of trajectories as ros2_control's joint_trajectory_controller does it. Knows no ROS.

Times are integer nanoseconds of one clock, positions and tolerances are in the joints' unit (px for the pusher).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from policy.robot.times import SECOND as SECOND  # in which the times here are told
from ros_nodes.commands.interpolation import coefficients

Position = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Point:
    """Where the joints (J,) are to be, and how fast and with which acceleration, where that is told."""

    position: Position
    velocity: Position | None = None
    acceleration: Position | None = None


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """Points to pass at given times.

    Attributes:
        start_time: time at which it replaced the trajectory before it.
        start: where the joints were then, and how fast; the way to the first point starts there.
        times: (P,) strictly increasing, at least one. The first ones may lie before `start_time`: they are over.
        points: (P,)
    """

    start_time: int
    start: Point
    times: tuple[int, ...]
    points: tuple[Point, ...]

    @property
    def end_time(self) -> int:
        return self.times[-1]

    def sample(self, time: int) -> Position:
        """Position (J,) at a time: between two points as `interpolation` has it, exact at each point.

        Before its start the trajectory is at its start; after its last point it stays there.
        """
        after = bisect_right(self.times, time)
        if after == len(self.times):
            return self.points[-1].position
        following = self.points[after]
        if after == 0:
            before_time, before = self.start_time, self._start(following)
        else:
            before_time, before = self.times[after - 1], self.points[after - 1]
        if time <= before_time:
            return before.position
        length = self.times[after] - before_time
        return _between(before, following, share=(time - before_time) / length, seconds=length / SECOND)

    def _start(self, first: Point) -> Point:
        """The start, with what the first point tells and the start does not: at rest."""
        rest = (0.0,) * len(first.position)
        return Point(
            position=self.start.position,
            velocity=self.start.velocity or rest,
            acceleration=self.start.acceleration or rest,
        )


def _between(before: Point, after: Point, *, share: float, seconds: float) -> Position:
    if before.velocity is None or after.velocity is None:
        return tuple(a + (b - a) * share for a, b in zip(before.position, after.position, strict=True))
    first, last = (
        (
            np.array(point.position),
            np.array(point.velocity),
            None if point.acceleration is None else np.array(point.acceleration),
        )
        for point in (before, after)
    )
    polynomial = coefficients(first, last, seconds)
    return tuple((share ** np.arange(len(polynomial)) @ polynomial).tolist())


def hold(position: Sequence[float], time: int) -> Trajectory:
    """Stay at a position (J,) from a time on."""
    point = Point(position=tuple(position))
    return Trajectory(start_time=time, start=point, times=(time,), points=(point,))


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
