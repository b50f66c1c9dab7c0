"""The robot's motion: chunks sent to the controller, sent again, and ended."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray
from trajectory_msgs.msg import JointTrajectory

from policy.robot.joint_limits import JointLimits
from ros_nodes.commands.chunk_messages import trajectory_message
from ros_nodes.commands.chunk_points import ChunkPoints, stop_at
from ros_nodes.commands.trajectory_output import TrajectoryOutput
from ros_nodes.policy_node.measured_position import MeasuredPosition

REPEAT_AFTER = 1.0  # s
FRESH = 2
"""Control periods for which a measured position says where the robot is."""


class Motion:
    """What the robot was told to do last.

    Args:
        output: way to the controller.
        joints: the commanded joints.
        measured: where they are.
        period_ns: control period.
        velocities: whether a point to stand still at says so.
        synchronous: whether the world stands still from the end of a chunk until the next one.
    """

    def __init__(
        self,
        output: TrajectoryOutput,
        joints: JointLimits,
        measured: MeasuredPosition,
        *,
        period_ns: int,
        velocities: bool,
        synchronous: bool,
    ) -> None:
        self._output = output
        self._joints = joints
        self._measured = measured
        self._period_ns = period_ns
        self._velocities = velocities
        self._synchronous = synchronous
        self.forget()

    def forget(self) -> None:
        """What was sent is nobody's any more."""
        self._sent: tuple[float, ChunkPoints, JointTrajectory] | None = None
        self._restarted: tuple[float, int, NDArray[np.float64]] | None = None

    def measured(self, now_ns: int) -> NDArray[np.float64] | None:
        """(J,) where the joints are, if their sources told it newly."""
        return self._measured.since(now_ns - FRESH * self._period_ns)

    def send(self, points: ChunkPoints) -> None:
        """Let points replace the running ones."""
        trajectory = trajectory_message(points, self._joints.names)
        self._output.send(trajectory)
        self._sent, self._restarted = (time.monotonic(), points, trajectory), None

    def repeat(self, stamp_ns: int) -> None:
        """In lockstep, an observation again and again means that the chunk for it was lost."""
        if not self._synchronous or self._sent is None:
            return
        sent, points, trajectory = self._sent
        if stamp_ns == points.stamp_ns and time.monotonic() - sent > REPEAT_AFTER:
            self._output.send(trajectory)
            self._sent = time.monotonic(), points, trajectory

    def is_under_way(self, now_ns: int) -> bool:
        """Whether a point that was sent is still to come."""
        return self._sent is not None and now_ns < self._sent[1].end_ns

    def stop(self, now_ns: int) -> None:
        """End what was sent: the joints stand still within a control period, where they were measured.

        Where no source tells their positions, or not newly, they do so where the points wanted them to be by then.
        """
        hold = None
        if self._sent is not None and not self._synchronous and self.is_under_way(now_ns):
            position = self.measured(now_ns)
            if position is None:
                position = self._sent[1].position(now_ns + self._period_ns)
            hold = self._hold(position, now_ns)
        self._output.stop(hold)
        self.forget()

    def restart(self, now_ns: int) -> bool:
        """The clock began anew, and the times of what was sent mean nothing any more; whether there is motion to end.

        A controller that can be cancelled stops now. Another one gets a point to stand still at with `settle`, as the
        world may have set the joints elsewhere.
        """
        moved = self._sent is not None and not self._synchronous and self.is_under_way(now_ns)
        self._output.stop(None)
        if not moved or self._sent is None:
            self.forget()
            return False
        sent, points, _ = self._sent
        position = self._measured.since(0)
        if position is None:
            # The first point was due more than a period after it was sent: by the old clock, a period from now is this.
            passed_ns = round((time.monotonic() - sent) * 1e9)
            position = points.position(points.stamp_ns + points.times_ns[0] + passed_ns)
        self.forget()
        self._restarted = time.monotonic(), now_ns, position
        return True

    def settle(self, now_ns: int) -> None:
        """After a restart, stand still where the joints are measured since, or after a period where they were."""
        if self._restarted is None:
            return
        since, restarted_ns, before = self._restarted
        position = self._measured.since(restarted_ns - self._period_ns)
        if position is None and (time.monotonic() - since) * 1e9 >= self._period_ns:
            position = before
        if position is not None:
            self._output.stop(self._hold(position, now_ns))
            self._restarted = None

    def _hold(self, position: NDArray[np.float64], now_ns: int) -> JointTrajectory:
        inside = np.clip(position, self._joints.lower, self._joints.upper)
        stop = stop_at(inside, now_ns=now_ns, period_ns=self._period_ns, velocities=self._velocities)
        return trajectory_message(stop, self._joints.names)
