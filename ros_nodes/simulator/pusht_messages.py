"""PushT's messages: what its sensors say, and how it looks in RViz or Foxglove.

x to the right, y down, z into the picture; lengths in px.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from geometry_msgs.msg import Point, Point32, PolygonStamped, Pose, PoseStamped, Quaternion, Vector3
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from pusht_env.block import BAR, GOAL_POSE, STEM, to_world
from pusht_env.physics import PUSHER_RADIUS, WALL_CORNERS
from ros_nodes.simulator.simulated_robot import RobotState
from ros_nodes.simulator.simulator_messages import header

GOAL_COLOR = ColorRGBA(r=0.56, g=0.93, b=0.56, a=0.6)
BLOCK_COLOR = ColorRGBA(r=0.47, g=0.53, b=0.6, a=1.0)
PUSHER_COLOR = ColorRGBA(r=0.25, g=0.41, b=0.88, a=1.0)
WALL_COLOR = ColorRGBA(r=0.6, g=0.6, b=0.6, a=1.0)
BLOCK_HEIGHT = 20.0


def keypoints_polygon(state: RobotState) -> PolygonStamped:
    message = PolygonStamped(header=header(state))
    message.polygon.points = [Point32(x=x, y=y) for x, y in state.scene.keypoints.tolist()]
    return message


def block_pose(state: RobotState) -> PoseStamped:
    return PoseStamped(header=header(state), pose=_pose(state.scene.block_pose))


def image(state: RobotState, frame: NDArray[np.uint8]) -> Image:
    """A picture (height, width, 3) in RGB."""
    height, width, _ = frame.shape
    message = Image(header=header(state), height=height, width=width, encoding="rgb8", step=3 * width)
    message.data = frame.tobytes()
    return message


def markers(state: RobotState) -> MarkerArray:
    """Workspace, goal, block and pusher."""
    at = header(state)
    low, high = float(WALL_CORNERS[1][0]), float(WALL_CORNERS[3][0])
    walls = Marker(header=at, ns="workspace", type=Marker.LINE_STRIP, scale=Vector3(x=4.0), color=WALL_COLOR)
    walls.points = [
        Point(x=x, y=y) for x, y in ((low, low), (high, low), (high, high), (low, high), (low, low))
    ]
    pusher = Marker(header=at, ns="pusher", type=Marker.CYLINDER, color=PUSHER_COLOR)
    pusher.pose.position = Point(x=state.position[0], y=state.position[1])
    pusher.scale = Vector3(x=2 * PUSHER_RADIUS, y=2 * PUSHER_RADIUS, z=2 * BLOCK_HEIGHT)
    goal = _block_markers(at, "goal", GOAL_POSE, height=1.0, color=GOAL_COLOR)
    block = _block_markers(at, "block", state.scene.block_pose, height=BLOCK_HEIGHT, color=BLOCK_COLOR)
    return MarkerArray(markers=[walls, *goal, *block, pusher])


def _block_markers(
    at: Header,
    namespace: str,
    pose: Sequence[float] | NDArray[np.float64],
    *,
    height: float,
    color: ColorRGBA,
) -> list[Marker]:
    """The bar and the stem of a T at a pose (3,)."""
    parts = []
    for index, (left, right, top, bottom) in enumerate((BAR, STEM)):
        x, y = to_world([[(left + right) / 2, (top + bottom) / 2]], pose)[0].tolist()
        part = Marker(header=at, ns=namespace, id=index, type=Marker.CUBE, color=color)
        part.pose = _pose((x, y, float(pose[2])))
        part.scale = Vector3(x=right - left, y=bottom - top, z=height)
        parts.append(part)
    return parts


def _pose(pose: Sequence[float] | NDArray[np.float64]) -> Pose:
    x, y, angle = (float(value) for value in pose)
    turn = Quaternion(z=math.sin(angle / 2), w=math.cos(angle / 2))
    return Pose(position=Point(x=x, y=y), orientation=turn)
