"""What was commanded at each control step, as the simulator's controller executes the chunks that were heard."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from trajectory_msgs.msg import JointTrajectory

from ros_nodes.commands.trajectory_execution import Position, Trajectory, hold
from ros_nodes.commands.trajectory_messages import InvalidTrajectoryError, read_trajectory

JOINTS = ("pusher_x", "pusher_y")


class CommandRecord:
    """Follows the trajectories that a simulated robot takes, episode by episode.

    Args:
        period_ns: control period.

    Attributes:
        episodes: of each, the commands (S, J) of its control steps. A step of the clock begins another one.
        jumps: of each chunk but the first of an episode, the mean distance in px of its points from those of the chunk
            before it that were due at the same times.
    """

    def __init__(self, period_ns: int) -> None:
        self.episodes: list[list[Position]] = []
        self.jumps: list[float] = []
        self._period_ns = period_ns
        self._time: int | None = None
        self._position: Sequence[float] = ()
        self._velocity: Sequence[float] = ()
        self._trajectory: Trajectory | None = None
        self._points: dict[int, Position] = {}  # of the newest chunk, by the time at which they are due

    def observe(self, time_ns: int, position: Sequence[float], velocity: Sequence[float]) -> None:
        """A control step is over: positions (J,) and velocities (J,) of the joints at its end."""
        if time_ns == self._time:
            return
        if self._time is None or time_ns != self._time + self._period_ns:
            self.episodes.append([])
            self._trajectory, self._points = hold(position, time_ns), {}
        assert self._trajectory is not None
        self._time, self._position, self._velocity = time_ns, position, velocity
        self.episodes[-1].append(self._trajectory.sample(time_ns + self._period_ns))

    def follow(self, message: JointTrajectory) -> None:
        """A trajectory is published. One that the simulator refuses changes nothing."""
        if self._time is None:
            return
        try:
            trajectory = read_trajectory(
                message, JOINTS, now=self._time, position=self._position, velocity=self._velocity
            )
        except InvalidTrajectoryError:
            return
        points = {
            time: point.position for time, point in zip(trajectory.times, trajectory.points, strict=True)
        }
        both = sorted(points.keys() & self._points.keys())
        if both:
            apart = np.subtract([points[time] for time in both], [self._points[time] for time in both])
            self.jumps.append(float(np.linalg.norm(apart, axis=-1).mean()))
        self._trajectory, self._points = trajectory, points
