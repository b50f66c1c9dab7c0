"""Runs ros2_control with a robot's joint_trajectory_controller: by default the pusher's, on mock hardware.

Imports nothing but ROS, as `ros2 launch` may run outside of the virtual environment that has torch.
"""

from __future__ import annotations

from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

CONFIG = Path(__file__).resolve().parents[1] / "config"

ARGUMENTS = (
    ("urdf", str(CONFIG / "pusher.urdf"), "URDF file of the robot, with its ros2_control tag"),
    ("controllers_file", str(CONFIG / "ros2_control.yaml"), "YAML file of its controllers"),
    ("controllers", "joint_state_broadcaster pusher_controller", "names of the controllers to activate"),
)


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=text)
                for name, default, text in ARGUMENTS
            ),
            OpaqueFunction(function=_start),
        ]
    )


def _start(context: LaunchContext) -> list[Action]:
    value = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    description = Path(value["urdf"]).read_text(encoding="utf-8")
    return [
        Node(
            package="robot_state_publisher",
            executable="robot_state_publisher",
            parameters=[{"robot_description": description}],
            output="screen",
        ),
        Node(
            package="controller_manager",
            executable="ros2_control_node",
            parameters=[value["controllers_file"]],
            output="screen",
        ),
        Node(
            package="controller_manager",
            executable="spawner",
            arguments=[
                *value["controllers"].split(),
                "--param-file",
                value["controllers_file"],
                "--controller-manager-timeout",
                "60",
            ],
            output="screen",
        ),
    ]
