"""Any gymnasium environment as a robot in a ROS 2 graph (see docs/ros.md). Its task is that of a checkpoint."""

from __future__ import annotations

import sys

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node

from policy import DiffusionPolicy
from ros_nodes.simulator.environment_world import EnvironmentWorld
from ros_nodes.simulator.part_sensors import PartSensors
from ros_nodes.simulator.simulated_robot import World
from ros_nodes.simulator.simulator import Sensors, Simulator, run_simulator
from training.evaluation.environment import EnvironmentConfig


def _build(node: Node) -> tuple[World, Sensors]:
    """The environment of the node's parameters, which are fixed.

    Raises:
        ValueError: for a checkpoint that cannot be read, or an environment that does not fit its task.
    """

    def text(name: str, description: str) -> str:
        node.declare_parameter(name, "", ParameterDescriptor(description=description, read_only=True))
        return str(node.get_parameter(name).value)

    checkpoint = text("checkpoint", "safetensors file of a policy, whose task it is")
    if not checkpoint:
        raise ValueError("parameter checkpoint must name a safetensors file of a policy, whose task it is")
    task = DiffusionPolicy.load(checkpoint).task
    keys = {
        part.name: text(
            f"environment.observation.{part.name}",
            f"key of the environment's observation that the part {part.name} is; empty: of the same name",
        )
        for part in task.observation
    }
    config = EnvironmentConfig(
        text(
            "environment.id",
            "id of the gymnasium environment, module:Id-v0 where a module has to be imported",
        )
        or None,
        {part: key for part, key in keys.items() if key},
        text(
            "environment.success",
            "key of its info that says whether the task is done, or terminated; empty: is_success, or else success",
        )
        or None,
    )
    return EnvironmentWorld(config, task), PartSensors(node, task)


def main(arguments: list[str] | None = None) -> int:
    return run_simulator(
        lambda: Simulator("simulator", controller="joint_trajectory_controller", build=_build), arguments
    )


if __name__ == "__main__":
    sys.exit(main())
