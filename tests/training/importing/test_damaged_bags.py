from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rosbags.rosbag2 import StoragePlugin
from small_recordings import (
    START,
    Sent,
    arm,
    bag_messages,
    joint_state,
    message,
    write_bag,
)

from training.importing.recording import EpisodeError


def keep_half(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def in_metadata(key: str, value: Any) -> Callable[[Path], None]:
    def change(bag: Path) -> None:
        file = bag / "metadata.yaml"
        metadata = yaml.safe_load(file.read_text())
        metadata["rosbag2_bagfile_information"][key] = value
        file.write_text(yaml.safe_dump(metadata))

    return change


def storage_of(bag: Path) -> Path:
    return next(file for file in bag.iterdir() if file.suffix in (".mcap", ".db3"))


def damage_middle(bag: Path) -> None:
    file = storage_of(bag)
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle - 4096 : middle + 4096] = b"\xff" * 8192
    file.write_bytes(content)


DAMAGED_FILES = {
    "truncated": (lambda bag: keep_half(storage_of(bag)), "cannot be read"),
    "empty": (lambda bag: storage_of(bag).write_bytes(b""), "cannot be read"),
    "no storage": (lambda bag: storage_of(bag).unlink(), "cannot be read: .*missing"),
    "unknown version": (in_metadata("version", 99), "cannot be read: .*version 99 not supported"),
    "unknown storage": (in_metadata("storage_identifier", "tape"), "cannot be read: .*'tape' not supported"),
    "unknown compression": (
        lambda bag: [
            in_metadata("compression_mode", "FILE")(bag),
            in_metadata("compression_format", "zip")(bag),
        ],
        "cannot be read: .*'zip' is not supported",
    ),
    "bad metadata": (lambda bag: (bag / "metadata.yaml").write_text("{"), "cannot be read"),
    "no metadata": (
        lambda bag: (bag / "metadata.yaml").unlink(),
        "metadata.yaml is missing, as the recording did not end",
    ),
}


@pytest.mark.parametrize("storage", list(StoragePlugin), ids=lambda storage: storage.name)
@pytest.mark.parametrize(("damage", "message"), DAMAGED_FILES.values(), ids=DAMAGED_FILES)
def test_a_damaged_bag_is_named_and_can_be_left_out(
    tmp_path: Path, imported: Any, robot_file: Path, *, storage: StoragePlugin, damage: Any, message: str
) -> None:
    for name in "abc":
        write_bag(tmp_path / "bags" / name, bag_messages(5), storage=storage)
    damage(tmp_path / "bags" / "b")
    with pytest.raises(EpisodeError, match=f"{tmp_path}/bags/b: {message}") as caught:
        imported(tmp_path / "bags", robot=str(robot_file))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.zarr").exists()
    found, arrays = imported(tmp_path / "bags", robot=str(robot_file), skip_bad=True)
    assert [name for name, _ in found.dropped] == ["b"]
    assert arrays["meta/episode_ends"].tolist() == [5, 10]


def test_messages_that_are_lost_are_noticed(tmp_path: Path, imported: Any, robot_file: Path) -> None:
    bag = write_bag(tmp_path / "bag", bag_messages())
    file = bag / "metadata.yaml"
    file.write_text(file.read_text().replace("message_count: 12", "message_count: 13"))
    with pytest.raises(EpisodeError, match="bag: topic joint_states has 12 messages, its metadata say 13"):
        imported(bag, robot=str(robot_file))


@pytest.mark.parametrize("storage", list(StoragePlugin), ids=lambda storage: storage.name)
def test_a_bag_that_is_damaged_inside_is_named(
    tmp_path: Path, imported: Any, robot_file: Path, storage: StoragePlugin
) -> None:
    bag = write_bag(tmp_path / "bag", bag_messages(150), storage=storage)
    damage_middle(bag)
    with pytest.raises(EpisodeError, match=f"{bag}: ") as caught:
        imported(bag, robot=str(robot_file))
    assert "\n" not in str(caught.value)


