"""Small recordings of every format, of two joints and a gripper, whole or damaged by the test."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeAlias

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.enums import CompressionFormat, CompressionMode

from training.importing.bag_messages import TYPES

LENGTHS = (5, 4, 6)
RATE = 10

Columns: TypeAlias = dict[str, Any]
Edit: TypeAlias = Callable[[int, Columns], None]


def arm(steps: np.ndarray) -> np.ndarray:
    """What is observed of the joints at steps, (n, 2)."""
    return np.stack([np.sin(steps), steps / 8], axis=1).astype(np.float32)


def gripper(steps: np.ndarray) -> np.ndarray:
    """What is observed of the gripper, (n, 1)."""
    return (steps[:, None] % 3).astype(np.float32)


def commands(steps: np.ndarray) -> np.ndarray:
    """Actions, (n, 2)."""
    return (arm(steps) + 0.25).astype(np.float32)


def steps_of(episode: int) -> np.ndarray:
    """Steps of an episode, counted over all of them."""
    return np.arange(LENGTHS[episode], dtype=np.float64) + sum(LENGTHS[:episode])


def lerobot_columns(episode: int) -> Columns:
    steps = steps_of(episode)
    count = len(steps)
    return {
        "observation.state": pa.FixedSizeListArray.from_arrays(pa.array(arm(steps).ravel()), 2),
        "observation.gripper.width": pa.array(gripper(steps)[:, 0]),
        "action": pa.array(commands(steps).tolist(), pa.list_(pa.float32())),
        "timestamp": pa.array((np.arange(count) / RATE).astype(np.float32)),
        "frame_index": pa.array(np.arange(count)),
        "episode_index": pa.array(np.full(count, episode)),
        "index": pa.array(steps.astype(np.int64)),
    }


FEATURES = {
    "observation.state": {"dtype": "float32", "shape": [2], "names": {"motors": ["shoulder", "elbow"]}},
    "observation.gripper.width": {"dtype": "float32", "shape": [1], "names": None},
    "observation.images.front": {"dtype": "video", "shape": [48, 64, 3], "names": ["h", "w", "c"]},
    "action": {"dtype": "float32", "shape": [2], "names": [["shoulder", "elbow"]]},
    "timestamp": {"dtype": "float32", "shape": [1], "names": None},
    "frame_index": {"dtype": "int64", "shape": [1], "names": None},
    "episode_index": {"dtype": "int64", "shape": [1], "names": None},
    "index": {"dtype": "int64", "shape": [1], "names": None},
}


def write_lerobot(path: Path, version: str, edit: Edit = lambda episode, columns: None) -> Path:
    """A dataset of three episodes; in v3.0 the first two are in one table."""
    tables = []
    for episode in range(len(LENGTHS)):
        columns = lerobot_columns(episode)
        edit(episode, columns)
        tables.append(pa.table(columns))
    (path / "meta").mkdir(parents=True)
    folder = path / "data" / "chunk-000"
    folder.mkdir(parents=True)
    info: dict[str, Any] = {
        "codebase_version": version,
        "fps": RATE,
        "total_episodes": len(LENGTHS),
        "chunks_size": 1000,
        "features": FEATURES,
    }
    if version == "v3.0":
        info["data_path"] = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
        pq.write_table(pa.concat_tables(tables[:2]), folder / "file-000.parquet", row_group_size=4)
        pq.write_table(tables[2], folder / "file-001.parquet")
        ends = np.cumsum(LENGTHS)
        episodes = {
            "episode_index": [0, 1, 2],
            "data/chunk_index": [0, 0, 0],
            "data/file_index": [0, 0, 1],
            "dataset_from_index": (ends - LENGTHS).tolist(),
            "dataset_to_index": ends.tolist(),
            "length": list(LENGTHS),
            "tasks": [["reach"]] * 3,
        }
        (path / "meta/episodes/chunk-000").mkdir(parents=True)
        pq.write_table(pa.table(episodes), path / "meta/episodes/chunk-000/file-000.parquet")
    else:
        info["data_path"] = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
        for episode, table in enumerate(tables):
            pq.write_table(table, folder / f"episode_{episode:06d}.parquet")
        lines = [json.dumps({"episode_index": i, "length": n}) for i, n in enumerate(LENGTHS)]
        (path / "meta/episodes.jsonl").write_text("\n".join(lines) + "\n")
    (path / "meta/info.json").write_text(json.dumps(info))
    return path


def write_hdf5(path: Path, edit: Callable[[Any], None] = lambda file: None) -> Path:
    """A file of three episodes, demo_8 to demo_10."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_kwargs": {"control_freq": RATE}})
        for episode in range(len(LENGTHS)):
            steps = steps_of(episode)
            group = data.create_group(f"demo_{8 + episode}")
            group.attrs["num_samples"] = len(steps)
            group["actions"] = commands(steps).astype(np.float64)
            group["obs/arm"] = arm(steps)
            group["obs/gripper"] = gripper(steps)[:, 0]
            group["obs/front_image"] = np.zeros((len(steps), 4, 4, 3), np.uint8)
        edit(file)
    return path


ROBOT = """
/**:
  ros__parameters:
    control_period: 0.1
    observation_sources: [arm, gripper]
    arm: {topic: joint_states, type: sensor_msgs/JointState, joints: [shoulder, elbow], max_age: 0.2}
    gripper: {topic: /gripper/width, type: std_msgs/Float32, max_age: 0.2}
    joints: [shoulder, elbow]
    trajectory_topic: arm/target
    command: {type: sensor_msgs/JointState, fields: [position], max_age: 0.5}
"""
START = 1_700_000_000_000_000_000
"""Of a bag, in ns."""

Sent: TypeAlias = tuple[int, str, Any]
"""Arrival in ns after the start, topic, message."""


def message(kind: str, **values: Any) -> Any:
    return TYPES.types[kind.replace("/", "/msg/")](**values)


def header(stamp_ns: int) -> Any:
    time = message("builtin_interfaces/Time", sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return message("std_msgs/Header", stamp=time, frame_id="")


def joint_state(
    stamp_ns: int, positions: Iterable[float], names: tuple[str, ...] = ("elbow", "shoulder")
) -> Any:
    """Joints in another order than the robot's, and the positions in the robot's order."""
    values = np.array(list(positions), np.float64)
    return message(
        "sensor_msgs/JointState",
        header=header(stamp_ns),
        name=list(names),
        position=values[::-1].copy(),
        velocity=np.zeros(0),
        effort=np.zeros(0),
    )


def bag_messages(steps: int = 12) -> list[Sent]:
    """One message a control period: the joints and their command with stamps, the gripper's width without one."""
    sent: list[Sent] = []
    numbers = np.arange(steps, dtype=np.float64)
    for step in range(steps):
        now = step * 10**9 // RATE
        sent += [
            (now, "/joint_states", joint_state(START + now, arm(numbers)[step])),
            (now, "/gripper/width", message("std_msgs/Float32", data=float(gripper(numbers)[step, 0]))),
            (now + 10**7, "/arm/target", joint_state(START + now + 10**7, commands(numbers)[step])),
        ]
    return sent


def write_bag(
    path: Path,
    sent: Iterable[Sent],
    *,
    storage: StoragePlugin = StoragePlugin.MCAP,
    compression: CompressionMode = CompressionMode.NONE,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = Writer(path, version=9, storage_plugin=storage)
    writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        connections: dict[str, Any] = {}
        for now, topic, content in sent:
            kind = content.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=TYPES)
            writer.write(connections[topic], START + now, TYPES.serialize_cdr(content, kind))
    return path
