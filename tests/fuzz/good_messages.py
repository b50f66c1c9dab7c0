"""Messages as robots send them, with drawn contents. Imports ROS messages, and so needs ROS."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration, Time
from control_msgs.msg import JointTrajectoryControllerState
from geometry_msgs.msg import Point32, PolygonStamped, PoseStamped
from PIL import Image as Pillow
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from tests.fuzz.damage import damaged_bytes

GOOD_SECOND = 100


def good_message(message_type: type) -> Any:
    """A message for a policy node that it must take."""
    rng = np.random.default_rng(0)
    if message_type is Float64MultiArray:
        return Float64MultiArray(data=[200.0] * 17)
    makers = {
        JointState: joint_state,
        PolygonStamped: polygon,
        PoseStamped: pose,
        Image: image,
        CompressedImage: compressed_image,
    }
    message = makers[message_type](rng)
    message.header.stamp = Time(sec=GOOD_SECOND)
    return message


def joint_state(rng: np.random.Generator) -> Any:
    message = JointState(name=["pusher_x", "pusher_y"], position=rng.uniform(100, 400, 2).tolist())
    message.header.stamp = Time(sec=GOOD_SECOND)
    return message


def polygon(rng: np.random.Generator) -> Any:
    message = PolygonStamped()
    message.header.stamp = Time(sec=GOOD_SECOND)
    message.polygon.points = [Point32(x=float(x), y=float(y)) for x, y in rng.uniform(100, 400, (9, 2))]
    return message


def pose(rng: np.random.Generator) -> Any:
    message = PoseStamped()
    message.header.stamp, message.header.frame_id = Time(sec=GOOD_SECOND), "world"
    message.pose.position.x, message.pose.position.y = rng.uniform(100, 400, 2).tolist()
    message.pose.orientation.z = message.pose.orientation.w = 2**0.5 / 2
    return message


def image(rng: np.random.Generator) -> Any:
    encoding, depth = (("rgb8", 3), ("bgra8", 4), ("mono8", 1))[rng.integers(3)]
    message = Image(height=20, width=30, encoding=encoding, step=30 * depth)
    message.header.stamp = Time(sec=GOOD_SECOND)
    message.data = rng.integers(0, 256, 20 * 30 * depth, dtype=np.uint8).tobytes()
    return message


def compressed_image(rng: np.random.Generator) -> Any:
    file = io.BytesIO()
    pixels = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Pillow.fromarray(pixels).save(file, ("JPEG", "PNG")[rng.integers(2)])
    content = file.getvalue()
    if rng.random() < 0.3:
        content, _ = damaged_bytes(rng, content)
    message = CompressedImage(format="jpeg", data=content)
    message.header.stamp = Time(sec=GOOD_SECOND)
    return message


def trajectory(rng: np.random.Generator) -> Any:
    points = [
        JointTrajectoryPoint(
            positions=rng.uniform(100, 400, 2).tolist(),
            time_from_start=Duration(nanosec=100_000_000 * (i + 1)),
        )
        for i in range(int(rng.integers(1, 9)))
    ]
    return JointTrajectory(joint_names=["pusher_x", "pusher_y"], points=points)


def controller_state(rng: np.random.Generator) -> Any:
    message = JointTrajectoryControllerState(joint_names=["pusher_x", "pusher_y"])
    message.header.stamp = Time(sec=GOOD_SECOND)
    for point in (message.reference, message.feedback):
        point.positions = rng.uniform(100, 400, 2).tolist()
    return message
