from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2.enums import CompressionMode
from small_recordings import (
    START,
    Sent,
    arm,
    bag_messages,
    commands,
    gripper,
    joint_state,
    message,
    write_bag,
)

from training.importing.recording import EpisodeError, RecordingError

STEPS = np.arange(12.0)


def split(bag: Path, sent: list[Sent]) -> Path:
    """A bag in two files, as rosbag2 splits it."""
    half = len(sent) // 2
    first, second = (
        write_bag(bag.with_name(f"{bag.name}_{i}"), part) for i, part in enumerate((sent[:half], sent[half:]))
    )
    metadata = yaml.safe_load((first / "metadata.yaml").read_text())
    added = yaml.safe_load((second / "metadata.yaml").read_text())
    information = metadata["rosbag2_bagfile_information"]
    information["relative_file_paths"] += added["rosbag2_bagfile_information"]["relative_file_paths"]
    information["message_count"] = len(sent)
    bag.mkdir()
    for half_bag in (first, second):
        for file in half_bag.glob("*.mcap"):
            file.rename(bag / file.name)
        (half_bag / "metadata.yaml").unlink()
        half_bag.rmdir()
    (bag / "metadata.yaml").write_text(yaml.safe_dump(metadata))
    return bag


WRITERS: dict[str, Callable[[Path, list[Sent]], Path]] = {
    "mcap": write_bag,
    "sqlite3": lambda path, sent: write_bag(path, sent, storage=StoragePlugin.SQLITE3),
    "mcap, chunks compressed": lambda path, sent: write_bag(path, sent, compression=CompressionMode.STORAGE),
    "mcap, file compressed": lambda path, sent: write_bag(path, sent, compression=CompressionMode.FILE),
    "sqlite3, file compressed": lambda path, sent: write_bag(
        path, sent, storage=StoragePlugin.SQLITE3, compression=CompressionMode.FILE
    ),
    "sqlite3, messages compressed": lambda path, sent: write_bag(
        path, sent, storage=StoragePlugin.SQLITE3, compression=CompressionMode.MESSAGE
    ),
    "mcap, split": split,
    "mcap without metadata": lambda path, sent: next(write_bag(path, sent).glob("*.mcap")),
    "sqlite3 without metadata": lambda path, sent: next(
        write_bag(path, sent, storage=StoragePlugin.SQLITE3).glob("*.db3")
    ),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_every_storage_gives_the_same_rows(
    tmp_path: Path, imported: Any, robot_file: Path, write: Callable[[Path, list[Sent]], Path]
) -> None:
    bag = write(tmp_path / "reach", bag_messages())
    found, arrays = imported(bag, robot=str(robot_file))
    np.testing.assert_array_equal(arrays["data/arm"], arm(STEPS))
    np.testing.assert_array_equal(arrays["data/gripper"], gripper(STEPS))
    np.testing.assert_array_equal(arrays["data/action"], commands(STEPS))
    assert arrays["meta/episode_ends"].tolist() == [12]
    task = found.recording.task
    assert (task.name, task.rate) == ("reach", 10.0)
    assert task.number_names == ("arm.shoulder", "arm.elbow", "gripper.data")
    assert task.action.names == ("shoulder", "elbow")
    assert not found.dropped


def test_a_folder_of_bags_is_an_episode_each(tmp_path: Path, imported: Any, robot_file: Path) -> None:
    for name, steps in (("b", 5), ("a", 7), ("c", 6)):
        write_bag(tmp_path / "bags" / name, bag_messages(steps))
    (tmp_path / "bags" / "notes.txt").write_text("no bag")
    found, arrays = imported(tmp_path / "bags", robot=str(robot_file))
    assert list(found.recording.episodes) == ["a", "b", "c"]
    assert arrays["meta/episode_ends"].tolist() == [7, 12, 18]


def test_the_next_positions_can_be_the_actions(tmp_path: Path, imported: Any, robot_file: Path) -> None:
    sent = [one for one in bag_messages() if one[1] != "/arm/target"]
    _, arrays = imported(write_bag(tmp_path / "bag", sent), robot=str(robot_file), actions="next_observation")
    np.testing.assert_array_equal(arrays["data/arm"], arm(STEPS[:-1]))
    np.testing.assert_array_equal(arrays["data/action"], arm(STEPS[1:]))


def test_the_rate_can_be_given(tmp_path: Path, imported: Any, robot_file: Path) -> None:
    robot_file.write_text(robot_file.read_text().replace("control_period: 0.1", "control_period: 0.0"))
    bag = write_bag(tmp_path / "bag", bag_messages())
    found, arrays = imported(bag, robot=str(robot_file), rate=5.0)
    assert found.recording.task.rate == 5
    np.testing.assert_array_equal(arrays["data/arm"], arm(STEPS[::2]))
    np.testing.assert_array_equal(arrays["data/action"], commands(STEPS[1::2]))


def with_gap(steps: int = 12) -> list[Sent]:
    """Messages of which the steps 4 … 8 are lost."""
    return [one for one in bag_messages(steps) if not 4 <= one[0] * 10 // 10**9 <= 8]


def test_a_gap_is_named_and_a_bag_can_be_cut_there(tmp_path: Path, imported: Any, robot_file: Path) -> None:
    bag = write_bag(tmp_path / "bag", with_gap())
    with pytest.raises(
        EpisodeError,
        match=r"bag: gap after 1700000000\.300 s: topic joint_states is silent for 0\.6 s; split=gaps cuts there",
    ):
        imported(bag, robot=str(robot_file))
    assert not (tmp_path / "out.zarr").exists()
    found, arrays = imported(bag, robot=str(robot_file), split="gaps")
    assert arrays["meta/episode_ends"].tolist() == [4, 7]
    np.testing.assert_array_equal(arrays["data/arm"], arm(np.array([0.0, 1, 2, 3, 9, 10, 11])))
    np.testing.assert_array_equal(arrays["data/action"], commands(np.array([0.0, 1, 2, 3, 9, 10, 11])))
    assert found.dropped == (("bag#0 gap", "after 1700000000.300 s: topic joint_states is silent for 0.6 s"),)


def marks(*times: tuple[int, bool]) -> list[Sent]:
    return [(step * 10**8 - 1000, "/recording", message("std_msgs/Bool", data=on)) for step, on in times]


def test_a_topic_can_say_where_episodes_begin_and_end(
    tmp_path: Path, imported: Any, robot_file: Path
) -> None:
    sent = sorted(
        [*bag_messages(), *marks((1, True), (4, False), (6, True), (9, True))], key=lambda one: one[0]
    )
    found, arrays = imported(write_bag(tmp_path / "bag", sent), robot=str(robot_file), split="/recording")
    assert arrays["meta/episode_ends"].tolist() == [3, 6, 9]
    np.testing.assert_array_equal(arrays["data/arm"], arm(np.array([1.0, 2, 3, 6, 7, 8, 9, 10, 11])))
    assert not found.dropped


def test_a_marked_episode_with_a_gap_does_not_spoil_the_others(
    tmp_path: Path, imported: Any, robot_file: Path
) -> None:
    sent = sorted([*with_gap(20), *marks((1, True), (11, True), (15, False))], key=lambda one: one[0])
    bag = write_bag(tmp_path / "bag", sent)
    with pytest.raises(EpisodeError, match=r"bag: episode bag#0: gap after .* is silent for 0.6 s"):
        imported(bag, robot=str(robot_file), split="/recording")
    found, arrays = imported(bag, robot=str(robot_file), split="/recording", skip_bad=True)
    assert found.bad_episodes == 1
    np.testing.assert_array_equal(arrays["data/arm"], arm(np.arange(11.0, 15)))


def test_what_the_node_would_leave_out_is_said(tmp_path: Path, imported: Any, robot_file: Path) -> None:
    sent = bag_messages()
    sent.insert(10, (sent[9][0] + 1, "/joint_states", joint_state(START, [0.0], names=("finger",))))
    sent = [one for one in sent if one[1] != "/arm/target" or one[0] > 3 * 10**8]
    found, arrays = imported(write_bag(tmp_path / "bag", sent), robot=str(robot_file))
    np.testing.assert_array_equal(arrays["data/arm"], arm(STEPS[3:]))
    assert found.dropped == (
        ("bag#joint_states", "1 messages, the first: joint 'shoulder' is missing"),
        ("bag#steps", "3 steps without a command in force"),
    )
    assert found.bad_episodes == 0


def test_a_bag_without_messages_is_refused(tmp_path: Path, imported: Any, robot_file: Path) -> None:
    bag = write_bag(tmp_path / "bag", [])
    with pytest.raises(
        RecordingError, match=r"no episode can be imported: .*topic joint_states is missing, there are none"
    ):
        imported(bag, robot=str(robot_file), skip_bad=True)


@pytest.mark.parametrize(
    ("choice", "problem"),
    [
        ({"robot": ""}, "bags need robot=…, the file of the policy node's parameters"),
        ({"robot": "nowhere.yaml"}, "nowhere.yaml: no such robot file"),
        ({"parts": ["arm"]}, "the parts are those of .*; parts=… is for other recordings"),
        ({"actions": "action"}, "actions of bags must be command or next_observation, got 'action'"),
        ({"rate": 30.0}, "control_period is 0.1 s, the task 'bag' has 30 Hz"),
        ({"split": "/recording"}, "topic /recording is missing, there are /arm/target"),
        ({"split": "/joint_states"}, "split=/joint_states tells of observations or commands"),
    ],
)
def test_a_choice_that_does_not_fit_is_refused(
    tmp_path: Path, imported: Any, robot_file: Path, *, choice: dict[str, Any], problem: str
) -> None:
    bag = write_bag(tmp_path / "bag", bag_messages())
    with pytest.raises((RecordingError, EpisodeError), match=problem):
        imported(bag, **{"robot": str(robot_file), **choice})
    assert not (tmp_path / "out.zarr").exists()


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "control_period: 0.1",
            "control_period: 0.0",
            "robot.yaml: says no control_period; rate=… .Hz. is required",
        ),
        (
            "topic: /gripper/width",
            "topic: joint_states",
            "topic joint_states is sensor_msgs/JointState and std_msgs",
        ),
        ("    joints: [shoulder, elbow]\n", "", "robot.yaml: "),
        (
            "sensor_msgs/JointState, joints",
            "sensor_msgs/Unknown, joints",
            "robot.yaml: arm.type must be one of",
        ),
    ],
)
def test_a_robots_file_that_does_not_fit_is_refused(
    tmp_path: Path, imported: Any, robot_file: Path, *, old: str, new: str, problem: str
) -> None:
    assert old in robot_file.read_text()
    robot_file.write_text(robot_file.read_text().replace(old, new))
    with pytest.raises(RecordingError, match=problem):
        imported(write_bag(tmp_path / "bag", bag_messages()), robot=str(robot_file))


