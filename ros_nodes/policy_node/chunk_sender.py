"""From a predicted horizon to the points that are sent: inside the joints' limits, counted, and shown."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from visualization_msgs.msg import MarkerArray

from policy import PolicyConfig
from policy.robot.joint_limits import JointLimits
from ros_nodes.commands.chunk_messages import path_markers
from ros_nodes.commands.chunk_points import ChunkPoints, points_to_come
from ros_nodes.commands.limited_points import Start, limited
from ros_nodes.policy_node.chunk_length import check_over_limit, point_count
from ros_nodes.policy_node.motion import Motion
from ros_nodes.policy_node.parameters import PolicySettings
from ros_nodes.policy_node.statistics import PolicyStatistics
from ros_nodes.reception.refusals import WARNING_PERIOD


class ChunkSender:
    """Sends the points of a horizon that are still to come.

    Args:
        node: node that publishes the predicted path.
        settings: of the node.
        config: of the policy.
        joints: commanded joints, with their limits.
        motion: the robot's.
        statistics: where points and chunks are counted that are not as predicted.
        period_ns: control period.

    Attributes:
        count: number of points that are sent of a prediction that comes at once.

    Raises:
        ValueError: for more points after the chunk than there are, or limits that lockstep cannot keep.
    """

    def __init__(
        self,
        node: LifecycleNode,
        *,
        settings: PolicySettings,
        config: PolicyConfig,
        joints: JointLimits,
        motion: Motion,
        statistics: PolicyStatistics,
        period_ns: int,
    ) -> None:
        check_over_limit(settings.over_limit, joints, synchronous=settings.synchronous)
        self.count = point_count(config, tail=settings.tail_points, synchronous=settings.synchronous)
        self._node = node
        self._settings = settings
        self._joints = joints
        self._motion = motion
        self._statistics = statistics
        self._period_ns = period_ns
        self._begin = config.observation_steps - 1  # index in the horizon of the chunk
        self._lifetime_ns = config.action_steps * period_ns
        self._path = node.create_lifecycle_publisher(MarkerArray, "~/predicted_path", 10)

    def close(self) -> None:
        """Give up what it holds in the node."""
        self._node.destroy_lifecycle_publisher(self._path)

    def send(self, horizon: NDArray[np.float64], stamp_ns: int) -> ChunkPoints | None:
        """Send a horizon (H, J) of an observation; the points, which may be none, or None if it is not finite."""
        if not np.isfinite(horizon).all():
            self._statistics.non_finite_chunks += 1
            self._node.get_logger().error(
                "the policy's chunk is not finite, not sent", throttle_duration_sec=WARNING_PERIOD
            )
            return None
        points = self._points(horizon, stamp_ns)
        if len(points):
            self._motion.send(points)
            return points
        self._statistics.late_chunks += 1
        late = (self._now() - stamp_ns) / 1e9
        self._node.get_logger().warning(
            f"a chunk came {late:.3f} s after its observation, too late for all of its {self.count} points, not sent",
            throttle_duration_sec=WARNING_PERIOD,
        )
        return points

    def show(self, points: ChunkPoints) -> None:
        """Publish points as a line."""
        markers = path_markers(
            points.positions,
            self._joints,
            frame_id=self._settings.frame_id,
            stamp_ns=points.stamp_ns,
            lifetime_ns=self._lifetime_ns,
        )
        self._path.publish(markers)

    def _points(self, horizon: NDArray[np.float64], stamp_ns: int) -> ChunkPoints:
        settings = self._settings
        moves = not settings.synchronous
        inside, _ = self._joints.clamp(horizon)
        now = self._now()
        points = points_to_come(
            inside,
            begin=self._begin,
            count=self.count,
            velocities=settings.velocities and moves,
            accelerations=settings.accelerations and moves,
            stamp_ns=stamp_ns,
            period_ns=self._period_ns,
            published_ns=now if moves else None,
        )
        sent = slice(self._begin + self.count - len(points), self._begin + self.count)
        self._statistics.clamped_points += self._joints.clamp(horizon[sent])[1]
        if not len(points) or (points.velocities is None and not self._joints.limits_motion):
            return points
        time_ns = now if moves else stamp_ns
        start = Start(time_ns=time_ns, position=self._motion.measured(time_ns))
        kept = limited(points, self._joints, start=start, over_limit=settings.over_limit)
        self._statistics.limited_chunks += kept is not points
        return kept

    def _now(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)
