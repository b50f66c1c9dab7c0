"""A camera is looked at before it is recorded, by the monitor of its topic."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from message_examples import rosbags_message

from policy.robot.description import Source
from ros_nodes.recorder.topic_monitor import TopicMonitor

SECOND = 10**9
PERIOD = SECOND // 10
CAMERA = Source(name="front", topic="front", type="sensor_msgs/Image", max_age=0.35)


def image(stamp_ns: int, brightness: int, side: int = 4, encoding: str = "rgb8") -> Any:
    stamp = {"sec": stamp_ns // SECOND, "nanosec": stamp_ns % SECOND}
    values = {
        "header": {"stamp": stamp, "frame_id": ""},
        "height": side,
        "width": side,
        "encoding": encoding,
        "is_bigendian": 0,
        "step": 3 * side,
        "data": np.full(3 * side**2, brightness, np.uint8),
    }
    return rosbags_message("sensor_msgs/Image", values)


def fault(change: Any = lambda step: {}, *, rate_divider: int = 1) -> str | None:
    """What is said after 2 s of a camera whose pictures differ from one to the next, unless they are changed."""
    monitor = TopicMonitor(CAMERA, PERIOD, may_lead=False)
    for step in range(0, 20, rate_divider):
        now = (100 + step) * PERIOD
        monitor.add(image(now, **{"brightness": 50 + step, **change(step)}), now)
    return monitor.fault(119 * PERIOD)


def test_a_camera_that_shows_something_new_at_the_rate_is_good() -> None:
    assert fault() is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda step: {"brightness": 60}, "front: the same picture for"),
        (lambda step: {"brightness": step % 2}, "front: nothing is brighter than"),
        (lambda step: {"side": 4 if step < 15 else 6}, "front: 6×6 px after 4×4"),
        (lambda step: {"encoding": "yuv422"}, "front: 'yuv422', need one of rgb8"),
    ],
)
def test_what_is_wrong_with_it_is_said(change: Any, said: str) -> None:
    assert (fault(change) or "").startswith(said)


def test_one_that_is_too_slow_is_named() -> None:
    assert fault(rate_divider=2) == "front: 5.0 Hz, slower than the 10 Hz of the demonstrations"


def test_without_pillow_it_is_recorded_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policy.robot.pictures.find_spec", lambda name: None)
    source = Source(name="front", topic="front", type="sensor_msgs/CompressedImage")
    monitor = TopicMonitor(source, None, may_lead=False)
    assert monitor.camera is not None
    assert "needs Pillow" in monitor.camera.blind
    header = {"stamp": {"sec": 1, "nanosec": 0}, "frame_id": ""}
    values = {"header": header, "format": "jpeg", "data": np.zeros(3, np.uint8)}
    monitor.add(rosbags_message("sensor_msgs/CompressedImage", values), SECOND)
    assert monitor.fault(SECOND) is None
