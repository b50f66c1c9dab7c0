"""What the PushT simulator publishes beside the pusher's joints."""

from __future__ import annotations

from geometry_msgs.msg import PolygonStamped, PoseStamped
from rcl_interfaces.msg import IntegerRange, ParameterDescriptor
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Float64
from visualization_msgs.msg import MarkerArray

from pusht_env.render import draw_frame
from ros_nodes.simulator import pusht_messages as messages
from ros_nodes.simulator.simulated_robot import SimulatedRobot


class PushTSensors:
    """The block, its coverage, and how all of it looks. Declares the parameter `image_size`."""

    def __init__(self, node: Node) -> None:
        self._node = node
        node.declare_parameter(
            "image_size",
            96,
            ParameterDescriptor(
                description="side of ~/image in px; policies see 96",
                integer_range=[IntegerRange(from_value=16, to_value=2048, step=1)],
            ),
        )
        self._keypoints = node.create_publisher(PolygonStamped, "block/keypoints", 10)
        self._pose = node.create_publisher(PoseStamped, "block/pose", 10)
        self._coverage = node.create_publisher(Float64, "~/coverage", 10)
        self._markers = node.create_publisher(MarkerArray, "~/markers", 10)
        self._image = node.create_publisher(Image, "~/image", 10)

    def publish(self, robot: SimulatedRobot) -> None:
        state = robot.state
        self._keypoints.publish(messages.keypoints_polygon(state))
        self._pose.publish(messages.block_pose(state))
        self._coverage.publish(Float64(data=state.scene.coverage))
        if self._markers.get_subscription_count():
            self._markers.publish(messages.markers(state))
        if self._image.get_subscription_count():
            frame = draw_frame(state.scene.picture, self._node.get_parameter("image_size").value)
            self._image.publish(messages.image(state, frame))
