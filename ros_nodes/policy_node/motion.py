"""The robot's motion: chunks sent to the controller, sent again, and ended."""

from __future__ import annotations

import time

import numpy as np
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
        synchronous: whether the world stands still from the end of a chunk until the next one.
    """

    def __init__(
        self,
        output: TrajectoryOutput,
        joints: JointLimits,
        measured: MeasuredPosition,
        *,
        synchronous: bool,
    ) -> None:
        self._output = output
        self._joints = joints
        self._measured = measured
        self._synchronous = synchronous
        self.forget()

    def forget(self) -> None:
        """What was sent is nobody's any more."""
        self._sent: tuple[float, ChunkPoints, JointTrajectory] | None = None

    def send(self, points: ChunkPoints) -> None:
        """Let points replace the running ones."""
        trajectory = trajectory_message(points, self._joints.names)
        self._output.send(trajectory)
        self._sent = time.monotonic(), points, trajectory

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
            hold = trajectory_message(self._standstill(self._sent[1], now_ns), self._joints.names)
        self._output.stop(hold)
        self.forget()

    def _standstill(self, points: ChunkPoints, now_ns: int) -> ChunkPoints:
        position = self._measured.since(now_ns - FRESH * points.period_ns)
        if position is None:
            position = points.position(now_ns + points.period_ns)
        return stop_at(
            np.clip(position, self._joints.lower, self._joints.upper),
            now_ns=now_ns,
            period_ns=points.period_ns,
            velocities=points.velocities is not None,
        )
