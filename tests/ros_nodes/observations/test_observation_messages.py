from __future__ import annotations

import math

import numpy as np
import pytest
from geometry_msgs.msg import Point32, PolygonStamped, PoseStamped
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

from ros_nodes.observations.observation_history import RejectedObservation
from ros_nodes.observations.observation_messages import (
    MESSAGE_TYPES,
    check_frame,
    message_stamp_ns,
    message_values,
)

JOINT_STATE = MESSAGE_TYPES["sensor_msgs/JointState"]


def joint_state() -> JointState:
    return JointState(name=["a", "b", "c"], position=[1.0, 2.0, 3.0], velocity=[0.1, 0.2, 0.3])


def test_joints_are_found_by_name_whatever_their_order() -> None:
    values = message_values(
        joint_state(), JOINT_STATE, joints=["c", "a"], fields=["position", "velocity"], size=4
    )
    assert values.tolist() == [3.0, 0.3, 1.0, 0.1]


def test_a_missing_joint_is_named() -> None:
    with pytest.raises(RejectedObservation, match="joint 'd' is missing") as rejection:
        message_values(joint_state(), JOINT_STATE, joints=["a", "d"], fields=["position"], size=2)
    assert rejection.value.reason == "joint"


def test_a_joint_state_without_the_field_is_refused() -> None:
    with pytest.raises(RejectedObservation, match="0 numbers in effort, need 3") as rejection:
        message_values(joint_state(), JOINT_STATE, joints=["a"], fields=["effort"], size=1)
    assert rejection.value.reason == "length"


def test_polygons_give_the_fields_of_each_point() -> None:
    message = PolygonStamped()
    message.polygon.points = [Point32(x=1.0, y=2.0, z=3.0), Point32(x=4.0, y=5.0, z=6.0)]
    values = message_values(
        message,
        MESSAGE_TYPES["geometry_msgs/PolygonStamped"],
        joints=[],
        fields=["point.x", "point.y"],
        size=4,
    )
    assert values.tolist() == [1.0, 2.0, 4.0, 5.0]


@pytest.mark.parametrize("yaw", [-3.0, -0.5, 0.0, 1.0, 3.0])
def test_poses_give_position_and_yaw(yaw: float) -> None:
    message = PoseStamped()
    message.pose.position.x = 7.0
    message.pose.orientation.z, message.pose.orientation.w = math.sin(yaw / 2), math.cos(yaw / 2)
    values = message_values(
        message, MESSAGE_TYPES["geometry_msgs/PoseStamped"], joints=[], fields=["yaw", "position.x"], size=2
    )
    np.testing.assert_allclose(values, [yaw, 7.0], atol=1e-12)


def test_arrays_are_taken_as_they_are() -> None:
    message = Float64MultiArray(data=[1.0, float("nan")])
    values = message_values(
        message, MESSAGE_TYPES["std_msgs/Float64MultiArray"], joints=[""], fields=[""], size=2
    )
    np.testing.assert_array_equal(values, [1.0, np.nan])


def test_messages_that_do_not_say_when_were_taken_now() -> None:
    message = JointState()
    assert message_stamp_ns(message, 77) == 77
    assert message_stamp_ns(Float64MultiArray(), 77) == 77
    message.header.stamp.sec, message.header.stamp.nanosec = 3, 5
    assert message_stamp_ns(message, 77) == 3_000_000_005


def test_frames_must_match_where_one_is_asked_for() -> None:
    message = PoseStamped()
    message.header.frame_id = "map"
    check_frame(message, "")
    check_frame(message, "map")
    check_frame(Float64MultiArray(), "map")
    with pytest.raises(RejectedObservation, match="in frame 'map', need 'world'") as rejection:
        check_frame(message, "world")
    assert rejection.value.reason == "frame"
