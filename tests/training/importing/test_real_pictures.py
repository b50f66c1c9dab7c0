"""Pictures that others have recorded. They are not part of the repository."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policy.robot.observation_history import RejectedObservation
from policy.robot.pictures import message_picture
from training.importing.bag_messages import bag_messages
from training.importing.video_frames import frames_at

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


def recording(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs {path}")
    return path


def test_a_robots_av1_video_has_the_frames_of_its_table() -> None:
    folder = recording("lerobot_v21/unitree_g1_inspire/videos/chunk-000/observation.images.cam_high")
    counter: Counter[str] = Counter()
    frames = list(
        frames_at(folder / "episode_000001.mp4", np.arange(20) / 30, tolerance=1 / 30, counter=counter)
    )
    assert {(frame.shape, frame.dtype) for frame in frames} == {((480, 640, 3), np.dtype(np.uint8))}
    assert counter == {"used": 20, "unused": 0, "repeated": 0}
    assert min(frame.std() for frame in frames) > 30, "a robot above a table"


def test_pngs_of_another_projects_dataset(imported: Any) -> None:
    _, arrays = imported(
        recording("lerobot_v21/ioai_fixture_image"), parts=["observation.state", "images.cam"]
    )
    assert arrays["data/images_cam"].shape == (6, 64, 64, 3)
    assert np.unique(arrays["data/images_cam"].reshape(-1, 3), axis=0).tolist() == [[0, 100, 255]]


@pytest.mark.parametrize(
    ("topic", "kind"), [("/image", "sensor_msgs/Image"), ("/image/compressed", "sensor_msgs/CompressedImage")]
)
def test_real_messages_of_a_camera(topic: str, kind: str) -> None:
    bag = recording("rosbag2/sqlite3_image_2019/sample.db3")
    ((_, message, _),) = bag_messages(bag, {topic: (kind,)})
    picture = message_picture(message)
    assert picture.shape == (480, 640, 3)
    red, green, blue = picture.mean(axis=(0, 1))
    assert red > green > blue > 100, "a person before a yellowish wall"


@pytest.mark.parametrize("name", ["mcap_all_types", "sqlite3_all_types"])
def test_pictures_that_are_invalid_on_purpose_are_refused(name: str) -> None:
    bag = recording(f"rosbag2/{name}")
    for topic, kind in (
        ("/test/sensor_msgs/image", "sensor_msgs/Image"),
        ("/test/sensor_msgs/compressed_image", "sensor_msgs/CompressedImage"),
    ):
        for _, message, _ in bag_messages(bag, {topic: (kind,)}):
            with pytest.raises(RejectedObservation):
                message_picture(message)
