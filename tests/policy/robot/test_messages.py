from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from message_examples import EXAMPLES, HEADER, POINT, QUATERNION, example_source, rosbags_message

from policy.robot.description import Source
from policy.robot.message_types import MESSAGE_TYPES
from policy.robot.messages import (
    check_frame,
    command_points,
    measurement,
    message_stamp_ns,
    message_values,
)
from policy.robot.observation_history import RejectedObservation

NOW = 77


def example(kind: str, **changes: Any) -> Any:
    return rosbags_message(kind, {**copy.deepcopy(EXAMPLES[kind][0]), **changes})


def refusal(message: Any, source: Source, size: int) -> tuple[str, str]:
    with pytest.raises(RejectedObservation) as caught:
        message_values(message, source, size)
    return caught.value.reason, str(caught.value)


def test_every_type_of_numbers_has_an_example() -> None:
    assert EXAMPLES.keys() == {kind for kind, described in MESSAGE_TYPES.items() if not described.picture}


@pytest.mark.parametrize("kind", EXAMPLES)
def test_messages_of_rosbags_give_the_numbers_that_are_in_them(kind: str) -> None:
    expected = EXAMPLES[kind][2]
    stamp, values = measurement(example(kind), example_source(kind), size=len(expected), now_ns=NOW)
    assert values.dtype == np.float64
    assert values.tolist() == expected
    assert stamp == (3_000_000_005 if "header" in EXAMPLES[kind][0] else NOW)


@pytest.mark.parametrize("kind", [kind for kind in MESSAGE_TYPES if MESSAGE_TYPES[kind].fields])
def test_every_field_of_every_type_can_be_read(kind: str) -> None:
    message_type = MESSAGE_TYPES[kind]
    joints = ("a",) if message_type.by_joint else ()
    for name in message_type.fields:
        if name in ("effort", "acceleration"):  # which the examples do not have
            continue
        wanted = f"{name}[1]" if message_type.indexed else name
        source = Source(name="part", topic="topic", type=kind, joints=joints, fields=(wanted,))
        size = 2 if source.size is None else source.size
        assert np.isfinite(message_values(example(kind), source, size)).all()


@pytest.mark.parametrize(
    ("changes", "source", "expected"),
    [
        ({}, {"joints": ("a", "c")}, ("joint", "joint 'c' is missing")),
        ({}, {"joints": ("a",), "fields": ("effort",)}, ("length", "0 numbers in effort, need 2")),
        ({"position": [0.1]}, {"joints": ("b",)}, ("length", "1 numbers in position, need 2")),
    ],
)
def test_joints_that_cannot_be_read_are_named(
    changes: dict[str, Any], source: dict[str, Any], expected: tuple[str, str]
) -> None:
    kind = "sensor_msgs/JointState"
    described = Source(name="arm", topic="joint_states", type=kind, **source)
    assert refusal(example(kind, **changes), described, 1) == expected


def test_points_and_numbers_that_are_not_as_many_are_not_looked_at() -> None:
    polygon, array = "geometry_msgs/PolygonStamped", "std_msgs/Float32MultiArray"
    expected = "4 numbers, need 6"
    assert refusal(example(polygon), example_source(polygon), 6) == ("length", expected)
    assert refusal(example(array), example_source(array), 3) == ("length", "2 numbers, need 3")
    indexed = replace(example_source(array), fields=("data[2]",))
    assert refusal(example(array), indexed, 1) == ("length", "2 numbers in data, need more than 2")
    joy = replace(example_source("sensor_msgs/Joy"), fields=("axes[9]",))
    assert refusal(example("sensor_msgs/Joy"), joy, 1) == ("length", "2 numbers in axes, need more than 9")


@pytest.mark.parametrize("angle", [-3.0, -0.5, 0.0, 1.0, 3.0])
@pytest.mark.parametrize(("name", "axis"), [("roll", "x"), ("pitch", "y"), ("yaw", "z")])
def test_orientations_are_angles_too(name: str, axis: str, angle: float) -> None:
    angle = angle / 2 if name == "pitch" else angle  # which goes from −90° to 90°
    orientation = {"x": 0.0, "y": 0.0, "z": 0.0, "w": math.cos(angle / 2)} | {axis: math.sin(angle / 2)}
    source = Source(name="imu", topic="imu", type="sensor_msgs/Imu", fields=("roll", "pitch", "yaw"))
    values = message_values(example("sensor_msgs/Imu", orientation=orientation), source, 3)
    np.testing.assert_allclose(values, [angle * (axis == other) for other in "xyz"], atol=1e-12)


