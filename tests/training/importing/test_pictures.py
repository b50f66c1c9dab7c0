"""Cameras of recordings: what a store holds of videos, encoded pictures, arrays of pictures, and messages."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image
from small_recordings import (
    LENGTHS,
    RATE,
    ROBOT,
    START,
    Sent,
    bag_messages,
    header,
    message,
    steps_of,
    write_bag,
    write_hdf5,
    write_lerobot,
)

from policy.robot.pictures import resize_picture
from policy.task import ImagePart
from training.importing.recording import EpisodeError, RecordingError

HEIGHT, WIDTH = 48, 64
FRONT = "observation.images.front"
Run = Callable[..., Any]


def picture(step: float) -> NDArray[np.uint8]:
    """(48, 64, 3), whose mean of red tells the step: 20 + 10 a step. Green grows downwards, blue to the right."""
    red = np.full((HEIGHT, WIDTH), 20 + 10 * step)
    green, blue = np.mgrid[0:HEIGHT, 0:WIDTH] * 2
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


def steps_shown(pictures: NDArray[np.uint8]) -> list[int]:
    return np.round((pictures[..., 0].mean(axis=(1, 2)) - 20) / 10).astype(int).tolist()


def write_video(path: Path, steps: Sequence[float], *, left_out: Sequence[int] = ()) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=RATE)
        stream.height, stream.width, stream.pix_fmt, stream.bit_rate = HEIGHT, WIDTH, "yuv420p", 10_000_000
        for index, step in enumerate(steps):
            if index in left_out:
                continue
            frame = av.VideoFrame.from_ndarray(picture(step), format="rgb24")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def with_videos(path: Path, version: str, **options: Any) -> Path:
    """A dataset with videos: one an episode, or in v3.0 one of the first two, where the second begins in it."""
    write_lerobot(path, version)
    info = json.loads((path / "meta/info.json").read_text())
    if version == "v2.1":
        info["video_path"] = "videos/{video_key}/episode_{episode_index:06d}.mp4"
        for episode in range(3):
            write_video(path / f"videos/{FRONT}/episode_{episode:06d}.mp4", steps_of(episode), **options)
    else:
        info["video_path"] = "videos/{video_key}/file-{file_index:03d}.mp4"
        write_video(path / f"videos/{FRONT}/file-000.mp4", [*steps_of(0), *steps_of(1)], **options)
        write_video(path / f"videos/{FRONT}/file-001.mp4", steps_of(2), **options)
        table = path / "meta/episodes/chunk-000/file-000.parquet"
        columns = {"chunk_index": [0, 0, 0], "file_index": [0, 0, 1]}
        columns["from_timestamp"] = [0.0, LENGTHS[0] / RATE, 0.0]
        episodes = pq.read_table(table)
        for name, values in columns.items():
            episodes = episodes.append_column(f"videos/{FRONT}/{name}", pa.array(values))
        pq.write_table(episodes, table)
    (path / "meta/info.json").write_text(json.dumps(info))
    return path


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_each_step_has_its_frame_of_a_lerobot_video(tmp_path: Path, imported: Run, version: str) -> None:
    source = with_videos(tmp_path / "set", version)
    found, arrays = imported(source, parts=["images.front", "state"], image_size=[24, 32])
    task = found.recording.task
    assert task.images == (ImagePart(name="images_front", height=24, width=32),)
    assert [part.name for part in task.observation] == ["images_front", "state"]
    assert arrays["data/images_front"].dtype == np.uint8
    assert arrays["data/images_front"].shape == (sum(LENGTHS), 24, 32, 3)
    assert steps_shown(arrays["data/images_front"]) == list(range(sum(LENGTHS)))
    assert found.frames["images_front.used"] == sum(LENGTHS)
    expected = resize_picture(picture(3), height=24, width=32).astype(int)
    assert np.abs(arrays["data/images_front"][3] - expected).mean() < 3, "colours and directions are kept"


def test_a_lost_frame_is_repeated_and_counted_and_two_in_a_row_are_an_error(
    tmp_path: Path, imported: Run
) -> None:
    one = with_videos(tmp_path / "one", "v2.1", left_out=[2])
    found, arrays = imported(one, parts=["images.front"])
    assert steps_shown(arrays["data/images_front"][: LENGTHS[0]]) == [0, 1, 1, 3, 4]
    assert found.frames["images_front.repeated"] == 3
    three = with_videos(tmp_path / "three", "v2.1", left_out=[1, 2, 3])
    with pytest.raises(
        EpisodeError, match=r"episode_000000\.mp4: episode 0: no frame within 0\.1 s of 0\.200 s"
    ):
        imported(three, parts=["images.front"], output=str(tmp_path / "other.zarr"))


def test_a_video_that_is_missing_or_damaged_is_named_and_its_episode_can_be_left_out(
    tmp_path: Path, imported: Run
) -> None:
    source = with_videos(tmp_path / "set", "v2.1")
    folder = source / "videos" / FRONT
    (folder / "episode_000000.mp4").unlink()
    damaged = folder / "episode_000002.mp4"
    damaged.write_bytes(damaged.read_bytes()[:300])
    with pytest.raises(EpisodeError, match=r"episode_000000\.mp4: episode 0: no such file"):
        imported(source, parts=["images.front"])
    found, arrays = imported(source, parts=["images.front"], skip_bad=True)
    assert steps_shown(arrays["data/images_front"]) == steps_of(1).astype(int).tolist()
    assert "cannot be decoded" in dict(found.dropped)["2"]


@pytest.mark.parametrize("structure", [True, False])
def test_encoded_pictures_in_a_column(tmp_path: Path, imported: Run, structure: bool) -> None:
    def png(step: float) -> bytes:
        file = io.BytesIO()
        Image.fromarray(picture(step)).save(file, "PNG")
        return file.getvalue()

    def add(episode: int, columns: dict[str, Any]) -> None:
        cells: list[Any] = [png(step) for step in steps_of(episode)]
        if structure:
            cells = [{"bytes": cell, "path": None} for cell in cells]
        columns[FRONT] = pa.array(cells)

    source = write_lerobot(tmp_path / "set", "v3.0", add)
    info = json.loads((source / "meta/info.json").read_text())
    info["features"][FRONT]["dtype"] = "image"
    (source / "meta/info.json").write_text(json.dumps(info))
    _, arrays = imported(source, parts=["images.front"])
    expected = np.stack([picture(step) for step in range(sum(LENGTHS))])
    np.testing.assert_array_equal(arrays["data/images_front"], expected)


def test_pictures_of_an_hdf5_file(tmp_path: Path, imported: Run) -> None:
    def add(file: Any) -> None:
        for episode in range(3):
            obs = file[f"data/demo_{8 + episode}/obs"]
            obs["wrist_image"] = np.stack([picture(step) for step in steps_of(episode)])

    found, arrays = imported(write_hdf5(tmp_path / "a.hdf5", add), parts=["arm", "wrist_image"], rate=RATE)
    assert steps_shown(arrays["data/wrist_image"]) == list(range(sum(LENGTHS)))
    assert found.recording.task.images == (ImagePart(name="wrist_image", height=HEIGHT, width=WIDTH),)


def raw_image(stamp_ns: int, pixels: NDArray[np.uint8], encoding: str = "bgr8") -> Any:
    return message(
        "sensor_msgs/Image",
        header=header(stamp_ns),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=1,
        step=3 * pixels.shape[1],
        data=np.ascontiguousarray(pixels[..., ::-1]).reshape(-1),
    )


def jpeg_image(stamp_ns: int, pixels: NDArray[np.uint8]) -> Any:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    content = np.frombuffer(file.getvalue(), np.uint8)
    return message("sensor_msgs/CompressedImage", header=header(stamp_ns), format="rgb8; jpeg", data=content)


def with_camera(sent: list[Sent], encode: Any, *, rate: int = 3 * RATE, seconds: float = 1.2) -> list[Sent]:
    """A bag's messages and those of a camera, three frames a control period, stamped 10 ms after it."""
    frames: list[Sent] = []
    for index in range(int(seconds * rate)):
        at = index * 10**9 // rate + 10**7
        frames.append((at, "/front", encode(START + at, picture(index * RATE / rate))))
    return sorted([*sent, *frames], key=lambda entry: entry[0])


