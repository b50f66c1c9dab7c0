"""Runs the policy node alone, for a robot, and brings it up to active.

Imports nothing but ROS, as `ros2 launch` may run outside of the virtual environment that has torch.
"""

from __future__ import annotations

import shutil

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
)
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration
from launch.utilities.type_utils import perform_typed_substitution
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from lifecycle_msgs.msg import Transition

PACKAGE = "pcm_policy"

ARGUMENTS = (
    (
        "params_file",
        "",
        "YAML file of the robot, with the node's other parameters; share/pcm_policy/config/policy.yaml is a template",
    ),
    ("checkpoint", "", "safetensors file of the policy, instead of the one in params_file"),
    ("pcm", "", "safetensors file of a PCM for it, instead of the one in params_file"),
    (
        "method",
        "",
        "sampler.method; solver and steps, where not given, are then auto and 0 whatever params_file says",
    ),
    ("solver", "", "sampler.solver, instead of the one in params_file"),
    ("steps", "", "sampler.steps, likewise"),
    ("iterations", "", "sampler.stop.iterations, likewise"),
    ("output", "", "topic or follow_joint_trajectory, instead of what params_file says"),
    ("namespace", "", "namespace of the node, its topics and its actions"),
    (
        "use_sim_time",
        "",
        "true where observations are stamped with the time of /clock, instead of what params_file says",
    ),
    ("autostart", "true", "false leaves the node unconfigured"),
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
    overrides: dict[str, str | int | bool] = {
        name: value[name] for name in ("checkpoint", "pcm", "output") if value[name]
    }
    overrides |= _sampler(value)
    if value["use_sim_time"]:
        overrides["use_sim_time"] = _truth(context, "use_sim_time")
    policy = LifecycleNode(
        **_executable("policy_node"),
        name="policy",
        namespace=value["namespace"],
        output="screen",
        parameters=[*filter(None, [value["params_file"], overrides])],
    )
    return [policy, *(_bring_up(policy) if _truth(context, "autostart") else [])]


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


def _truth(context: LaunchContext, argument: str) -> bool:
    return bool(perform_typed_substitution(context, [LaunchConfiguration(argument)], bool))


def _bring_up(node: LifecycleNode) -> list[Action]:
    """Configure the node, then activate it. One that cannot be configured stays, to be mended and configured."""

    def change(transition: int) -> EmitEvent:
        return EmitEvent(
            event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition)
        )

    def on_configured(goal: str, action: Action) -> RegisterEventHandler:
        return RegisterEventHandler(
            OnStateTransition(
                target_lifecycle_node=node, start_state="configuring", goal_state=goal, entities=[action]
            )
        )

    failed = "not configured: set its parameters, then `ros2 lifecycle set` configure and activate"
    return [
        on_configured("inactive", change(Transition.TRANSITION_ACTIVATE)),
        on_configured("unconfigured", LogInfo(msg=failed)),
        change(Transition.TRANSITION_CONFIGURE),
    ]


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
