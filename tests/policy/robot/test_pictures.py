"""Pictures out of cameras' messages, and what is refused of them."""

from __future__ import annotations

import array
import io
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from message_examples import HEADER, rosbags_message
from numpy.typing import NDArray
from PIL import Image

from policy.robot.description import Robot, RobotError, Source
from policy.robot.fit import filled_parts, observation_history
from policy.robot.observation_history import RejectedObservation
from policy.robot.pictures import (
    MOST_PIXELS,
    FrozenCheck,
    camera_measurement,
    decode_picture,
    message_picture,
    resize_picture,
)
from policy.task import ImagePart, Task

CAMERA = Source(name="front", topic="front", type="sensor_msgs/Image")
JPEG = Source(name="front", topic="front", type="sensor_msgs/CompressedImage")
HEIGHT, WIDTH = 3, 5
PIXELS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
ENCODED = {
    "rgb8": PIXELS,
    "bgr8": PIXELS[..., ::-1],
    "rgba8": np.dstack([PIXELS, np.zeros((HEIGHT, WIDTH, 1), np.uint8)]),
    "bgra8": np.dstack([PIXELS[..., ::-1], np.full((HEIGHT, WIDTH, 1), 9, np.uint8)]),
    "mono8": PIXELS[..., :1],
}


def image(encoding: str = "rgb8", *, padding: int = 0, **changes: Any) -> Any:
    """A message of rosbags, its rows padded with bytes of 77."""
    pixels = ENCODED[encoding]
    rows = np.pad(pixels.reshape(HEIGHT, -1), ((0, 0), (0, padding)), constant_values=77)
    values = {
        "header": HEADER,
        "height": HEIGHT,
        "width": WIDTH,
        "encoding": encoding,
        "is_bigendian": 0,
        "step": rows.shape[1],
        "data": rows.ravel(),
    }
    return rosbags_message("sensor_msgs/Image", {**values, **changes})


def compressed(content: bytes) -> Any:
    values = {"header": HEADER, "format": "jpeg", "data": np.frombuffer(content, np.uint8)}
    return rosbags_message("sensor_msgs/CompressedImage", values)


