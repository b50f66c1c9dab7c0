"""One episode as a rosbag2 bag: it appears whole, or not at all."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rosbag2_py

STORAGES = ("mcap", "sqlite3")
TEMPORARY = re.compile(r"\.recording\.\d+\.tmp")
EPISODE = re.compile(r"episode_(\d{4,})")
CACHE, PICTURE_CACHE = 16 * 1024 * 1024, 256 * 1024 * 1024
"""Bytes that wait for the disk while the node goes on, without cameras and with."""
PICTURES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")


class RecordingError(ValueError):
    """A recording that cannot be. The message names the folder, and what is wrong."""


def best_storage() -> str:
    """The storage of new bags: mcap where it is installed.

    Raises:
        RecordingError: if rosbag2 has neither.
    """
    registered = rosbag2_py.get_registered_writers()
    for storage in STORAGES:
        if storage in registered:
            return storage
    raise RecordingError(f"rosbag2 has no storage among {', '.join(STORAGES)}")


class RecordingFolder:
    """The folder of a robot's recordings, which one recorder at a time writes to.

    What killed recorders left of their episodes is removed.

    Raises:
        RecordingError: for a folder that another recorder has, or that cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(path / ".recorder.lock", os.O_CREAT | os.O_RDWR, 0o644)
        except OSError as error:
            raise RecordingError(f"{path}: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise RecordingError(f"{path}: another recorder writes to it") from None
        for left in path.iterdir():
            if TEMPORARY.fullmatch(left.name):
                shutil.rmtree(left)

    def next_name(self) -> str:
        """Name of the next episode, after all that are there."""
        numbers = [int(found[1]) for path in self.path.iterdir() if (found := EPISODE.fullmatch(path.name))]
        return f"episode_{max(numbers, default=-1) + 1:04d}"

    def close(self) -> None:
        os.close(self._lock)


class EpisodeBag:
    """The bag of an episode that is being recorded.

    Args:
        folder: where it will appear.
        topics: types by name.
        storage: of rosbag2.
        robot: the robot's file, which goes into the bag's metadata.
    """

    def __init__(
        self, folder: RecordingFolder, *, topics: Mapping[str, str], storage: str, robot: str
    ) -> None:
        self.name = folder.next_name()
        self.messages = 0
        self._final = folder.path / self.name
        self._temporary = folder.path / f".recording.{os.getpid()}.tmp"
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._temporary.mkdir()
        # rosbag2 names the bag's files after its folder, so the folder has its final name already.
        self._writer: Any = rosbag2_py.SequentialWriter()  # whose stubs take bytes for text
        options = rosbag2_py.StorageOptions(
            uri=str(self._temporary / self.name),
            storage_id=storage,
            max_cache_size=PICTURE_CACHE if set(PICTURES) & set(topics.values()) else CACHE,
            custom_data={"robot": robot},
        )
        self._writer.open(options, rosbag2_py.ConverterOptions("cdr", "cdr"))
        for number, (topic, kind) in enumerate(topics.items()):
            self._writer.create_topic(
                rosbag2_py.TopicMetadata(id=number, name=topic, type=kind, serialization_format="cdr")
            )

    def write(self, topic: str, serialized: bytes, time_ns: int) -> None:
        """Add a message as it came, at the time at which it did."""
        self._writer.write(topic, serialized, time_ns)
        self.messages += 1

    def save(self) -> Path:
        """Let the bag appear; where it is."""
        self._writer.close()
        (self._temporary / self.name).rename(self._final)
        self._temporary.rmdir()
        return self._final

    def discard(self) -> None:
        """Remove what was recorded."""
        self._writer.close()
        shutil.rmtree(self._temporary)
