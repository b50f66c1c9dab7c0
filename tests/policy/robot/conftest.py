"""A robot with an arm of three joints, a wrist that feels forces, and a gripper."""

from __future__ import annotations

from typing import Any

import pytest

from policy.robot.description import Robot
from policy.robot.parameters import robot_from_parameters
from policy.task import Command, Part, Task

JOINTS = ("shoulder", "elbow", "wrist")


@pytest.fixture
def parameters() -> dict[str, Any]:
    """As a file holds them."""
    return {
        "observation_sources": ["arm", "wrist_force", "gripper"],
        "arm": {"topic": "joint_states", "type": "sensor_msgs/JointState", "joints": list(JOINTS)},
        "wrist_force": {
            "topic": "wrench",
            "type": "geometry_msgs/WrenchStamped",
            "fields": ["force.z", "torque.x"],
            "max_age": 0.1,
            "reliability": "best_effort",
        },
        "gripper": {"topic": "gripper/width", "type": "std_msgs/Float32"},
        "joints": list(JOINTS),
        "lower_limits": [-1.0, float("nan"), -3.0],
        "upper_limits": [1.0, 2.0, 3.0],
        "seed": 5,
    }


@pytest.fixture
def robot(parameters: dict[str, Any]) -> Robot:
    return robot_from_parameters(parameters)


@pytest.fixture
def task() -> Task:
    """What the robot fills: its parts in another order."""
    return Task(
        name="reach",
        rate=20.0,
        observation=(
            Part(name="gripper", names=("width",), units=("m",)),
            Part(name="arm", names=JOINTS, units=("rad",) * 3),
            Part(name="wrist_force", names=("force", "torque"), units=("N", "N·m")),
        ),
        action=Command(names=JOINTS, units=("rad",) * 3, lower=(-0.5, -0.25, None), upper=(0.5, 0.25, None)),
    )