def test_angles_are_those_of_the_rotation() -> None:
    """z · y · x, each a rotation about a fixed axis, is the rotation of the quaternion."""
    source = Source(name="imu", topic="imu", type="sensor_msgs/Imu", fields=("roll", "pitch", "yaw"))
    size = math.sqrt(sum(value**2 for value in QUATERNION.values()))
    x, y, z, w = (QUATERNION[name] / size for name in "xyzw")
    orientation = {"x": x, "y": y, "z": z, "w": w}
    roll, pitch, yaw = message_values(example("sensor_msgs/Imu", orientation=orientation), source, 3)

    def about(axis: int, angle: float) -> np.ndarray:
        matrix = np.eye(3)
        i, j = (axis + 1) % 3, (axis + 2) % 3
        matrix[[i, j], [i, j]] = math.cos(angle)
        matrix[i, j], matrix[j, i] = -math.sin(angle), math.sin(angle)
        return matrix

    rotation = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    np.testing.assert_allclose(about(2, yaw) @ about(1, pitch) @ about(0, roll), rotation, atol=1e-12)


def test_each_point_of_a_trajectory_is_a_command_for_its_time() -> None:
    kind = "trajectory_msgs/JointTrajectory"
    later = {**POINT, "positions": [5.0, 6.0], "time_from_start": {"sec": 1, "nanosec": 0}}
    source = Source(name="command", topic="t", type=kind, joints=("b", "a"))
    points = command_points(example(kind, points=[POINT, later]), source, size=2, now_ns=NOW)
    assert [(due, values.tolist()) for due, values in points] == [
        (3_100_000_005, [0.2, 0.1]),
        (4_000_000_005, [6.0, 5.0]),
    ]
    now = {"stamp": {"sec": 0, "nanosec": 0}, "frame_id": ""}
    ((due, _),) = command_points(example(kind, header=now), source, size=2, now_ns=NOW)
    assert due == NOW + 100_000_000


def test_other_commands_are_for_their_own_time() -> None:
    ((due, values),) = command_points(
        example("geometry_msgs/Twist"), example_source("geometry_msgs/Twist"), size=2, now_ns=NOW
    )
    assert (due, values.tolist()) == (NOW, [1.25, -0.3])


def test_trajectories_that_cannot_be_read_are_refused() -> None:
    kind = "trajectory_msgs/JointTrajectory"
    source = example_source(kind)
    with pytest.raises(RejectedObservation, match="trajectory has no points"):
        command_points(example(kind, points=[]), source, size=2, now_ns=NOW)
    assert refusal(example(kind, points=[POINT, POINT]), source, 2) == ("length", "2 points, need 1")
    impossible = {**POINT, "time_from_start": {"sec": 0, "nanosec": 10**9}}
    with pytest.raises(RejectedObservation, match="time_from_start of point 0 is 1000000000 ns"):
        command_points(example(kind, points=[impossible]), source, size=2, now_ns=NOW)


def test_messages_that_do_not_say_when_were_taken_now() -> None:
    unstamped = {"stamp": {"sec": 0, "nanosec": 0}, "frame_id": ""}
    assert message_stamp_ns(example("sensor_msgs/Imu", header=unstamped), NOW) == NOW
    assert message_stamp_ns(example("std_msgs/Bool"), NOW) == NOW
    assert message_stamp_ns(example("sensor_msgs/Imu"), NOW) == 3_000_000_005


def test_stamps_that_no_clock_shows_are_refused() -> None:
    before = {"stamp": {"sec": -1, "nanosec": 0}, "frame_id": ""}
    with pytest.raises(RejectedObservation, match="stamped -1 s is before all clocks") as caught:
        message_stamp_ns(example("sensor_msgs/Imu", header=before), NOW)
    assert caught.value.reason == "time"


def test_frames_must_match_where_one_is_asked_for() -> None:
    message = example("geometry_msgs/PoseStamped")
    assert HEADER["frame_id"] == "map"
    check_frame(message, "")
    check_frame(message, "map")
    check_frame(example("std_msgs/Bool"), "map")
    with pytest.raises(RejectedObservation, match="in frame 'map', need 'world'") as caught:
        check_frame(message, "world")
    assert caught.value.reason == "frame"
