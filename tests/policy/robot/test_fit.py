from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from policy.robot.description import Robot, RobotError, Source
from policy.robot.fit import (
    control_period_ns,
    filled_parts,
    joint_names,
    observation_history,
    position_columns,
    task_of,
)
from policy.robot.parameters import robot_from_parameters
from policy.task import Part, Task


def test_parts_lie_where_the_task_has_them(robot: Robot, task: Task) -> None:
    filled = filled_parts(robot, task)
    assert [(part.source.name, part.slice.first, part.slice.size) for part in filled] == [
        ("gripper", 0, 1),
        ("arm", 1, 3),
        ("wrist_force", 4, 2),
    ]
    assert filled[2].slice.max_age_ns == 100_000_000


def test_sources_that_the_task_does_not_need_are_left_out(robot: Robot, task: Task) -> None:
    smaller = replace(task, observation=task.observation[:1])
    assert [part.source.name for part in filled_parts(robot, smaller)] == ["gripper"]


def test_a_part_without_a_source_is_named(robot: Robot, task: Task) -> None:
    with pytest.raises(RobotError, match=r"part 'arm' of the task 'reach' has no source: .* gripper"):
        filled_parts(replace(robot, sources=robot.sources[1:]), task)


def test_a_part_of_another_size_is_named(robot: Robot, task: Task) -> None:
    part = Part(name="arm", names=("a", "b"), units=("", ""))
    with pytest.raises(
        RobotError, match=r"part 'arm' has 2 numbers \(a, b\), its source gives 3: 3 joints × 1"
    ):
        filled_parts(robot, replace(task, observation=(part,)))


def test_points_must_fill_a_part() -> None:
    polygon = Source(
        name="block", topic="b", type="geometry_msgs/PolygonStamped", fields=("point.x", "point.y")
    )
    part = Part(name="block", names=("a", "b", "c"), units=("", "", ""))
    with pytest.raises(RobotError, match="part 'block' has 3 numbers, its source gives 2 for each point"):
        filled_parts(Robot(sources=(polygon,)), _task_with(part))


def _task_with(part: Part) -> Task:
    values = {"observation_sources": ["x"], "x": {"topic": "x", "type": "std_msgs/Bool"}, "joints": ["j"]}
    task = task_of(robot_from_parameters(values), name="any", rate=10.0, sizes={})
    return replace(task, observation=(part,))


def test_joints_in_another_order_are_refused(robot: Robot, task: Task) -> None:
    mixed = replace(robot, sources=(replace(robot.sources[0], joints=("elbow", "shoulder", "wrist")),))
    arm_alone = replace(task, observation=(task.observation[1],))
    with pytest.raises(RobotError, match="part 'arm' must be in the order shoulder, elbow, wrist, got elbow"):
        filled_parts(mixed, arm_alone)
    with pytest.raises(RobotError, match="joints must be in the order shoulder, elbow, wrist"):
        joint_names(replace(robot, joints=("wrist", "elbow", "shoulder")), task)


def test_joints_that_are_not_as_many_as_the_actions_are_named(robot: Robot, task: Task) -> None:
    message = r"joints are 1 \(a\), the task 'reach' commands 3 \(shoulder, elbow, wrist\)"
    with pytest.raises(RobotError, match=message):
        joint_names(replace(robot, joints=("a",)), task)


def test_joints_are_named_as_the_actions_where_the_robot_names_none(robot: Robot, task: Task) -> None:
    assert joint_names(replace(robot, joints=()), task) == task.action.names


@pytest.mark.parametrize(("period", "rate", "expected"), [(0.0, 30.0, 33_333_333), (0.033, 30.0, 33_333_333)])
def test_the_period_is_the_tasks(robot: Robot, task: Task, period: float, rate: float, expected: int) -> None:
    assert control_period_ns(replace(robot, control_period=period), replace(task, rate=rate)) == expected


def test_a_period_that_contradicts_the_task_is_refused(robot: Robot, task: Task) -> None:
    with pytest.raises(
        RobotError, match=r"control_period is 0.1 s, the task 'reach' has 20 Hz, which is 0.05 s"
    ):
        control_period_ns(replace(robot, control_period=0.1), task)


def test_the_history_puts_measurements_where_the_task_has_them(robot: Robot, task: Task) -> None:
    history = observation_history(robot, task)
    for name, values in {"arm": [1e9, -1e9, 0.5], "wrist_force": [4.0, 5.0], "gripper": [6.0]}.items():
        history.add(name, 10**9, np.array(values))
    assert history.sample(10**9).tolist() == [[6.0, 1e9, -1e9, 0.5, 4.0, 5.0]]


def test_a_robots_own_recordings_are_of_the_task_that_it_fills(robot: Robot) -> None:
    task = task_of(robot, name="reach", rate=20.0, sizes={})
    assert [part.name for part in task.observation] == ["arm", "wrist_force", "gripper"]
    assert task.number_names == (
        "arm.shoulder",
        "arm.elbow",
        "arm.wrist",
        "wrist_force.force.z",
        "wrist_force.torque.x",
        "gripper.data",
    )
    assert task.observation[1].units == ("N", "N·m")
    assert task.action.names == robot.joints
    assert (task.action.lower, task.action.upper) == ((-1.0, None, -3.0), (1.0, 2.0, 3.0))
    assert len(filled_parts(robot, task)) == 3


def test_sizes_that_only_messages_tell_are_asked_for(parameters: dict[str, Any]) -> None:
    parameters["gripper"]["type"] = "std_msgs/Float32MultiArray"
    robot = robot_from_parameters(parameters)
    task = task_of(robot, name="reach", rate=20.0, sizes={"gripper": 2})
    assert task.observation[2].names == ("data[0]", "data[1]")
    with pytest.raises(RobotError, match="only messages tell how many numbers 'gripper' gives"):
        task_of(robot, name="reach", rate=20.0, sizes={})


def test_a_task_needs_commands(robot: Robot) -> None:
    with pytest.raises(RobotError, match="nothing says what is commanded"):
        task_of(replace(robot, command=None), name="reach", rate=20.0, sizes={})


def test_positions_of_commanded_joints_are_found_among_a_sources_numbers(robot: Robot, task: Task) -> None:
    (arm,) = [columns for columns in position_columns(robot, task).values() if columns]
    (part,) = [part for part in task.observation if part.name == "arm"]
    assert arm == {name: index for index, name in enumerate(part.names) if name in task.action.names}
    assert arm
