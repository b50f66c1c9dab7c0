"""Messages of rosbag2 recordings, read without ROS: mcap and sqlite3, split or not, compressed or not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from policy.robot.message_types import Message, type_name
from training.importing.recording import one_line

STORAGES = (".mcap", ".db3")
METADATA = "metadata.yaml"
# The types that a robot's file can name are the same in every distribution. So the bag's own definitions, from which
# code would have to be made, are not needed.
TYPES = get_typestore(Stores.ROS2_JAZZY)


class BagError(ValueError):
    """A bag that cannot be read. The message names the topic and lacks the bag."""


def is_bag(path: Path) -> bool:
    """Whether a path is a bag: a folder with metadata, or a file of a storage."""
    return (path / METADATA).is_file() if path.is_dir() else path.suffix in STORAGES and path.is_file()


def bags_in(path: Path) -> list[Path]:
    """The bags of a source, by name: itself, or those in the folder."""
    if is_bag(path):
        return [path]
    return sorted((found for found in path.iterdir() if is_bag(found)), key=lambda found: found.name)


def bag_messages(
    path: Path, wanted: Mapping[str, str], *, advance: Callable[[float], None] = lambda share: None
) -> Iterator[tuple[str, Message, int]]:
    """Topic, message and time of arrival in ns of each message of some topics, in the order of arrival.

    Args:
        wanted: topics as the bag's with a leading slash, and their types, such as ``sensor_msgs/JointState``.
        advance: called with each share of the bag that is done.

    Raises:
        BagError: for a bag that is damaged or of an unknown version, or a topic that is not in it or of another type.
    """
    with _reading():
        with Reader(path) as reader:
            connections = _connections(reader, wanted)
            total = max(1, sum(connection.msgcount for connection in connections))
            for connection, received_ns, data in _checked(reader.messages(connections)):
                topic = _slashed(connection.topic)
                yield topic, _message(topic, connection.msgtype, data), received_ns
                advance(1 / total)


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except BagError:
        raise
    # What a damaged bag makes `rosbags` raise has no common type.
    except Exception as error:
        raise BagError(f"cannot be read: {one_line(error)}") from error
