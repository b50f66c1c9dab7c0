from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from policy.robot.description import Robot, RobotError
from policy.robot.limit_choice import commanded_joints
from policy.robot.urdf import MOST_BYTES, UrdfLimit, read_urdf, urdf_limits
from policy.task import Task

NAMES = ("shoulder", "elbow", "wrist")
URDF = """<?xml version="1.0"?>
<robot name="arm">
  <joint name="wrist" type="continuous"><limit effort="1" velocity="3"/></joint>
  <joint name="elbow" type="revolute"><limit effort="1" lower="-1.5" upper="1.5" velocity="2"/></joint>
  <joint name="shoulder" type="revolute"><limit effort="1" lower="-1.25" upper="1.25" velocity="0"/></joint>
  <ros2_control name="arm" type="system"><joint name="elbow"/></ros2_control>
</robot>
"""


def test_limits_are_the_robots_and_else_the_tasks(robot: Robot, task: Task) -> None:
    joints = commanded_joints(robot, task)
    assert joints.names == NAMES
    assert joints.lower == (-1.0, -0.25, -3.0)
    assert joints.upper == (1.0, 2.0, 3.0)
    assert not joints.limits_motion


def test_a_urdf_limits_what_the_robots_file_leaves_open(robot: Robot, task: Task) -> None:
    some = replace(robot, upper_limits=(math.nan, 1.0, 3.0), velocity_limits=(1.0, math.nan, 2.5))
    joints = commanded_joints(replace(some, acceleration_limits=(math.nan, 9.0, math.nan)), task, urdf=URDF)
    assert joints.lower == (-1.0, -0.25, -3.0), "of the URDF's and the task's, the narrower one"
    assert joints.upper == (0.5, 1.0, 3.0)
    assert joints.velocity == (1.0, 2.0, 2.5)
    assert joints.acceleration == (math.inf, 9.0, math.inf)
    assert joints.limits_motion


def test_a_joint_without_a_limit_is_named(robot: Robot, task: Task) -> None:
    with pytest.raises(
        RobotError, match="joint 'wrist' has no lower limit: the task knows none, so lower_limits"
    ):
        commanded_joints(replace(robot, lower_limits=()), task)
    with pytest.raises(RobotError, match="joint 'wrist' has no upper limit"):
        commanded_joints(replace(robot, upper_limits=(1.0, 1.0, math.nan)), task)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lower_limits": (0.0,)}, r"lower_limits are 1, joints are 3 \(shoulder"),
        ({"acceleration_limits": (1.0,)}, r"acceleration_limits are 1, joints are 3 \(shoulder"),
        ({"lower_limits": (0.0, 5.0, 0.0)}, "limits of joint elbow must increase, got 5 … 2"),
    ],
)
def test_limits_that_do_not_fit_are_named(
    robot: Robot, task: Task, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        commanded_joints(replace(robot, **changes), task)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"lower_limits": (-1.0, -1.75, -3.0)},
            "lower_limits say -1.75 for joint 'elbow', beyond its URDF's -1.5",
        ),
        ({"upper_limits": (1.0, 2.0, 3.0)}, "upper_limits say 2 for joint 'elbow', beyond its URDF's 1.5"),
        (
            {"velocity_limits": (1.0, 9.0, 1.0)},
            "velocity_limits say 9 for joint 'elbow', beyond its URDF's 2",
        ),
        ({}, "the URDF's velocity of joint 'shoulder' must be positive, got 0"),
    ],
)
def test_limits_that_contradict_the_urdf_are_named(
    robot: Robot, task: Task, changes: dict[str, Any], message: str
) -> None:
    inside = replace(robot, upper_limits=(1.0, 1.5, 3.0), lower_limits=(-1.0, -1.5, -3.0))
    with pytest.raises(RobotError, match=message):
        commanded_joints(replace(inside, **changes), task, urdf=URDF)


def test_limits_of_a_urdf_are_those_of_its_joints() -> None:
    assert urdf_limits(URDF, ("elbow", "wrist")) == (UrdfLimit(-1.5, 1.5, 2.0), UrdfLimit(None, None, 3.0))


BOMB = '<!DOCTYPE r [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><robot name="&b;"/>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (URDF.replace("shoulder", "hip"), "the URDF has no joint 'shoulder', only wrist, elbow, hip"),
        (URDF.replace("</robot>", ""), "the URDF is no XML: no element found"),
        (URDF.replace("robot", "sdf"), "must be a <robot>, got <sdf>"),
        (URDF.replace('"2"', '"fast"'), "the URDF's velocity of joint 'elbow' must be a number, got 'fast'"),
        (URDF.replace('"1.5"', '"nan"'), "the URDF's upper of joint 'elbow' must be a number"),
        (BOMB, "the URDF has a document type"),
    ],
)
def test_what_is_wrong_with_a_urdf_is_named(text: str, message: str) -> None:
    with pytest.raises(RobotError, match=message) as error:
        urdf_limits(text, NAMES)
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(RobotError, match=r"urdf .*arm\.urdf: cannot be read: No such file"):
        read_urdf(tmp_path / "arm.urdf")
    (tmp_path / "arm.urdf").write_bytes(b"\xff\xfe")
    with pytest.raises(RobotError, match=r"arm\.urdf: is not text"):
        read_urdf(tmp_path / "arm.urdf")
    (tmp_path / "arm.urdf").write_bytes(b" " * (MOST_BYTES + 1))
    with pytest.raises(RobotError, match=f"at most {MOST_BYTES} are read"):
        read_urdf(tmp_path / "arm.urdf")
