"""Draws the policy's predicted path over the pictures of cameras whose `projection` the robot's file knows."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from visualization_msgs.msg import Marker, MarkerArray

from policy.robot.description import Source
from policy.robot.message_types import Message
from policy.robot.observation_history import RejectedObservation
from policy.robot.pictures import MOST_PICTURE_BYTES, check_decoder, message_picture
from policy.robot.robot_file import load_robot
from policy.robot.times import ImpossibleTimeError, duration_ns, time_ns
from ros_nodes.node_process import run_node
from ros_nodes.overlay.drawing import draw_path, enlarged, projected
from ros_nodes.reception.bounded_subscription import subscribe_bounded
from ros_nodes.reception.message_classes import message_class
from ros_nodes.reception.refusals import Refusals

PARAMETERS = (
    ("robot", "", "YAML file of the robot, as the policy node takes it"),
    ("predicted_path", "policy/predicted_path", "topic of the policy's predicted path"),
)
MOST_POINTS = 4096


class PathOverlay(Node):
    """Publishes `~/<camera>` while somebody listens: each picture with the path that was predicted last.

    Raises:
        ValueError: for a robot without a camera that has a projection.
    """

    def __init__(self, name: str = "path_overlay") -> None:
        super().__init__(name)
        for parameter, default, description in PARAMETERS:
            self.declare_parameter(parameter, default, ParameterDescriptor(description=description))
        file = self.get_parameter("robot").value
        if not file:
            raise ValueError("parameter robot must name a robot's file")
        cameras = [source for source in load_robot(file).sources if source.projection]
        if not cameras:
            raise ValueError(f"{file}: no camera has a projection, by which its path could be drawn")
        self._path: tuple[int, int, NDArray[np.float64]] | None = None  # from, to in ns; points (n, 2)
        self._refusals = Refusals("message", self.get_logger().warning)
        subscribe_bounded(
            self,
            MarkerArray,
            self.get_parameter("predicted_path").value,
            callback=self._on_path,
            refuse=partial(self._refusals.add, "predicted_path"),
            qos=10,
        )
        for camera in cameras:
            check_decoder(camera)
            publisher = self.create_publisher(Image, f"~/{camera.name}", 10)
            reliable = camera.reliability == "reliable"
            subscribe_bounded(
                self,
                message_class(camera.type),
                camera.topic,
                callback=partial(self._on_frame, camera, publisher),
                refuse=partial(self._refusals.add, camera.name),
                qos=QoSProfile(
                    depth=1,
                    reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
                ),
                most_bytes=MOST_PICTURE_BYTES,
            )

    def _on_path(self, message: MarkerArray) -> None:
        for marker in message.markers:
            if marker.type != Marker.LINE_STRIP:
                continue
            points = np.array([(point.x, point.y) for point in marker.points[:MOST_POINTS]])
            if not len(points) or not np.isfinite(points).all():
                self._refusals.add("predicted_path", "not_finite", "a path of no points, or not finite ones")
                return
            try:
                start = time_ns(marker.header.stamp)
                self._path = start, start + duration_ns(marker.lifetime), points
            except ImpossibleTimeError as error:
                self._refusals.add("predicted_path", "time", str(error))

    def _on_frame(self, camera: Source, publisher: Any, message: Message) -> None:
        if not publisher.get_subscription_count():
            return
        try:
            picture = enlarged(message_picture(message))
            stamp = time_ns(message.header.stamp)
        except RejectedObservation as rejection:
            self._refusals.add(camera.name, rejection.reason, str(rejection))
            return
        except ImpossibleTimeError as error:
            self._refusals.add(camera.name, "time", str(error))
            return
        if self._path is not None and self._path[0] <= stamp <= self._path[1]:
            path = projected(self._path[2], camera.projection)
            if len(path):
                draw_path(picture, path)
        height, width, _ = picture.shape
        drawn = Image(header=message.header, height=height, width=width, encoding="rgb8", step=3 * width)
        drawn.data = picture.tobytes()
        publisher.publish(drawn)


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until it is interrupted."""
    return run_node(PathOverlay, "path_overlay", args)


if __name__ == "__main__":
    sys.exit(main())
