from __future__ import annotations

import math
from typing import Any

import pytest

from policy.robot.description import Robot, RobotError
from policy.robot.parameters import flat_parameters, robot_from_parameters

CAMERA = {"arm.type": "sensor_msgs/Image", "arm.joints": [""]}


def test_a_robot_is_what_its_parameters_say(robot: Robot) -> None:
    arm, wrist, gripper = robot.sources
    assert (arm.name, arm.topic, arm.type, arm.joints) == (
        "arm",
        "joint_states",
        "sensor_msgs/JointState",
        ("shoulder", "elbow", "wrist"),
    )
    assert arm.fields == ("position",)
    assert (arm.max_age, arm.reliability, arm.frame_id) == (0.5, "reliable", "")
    assert (wrist.fields, wrist.max_age, wrist.reliability) == (("force.z", "torque.x"), 0.1, "best_effort")
    assert gripper.fields == ("data",)
    assert robot.upper_limits == (1.0, 2.0, 3.0)
    assert math.isnan(robot.lower_limits[1])
    assert [source.size for source in robot.sources] == [3, 2, 1]


def test_dots_in_names_are_levels(parameters: dict[str, Any], robot: Robot) -> None:
    assert str(robot_from_parameters(flat_parameters(parameters))) == str(robot)


def test_what_ros_writes_for_empty_lists_is_empty(parameters: dict[str, Any]) -> None:
    parameters["gripper"] |= {"joints": [""], "fields": [""]}
    parameters["gripper"] |= {"projection": [math.nan]}
    parameters |= {"joints": [""], "lower_limits": [math.nan], "upper_limits": [math.nan]}
    robot = robot_from_parameters(parameters)
    assert robot.sources[2].fields == ("data",)
    assert (robot.joints, robot.lower_limits, robot.upper_limits) == ((), (), ())


def test_commands_are_read_from_where_the_policy_will_send_them(robot: Robot) -> None:
    command = robot.command
    assert command is not None
    assert (command.topic, command.type) == (robot.trajectory_topic, "trajectory_msgs/JointTrajectory")
    assert (command.joints, command.fields) == (robot.joints, ("position",))


def test_commands_may_come_from_elsewhere(parameters: dict[str, Any]) -> None:
    parameters["command"] = {"topic": "leader", "type": "sensor_msgs/msg/JointState"}
    command = robot_from_parameters(parameters).command
    assert command is not None
    assert (command.topic, command.type, command.joints) == (
        "leader",
        "sensor_msgs/JointState",
        ("shoulder", "elbow", "wrist"),
    )
    parameters["command"] = {
        "topic": "cmd_vel",
        "type": "geometry_msgs/Twist",
        "fields": ["linear.x", "angular.z"],
    }
    command = robot_from_parameters(parameters).command
    assert command is not None
    assert (command.joints, command.fields) == ((), ("linear.x", "angular.z"))


