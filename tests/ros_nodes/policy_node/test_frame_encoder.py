"""Frames are encoded beside the node's callbacks: none waits for an older one, except in lockstep."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from message_examples import HEADER, rosbags_message
from numpy.typing import NDArray

from policy.robot.description import Source
from policy.robot.fit import FilledPart
from policy.robot.observation_history import RejectedObservation, SourceSlice
from policy.task import ImagePart
from ros_nodes.policy_node.frame_encoder import Frame, FrameEncoder

PART = FilledPart(
    source=Source(name="front", topic="front", type="sensor_msgs/Image"),
    slice=SourceSlice(name="front", first=0, size=3, max_age_ns=5 * 10**8),
    image=ImagePart(name="front", height=2, width=2),
)


def frame(brightness: int, *, sec: int = 1, nanosec: int = 0, encoding: str = "rgb8") -> Frame:
    values = {
        "header": {**HEADER, "stamp": {"sec": sec, "nanosec": nanosec}},
        "height": 4,
        "width": 4,
        "encoding": encoding,
        "is_bigendian": 0,
        "step": 12,
        "data": np.full(48, brightness, np.uint8),
    }
    return Frame(part=PART, message=rosbags_message("sensor_msgs/Image", values), now_ns=7, arrived=0.5)


class Bench:
    """An encoder that waits until it is let go on."""

    def __init__(self, *, every: bool) -> None:
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.notified = 0
        self.encoder = FrameEncoder({"front": PART}, self.encode, notify=self.notify, threads=1, every=every)

    def encode(self, name: str, picture: NDArray[np.uint8]) -> NDArray[np.float64]:
        assert (name, picture.shape) == ("front", (2, 2, 3))
        self.entered.set()
        assert self.gate.wait(10)
        if picture.max() == 255:
            raise ValueError("too bright")
        mean: NDArray[np.float64] = picture.mean(axis=(0, 1))
        return mean

    def notify(self) -> None:
        self.notified += 1

    def taken(self, count: int) -> list[Any]:
        """So many frames that are ready."""
        self.gate.set()
        found: list[Any] = []
        deadline = time.monotonic() + 10
        while len(found) < count and time.monotonic() < deadline:
            found += self.encoder.take()
            time.sleep(0.001)
        assert len(found) == count
        return found


@pytest.fixture
def bench() -> Any:
    benches: list[Bench] = []

    def make(*, every: bool) -> Bench:
        benches.append(Bench(every=every))
        return benches[-1]

    yield make
    for each in benches:
        each.gate.set()
        each.encoder.close()


def test_a_frame_that_waits_gives_way_to_a_newer_one(bench: Callable[..., Bench]) -> None:
    encoding = bench(every=False)
    encoding.encoder.submit(frame(20))
    assert encoding.entered.wait(10)
    for brightness in (30, 40, 50):
        encoding.encoder.submit(frame(brightness, sec=brightness))
    found = encoding.taken(2)
    assert [each.features.tolist() for each in found] == [[20.0] * 3, [50.0] * 3]
    assert [(each.stamp_ns, each.frame.arrived) for each in found] == [(10**9, 0.5), (50 * 10**9, 0.5)]
    assert encoding.encoder.skipped == 2


def test_in_lockstep_every_frame_is_encoded_in_its_order(bench: Callable[..., Bench]) -> None:
    encoding = bench(every=True)
    for brightness in range(20, 30):
        encoding.encoder.submit(frame(brightness))
    found = encoding.taken(10)
    assert [each.features[0] for each in found] == list(range(20, 30))
    assert (encoding.encoder.skipped, encoding.notified) == (0, 10)


def test_after_forget_no_older_frame_is_taken_and_no_camera_is_frozen(bench: Callable[..., Bench]) -> None:
    encoding = bench(every=True)
    encoding.encoder.submit(frame(20))
    encoding.encoder.submit(frame(21))
    assert encoding.entered.wait(10)
    encoding.encoder.forget()
    encoding.encoder.submit(frame(20, sec=2))
    (found,) = encoding.taken(1)
    assert (found.stamp_ns, found.features[0]) == (2 * 10**9, 20)


def test_what_is_refused_and_what_failed_is_told_in_the_frames_place(bench: Callable[..., Bench]) -> None:
    encoding = bench(every=True)
    frames = [
        frame(1),
        frame(30, encoding="yuv422"),
        frame(255),
        *(frame(40, nanosec=n * 3 * 10**8) for n in range(3)),
    ]
    for each in frames:
        encoding.encoder.submit(each)
    black, unknown, failed, good, _, frozen = (each.features for each in encoding.taken(6))
    reasons = [each.reason for each in (black, unknown, frozen) if isinstance(each, RejectedObservation)]
    assert reasons == ["black", "encoding", "frozen"]
    assert str(failed) == "too bright"
    assert isinstance(good, np.ndarray)
