"""Launch actions that the launch tests share: the nodes, each a process, from this checkout or what is installed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from launch import LaunchDescription
from launch.action import Action
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_testing.actions import ReadyToTest
from launch_testing.tools import ProcessProxy
from process_status import memory, threads

# On a loaded machine a node that is told to end may take a while, which is no fault.
SECONDS_TO_END = "60"

ROBOT = Path(__file__).resolve().parents[3] / "config" / "pusht.yaml"


def policy(
    name: str = "policy", program: tuple[Any, ...] = ("-m", "ros_nodes.policy_node.node"), **options: Any
) -> Node:
    """A policy node, not configured. Simulated time without a clock stands at 0, where nothing ages.

    Args:
        name: of the node.
        program: that Python runs.
        options: parameters, with `__` for a dot in their names, and `namespace`.
    """
    defaults = {
        "checkpoint": LaunchConfiguration("checkpoint"),
        "engine": "eager",
        "sampler__solver": "auto",
        "sampler__steps": 4,
        "use_sim_time": True,
    }
    return _node(name, program, file=ROBOT, **{**defaults, **options})


def simulator(**parameters: Any) -> Node:
    return _node("pusht_simulator", ("-m", "ros_nodes.simulator.simulator_node"), **parameters)


def _node(
    name: str,
    program: tuple[Any, ...],
    *,
    namespace: str = "",
    file: Path | None = None,
    **parameters: Any,
) -> Node:
    return Node(
        executable=sys.executable,
        arguments=list(program),
        name=name,
        namespace=namespace,
        parameters=[
            *([str(file)] if file else []),
            {key.replace("__", "."): value for key, value in parameters.items()},
        ],
        sigterm_timeout=SECONDS_TO_END,
        sigkill_timeout=SECONDS_TO_END,
    )


def description(*actions: Action) -> LaunchDescription:
    """Processes to test, all at once."""
    return LaunchDescription(
        [
            DeclareLaunchArgument("checkpoint", description="safetensors file of a policy"),
            DeclareLaunchArgument("folder", description="where a test may write"),
            *actions,
            ReadyToTest(),
        ]
    )


class Process(ProcessProxy):
    """A process under test."""

    @property
    def pid(self) -> int:
        return int(self.target_process_action.process_details["pid"])

    @property
    def memory(self) -> int:
        """In bytes."""
        return memory(self.pid)

    @property
    def threads(self) -> int:
        return threads(self.pid)
