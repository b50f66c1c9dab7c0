"""What other nodes tell at configure: the robot's URDF, and what its controller takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import rclpy
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import GetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import String

from policy.robot.description import Robot, RobotError
from policy.robot.urdf import MOST_BYTES, read_urdf
from ros_nodes.reception.bounded_subscription import subscribe_bounded

PATIENCE = 5.0
"""Seconds to wait for a URDF, which who publishes it keeps for those that come late."""
ANSWER_PATIENCE = 1.0
"""Seconds to wait for a controller that is there."""


def robot_urdf(node: LifecycleNode, robot: Robot) -> str:
    """The text of the robot's URDF, from its file or its topic; empty if the robot names neither.

    Raises:
        RobotError: for a file that cannot be read, or a topic on which nothing comes.
    """
    if robot.urdf:
        return read_urdf(robot.urdf)
    if not robot.robot_description:
        return ""
    heard: list[str] = []
    refused: list[str] = []
    with _asking(node) as (other, spin_until):
        subscribe_bounded(
            other,
            String,
            robot.robot_description,
            callback=lambda message: heard.append(message.data),
            refuse=lambda reason, detail: refused.append(detail),
            qos=QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL),
            most_bytes=MOST_BYTES,
        )
        spin_until(lambda: heard or refused, PATIENCE)
    if refused:
        raise RobotError(f"robot_description {robot.robot_description}: {refused[0]}")
    if not heard:
        raise RobotError(
            f"no URDF came on robot_description {robot.robot_description} within {PATIENCE:g} s: does "
            "robot_state_publisher run?"
        )
    return heard[0]


def check_controller(node: LifecycleNode, interface: str) -> None:
    """Refuse a controller that is there, says what it commands, and does not command positions.

    Args:
        interface: name of the controller's topic or action.

    Raises:
        ValueError: naming the controller, and what it commands.
    """
    controller = interface.rpartition("/")[0]
    service = f"{controller}/get_parameters"
    there = dict(node.get_service_names_and_types())
    if not controller or node.resolve_service_name(service) not in there:
        return
    with _asking(node) as (other, spin_until):
        client = other.create_client(GetParameters, service)
        if not spin_until(client.service_is_ready, ANSWER_PATIENCE):
            return
        future = client.call_async(GetParameters.Request(names=["command_interfaces"]))
        if not spin_until(future.done, ANSWER_PATIENCE):
            return
        values = future.result().values
    told = [value for value in values if value.type == ParameterType.PARAMETER_STRING_ARRAY]
    if told and "position" not in told[0].string_array_value:
        raise ValueError(
            f"the controller {controller} commands {', '.join(told[0].string_array_value)}: its command_interfaces "
            "must have position, which the policy's chunks tell"
        )


@contextmanager
def _asking(node: LifecycleNode) -> Iterator[tuple[Node, Callable[[Callable[[], Any], float], bool]]]:
    """A node beside one that is in a callback, whose own executor serves nobody meanwhile."""
    other = rclpy.create_node(
        f"{node.get_name()}_inquiry",
        context=node.context,
        namespace=node.get_namespace(),
        use_global_arguments=False,
        enable_rosout=False,
        start_parameter_services=False,
    )
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(other)

    def spin_until(done: Callable[[], Any], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() > deadline:
                return False
            executor.spin_once(timeout_sec=0.02)
        return True

    try:
        yield other, spin_until
    finally:
        executor.shutdown()
        other.destroy_node()