def test_nothing_is_commanded_where_nothing_says_so(parameters: dict[str, Any]) -> None:
    del parameters["joints"]
    parameters["command"] = {"topic": "", "joints": [""]}
    assert robot_from_parameters(parameters).command is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observation_sources": []}, "observation_sources is empty, must name"),
        ({"observation_sources": [""]}, "observation_sources is empty, must name"),
        ({"observation_sources": "arm"}, "observation_sources must be a list of names, got 'arm'"),
        ({"observation_sources": [7]}, "observation_sources must be a list of names"),
        ({"observation_sources": ["arm", "arm"]}, "observation_sources must be distinct"),
        (
            {"observation_sources": ["wrist_camera"]},
            "wrist_camera.type must be one of sensor_msgs/JointState",
        ),
        ({"arm.topic": ""}, "arm.topic is empty"),
        ({"arm.topic": 7}, "arm.topic must be a text, got 7"),
        ({"arm.topc": "joint_states"}, "unknown key arm.topc, must be among arm.topic, arm.type"),
        ({"arm.first": 0}, "unknown key arm.first"),
        ({"arm.type": "sensor_msgs/Jointstate"}, "arm.type must be one of .*, got 'sensor_msgs/Jointstate'"),
        ({"arm.type": "trajectory_msgs/JointTrajectory"}, "arm.type .* tells commands, not observations"),
        ({"arm.joints": []}, "arm.joints is empty"),
        ({"arm.joints": "shoulder"}, "arm.joints must be a list of texts, got 'shoulder'"),
        ({"arm.joints": ["elbow", "elbow"]}, "arm.joints must be distinct names"),
        ({"arm.fields": ["torque"]}, "arm.fields must be among position, velocity, effort for .*'torque'"),
        ({"wrist_force.fields": []}, "wrist_force.fields is empty, must name some of force.x"),
        ({"wrist_force.joints": ["a"]}, "wrist_force.joints must be empty"),
        ({"arm.max_age": 0}, "arm.max_age must be in 0.001 … 3600, got 0"),
        ({"arm.max_age": math.nan}, "arm.max_age must be in"),
        ({"arm.max_age": "long"}, "arm.max_age must be a number, got 'long'"),
        ({"arm.max_age": True}, "arm.max_age must be a number"),
        (
            {"arm.reliability": "mostly"},
            "arm.reliability must be one of auto, reliable, best_effort, got 'mostly'",
        ),
        ({"arm.projection": [1.0] * 9}, "arm.projection must be empty for sensor_msgs/JointState"),
        ({"arm.type": "sensor_msgs/Image"}, "arm.joints must be empty for sensor_msgs/Image"),
        ({**CAMERA, "arm.fields": ["data"]}, "arm.fields must be empty for sensor_msgs/Image"),
        ({**CAMERA, "arm.projection": [1.0] * 8}, "arm.projection must be 9 finite numbers"),
        ({**CAMERA, "arm.same_pictures": "ignore"}, "arm.same_pictures must be one of refuse, allow"),
        ({"output": "smoke_signals"}, "output must be one of topic, follow_joint_trajectory"),
        ({"joints": ["a", "a"]}, "joints must be distinct"),
        ({"lower_limits": [-math.inf]}, "lower_limits must be finite, or nan"),
        ({"velocity_limits": [1.0, 0.0]}, "velocity_limits must be positive, or nan"),
        ({"acceleration_limits": [math.inf]}, "acceleration_limits must be positive, or nan"),
        (
            {"urdf": "arm.urdf", "robot_description": "/robot_description"},
            "urdf or from robot_description, got both",
        ),
        ({"upper_limits": 3.0}, "upper_limits must be a list of numbers, got 3.0"),
        ({"control_period": -1.0}, "control_period must be in 0 … 1000"),
        ({"command.type": "geometry_msgs/Twist"}, "command.fields is empty"),
        ({"command.type": "std_msgs/String"}, "command.type must be one of"),
    ],
)
def test_what_is_wrong_is_named(parameters: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RobotError, match=message) as error:
        robot_from_parameters(flat_parameters(parameters) | changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["joints", "command", "sampler"])
def test_a_source_is_not_named_as_another_key(name: str) -> None:
    source = {f"{name}.topic": "t", f"{name}.type": "std_msgs/Bool"}
    with pytest.raises(RobotError, match=f"names that no other key has, got '{name}'"):
        robot_from_parameters({"observation_sources": [name], **source})


@pytest.mark.parametrize(
    ("source", "size", "names", "units"),
    [
        ({"type": "sensor_msgs/JointState", "joints": ["a", "b"]}, 2, ("a", "b"), ("", "")),
        (
            {"type": "sensor_msgs/JointState", "joints": ["a", "b"], "fields": ["position", "velocity"]},
            4,
            ("a.position", "a.velocity", "b.position", "b.velocity"),
            ("",) * 4,
        ),
        (
            {"type": "sensor_msgs/Imu", "fields": ["yaw", "angular_velocity.z"]},
            2,
            ("yaw", "angular_velocity.z"),
            ("rad", "rad/s"),
        ),
        ({"type": "std_msgs/Float64MultiArray"}, 2, ("data[0]", "data[1]"), ("", "")),
        ({"type": "std_msgs/Float32MultiArray", "fields": ["data[4]"]}, 1, ("data[4]",), ("",)),
        (
            {"type": "geometry_msgs/PolygonStamped", "fields": ["point.x", "point.y"]},
            4,
            ("point0.x", "point0.y", "point1.x", "point1.y"),
            ("",) * 4,
        ),
    ],
)
def test_each_number_has_a_name_and_a_unit_where_the_type_knows_one(
    source: dict[str, Any], size: int, names: tuple[str, ...], units: tuple[str, ...]
) -> None:
    parameters = {"observation_sources": ["part"], "part": {"topic": "t", **source}}
    (made,) = robot_from_parameters(parameters).sources
    assert made.number_names(size) == names
    assert made.number_units(size) == units
