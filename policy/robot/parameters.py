"""A robot from parameters, as a node has them and as a file of them holds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policy.robot.description import COMMAND, Robot, RobotError, Source, options
from policy.robot.message_types import MESSAGE_TYPES, type_name

SOURCES = "observation_sources"


def robot_from_parameters(parameters: Mapping[str, Any]) -> Robot:
    """The robot that parameters describe.

    Args:
        parameters: by name, nested or with dots in the names. Those that are not a robot's are ignored.

    Raises:
        RobotError: naming the key that is wrong, and what is allowed.
    """
    flat = flat_parameters(parameters)
    names = flat.get(SOURCES, [])
    if isinstance(names, str) or not isinstance(names, list | tuple):
        raise RobotError(f"{SOURCES} must be a list of names, got {names!r:.100}")
    if not all(isinstance(name, str) for name in names):
        raise RobotError(f"{SOURCES} must be a list of names, got {names!r:.100}")
    given = {name: flat[name] for name in options(Robot) if name in flat}
    sources = tuple(Source(name=name, **_of_source(name, flat)) for name in names if name)
    robot = Robot(sources=sources, **given)
    command = _of_source(COMMAND, flat)
    command = {name: value for name, value in command.items() if value not in ("", [""], ("",), [], ())}
    if not (command.keys() & {"topic", "type", "joints"} or robot.joints):
        return robot
    command.setdefault("type", "trajectory_msgs/JointTrajectory")
    command.setdefault("topic", robot.trajectory_topic)
    kind = MESSAGE_TYPES.get(type_name(str(command["type"])))
    if robot.joints and kind is not None and kind.by_joint:
        command.setdefault("joints", robot.joints)
    return Robot(sources=sources, command=Source(name=COMMAND, **command), **given)


def flat_parameters(parameters: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Parameters by their full names, with a dot between the levels."""
    flat: dict[str, Any] = {}
    for name, value in parameters.items():
        if isinstance(value, Mapping):
            flat |= flat_parameters(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _of_source(source: str, flat: Mapping[str, Any]) -> dict[str, Any]:
    known = options(Source)
    found = {
        name.removeprefix(f"{source}."): value
        for name, value in flat.items()
        if name.startswith(f"{source}.")
    }
    for name in found:
        if name not in known:
            raise RobotError(
                f"unknown key {source}.{name}, must be among {', '.join(f'{source}.{key}' for key in known)}"
            )
    return found
