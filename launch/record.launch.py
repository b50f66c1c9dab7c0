"""Records demonstrations of a robot: one bag an episode.

Imports nothing but ROS, as `ros2 launch` may run outside of the virtual environment that has torch.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch.utilities.type_utils import perform_typed_substitution
from launch_ros.actions import Node

PACKAGE = "pcm_policy"

ARGUMENTS = (
    ("robot", "", "YAML file of the robot, as policy.launch.py takes it; needs a value"),
    ("output", "", "folder in which the episodes appear; needs a value"),
    ("rate", "0.0", "rate in Hz that the sources must keep; 0: that of the robot's control_period, or none"),
    ("insist", "false", "true: episodes begin although a topic is silent, too slow or stamped wrongly"),
    ("storage", "auto", "storage of rosbag2: mcap, sqlite3, or auto for mcap where it is installed"),
    ("namespace", "", "namespace of the recorder and of the robot's topics"),
    ("use_sim_time", "false", "true where messages are stamped with the time of /clock"),
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
    for name in ("robot", "output"):
        if not value[name]:
            raise ValueError(f"record.launch.py needs {name}:=…")
    insist, use_sim_time = (
        perform_typed_substitution(context, [LaunchConfiguration(name)], bool)
        for name in ("insist", "use_sim_time")
    )
    recorder = Node(
        **_executable("recorder_node"),
        name="recorder",
        namespace=value["namespace"],
        output="screen",
        parameters=[
            {
                "robot": str(Path(value["robot"]).resolve()),
                "output": str(Path(value["output"]).resolve()),
                "rate": float(value["rate"]),
                "insist": insist,
                "storage": value["storage"],
                "use_sim_time": use_sim_time,
            }
        ],
    )
    keys = f"ros2 run {PACKAGE} record_keys"
    if value["namespace"]:
        keys += f" --ros-args -r __ns:=/{value['namespace'].strip('/')}"
    return [
        recorder,
        LogInfo(msg=f"keys for it, in another terminal: {keys}"),
        RegisterEventHandler(OnProcessExit(target_action=recorder, on_exit=_ended)),
    ]


def _ended(event: ProcessExited, context: LaunchContext) -> None:
    # An error gives `ros2 launch` an exit status other than 0.
    if event.returncode != 0 and not context.is_shutdown:
        raise RuntimeError("the recorder cannot record; the reason is in its log above")


def _executable(name: str) -> dict[str, str]:
    """Where an executable is: installed by colcon, or by pip and on the PATH."""
    try:
        get_package_prefix(PACKAGE)
        return {"package": PACKAGE, "executable": name}
    except PackageNotFoundError:
        path = shutil.which(name)
        if path is None:
            raise RuntimeError(
                f"{name} not found: source the workspace that {PACKAGE} is built in, or activate the virtual "
                "environment that it is installed in"
            ) from None
        return {"executable": path}