@pytest.mark.parametrize(
    ("joints", "problem"),
    [
        ("[]", "joints is empty, must name those"),
        ("[shoulder, wrist]", "joint 'wrist' must have its position in one"),
    ],
)
def test_actions_of_joints_that_are_not_observed_are_refused(
    tmp_path: Path, imported: Any, robot_file: Path, *, joints: str, problem: str
) -> None:
    text = robot_file.read_text().replace("    joints: [shoulder, elbow]\n", f"    joints: {joints}\n")
    text = text.replace("command: {", "command: {topic: arm/target, joints: [shoulder, elbow], ")
    robot_file.write_text(text)
    bag = write_bag(tmp_path / "bag", bag_messages())
    with pytest.raises(RecordingError, match=problem):
        imported(bag, robot=str(robot_file), actions="next_observation")


def test_sizes_that_only_messages_tell_are_taken_from_a_bag(
    tmp_path: Path, imported: Any, robot_file: Path
) -> None:
    text = robot_file.read_text()
    robot_file.write_text(
        text.replace("/gripper/width, type: std_msgs/Float32", "/touch, type: std_msgs/Float64MultiArray")
    )
    layout = message("std_msgs/MultiArrayLayout", dim=[], data_offset=0)
    sent: list[Sent] = [
        (
            now,
            "/touch",
            message("std_msgs/Float64MultiArray", layout=layout, data=np.array([now / 1e9, 2.0, 3.0])),
        )
        if topic == "/gripper/width"
        else (now, topic, content)
        for now, topic, content in bag_messages()
    ]
    found, arrays = imported(write_bag(tmp_path / "bag", sent), robot=str(robot_file))
    assert found.recording.task.observation[1].names == ("data[0]", "data[1]", "data[2]")
    np.testing.assert_allclose(arrays["data/gripper"][:, 0], STEPS / 10, atol=1e-6)
