"""What the importer of bags makes a policy learn from is what the node shows it, to the last bit.

The importer reads bags by the package `rosbags`. Here ROS's own reader and messages feed the history that the node has.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rosbag2_py
from rclpy.serialization import deserialize_message
from rosbags.rosbag2 import StoragePlugin
from rosidl_runtime_py.utilities import get_message
from small_recordings import START, Sent, header, joint_state, message, write_bag

from policy.robot.fit import control_period_ns, filled_parts, observation_history
from policy.robot.messages import measurement
from policy.robot.observation_history import RejectedObservation
from policy.robot.robot_file import load_robot
from training.data.demonstrations import load_demonstrations
from training.importing.import_demonstrations import ImportConfig, import_demonstrations

MS = 1_000_000
ROBOT = """
/**:
  ros__parameters:
    control_period: 0.05
    observation_sources: [arm, gripper, imu]
    arm: {topic: joint_states, type: sensor_msgs/JointState, joints: [shoulder, elbow], max_age: 0.2}
    gripper: {topic: width, type: std_msgs/Float32, max_age: 0.4}
    imu: {topic: imu, type: sensor_msgs/Imu, fields: [angular_velocity.z, yaw], max_age: 0.2}
    joints: [shoulder, elbow]
"""


def jittery_messages(count: int) -> list[Sent]:
    """Three topics at rates of their own, with stamps that jitter, arrive late and sometimes out of order."""
    generator = np.random.default_rng(3)
    sent: list[Sent] = []
    for topic, period in (("/joint_states", 40 * MS), ("/width", 110 * MS), ("/imu", 15 * MS)):
        for index in range(count * 40 * MS // period):
            taken = index * period + int(generator.integers(-8 * MS, 8 * MS)) + 20 * MS
            arrival = taken + int(generator.integers(0, 20 * MS))
            values = generator.normal(size=4)
            content: Any
            if topic == "/joint_states":
                content = joint_state(START + taken, values[:2])
            elif topic == "/width":
                content = message("std_msgs/Float32", data=float(np.float32(values[0])))
            else:
                x, y, z, w = values / np.linalg.norm(values)
                vector = message("geometry_msgs/Vector3", x=values[0], y=values[1], z=values[2])
                content = message(
                    "sensor_msgs/Imu",
                    header=header(START + taken),
                    orientation=message("geometry_msgs/Quaternion", x=x, y=y, z=z, w=w),
                    orientation_covariance=np.zeros(9),
                    angular_velocity=vector,
                    angular_velocity_covariance=np.zeros(9),
                    linear_acceleration=vector,
                    linear_acceleration_covariance=np.zeros(9),
                )
            sent.append((arrival, topic, content))
    return sorted(sent, key=lambda one: one[0])


def played(bag: Path, storage: str) -> Iterator[tuple[str, Any, int]]:
    """The messages of a bag as ROS reads them."""
    reader = rosbag2_py.SequentialReader()
    reader.open(rosbag2_py.StorageOptions(str(bag), storage), rosbag2_py.ConverterOptions("cdr", "cdr"))
    types = {topic.name: get_message(topic.type) for topic in reader.get_all_topics_and_types()}
    while reader.has_next():
        topic, data, received_ns = reader.read_next()
        yield topic, deserialize_message(data, types[topic]), received_ns


@pytest.mark.parametrize(
    ("storage", "plugin"), [("mcap", StoragePlugin.MCAP), ("sqlite3", StoragePlugin.SQLITE3)]
)
def test_a_bag_gives_the_rows_that_the_node_shows(
    tmp_path: Path, storage: str, plugin: StoragePlugin
) -> None:
    bag = write_bag(tmp_path / "bag", jittery_messages(200), storage=plugin)
    robot_file, output = tmp_path / "robot.yaml", tmp_path / "out.zarr"
    robot_file.write_text(ROBOT)
    found = import_demonstrations(
        ImportConfig(source=str(bag), output=str(output), robot=str(robot_file), actions="next_observation")
    )
    assert sum("older than its predecessor" in reason for _, reason in found.dropped) > 0
    rows = load_demonstrations(output).observations

    robot, task = load_robot(robot_file), found.recording.task
    history = observation_history(robot, task, steps=2)
    parts = {f"/{part.source.topic}": part for part in filled_parts(robot, task)}
    period, due, compared = control_period_ns(robot, task), None, 0
    for topic, content, received_ns in played(bag, storage):
        part = parts[topic]
        try:
            stamp, values = measurement(content, part.source, size=part.slice.size, now_ns=received_ns)
            history.add(part.slice.name, stamp, values)
        except RejectedObservation:
            continue
        newest = history.newest_stamp()
        while newest is not None and (due := newest if due is None else due) <= newest:
            before, now = history.sample(due).astype(np.float32)
            if compared < len(rows):
                np.testing.assert_array_equal(rows[compared], now)
                np.testing.assert_array_equal(rows[max(0, compared - 1)], before)
            compared += 1
            due += period
    # The last row is only the action of the one before it.
    assert compared == len(rows) + 1 > 100
