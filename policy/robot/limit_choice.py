"""Which limits hold for the joints of a robot: those of its file, of its URDF, or of its task."""

from __future__ import annotations

import math
from collections.abc import Sequence

from policy.robot.description import Robot, RobotError
from policy.robot.fit import joint_names, some
from policy.robot.joint_limits import JointLimits
from policy.robot.urdf import UrdfLimit, urdf_limits
from policy.task import Task


def commanded_joints(robot: Robot, task: Task, *, urdf: str = "") -> JointLimits:
    """The joints that the task's actions are for, with their limits.

    What the robot's file names counts, but must not be wider than the URDF. Else the URDF's and the task's limits both
    hold. There are no others: no joint moves without a lower and an upper limit, and one without a largest speed or
    acceleration has none.

    Args:
        urdf: text of the robot's URDF; empty if there is none.

    Raises:
        RobotError: for joints that do not fit the task, limits that are not as many or contradict the URDF, a URDF
            without the joints, or a joint without a lower or an upper limit.
        ValueError: for limits that do not increase.
    """
    names = joint_names(robot, task)
    told = urdf_limits(urdf, names) if urdf else (UrdfLimit(None, None, None),) * len(names)
    lower, upper = (
        tuple(
            _position(name, key, own=own, urdf=getattr(limit, key), task=default)
            for name, own, limit, default in zip(
                names, _own(robot, f"{key}_limits", names), told, getattr(task.action, key), strict=True
            )
        )
        for key in ("lower", "upper")
    )
    velocity = tuple(
        _velocity(name, own=own, urdf=limit.velocity)
        for name, own, limit in zip(names, _own(robot, "velocity_limits", names), told, strict=True)
    )
    acceleration = tuple(
        math.inf if math.isnan(own) else own for own in _own(robot, "acceleration_limits", names)
    )
    return JointLimits(names, lower, upper, velocity, acceleration)


def _own(robot: Robot, key: str, names: Sequence[str]) -> tuple[float, ...]:
    limits: tuple[float, ...] = getattr(robot, key) or (math.nan,) * len(names)
    if len(limits) != len(names):
        raise RobotError(f"{key} are {len(limits)}, joints are {len(names)} ({some(names)})")
    return limits


def _position(name: str, key: str, *, own: float, urdf: float | None, task: float | None) -> float:
    wider = {"lower": min, "upper": max}[key]
    if not math.isnan(own):
        if urdf is not None and wider(own, urdf) != urdf:
            raise RobotError(f"{key}_limits say {own:g} for joint {name!r}, beyond its URDF's {urdf:g}")
        return own
    known = [limit for limit in (urdf, task) if limit is not None]
    if not known:
        raise RobotError(
            f"joint {name!r} has no {key} limit: the task knows none, so {key}_limits must name it, or a URDF"
        )
    return min(known) if key == "upper" else max(known)


def _velocity(name: str, *, own: float, urdf: float | None) -> float:
    if urdf is not None and urdf <= 0 and math.isnan(own):
        raise RobotError(
            f"the URDF's velocity of joint {name!r} must be positive, got {urdf:g}: velocity_limits must name another"
        )
    if math.isnan(own):
        return math.inf if urdf is None else urdf
    if urdf is not None and 0 < urdf < own:
        raise RobotError(f"velocity_limits say {own:g} for joint {name!r}, beyond its URDF's {urdf:g}")
    return own
