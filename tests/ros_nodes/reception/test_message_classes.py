"""ROS's own messages give the numbers that rosbags' give, to the last bit."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from message_examples import EXAMPLES, example_source, typestore
from rclpy.serialization import deserialize_message, serialize_message
from rosidl_runtime_py import set_message_fields

from policy.robot.messages import command_points, measurement
from ros_nodes.reception.message_classes import message_class


@pytest.mark.parametrize("kind", EXAMPLES)
def test_messages_of_ros_and_of_a_bag_give_the_same_numbers(kind: str) -> None:
    values, _, expected = EXAMPLES[kind]
    made = message_class(kind)()
    set_message_fields(made, copy.deepcopy(values))
    serialized = serialize_message(made)
    message = deserialize_message(serialized, message_class(kind))
    from_bag = typestore().deserialize_cdr(serialized, kind.replace("/", "/msg/"))
    source, options = example_source(kind), {"size": len(expected), "now_ns": 77}
    stamp, numbers = measurement(message, source, **options)
    bag_stamp, bag_numbers = measurement(from_bag, source, **options)
    assert (stamp, numbers.tobytes()) == (bag_stamp, bag_numbers.tobytes())
    assert numbers.tolist() == expected
    assert _commands(message, source, options) == _commands(from_bag, source, options)


def _commands(message: Any, source: Any, options: Any) -> list[tuple[int, bytes]]:
    return [(due, values.tobytes()) for due, values in command_points(message, source, **options)]


@pytest.mark.parametrize("name", ["sensor_msgs/Nothing", "nowhere_msgs/Imu", "Imu"])
def test_a_type_that_is_not_installed_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"message type '{name}' is not installed"):
        message_class(name)