def camera_robot(path: Path, kind: str) -> str:
    text = ROBOT.replace("[arm, gripper]", "[arm, front]")
    file = path / "robot.yaml"
    file.write_text(f"{text}    front: {{topic: /front, type: sensor_msgs/{kind}, max_age: 0.2}}\n")
    return str(file)


@pytest.mark.parametrize(("kind", "encode"), [("Image", raw_image), ("CompressedImage", jpeg_image)])
def test_a_bag_with_a_camera_shows_at_each_step_the_nearest_frame(
    tmp_path: Path, imported: Run, kind: str, encode: Any
) -> None:
    bag = write_bag(tmp_path / "bag", with_camera(bag_messages(), encode))
    found, arrays = imported(bag, robot=camera_robot(tmp_path, kind), image_size=[24, 32])
    assert found.recording.task.images == (ImagePart(name="front", height=24, width=32),)
    assert arrays["data/front"].shape == (12, 24, 32, 3)
    # Stamped a little after the control step, the frame of the step is the nearest.
    assert steps_shown(arrays["data/front"]) == list(range(12))
    assert found.frames == {"front.used": 12, "front.unused": 22, "front.repeated": 0}
    if kind == "Image":
        expected = resize_picture(picture(4), height=24, width=32)
        np.testing.assert_array_equal(arrays["data/front"][4], expected)


def frozen(stamp_ns: int, pixels: NDArray[np.uint8]) -> Any:
    return raw_image(stamp_ns, pixels if stamp_ns < START + 5 * 10**8 else picture(5))


def black(stamp_ns: int, pixels: NDArray[np.uint8]) -> Any:
    return raw_image(stamp_ns, pixels if stamp_ns < START + 5 * 10**8 else np.zeros_like(pixels))


@pytest.mark.parametrize(
    ("encode", "left_out"), [(frozen, "the same picture for 0.2"), (black, "nothing is brighter than 0")]
)
def test_a_black_or_frozen_camera_ends_an_episode(
    tmp_path: Path, imported: Run, encode: Any, left_out: str
) -> None:
    bag = write_bag(tmp_path / "bag", with_camera(bag_messages(), encode))
    found, arrays = imported(bag, robot=camera_robot(tmp_path, "Image"))
    assert len(arrays["data/front"]) < 10
    assert left_out in dict(found.dropped)["bag#/front"]


def test_a_picture_that_cannot_be_decoded_names_bag_and_topic(tmp_path: Path, imported: Run) -> None:
    def broken(stamp_ns: int, pixels: NDArray[np.uint8]) -> Any:
        whole = jpeg_image(stamp_ns, pixels)
        whole.data = whole.data[: len(whole.data) // 2]
        return whole

    bag = write_bag(tmp_path / "bag", with_camera(bag_messages(), broken))
    robot = camera_robot(tmp_path, "CompressedImage")
    with pytest.raises(EpisodeError, match=r"bag: topic /front: \d+ bytes are no JPEG or PNG: Truncated"):
        imported(bag, robot=robot, image_size=[24, 32])
    with pytest.raises(RecordingError, match="only messages tell how large the pictures of 'front' are"):
        imported(bag, robot=robot)
