"""Runs episodes of a policy in the PushT simulator: simulator, policy and episode runner.

Imports nothing but ROS and what it brings, as `ros2 launch` may run outside of the virtual environment that has torch.
"""

from __future__ import annotations

import json
import os
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from ament_index_python.packages import (
    PackageNotFoundError,
    get_package_prefix,
    get_package_share_directory,
)
from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    OpaqueFunction,
    RegisterEventHandler,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown, matches_action
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch.utilities.type_utils import perform_typed_substitution
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from lifecycle_msgs.msg import Transition

PACKAGE = "pcm_policy"
LARGEST_HEADER = 4 << 20
RECORDED = [
    "/block/keypoints",
    "/block/pose",
    "/clock",
    "/diagnostics",
    "/joint_states",
    "/policy/predicted_path",
    "/pusher_controller/joint_trajectory",
    "/pusht_simulator/coverage",
    "/pusht_simulator/episode",
    "/pusht_simulator/markers",
    "/pusht_simulator/reward",
]


def _share() -> Path:
    try:
        return Path(get_package_share_directory(PACKAGE))
    except PackageNotFoundError:
        return Path(__file__).resolve().parent.parent


SHIPPED = _share() / "checkpoints" / "pusht_mirror.safetensors"
ARGUMENTS = (
    (
        "checkpoint",
        "",
        f"safetensors file of the policy; that of params_file, else {SHIPPED}, if empty",
    ),
    ("pcm", "", "safetensors file of a PCM; CHECKPOINT_pcm.safetensors, where that exists, if empty"),
    (
        "method",
        "",
        "sampler.method; solver and steps, where not given, are then auto and 0 whatever the files say; "
        "as in share/pcm_policy/config/pusht.yaml or params_file if empty",
    ),
    ("solver", "", "sampler.solver, instead of the one in the files"),
    ("steps", "", "sampler.steps, likewise"),
    ("iterations", "", "sampler.stop.iterations, likewise"),
    ("engine", "", "engine of the policy node, its own default if empty; plain computes as pcm-evaluate"),
    ("params_file", "", "YAML file with more parameters of the policy node"),
    ("episodes", "10", "number of episodes"),
    ("first_seed", "100000", "initial state of the first episode; one more per episode"),
    ("noise_seed", "0", "seed of the policy's noises"),
    ("max_steps", "200", "control steps of 0.1 s per episode"),
    ("mode", "realtime", "realtime, or lockstep: deterministic, and as fast as it goes"),
    ("real_time_factor", "1.0", "seconds of simulation per second, in mode realtime"),
    ("output_dir", "outputs/ros", "where summary.json is written, and a recording"),
    (
        "overlay",
        "false",
        "true publishes the predicted path over the picture, of a policy that sees, on path_overlay/camera",
    ),
    ("rviz", "false", "true shows the scene and the predicted path in RViz"),
    ("record", "false", "true records the topics as rosbag2 in output_dir"),
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
    rviz, record, overlay = (
        perform_typed_substitution(context, [LaunchConfiguration(name)], bool)
        for name in ("rviz", "record", "overlay")
    )
    file = yaml.safe_load(Path(value["params_file"]).read_text()) if value["params_file"] else {}
    if not value["checkpoint"] and not _named("checkpoint", file):
        value["checkpoint"] = str(SHIPPED)
    if not value["pcm"] and not _named("pcm", file):
        value["pcm"] = _pcm_beside(value["checkpoint"])
    if value["mode"] not in ("realtime", "lockstep"):
        raise ValueError(f"mode must be realtime or lockstep, got {value['mode']!r}")
    simulator = Node(
        **_executable("pusht_simulator_node"),
        name="pusht_simulator",
        output="screen",
        parameters=[{"mode": value["mode"], "real_time_factor": float(value["real_time_factor"])}],
    )
    checkpoint = value["checkpoint"] or _named("checkpoint", file)
    robot = str(_share() / "config" / ("pusht_image.yaml" if _sees(checkpoint) else "pusht.yaml"))
    policy = LifecycleNode(
        **_executable("policy_node"),
        name="policy",
        namespace="",
        output="screen",
        parameters=[
            robot,
            *filter(None, [value["params_file"]]),
            # One dictionary, at the end: values of a second one would go where the first one stands.
            _policy_parameters(value),
        ],
    )
    runner = Node(
        **_executable("episode_runner"),
        name="episode_runner",
        output="screen",
        parameters=[
            {name: int(value[name]) for name in ("episodes", "first_seed", "noise_seed", "max_steps")}
            | {"output_dir": value["output_dir"]}
        ],
    )
    return [
        simulator,
        policy,
        *_bring_up(policy, then=runner),
        *(_shut_down_after(process, process is runner) for process in (simulator, policy, runner)),
        *([_overlay(robot)] if overlay else []),
        *([_rviz()] if rviz else []),
        *([_recorder(Path(value["output_dir"]))] if record else []),
    ]


def _policy_parameters(value: dict[str, str]) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        "synchronous": value["mode"] == "lockstep",
        "use_sim_time": True,
    }
    parameters |= {name: value[name] for name in ("checkpoint", "pcm", "engine") if value[name]}
    return parameters | _sampler(value)


