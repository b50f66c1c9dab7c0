"""What the simulator of any environment publishes beside the joints: each part of the observation."""

from __future__ import annotations

from rclpy.node import Node
from sensor_msgs.msg import JointState

from policy.task import Task
from ros_nodes.simulator.simulated_robot import SimulatedRobot
from ros_nodes.simulator.simulator_messages import header


class PartSensors:
    """A topic ``<part>/state`` for each part, with the names of its numbers as joints and the numbers as positions."""

    def __init__(self, node: Node, task: Task) -> None:
        self._parts = [
            (part.names, task.slices[part.name], node.create_publisher(JointState, f"{part.name}/state", 10))
            for part in task.vectors
        ]

    def publish(self, robot: SimulatedRobot) -> None:
        state = robot.state
        for names, numbers, publisher in self._parts:
            message = JointState(header=header(state), name=list(names))
            message.position = state.scene[numbers].tolist()
            publisher.publish(message)
