"""From action chunks to ROS messages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Point
from numpy.typing import NDArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint
from visualization_msgs.msg import Marker, MarkerArray

from policy.robot.joint_limits import JointLimits
from ros_nodes.commands.chunk_points import ChunkPoints


def trajectory_message(points: ChunkPoints, names: Sequence[str]) -> JointTrajectory:
    """Points as a trajectory, stamped with the time of their newest observation.

    Args:
        names: names of the joints, in the order of the points' columns.
    """
    message = JointTrajectory()
    message.header.stamp = Time(sec=points.stamp_ns // 10**9, nanosec=points.stamp_ns % 10**9)
    message.joint_names = list(names)
    rows = [
        [[]] * len(points) if part is None else part.tolist()
        for part in (points.positions, points.velocities, points.accelerations)
    ]
    for due, positions, velocities, accelerations in zip(points.times_ns, *rows, strict=True):
        message.points.append(
            JointTrajectoryPoint(
                positions=positions,
                velocities=velocities,
                accelerations=accelerations,
                time_from_start=Duration(sec=due // 10**9, nanosec=due % 10**9),
            )
        )
    return message


def path_markers(
    chunk: NDArray[np.float64], limits: JointLimits, *, frame_id: str, stamp_ns: int, lifetime_ns: int
) -> MarkerArray:
    """A chunk (points, joints) as a line with a dot at each point.

    The first three joints are drawn as x, y and z, sizes follow the joints' limits.
    """
    size = max(np.subtract(limits.upper, limits.lower).tolist())
    points = [Point(**dict(zip("xyz", row, strict=False))) for row in chunk.tolist()]
    markers = MarkerArray()
    for number, (kind, scale) in enumerate(((Marker.LINE_STRIP, 0.005), (Marker.SPHERE_LIST, 0.015))):
        marker = Marker()
        marker.header.frame_id = frame_id
        marker.header.stamp = Time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
        marker.ns = "predicted_path"
        marker.id = number
        marker.type = kind
        marker.action = Marker.ADD
        marker.pose.orientation.w = 1.0
        marker.scale.x = marker.scale.y = marker.scale.z = scale * size
        marker.color.r, marker.color.g, marker.color.b, marker.color.a = 1.0, 0.4, 0.1, 0.9
        marker.lifetime = Duration(sec=lifetime_ns // 10**9, nanosec=lifetime_ns % 10**9)
        marker.points = points
        markers.markers.append(marker)
    return markers
