"""Messages of rosbag2 recordings, read without ROS: mcap and sqlite3, split or not, compressed or not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from rosbags.interfaces import Connection
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
    """The bags of a source, by name: itself, or those in the folder, also those whose metadata are missing."""
    if is_bag(path) or not path.is_dir():
        return [path] if is_bag(path) else []
    inside = (found for found in path.iterdir() if not found.name.startswith("."))
    return sorted(
        (found for found in inside if is_bag(found) or _is_unfinished(found)), key=lambda found: found.name
    )


def _is_unfinished(path: Path) -> bool:
    """Whether a folder is a bag whose recorder did not come to its end."""
    return path.is_dir() and any(file.suffix in STORAGES for file in path.iterdir())


def bag_messages(
    path: Path,
    wanted: Mapping[str, tuple[str, ...]],
    *,
    advance: Callable[[float], None] = lambda share: None,
) -> Iterator[tuple[str, Message, int]]:
    """Topic, message and time of arrival in ns of each message of some topics, in the order of arrival.

    Args:
        wanted: topics, and the types allowed, such as ``sensor_msgs/JointState``. A name without a leading slash is
            taken as one below the root, as a node does.
        advance: called with each share of the bag that is done.

    Raises:
        BagError: for a bag that is damaged or of an unknown version, or a topic that is not in it or of another type.
    """
    if path.is_dir() and not is_bag(path):
        raise BagError(f"{METADATA} is missing, as the recording did not end; `ros2 bag reindex` makes it")
    rooted = {f"/{name.lstrip('/')}": name for name in wanted}
    # What a damaged bag makes `rosbags` raise has no common type.
    try:
        with Reader(path) as reader:
            connections = [c for c in reader.connections if f"/{c.topic.lstrip('/')}" in rooted]
            _check_topics(reader, connections, wanted)
            total = max(1, sum(connection.msgcount for connection in connections))
            promised: Counter[str] = Counter()
            for connection in connections:
                promised[rooted[f"/{connection.topic.lstrip('/')}"]] += connection.msgcount
            missing = promised.copy()
            for connection, received_ns, data in reader.messages(connections):
                name = rooted[f"/{connection.topic.lstrip('/')}"]
                missing[name] -= 1
                yield name, _message(name, connection.msgtype, data), received_ns
                advance(1 / total)
            # A damaged index hides messages without an error.
            for name, lost in missing.items():
                if lost > 0:
                    raise BagError(
                        f"topic {name} has {promised[name] - lost} messages, its metadata say {promised[name]}"
                    )
    except BagError:
        raise
    except Exception as error:
        raise BagError(f"cannot be read: {one_line(error)}") from error


def _check_topics(
    reader: Reader, connections: Sequence[Connection], wanted: Mapping[str, tuple[str, ...]]
) -> None:
    found = {f"/{connection.topic.lstrip('/')}": connection for connection in connections}
    for name, kinds in wanted.items():
        connection = found.get(f"/{name.lstrip('/')}")
        if connection is None:
            there = sorted({connection.topic for connection in reader.connections})
            some = ", ".join(there[:20]) + (", …" if len(there) > 20 else "")
            raise BagError(f"topic {name} is missing, there are {some or 'none'}")
        if type_name(connection.msgtype) not in kinds:
            raise BagError(
                f"topic {name} is of the type {type_name(connection.msgtype)}, need {' or '.join(kinds)}"
            )
        serialization = getattr(connection.ext, "serialization_format", "cdr")
        if serialization != "cdr":
            raise BagError(f"topic {name} is serialized as {serialization!r:.40}, allowed is cdr")


def _message(name: str, msgtype: str, data: bytes) -> Message:
    try:
        return TYPES.deserialize_cdr(data, type_name(msgtype).replace("/", "/msg/"))
    except Exception as error:
        raise BagError(
            f"topic {name}: a message of {len(data)} bytes is no {type_name(msgtype)}: {one_line(error)}"
        ) from error