def _sampler(value: dict[str, str]) -> dict[str, str | int]:
    """The sampler's parameters that the arguments set.

    A solver and a number of steps belong to the method beside which a file names them: a method that is given as an
    argument takes neither from there.
    """
    parameters: dict[str, str | int] = (
        {"sampler.solver": "auto", "sampler.steps": 0} if value["method"] else {}
    )
    parameters |= {f"sampler.{name}": value[name] for name in ("method", "solver") if value[name]}
    for name, parameter in (("steps", "sampler.steps"), ("iterations", "sampler.stop.iterations")):
        if value[name]:
            if not value[name].isdecimal():
                raise ValueError(f"{name} must be a whole number, got {value[name]!r}")
            parameters[parameter] = int(value[name])
    return parameters


def _named(parameter: str, file: Any) -> str:
    """The value of a parameter in a parameter file's content, at any depth of namespaces; empty if there is none."""
    if not isinstance(file, dict):
        return ""
    found = (_named(parameter, part) for part in file.values())
    return str(file.get(parameter) or next(filter(None, found), ""))


def _sees(checkpoint: str) -> bool:
    """Whether a policy observes pictures, as its file says; what is wrong with a file, its node says."""
    try:
        with Path(checkpoint).open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(size, LARGEST_HEADER)))
        parts = json.loads(header["__metadata__"]["header"])["task"]["observation"]
        return any(part["kind"] == "image" for part in parts)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _pcm_beside(checkpoint: str) -> str:
    """The PCM beside a checkpoint, if there is one, so that `method:=pcm` alone is right."""
    if not checkpoint:
        return ""
    path = Path(checkpoint)
    pcm = path.with_name(f"{path.stem}_pcm.safetensors")
    return str(pcm) if pcm.is_file() else ""


def _bring_up(node: LifecycleNode, then: Action) -> list[Action]:
    """Configure a lifecycle node, activate it, and go on with another action."""

    def on(start: str, goal: str, action: Action) -> RegisterEventHandler:
        transition = OnStateTransition(
            target_lifecycle_node=node, start_state=start, goal_state=goal, entities=[action]
        )
        return RegisterEventHandler(transition)

    def change(transition: int) -> EmitEvent:
        return EmitEvent(
            event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition)
        )

    return [
        on("configuring", "inactive", change(Transition.TRANSITION_ACTIVATE)),
        on("configuring", "unconfigured", OpaqueFunction(function=_give_up)),
        on("activating", "active", then),
        change(Transition.TRANSITION_CONFIGURE),
    ]


def _give_up(context: LaunchContext) -> None:
    # An error, rather than a Shutdown event, gives `ros2 launch` an exit status other than 0.
    raise RuntimeError("the policy node cannot be configured; the reason is in its log above")


def _shut_down_after(process: ExecuteProcess, is_expected: bool) -> Action:
    """Shut everything down when a process ends; once only, as the others end too."""

    def shut_down(event: ProcessExited, context: LaunchContext) -> Action | None:
        if context.is_shutdown:
            return None
        if event.returncode != 0 or not is_expected:
            raise RuntimeError(f"{event.process_name} ended with {event.returncode}")
        return EmitEvent(event=Shutdown(reason="all episodes ran"))

    return RegisterEventHandler(OnProcessExit(target_action=process, on_exit=shut_down))


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


def _overlay(robot: str) -> Node:
    return Node(
        **_executable("path_overlay"), name="path_overlay", output="screen", parameters=[{"robot": robot}]
    )


def _rviz() -> Node:
    _require("rviz2", "rviz:=true")
    config = _share() / "config" / "pusht.rviz"
    return Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", str(config)],
        parameters=[{"use_sim_time": True}],
    )


def _recorder(output_dir: Path) -> ExecuteProcess:
    _require("ros2bag", "record:=true")
    bag = output_dir / datetime.now().strftime("bag_%Y%m%d_%H%M%S")
    return ExecuteProcess(cmd=["ros2", "bag", "record", "--output", str(bag), *RECORDED], output="screen")


def _require(package: str, argument: str) -> None:
    try:
        get_package_prefix(package)
    except PackageNotFoundError:
        raise RuntimeError(
            f"{argument} needs the ROS package {package} "
            f"(apt install ros-{os.environ.get('ROS_DISTRO', 'jazzy')}-{package})"
        ) from None