def encoded(pixels: NDArray[Any], kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return file.getvalue()


def refusal(message: Any) -> tuple[str, str]:
    with pytest.raises(RejectedObservation) as caught:
        message_picture(message)
    assert "\n" not in str(caught.value)
    return caught.value.reason, str(caught.value)


@pytest.mark.parametrize("encoding", ENCODED)
@pytest.mark.parametrize(("padding", "is_bigendian"), [(0, 0), (7, 1)])
def test_a_raw_picture_is_red_green_blue_whatever_its_encoding(
    encoding: str, padding: int, is_bigendian: int
) -> None:
    found = message_picture(image(encoding, padding=padding, is_bigendian=is_bigendian))
    expected = np.repeat(PIXELS[..., :1], 3, axis=2) if encoding == "mono8" else PIXELS
    np.testing.assert_array_equal(found, expected)


def test_bytes_of_ros_are_read_as_those_of_a_bag() -> None:
    message = image("bgra8", padding=3)
    expected = message_picture(message)
    message.data = array.array("B", message.data.tobytes())  # as rclpy has it
    np.testing.assert_array_equal(message_picture(message), expected)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_a_png_gives_its_pixels_to_the_last_bit(mode: str) -> None:
    converted = Image.fromarray(PIXELS).convert(mode)
    found = message_picture(compressed(encoded(np.asarray(converted))))
    np.testing.assert_array_equal(found, np.asarray(converted.convert("RGB")))


def test_a_jpeg_is_red_green_blue() -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[..., 0] = 200
    found = message_picture(compressed(encoded(pixels, "JPEG")))
    assert np.abs(found.astype(int) - pixels).max() < 8


def bomb() -> bytes:
    """A PNG of a few hundred bytes that says that it has 10¹⁰ pixels."""
    content = encoded(PIXELS)
    header = content[12:16] + (100_000).to_bytes(4, "big") * 2 + content[24:29]
    return content[:12] + header + zlib.crc32(header).to_bytes(4, "big") + content[33:]


@pytest.mark.parametrize(
    ("message", "reason", "said"),
    [
        (image(encoding="rgb8", **{"height": 0}), "size", "0×5 px, must be 1 …"),
        (image(**{"height": 1 << 31, "width": 1 << 31}), "size", "must be 1 …"),
        (image(**{"height": 4}), "bytes", "45 bytes, 4 rows of 15 need 60"),
        (image(**{"step": 14}), "bytes", "rows of 14 bytes, 5 pixels of rgb8 need 15"),
        (compressed(b""), "undecodable", "0 bytes are no JPEG or PNG"),
        (compressed(encoded(PIXELS, "GIF")), "undecodable", "no JPEG or PNG"),
        (compressed(encoded(PIXELS)[:50]), "undecodable", "no JPEG or PNG"),
        (compressed(encoded(np.tile(PIXELS, (30, 30, 1)), "JPEG")[:2000]), "undecodable", "truncated"),
        (compressed(encoded(np.full((4, 4), 700, np.uint16))), "undecodable", "mode I;16, need 8 bits"),
        (compressed(bomb()), "undecodable", "no JPEG or PNG: Image size"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_line(message: Any, reason: str, said: str) -> None:
    found, text = refusal(message)
    assert (found, said in text) == (reason, True), text


def test_an_unknown_encoding_is_named_with_those_that_are_known() -> None:
    message = image()
    for encoding in ("16UC1", "yuv422", "", "x" * 1000):
        message.encoding = encoding
        reason, text = refusal(message)
        assert reason == "encoding"
        assert "need one of rgb8, bgr8, rgba8, bgra8, mono8" in text
        assert len(text) < 200


def test_more_pixels_than_are_allowed_are_refused_before_they_are_decoded() -> None:
    side = int(MOST_PIXELS**0.5)
    content = encoded(np.zeros((side + 1, side), np.uint8))
    with pytest.raises(RejectedObservation, match=f"{side + 1}×{side} px"):
        decode_picture(content)


@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**32 - 1)
)
def test_resizing_is_antialiased_bilinear_as_pillow_does_it(
    h: int, w: int, h2: int, w2: int, seed: int
) -> None:
    picture = np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)
    before = picture.copy()
    found = resize_picture(picture, height=h2, width=w2)
    assert (found.shape, found.dtype) == ((h2, w2, 3), np.uint8)
    by_pillow = np.asarray(Image.fromarray(picture).resize((w2, h2), Image.Resampling.BILINEAR))
    assert np.abs(found.astype(int) - by_pillow).max() <= 1
    mirrored = resize_picture(picture[..., ::-1], height=h2, width=w2)
    np.testing.assert_array_equal(mirrored, found[..., ::-1])
    if (h, w) == (h2, w2):
        np.testing.assert_array_equal(found, picture)
    np.testing.assert_array_equal(picture, before)


def test_a_camera_is_frozen_when_it_sends_the_same_for_longer_than_max_age() -> None:
    frozen = FrozenCheck(CAMERA)
    other = image(**{"data": np.ascontiguousarray(PIXELS[::-1]).ravel()})
    for stamp in (0, 3 * 10**8, 5 * 10**8):
        frozen.check(image(), stamp)
    with pytest.raises(
        RejectedObservation, match=r"the same picture for 0\.60 s, max_age is 0\.50 s"
    ) as error:
        frozen.check(image(), 6 * 10**8)
    assert error.value.reason == "frozen"
    frozen.check(other, 7 * 10**8)
    frozen.check(image(), 8 * 10**8)
    frozen.check(image(), 10**8)  # of a restarted world
    frozen.check(image(), 6 * 10**8)
    frozen.check(image(), 10**10)  # after a pause
    frozen.check(image(), 10**10 + 5 * 10**8)
    frozen.forget()
    frozen.check(image(), 10**10 + 6 * 10**8)
    allowed = FrozenCheck(replace(CAMERA, same_pictures="allow"))
    for stamp in (0, 10**12):
        allowed.check(image(), stamp)


def test_a_measurement_has_its_stamp_and_refuses_black_pictures_and_other_frames() -> None:
    stamp, picture = camera_measurement(image(), CAMERA, frozen=FrozenCheck(CAMERA), now_ns=1)
    assert stamp == 3_000_000_005
    np.testing.assert_array_equal(picture, PIXELS)
    black = image(**{"data": np.full(PIXELS.size, 8, np.uint8)})
    with pytest.raises(RejectedObservation, match="nothing is brighter than 8 of 255") as error:
        camera_measurement(black, CAMERA, frozen=FrozenCheck(CAMERA), now_ns=1)
    assert error.value.reason == "black"
    elsewhere = replace(CAMERA, frame_id="elsewhere")
    with pytest.raises(RejectedObservation, match="need 'elsewhere'"):
        camera_measurement(image(), elsewhere, frozen=FrozenCheck(elsewhere), now_ns=1)


def test_a_camera_is_best_effort_unless_told_otherwise() -> None:
    assert CAMERA.reliability == "best_effort"
    assert replace(CAMERA, reliability="reliable").reliability == "reliable"


def test_a_camera_fills_an_image_part_behind_the_numbers(robot: Robot, task: Task) -> None:
    wrist = ImagePart(name="wrist", height=8, width=8)
    seeing = replace(task, observation=(ImagePart(name="front", height=9, width=8), wrist, *task.observation))
    cameras = (replace(CAMERA, name="wrist"), CAMERA)
    parts = filled_parts(replace(robot, sources=(*robot.sources, *cameras)), seeing, features=4)
    found = {part.slice.name: (part.slice.first, part.slice.size) for part in parts}
    assert found == {
        "front": (6, 4),
        "wrist": (10, 4),
        "gripper": (0, 1),
        "arm": (1, 3),
        "wrist_force": (4, 2),
    }
    assert [part.image for part in parts][1:3] == [wrist, None]
    limits = (np.zeros(6), np.ones(6))
    history = observation_history(
        replace(robot, sources=(*robot.sources, *cameras)), seeing, limits=limits, features=4
    )
    history.add("front", 10, np.full(4, 1e6))
    with pytest.raises(RejectedObservation, match="must be in 0 … 1"):
        history.add("gripper", 10, np.full(1, 2.0))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (replace(CAMERA, name="arm"), "part 'arm' is numbers, its source gives a picture: sensor_msgs/Image"),
        (
            Source(name="front", topic="a", type="std_msgs/Float32"),
            "part 'front' is a picture, its source gives numbers: std_msgs/Float32",
        ),
    ],
)
def test_pictures_and_numbers_are_not_mixed_up(
    robot: Robot, task: Task, source: Source, message: str
) -> None:
    seeing = replace(task, observation=(*task.observation, ImagePart(name="front", height=9, width=8)))
    others = [each for each in (*robot.sources, CAMERA) if each.name != source.name]
    with pytest.raises(RobotError, match=message):
        filled_parts(replace(robot, sources=(*others, source)), seeing)


def test_without_pillow_compressed_pictures_are_refused_at_once(
    robot: Robot, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("policy.robot.pictures.find_spec", lambda name: None)
    seeing = replace(task, observation=(*task.observation, ImagePart(name="front", height=9, width=8)))
    with pytest.raises(RobotError, match=r"front\.type .* needs Pillow: pip install 'pcm_policy\[camera\]'"):
        filled_parts(replace(robot, sources=(*robot.sources, JPEG)), seeing)
    filled_parts(replace(robot, sources=(*robot.sources, CAMERA)), seeing)
