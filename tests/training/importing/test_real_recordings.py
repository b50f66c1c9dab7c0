"""Recordings that others have made. They are not part of the repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from training.importing.bag_messages import bag_messages
from training.importing.recording import EpisodeError, RecordingError

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


def recording(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs {path}")
    return path


def robot(folder: Path, **parameters: str) -> str:
    """A robot's file of YAML lines."""
    file = folder / "robot.yaml"
    lines = "".join(f"    {name}: {value}\n" for name, value in parameters.items())
    file.write_text(f"/**:\n  ros__parameters:\n{lines}")
    return str(file)


def test_pusht_of_lerobot_v30_is_the_published_store(imported: Any) -> None:
    published: Any = zarr.open_group(str(recording("pusht_cchi_v7_replay.zarr")), mode="r")
    found, arrays = imported(recording("lerobot_v30/pusht"))
    np.testing.assert_array_equal(arrays["data/action"], published["data/action"][:])
    np.testing.assert_array_equal(arrays["data/state"], published["data/state"][:][:, :2])
    np.testing.assert_array_equal(arrays["meta/episode_ends"], published["meta/episode_ends"][:])
    assert found.recording.task.rate == 10
    assert found.recording.task.number_names == ("state.motor_0", "state.motor_1")
    assert list(found.recording.left_out) == ["observation.image (video)"]


def test_koch_arm(imported: Any) -> None:
    found, arrays = imported(recording("lerobot_v21/koch_screwdriver"))
    assert arrays["meta/episode_ends"].tolist() == [244, 488, 732, 976, 1217]
    assert arrays["data/state"].shape == arrays["data/action"].shape == (1217, 6)
    assert found.recording.task.action.names[0] == "shoulder_pan.pos"
    assert len(found.recording.left_out) == 3


def test_unitree_g1_of_which_most_tables_are_missing(imported: Any) -> None:
    source = recording("lerobot_v21/unitree_g1_inspire")
    with pytest.raises(EpisodeError, match=r"episode_000010\.parquet: episode 10: no such file"):
        imported(source)
    found, arrays = imported(source, skip_bad=True)
    assert (len(found.ends), found.bad_episodes) == (10, 90)
    assert arrays["data/state"].shape == arrays["data/action"].shape == (4236, 26)
    assert found.recording.task.action.names[:2] == ("kLeftShoulderPitch", "kLeftShoulderRoll")


def test_a_fixture_whose_columns_are_float64_scalars(imported: Any) -> None:
    found, arrays = imported(recording("lerobot_v21/ioai_fixture_image"))
    assert arrays["meta/episode_ends"].tolist() == [3, 6]
    assert arrays["data/state"].dtype == np.float32
    assert found.recording.task.number_names == ("state.joint1",)
    assert list(found.recording.left_out) == ["observation.images.cam (image)"]


def test_joint_states_and_imu_of_a_mobile_arm(tmp_path: Path, imported: Any) -> None:
    file = robot(
        tmp_path,
        observation_sources="[arm, imu]",
        arm="{topic: joint_states, type: sensor_msgs/JointState, joints: [arm_1_link_joint, arm_2_link_joint]}",
        imu="{topic: imu/data, type: sensor_msgs/Imu, fields: [angular_velocity.z]}",
        joints="[arm_1_link_joint, arm_2_link_joint]",
    )
    bag = recording("rosbag2/mcap_abitobot")
    _, arrays = imported(bag, robot=file, rate=20.0, actions="next_observation")
    # 1,866 messages, one each 0.05 s, of which the last is only an action.
    assert arrays["data/arm"].shape == (1865, 2)
    np.testing.assert_array_equal(arrays["data/action"][:-1], arrays["data/arm"][1:])
    wanted = {"joint_states": ("sensor_msgs/JointState",)}
    positions = [sent.position[:2] for _, sent, _ in bag_messages(bag, wanted)]
    np.testing.assert_array_equal(arrays["data/arm"], np.array(positions[:-1], np.float32))


@pytest.mark.parametrize("storage", ["mcap_all_types", "sqlite3_all_types"])
def test_every_type_that_a_robot_can_name_is_read(storage: str) -> None:
    from rosbags.rosbag2 import Reader

    from policy.robot.message_types import MESSAGE_TYPES, type_name

    bag = recording(f"rosbag2/{storage}")
    with Reader(bag) as reader:
        there = {type_name(connection.msgtype): connection.topic for connection in reader.connections}
    wanted = {there[kind]: (kind,) for kind in MESSAGE_TYPES if kind in there}
    assert len(wanted) >= len(MESSAGE_TYPES) - 1
    sent = list(bag_messages(bag, wanted))
    assert {topic for topic, _, _ in sent} == set(wanted)
    assert len(sent) == 2 * len(wanted)


def test_a_bag_of_2019(imported: Any, tmp_path: Path) -> None:
    file = recording("rosbag2/sqlite3_image_2019/sample.db3")
    ((_, sent, _),) = bag_messages(file, {"/imu": ("sensor_msgs/Imu",)})
    assert np.isfinite(sent.linear_acceleration.z)
    described = robot(
        tmp_path,
        observation_sources="[imu]",
        imu="{topic: /imu, type: sensor_msgs/Imu, fields: [linear_acceleration.z]}",
        command="{topic: /cmd_vel, type: geometry_msgs/Twist, fields: [linear.x]}",
    )
    with pytest.raises(EpisodeError, match=r"sample\.db3: topic /cmd_vel is missing, there are /fix, /image"):
        imported(file, robot=described, rate=10.0)


def test_a_split_bag_is_read_in_order() -> None:
    bag = recording("rosbag2/official_split_mcap")
    sent = list(bag_messages(bag, {name * 3: ("std_msgs/String",) for name in "ABCDEFGH"}))
    times = [received_ns for _, _, received_ns in sent]
    assert len(times) == 6074
    assert times == sorted(times)


def test_a_file_of_robosuite_without_observations_is_an_error(imported: Any) -> None:
    with pytest.raises(
        RecordingError, match="episode demo_1: no group obs, there are actions, joint_torques, states"
    ):
        imported(recording("robosuite_hdf5/robosuite_wipe_raw/demo.hdf5"), rate=20.0)