def edited(topic: str, edit: Callable[[Any], None]) -> Callable[[list[Sent]], list[Sent]]:
    """The messages with the seventh of a topic changed."""

    def change(sent: list[Sent]) -> list[Sent]:
        edit([content for _, name, content in sent if name == topic][6])
        return sent

    return change


def set_position(value: float) -> Callable[[Any], None]:
    return lambda content: content.position.__setitem__(0, value)


def shift_stamp(seconds: int) -> Callable[[Any], None]:
    return lambda content: setattr(content.header.stamp, "sec", content.header.stamp.sec + seconds)


def without(topic: str) -> Callable[[list[Sent]], list[Sent]]:
    return lambda sent: [one for one in sent if one[1] != topic]


DAMAGED_MESSAGES: dict[str, tuple[Callable[[list[Sent]], list[Sent]], str]] = {
    "nan": (edited("/joint_states", set_position(np.nan)), "topic joint_states: number 1 is nan"),
    "nan in a command": (edited("/arm/target", set_position(np.nan)), "topic arm/target: number 1 is nan"),
    "nan without header": (
        edited("/gripper/width", lambda content: setattr(content, "data", float("inf"))),
        "topic /gripper/width: number 0 is inf",
    ),
    "shorter array": (
        edited("/joint_states", lambda content: setattr(content, "position", np.zeros(1))),
        "topic joint_states: 1 numbers in position, need 2",
    ),
    "backwards": (edited("/joint_states", shift_stamp(-5)), "joint_states: time runs backwards by 4.9 s"),
    "impossible time": (
        edited("/joint_states", lambda content: setattr(content.header.stamp, "nanosec", 2 * 10**9)),
        "topic joint_states: stamped 2000000000 ns beside",
    ),
    "no topic": (
        without("/gripper/width"),
        "topic /gripper/width is missing, there are /arm/target, /joint_states",
    ),
    "no command": (
        without("/arm/target"),
        "topic arm/target is missing, there are /gripper/width, /joint_states; actions=next_observation needs none",
    ),
    "other type": (
        lambda sent: [
            (now, topic, message("std_msgs/Float64", data=0.0) if topic == "/gripper/width" else content)
            for now, topic, content in sent
        ],
        "topic /gripper/width is of the type std_msgs/Float64, need std_msgs/Float32",
    ),
    "no joint": (
        lambda sent: [
            (
                now,
                topic,
                joint_state(START + now, [0, 0], names=("a", "b")) if topic == "/joint_states" else content,
            )
            for now, topic, content in sent
        ],
        "topic joint_states: none of its 12 messages can be used: joint 'shoulder' is missing",
    ),
    "too slow": (
        lambda sent: [one for one in sent if one[1] == "/arm/target" or one[0] % (2 * 10**8) == 0],
        "topic joint_states: 10 Hz cannot be kept, no topic has more than 5",
    ),
    "one step": (lambda sent: sent[:3], "only one step"),
}


@pytest.mark.parametrize(("damage", "problem"), DAMAGED_MESSAGES.values(), ids=DAMAGED_MESSAGES)
def test_damaged_messages_are_named_and_their_bag_can_be_left_out(
    tmp_path: Path, imported: Any, robot_file: Path, *, damage: Any, problem: str
) -> None:
    steps = 12
    if problem.startswith("topic joint_states: 10 Hz"):
        robot_file.write_text(robot_file.read_text().replace("max_age: 0.2", "max_age: 0.4"))
    write_bag(tmp_path / "bags" / "good", bag_messages(steps))
    write_bag(tmp_path / "bags" / "bad", damage(bag_messages(steps)))
    with pytest.raises(EpisodeError, match=f"bags/bad: .*{re.escape(problem)}") as caught:
        imported(tmp_path / "bags", robot=str(robot_file))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.zarr").exists()
    found, arrays = imported(tmp_path / "bags", robot=str(robot_file), skip_bad=True)
    assert found.bad_episodes == 1
    np.testing.assert_array_equal(arrays["data/arm"], arm(np.arange(12.0)))
