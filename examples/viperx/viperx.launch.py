"""Runs episodes of a policy with the simulated arm: simulator, policy and episode runner.

ros2 launch examples/viperx/viperx.launch.py checkpoint:=outputs/viperx/policy.safetensors episodes:=20
"""

from __future__ import annotations

import shutil
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    GroupAction,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.events.process import ProcessExited
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node, SetParameter

HERE = Path(__file__).resolve().parent
PACKAGE = "pcm_policy"
ARGUMENTS = (
    ("checkpoint", None, "safetensors file of the policy"),
    ("episodes", "20", "number of episodes"),
    ("first_seed", "100000", "initial state of the first episode; one more per episode"),
    ("noise_seed", "0", "seed of the policy's noises"),
    ("max_steps", "100", "control steps of 0.1 s per episode"),
    ("mode", "lockstep", "lockstep: deterministic, and as fast as it goes; or realtime"),
    ("output_dir", "outputs/viperx_ros", "where summary.json is written"),
    # Launch knows it by this name.
    ("sigterm_timeout", "20", "seconds that a process has to end by itself, once the launch ends"),
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
    lockstep = value["mode"] == "lockstep"
    simulator = Node(
        **_executable("simulator_node"),
        name="simulator",
        output="screen",
        parameters=[
            {
                "mode": value["mode"],
                "checkpoint": value["checkpoint"],
                "environment.id": "viperx:viperx/PressButtons-v0",
            }
        ],
    )
    policy = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(HERE.parents[1] / "launch" / "policy.launch.py")),
        launch_arguments={
            "params_file": str(HERE / "viperx.yaml"),
            "checkpoint": value["checkpoint"],
            "use_sim_time": "true",
        }.items(),
    )
    # In lockstep with the engine that computes to the last bit as pcm-evaluate does.
    settings = [
        SetParameter("synchronous", lockstep),
        *([SetParameter("engine", "plain")] if lockstep else []),
    ]
    runner = Node(
        **_executable("episode_runner"),
        name="episode_runner",
        output="screen",
        parameters=[
            {name: int(value[name]) for name in ("episodes", "first_seed", "noise_seed", "max_steps")}
            | {"output_dir": value["output_dir"], "simulator": "simulator"}
            | {"controller": "joint_trajectory_controller"}
        ],
    )

    def shut_down(event: ProcessExited, context: LaunchContext) -> Action | None:
        if context.is_shutdown:
            return None
        if event.returncode != 0:
            raise RuntimeError(f"{event.process_name} ended with {event.returncode}")
        return EmitEvent(event=Shutdown(reason="all episodes ran"))

    ends = [
        RegisterEventHandler(OnProcessExit(target_action=process, on_exit=shut_down))
        for process in (simulator, runner)
    ]
    return [simulator, GroupAction([*settings, policy]), runner, *ends]


def _executable(name: str) -> dict[str, str]:
    """Where an executable is: installed by colcon, or by pip and on the PATH."""
    try:
        get_package_prefix(PACKAGE)
        return {"package": PACKAGE, "executable": name}
    except PackageNotFoundError:
        path = shutil.which(name)
        if path is None:
            raise RuntimeError(f"{name} not found: activate the environment that {PACKAGE} is in") from None
        return {"executable": path}
