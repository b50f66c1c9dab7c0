"""PushT as a robot in a ROS 2 graph (see docs/ros.md)."""

from __future__ import annotations

import sys

from rclpy.node import Node

from ros_nodes.simulator.pusht_sensors import PushTSensors
from ros_nodes.simulator.pusht_world import PushTWorld
from ros_nodes.simulator.simulated_robot import World
from ros_nodes.simulator.simulator import Sensors, Simulator, run_simulator


def _build(node: Node) -> tuple[World, Sensors]:
    return PushTWorld(), PushTSensors(node)


def main(arguments: list[str] | None = None) -> int:
    return run_simulator(
        lambda: Simulator("pusht_simulator", controller="pusher_controller", build=_build), arguments
    )


if __name__ == "__main__":
    sys.exit(main())
